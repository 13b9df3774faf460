//! Sessions and transaction tokens under a control and a node that an attacker has: the test speaks their channels, and asks for everything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_channel::BlockingChannel;
use ringfence_keeper::protocol::{
    DataPurpose, Evidence, MAX_TXN_LIFE, MintRequest, OpenSession, RefusalCode, Reply, Request, SessionToken,
    Status, ToldRevocations, TxnToken,
};
use ringfence_keys::{Secret, digest, to_hex};
use ringfence_oidc::protocol::{FromFederation, Outcome, SignedIn, ToFederation};
use ringfence_snapshot::node::{Ask, Mint, NoAnswerCode, ProviderKeys, Shown, Told};
use ringfence_token::{ApiKey, KeyRecord, Revocation, What};
use serde_json::{Map, Value, json};

use crate::keeper::Taken;
use crate::provider::{ISSUER, Provider};
use crate::rig::{BILLING, Control, Node, PORTAL, Rig};
use crate::running::eventually;

const GATEWAY: &str = "spiffe://clinic.example/gateway/clinic";
/// The clinic with providers: one where people sign in, and one that nothing accepts.
const ACCESS: &str = "
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, hosts: [clinic.example] }
providers:
  staff:
    issuer: https://id.clinic.example
    audiences: [clinic]
    client: { id: portal }
    login: { absolute: 2h }
    claims: { user: name, groups: groups }
  partners: { issuer: https://partners.example, audiences: [clinic] }
services:
  portal:
    run: [portal]
    listen: 9000
    routes: [{ path: /, accept: [{ login: staff }, { token: staff }, api_key] }]
    calls: [billing]
  billing: { run: [billing], listen: 9003 }
";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn token(provider: &str, token: &str) -> Shown {
    Shown::Token { provider: provider.into(), token: secret(token) }
}

fn mint(shown: Shown) -> Mint {
    Mint { shown, workload: GATEWAY.into(), scope: String::new(), request: Map::new() }
}

/// What nobody can have a token signed for who has no credential of somebody. Everything else in it is as it should be.
fn not_credentials(p: &Provider) -> Vec<(&'static str, Mint)> {
    let (imposter, good) = (Provider::new(ISSUER), p.access(json!({})));
    let other = p.access(json!({ "name": "root" }));
    let mut spliced: Vec<&str> = good.split('.').collect();
    spliced[1] = other.split('.').nth(1).unwrap();
    let unsigned = format!("{}.{}.", spliced[0], spliced[1]);
    let staff = |text: &str| mint(token("staff", text));
    let with = |change: &dyn Fn(&mut Mint)| {
        let mut mint = staff(&good);
        change(&mut mint);
        mint
    };
    vec![
        ("another user, by a key of its own", staff(&imposter.access(json!({ "name": "root" })))),
        ("another user, spliced", staff(&spliced.join("."))),
        ("another user, unsigned", staff(&unsigned)),
        ("over", staff(&p.access(json!({ "iat": now() - 900, "exp": now() - 100 })))),
        ("for another audience", staff(&p.access(json!({ "aud": "shop" })))),
        ("an ID token", staff(&p.id(json!({ "aud": "clinic" })))),
        ("of a provider that nothing accepts", mint(token("partners", &good))),
        ("of nobody", mint(token("nobody", &good))),
        ("no session", mint(Shown::Session(secret(&good)))),
        ("for a service", with(&|m| m.workload = PORTAL.into())),
        ("for another service", with(&|m| m.workload = BILLING.into())),
        ("for another gateway", with(&|m| m.workload = "spiffe://clinic.example/gateway/other".into())),
        ("for a gateway elsewhere", with(&|m| m.workload = "spiffe://bank.example/gateway/clinic".into())),
        ("for nobody", with(&|m| m.workload = String::new())),
        ("for more than it is good for", with(&|m| m.scope = "read admin".into())),
        ("for something else", with(&|m| m.scope = "admin".into())),
    ]
}

impl Taken {
    fn mint(&self, ask: Mint, evidence: Option<Evidence>) -> Result<TxnToken, RefusalCode> {
        match self.ask(Request::MintTxn { requests: vec![MintRequest { ask, evidence }] })? {
            Reply::Minted { mut results } => results.remove(0).map_err(|refusal| refusal.code),
            other => panic!("{other:?}"),
        }
    }

