//! A host that was taken over: with its key and its data, and a program of the attacker's in place of ours.

use std::path::Path;

use ringfence_keys::{
    Algorithm, Keyring, MasterSource, Purpose, SecretBytes, SigningKey, from_hex, possession,
};
use ringfence_snapshot::node::{Ask, FromProxy, Subject, ToProxy};
use ringfence_snapshot::{Der, SignedSnapshot};
use ringfence_spiffe::{BundleSet, CertificateDer, LeafKey, SpiffeId, TrustBundle, TrustDomain};
use ringfence_tls::{Identity, Mesh};
use ringfence_wire::{Callee, Session};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::net::FOLDER;
use crate::running::text;
use crate::{Clinic, PATIENTS};

const ROGUE: &str = "rogue::a_host_that_was_taken_over_is_its_own_services_and_nobody_else";

#[test]
#[expect(clippy::disallowed_methods, reason = "a program is told by its environment")]
fn a_host_that_was_taken_over_is_its_own_services_and_nobody_else() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let got = runtime.block_on(attack(Path::new(&folder)));
        return println!("\nGOT {got}");
    }
    let mut clinic = Clinic::start(true, PATIENTS);
    let lab = clinic.another(4, "lab");
    clinic.until("/call/patients", (200, "portal < patients"));
    clinic.ward.stop();
    let output = clinic.ward.as_program(ROGUE);
    let said = text(&output.stdout);
    let got = said.lines().find_map(|line| line.strip_prefix("GOT ")).unwrap_or_else(|| {
        panic!("{said}{}", text(&output.stderr));
    });
    let got: Value = serde_json::from_str(got).unwrap();
    assert_eq!(got["service/portal"], json!(true), "what runs there it is: {got}");
    for other in
        ["service/patients", "gateway/clinic", "control/clinic", "node/lab", "node/main", "serving", "jwt"]
    {
        assert_eq!(got[other], json!(false), "{other}: {got}");
    }
    assert_eq!(got["sign_in"], json!(false), "{got}");
    assert_eq!(got["cookies"], json!(0), "whoever has no gateway opens no cookies: {got}");
    assert_eq!(got["snapshot"], json!(true), "what it is told is signed: {got}");
    // Everybody else goes on, and it is said what was asked.
    assert_eq!(lab.json(&["status", "--json"]).unwrap()["member"]["connected"], true);
    let refused = clinic.main.event(|e| {
        let message = e["message"].as_str().unwrap_or_default();
        message.contains("node ward may not hold")
            && e["entity"]["name"] == "spiffe://clinic.example/service/patients"
    });
    assert!(refused.is_some(), "{}", text(&clinic.main.ringfence(&["events"]).stdout));
}

/// As much of what a host keeps as it takes.
#[derive(Deserialize)]
struct Kept {
    host: String,
    controls: Vec<std::net::SocketAddr>,
    roots: Vec<Der>,
    key: String,
    chain: Vec<Der>,
}

async fn attack(folder: &Path) -> Value {
    let data = folder.join(".ringfence");
    let kept: Kept =
        serde_json::from_slice(&std::fs::read(data.join("member/member.json")).unwrap()).unwrap();
    let master = MasterSource::KeyFile { path: data.join("master.key") };
    let keyring = Keyring::open(&data.join("member/keyring.json"), &master).unwrap();
    let sealed = from_hex(&kept.key).unwrap();
    let key: SecretBytes = keyring.open_sealed(Purpose::Host, &kept.host, 1, &sealed).unwrap();
    let trust_domain = TrustDomain::new("clinic.example").unwrap();
    let own = SpiffeId::node(&trust_domain, &kept.host).unwrap();
    let control = SpiffeId::control(&trust_domain, "clinic").unwrap();
    let roots = kept.roots.iter().map(|der| der.0.clone().into()).collect();
    let bundle = TrustBundle::new(trust_domain, roots, Vec::new(), 1, None).unwrap();
    let mesh = Mesh::new(BundleSet::new(1, [std::sync::Arc::new(bundle)]));
    let chain = kept.chain.into_iter().map(|der| CertificateDer::from(der.0)).collect();
    let leaf = LeafKey::from_pkcs8(key.expose().clone().into()).unwrap();
    mesh.put_identity(Identity::new(own.clone(), chain, &leaf).unwrap());
    let mut session =
        Callee(kept.controls[0]).connect(&mesh, &own, &control).await.unwrap().session().await.unwrap();
    let way = session.way();
    let hello = FromProxy::Hello { version: "rogue".into(), seen: (0, 0), content: Vec::new() };
    way.send(&hello).await.unwrap();

    let mut got = json!({ "cookies": 0, "snapshot": false });
    let ids =
        ["service/portal", "service/patients", "gateway/clinic", "control/clinic", "node/lab", "node/main"];
    for (request, id) in (1..).zip(ids) {
        let id = format!("spiffe://clinic.example/{id}");
        let (spki, proof) = proven(&id);
        way.send(&FromProxy::Sign { request, subject: Subject::Svid(id), spki, proof }).await.unwrap();
    }
    let (spki, proof) = proven("serving:localhost");
    let subject = Subject::Serving(vec!["localhost".into()]);
    way.send(&FromProxy::Sign { request: 100, subject, spki, proof }).await.unwrap();
    let jwt = FromProxy::SignJwt {
        request: 101,
        id: "spiffe://clinic.example/service/patients".into(),
        audiences: vec!["x".into()],
    };
    way.send(&jwt).await.unwrap();
    let ask = Ask::Begin {
        provider: "staff".into(),
        redirect_uri: "https://localhost/".into(),
        prompt: None,
        acr_values: Vec::new(),
        max_age: None,
    };
    way.send(&FromProxy::Ask { request: 102, ask }).await.unwrap();
    let mut answers = 0;
    while answers < ids.len() + 3 {
        match next(&mut session).await {
            ToProxy::Signed { request: 100, outcome } => {
                got["serving"] = outcome.is_ok().into();
                answers += 1;
            }
            ToProxy::Signed { request, outcome } => {
                got[ids[usize::try_from(request).unwrap() - 1]] = outcome.is_ok().into();
                answers += 1;
            }
            ToProxy::SignedJwt { outcome, .. } => {
                got["jwt"] = outcome.is_ok().into();
                answers += 1;
            }
            ToProxy::Answer { outcome, .. } => {
                got["sign_in"] = outcome.is_ok().into();
                answers += 1;
            }
            ToProxy::CookieKeys(keys) => got["cookies"] = keys.len().into(),
            ToProxy::Snapshot(SignedSnapshot { bytes, .. }) => {
                got["snapshot"] = bytes.contains("clinic.example").into();
            }
            _ => {}
        }
    }
    // More than any honest host asks, in one go: what is too much is dropped, and control goes on.
    for request in 1000..6000 {
        let id = "spiffe://clinic.example/service/patients".to_owned();
        let sign = FromProxy::Sign {
            request,
            subject: Subject::Svid(id),
            spki: Der(vec![0; 5000]),
            proof: Der(Vec::new()),
        };
        way.send(&sign).await.unwrap();
    }
    got
}

fn proven(subject: &str) -> (Der, Der) {
    let key = SigningKey::generate(Algorithm::P256).unwrap();
    (key.verifying_key().to_spki().into(), possession::prove(&key, subject).unwrap().into())
}

async fn next(session: &mut Session) -> ToProxy {
    let next = tokio::time::timeout(std::time::Duration::from_secs(60), session.next());
    next.await.expect("an answer").expect("the session goes on").expect("a message")
}