    fn sign_in(&self, provider: &str, id_token: &str, nonce: &str) -> Result<SessionToken, RefusalCode> {
        let (provider, nonce) = (provider.into(), nonce.into());
        let request = OpenSession { provider, id_token: secret(id_token), nonce, scopes: Vec::new() };
        match self.ask(Request::OpenSession(request))? {
            Reply::Session(token) => Ok(*token),
            other => panic!("{other:?}"),
        }
    }

    fn revoked(&self, entries: Vec<Revocation>) {
        let list = ToldRevocations::Part { first: true, last: true, entries };
        self.ask(Request::Revocations(list)).unwrap();
    }

    fn data_key(&self, purpose: DataPurpose) -> [u8; 32] {
        match self.ask(Request::DataKey(purpose)).unwrap() {
            Reply::DataKey { key } => *key.expose(),
            other => panic!("{other:?}"),
        }
    }

    fn status(&self) -> Status {
        match self.ask(Request::Status).unwrap() {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }
}

/// The keeper with the clinic in force, and its control in other hands.
fn taken(rig: &Rig) -> Taken {
    let control = rig.control();
    control.offer(ACCESS).unwrap();
    drop(control);
    Taken::over(rig)
}

#[test]
fn a_taken_over_control_speaks_for_nobody_whose_credential_it_does_not_have() {
    let mut rig = Rig::new("minting");
    let (taken, p) = (taken(&rig), Provider::new(ISSUER));
    taken.revoked(Vec::new());
    taken.ask(Request::ProviderKeys(p.keys("staff"))).unwrap();
    let good = taken.mint(mint(token("staff", &p.access(json!({})))), None).unwrap();
    assert!(good.expires_at <= now() + MAX_TXN_LIFE);
    for (what, ask) in not_credentials(&p) {
        let refused = taken.mint(ask, None).expect_err(what);
        assert!(matches!(refused, RefusalCode::Denied | RefusalCode::NotAllowed), "{what}: {refused:?}");
    }
    // A transaction token is no credential for another.
    let again = mint(Shown::Session(good.token.clone()));
    assert_eq!(taken.mint(again, None).err(), Some(RefusalCode::Denied));
    assert_eq!(taken.mint(mint(token("staff", good.token.expose())), None).err(), Some(RefusalCode::Denied));
    // Keys of whom the snapshot does not name, or under another issuer.
    let evil = Provider::new("https://evil.example");
    let keys = |name: &str, keys: ProviderKeys| ProviderKeys { provider: name.into(), ..keys };
    for keys in [keys("nobody", p.keys("staff")), evil.keys("staff")] {
        assert_eq!(taken.ask(Request::ProviderKeys(keys)).err(), Some(RefusalCode::NotAllowed));
    }
    // The record of an API key is not its secret.
    let (key, forged) = (ApiKey::generate(), ApiKey::generate());
    let record = KeyRecord {
        prefix: key.prefix(),
        secret: key.digest(),
        previous: None,
        client: "lab".into(),
        scopes: Vec::new(),
        not_before: None,
        expires_at: None,
        disabled: false,
        last_used: None,
    };
    let guessed = mint(Shown::ApiKey(ApiKey::generate_for(key.prefix()).to_text()));
    for shown in [guessed, mint(Shown::ApiKey(forged.to_text()))] {
        let refused = taken.mint(shown, Some(Evidence::ApiKey(record.clone())));
        assert_eq!(refused.err(), Some(RefusalCode::Denied));
    }
    // What was made is in a log, whose end control is told.
    let log = std::fs::read_to_string(rig.data.join("keeper/minting.log")).unwrap();
    assert!(log.contains(&to_hex(&digest::sha256(good.token.expose().as_bytes()))));
    let (entries, hash) = taken.status().minting;
    let last = log.lines().last().unwrap();
    assert_eq!((entries, hash), (log.lines().count() as u64, to_hex(&digest::sha256(last.as_bytes()))));

    // A user that was revoked is nobody any more.
    let session = taken.sign_in("staff", &p.id(json!({})), "n").unwrap();
    let revoked = Revocation {
        issuer: ISSUER.into(),
        what: What::Subject("u-1".into()),
        issued_until: u64::MAX,
        forget_at: now() + 600,
    };
    taken.ask(Request::Revocations(ToldRevocations::Added(vec![revoked]))).unwrap();
    let all = [
        mint(token("staff", &p.access(json!({})))),
        mint(token("staff", &p.access(json!({ "jti": "t2" })))),
        mint(Shown::Session(session.token)),
    ];
    for ask in &all {
        assert_eq!(taken.mint(ask.clone(), None).err(), Some(RefusalCode::Denied));
    }
    assert_eq!(taken.sign_in("staff", &p.id(json!({})), "n").err(), Some(RefusalCode::Denied));
    assert!(taken.mint(mint(token("staff", &p.access(json!({ "sub": "u-2" })))), None).is_ok());
    // What the threat model says that it can: tell a list that is too short.
    taken.revoked(Vec::new());
    assert!(taken.mint(all[0].clone(), None).is_ok());
    assert!(rig.keeper.lives());
}

#[test]
fn a_taken_over_control_signs_nobody_in_without_an_id_token_for_this_client_and_sign_in() {
    let mut rig = Rig::new("sign-in");
    let (taken, p) = (taken(&rig), Provider::new(ISSUER));
    taken.revoked(Vec::new());
    taken.ask(Request::ProviderKeys(p.keys("staff"))).unwrap();
    let session = taken.sign_in("staff", &p.id(json!({})), "n").unwrap();
    assert!(session.expires_at <= now() + 2 * 3600, "no later than the fence says");
    for (what, id_token, nonce) in [
        ("none", String::new(), "n"),
        ("by a key of its own", Provider::new(ISSUER).id(json!({})), "n"),
        ("for another client", p.id(json!({ "aud": "shop" })), "n"),
        ("for another sign-in", p.id(json!({ "nonce": "other" })), "n"),
        ("for any sign-in", p.id(json!({ "nonce": null })), ""),
        ("of another issuer", p.id(json!({ "iss": "https://evil.example" })), "n"),
        ("over", p.id(json!({ "iat": now() - 900, "exp": now() - 100 })), "n"),
        ("an access token", p.access(json!({ "aud": "portal", "nonce": "n" })), "n"),
        ("a session", session.token.expose().clone(), "n"),
    ] {
        assert_eq!(taken.sign_in("staff", &id_token, nonce).err(), Some(RefusalCode::Denied), "{what}");
    }
    for provider in ["partners", "nobody"] {
        let refused = taken.sign_in(provider, &p.id(json!({})), "n").err();
        assert_eq!(refused, Some(RefusalCode::NotAllowed), "{provider}");
    }
    // Keys for what it keeps, which it needs, and no others; none of them is another one.
    let keys = [DataPurpose::Store, DataPurpose::Cookies { number: 1 }, DataPurpose::Cookies { number: 2 }];
    let [store, first, second] = keys.map(|purpose| taken.data_key(purpose));
    assert!(store != first && first != second && store != second);
    assert_eq!(taken.data_key(DataPurpose::Store), store);
    for purpose in [r#""token""#, r#"{"cookies":{}}"#, r#"{"store":{"label":"token"}}"#, r#""../token""#] {
        Taken::over(&rig).say(&format!(r#"{{"id":1,"request":{{"data_key":{purpose}}}}}"#));
    }
    assert!(rig.keeper.lives());
}

/// A process that speaks with providers and means well: it knows the keys of `staff`, and has that provider answer each code with `id_token`.
fn federation(control: &Control, provider: &Provider, id_token: String) -> std::thread::JoinHandle<()> {
    let channel: BlockingChannel<FromFederation, ToFederation> = control.federation();
    let ProviderKeys { provider, issuer, jwks, until } = provider.keys("staff");
    channel.send(&FromFederation::Keys { provider, issuer, generation: 1, jwks, until }, &[]).unwrap();
    std::thread::spawn(move || {
        while let Ok((message, _)) = channel.recv() {
            let ToFederation::Complete { request, .. } = message else { continue };
            let signed_in = SignedIn {
                subject: "u-1".into(),
                claims: Map::new(),
                id_token: Some(secret(&id_token)),
                refresh_token: None,
                sid: None,
                expires: now() + 300,
                access_expires: None,
                scopes: Vec::new(),
            };
            let outcome = Ok(Outcome::SignedIn(Box::new(signed_in)));
            if channel.send(&FromFederation::Answer { request, outcome }, &[]).is_err() {
                return;
            }
        }
    })
}

fn minted(node: &Node, ask: Mint) -> Result<(), NoAnswerCode> {
    match node.question(Ask::Mint(Box::new(ask))) {
        Ok(Told::Minted { .. }) => Ok(()),
        Ok(_) => panic!("another answer"),
        Err(refusal) => Err(refusal.code),
    }
}

/// What the operator says over the control socket.
fn operator(rig: &Rig, path: &str, body: &Value) -> String {
    let mut socket = UnixStream::connect(rig.data.join("control.sock")).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_taken_over_node_speaks_for_nobody_whose_credential_it_was_not_shown() {
    let mut rig = Rig::new("node-minting");
    let mut control = rig.control();
    control.offer(ACCESS).unwrap();
    let p = Provider::new(ISSUER);
    let node = control.node();
    // The ID token is of another sign-in than any that this node began.
    federation(&control, &p, p.id(json!({ "nonce": "of-somebody-else" })));
    let good = || mint(token("staff", &p.access(json!({}))));
    let known = eventually(Duration::from_secs(60), || minted(&node, good()).is_ok().then_some(()));
    assert!(known.is_some(), "the keeper knows the provider's keys");
    for (what, ask) in not_credentials(&p) {
        assert_eq!(minted(&node, ask), Err(NoAnswerCode::Denied), "{what}");
    }
    let long = Mint { scope: "a".repeat(5000), ..good() };
    assert_eq!(minted(&node, long), Err(NoAnswerCode::Malformed));
    let made_up = mint(Shown::ApiKey(ApiKey::generate().to_text()));
    assert_eq!(minted(&node, made_up), Err(NoAnswerCode::Denied), "an API key that nobody made");
    let complete = |nonce: &str| Ask::Complete {
        provider: "staff".into(),
        code: secret("code"),
        iss: None,
        verifier: secret("verifier"),
        nonce: nonce.into(),
        redirect_uri: "https://clinic.example/.ringfence/callback/staff".into(),
        acr_values: Vec::new(),
        max_age: None,
    };
    for nonce in ["mine", ""] {
        let refused = node.question(complete(nonce)).map(drop).unwrap_err();
        assert_eq!(refused.code, NoAnswerCode::Denied, "{}", refused.reason);
    }
    // Who was revoked is so for the node too.
    let before = good();
    let revoke = json!({ "what": "user", "provider": "staff", "name": "u-1", "why": "left" });
    let answer = operator(&rig, "/v1/revocations", &revoke);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let over = eventually(Duration::from_secs(60), || minted(&node, before.clone()).is_err().then_some(()));
    assert!(over.is_some());
    assert_eq!(minted(&node, before), Err(NoAnswerCode::Denied));
    assert!(control.process.lives() && rig.keeper.lives());
}

#[test]
fn a_log_of_the_keeper_s_that_was_cut_is_found_out_by_control() {
    let mut rig = Rig::new("cut-log");
    let control = rig.control();
    control.node().snapshot();
    // The same keeper again knows no less than before.
    rig.restart_keeper(|| {});
    control.keeper(&rig);
    control.offer(ACCESS).unwrap();
    let log = rig.data.join("keeper/signing.log");
    rig.restart_keeper(|| {
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.lines().count() > 3);
        let first = text.lines().next().unwrap();
        std::fs::write(&log, format!("{first}\n")).unwrap();
    });
    assert!(!said(&rig), "nothing was wrong before");
    control.keeper(&rig);
    assert!(rig.refused("signing.log"));
}

/// Whether control has said anything of the keeper's logs.
fn said(rig: &Rig) -> bool {
    let events = std::fs::read_to_string(rig.data.join("events/control/control.jsonl")).unwrap_or_default();
    events.contains("signing.log") || events.contains("minting.log")
}
