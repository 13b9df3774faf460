//! What attackers try with transaction tokens: stolen ones, forged ones, those of others, and sidecars that are flooded or lied to.

use std::io::{Read, Write};
use std::net::TcpStream;

use ringfence_spiffe::SpiffeId;
use ringfence_tls::{Alpn, ClientConnection};
use serde_json::{Value, json};

use crate::delegate::{Clinic, clinic, told, trace, txn};
use crate::keeper::{GATEWAY, KEY_ID, Keeper, sign_by};
use crate::patience::HELP;
use crate::rig::{Rig, SVID_KEY_ID, TRUST_DOMAIN, field, raw, unix};
use crate::tokens::{Provider, bearer};
use crate::walls::{mesh_of, rustls_stream};

fn service(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/service/{name}")
}

/// A request over the mesh by somebody who holds the SVID `own`, such as a sidecar that was broken into.
pub fn over_mesh(rig: &Rig, own: &str, callee: &str, path: &str, fields: &str) -> String {
    let authority = rig.control.authority.lock().unwrap().clone();
    let mesh = mesh_of(&authority, &authority, own);
    let (own, callee) = (SpiffeId::parse(own).unwrap(), SpiffeId::parse(&service(callee)).unwrap());
    let config = mesh.client_config(&own, &callee, &[Alpn::Http1]).unwrap();
    let name = ringfence_tls::mesh_server_name(&callee).unwrap();
    let mut session = ClientConnection::new(config, name).unwrap();
    let mut socket = TcpStream::connect(rig.mesh).unwrap();
    socket.set_read_timeout(Some(HELP)).unwrap();
    let mut stream = rustls_stream(&mut session, &mut socket);
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn dropped(clinic: &Clinic, path: &str) {
    let event = clinic.rig.event(path, |r| {
        field(r, "/http_request/url/path") == path && field(r, "/unmapped/point") == "sidecar-out"
    });
    assert_eq!(field(&event, "/firewall_rule/uid"), "delegate.unknown", "{path}: {}", event.line());
    assert!(event.json.pointer("/src_endpoint/owner").is_none(), "{path}");
}

#[test]
fn a_token_that_was_given_to_another_service_is_of_no_use() {
    let clinic = clinic();
    let token = clinic.given(&trace(1));
    let stolen = txn(&token) + &trace(1);
    // Appointments read it in a log of portal's.
    let answer = clinic.call(&clinic.appointments, "portal", "/stolen", &stolen);
    assert!(answer.starts_with("HTTP/1.1 200"), "it acts for itself: {answer}");
    assert!(told(&answer, "ringfence-user").is_none() && !answer.contains(&token[..40]), "{answer}");
    dropped(&clinic, "/stolen");
    let answer = clinic.call(&clinic.appointments, "patients", "/required", &stolen);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let (rule, line) = clinic.refusal("/required");
    assert!(rule == "delegate.required" && line.contains("was not given it"), "{line}");
    // Once it is given to it in earnest, it may act by it.
    assert!(clinic.call(&clinic.portal, "appointments", "/given", &stolen).starts_with("HTTP/1.1 200"));
    let answer = clinic.call(&clinic.appointments, "patients", "/earnest", &stolen);
    assert_eq!(told(&answer, "ringfence-user"), Some("ada"), "{answer}");
}

#[test]
fn from_outside_it_is_no_credential_and_reaches_nobody() {
    let clinic = clinic();
    let token = clinic.given("");
    for (path, fields, status) in [
        ("/open", txn(&token), "200"),
        ("/api/header", txn(&token), "401"),
        ("/api/bearer", bearer(&token), "401"),
        (
            "/api/both",
            clinic.ada() + &txn(&clinic.rig.control.keeper.sign("txntoken+jwt", &json!({ "sub": "root" }))),
            "200",
        ),
    ] {
        let answer = clinic.ask(path, &fields);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(path == "/api/both" || !answer.contains(&token[..40]), "{path}: {answer}");
        assert!(!answer.contains("root"), "{path}: {answer}");
    }
    assert_eq!(clinic.refusal("/api/bearer").0, "token.type");
    clinic.rig.event("the call", |r| {
        field(r, "/http_request/url/path") == "/open" && field(r, "/firewall_rule/uid") == "header.spoofed"
    });
}

/// Tokens that must not count, by what is wrong with them.
fn wrong(clinic: &Clinic) -> Vec<(&'static str, String, &'static str)> {
    let keeper = &clinic.rig.control.keeper;
    let good = |changes: Value| keeper.sign("txntoken+jwt", &changes);
    // By the key of JWT-SVIDs, which is in the snapshot too, but for them alone.
    let svid_key = &clinic.rig.control.svid_key;
    let by_svid_key = |kid| sign_by(svid_key, kid, "txntoken+jwt", &json!({}));
    let now = unix();
    let by = |identity: Value, shown: Value| good(json!({ "tctx": { "idn": identity, "cred": shown } }));
    let idn = |identity: Value| by(identity, json!({ "token": "staff" }));
    let ada = || json!({ "kind": "user", "provider": "staff", "id": "ada" });
    vec![
        ("/domain", good(json!({ "aud": "other.example" })), "delegate.invalid"),
        ("/domains", good(json!({ "aud": [TRUST_DOMAIN, "other.example"] })), "delegate.invalid"),
        ("/expired", good(json!({ "iat": now - 200, "exp": now - 80 })), "delegate.expired"),
        ("/early", good(json!({ "iat": now + 200, "exp": now + 260 })), "delegate.expired"),
        ("/lasting", good(json!({ "exp": now + 3600 })), "delegate.expired"),
        ("/access-token", Provider::new("k1").token(&json!({})), "delegate.invalid"),
        ("/at-jwt", keeper.sign("at+jwt", &json!({})), "delegate.invalid"),
        ("/session", keeper.sign("ringfence-session+jwt", &json!({})), "delegate.invalid"),
        ("/svid", keeper.sign("JWT", &json!({ "sub": service("portal") })), "delegate.invalid"),
        ("/other-key", Keeper::new().sign("txntoken+jwt", &json!({})), "delegate.invalid"),
        ("/svid-key", by_svid_key(SVID_KEY_ID), "delegate.invalid"),
        ("/svid-key-renamed", by_svid_key(KEY_ID), "delegate.invalid"),
        ("/nameless", idn(json!({ "kind": "user", "provider": "staff", "id": "" })), "delegate.invalid"),
        ("/service", idn(json!({ "kind": "service", "id": "billing" })), "delegate.invalid"),
        ("/shown-nothing", good(json!({ "tctx": { "idn": ada() } })), "delegate.invalid"),
        ("/shown-another", by(ada(), json!("api_key")), "delegate.invalid"),
        ("/shown-nonsense", by(ada(), json!({ "password": "staff" })), "delegate.invalid"),
        ("/self-made", good(json!({ "req_wl": service("portal") })), "delegate.workload"),
        ("/foreign", good(json!({ "req_wl": "spiffe://other.example/gateway/clinic" })), "delegate.workload"),
        ("/anybody", good(json!({ "req_wl": null })), "delegate.invalid"),
        ("/text", "hello".into(), "delegate.invalid"),
        ("/huge", "a".repeat(9000), "delegate.invalid"),
    ]
}

#[test]
fn a_sidecar_that_was_broken_into_cannot_make_tokens_up() {
    let clinic = clinic();
    let keeper = &clinic.rig.control.keeper;
    let by_portal =
        |path: &str, fields: &str| over_mesh(&clinic.rig, &service("portal"), "appointments", path, fields);
    let good = keeper.sign("txntoken+jwt", &json!({}));
    let answer = by_portal("/good", &txn(&good));
    assert_eq!(
        told(&answer, "ringfence-user"),
        Some("ada"),
        "what follows fails for the reason given: {answer}"
    );
    for (path, token, rule) in wrong(&clinic) {
        let answer = by_portal(path, &txn(&token));
        assert!(answer.starts_with("HTTP/1.1 403"), "{path}: {answer}");
        let (uid, line) = clinic.refusal(path);
        assert_eq!(uid, rule, "{path}: {line}");
        assert!(token.len() < 20 || !line.contains(&token[..20]), "{path}: {line}");
    }
    let chain = |chain: &str| txn(&good) + &format!("Ringfence-Chain: {chain}\r\n");
    let long = vec!["a"; 16].join(",");
    for (path, fields, status, rule) in [
        ("/two", txn(&good) + &txn(&good), "400", "delegate.several"),
        ("/two-ways", txn(&good) + "Txn_Token: x\r\nTXN-TOKEN: x\r\n", "400", "delegate.several"),
        ("/chain", chain("Portal"), "400", "delegate.chain"),
        ("/chains", chain("a\r\nRingfence-Chain: b"), "400", "delegate.several"),
        ("/empty", chain(""), "400", "delegate.chain"),
        ("/long", chain(&long), "403", "delegate.chain"),
        ("/alone", "Ringfence-Chain: a\r\n".into(), "400", "delegate.chain"),
    ] {
        let answer = by_portal(path, &fields);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert_eq!(clinic.refusal(path).0, rule, "{path}");
    }
    // It may lie about who was before it, never about itself.
    assert!(by_portal("/lies", &chain("vault")).starts_with("HTTP/1.1 200"));
    let event = clinic.rig.event("the lie", |r| field(r, "/http_request/url/path") == "/lies");
    assert_eq!(event.json["unmapped"]["chain"], json!(["vault", "portal"]));
    // And where somebody's behalf is demanded, the callee's side demands it too.
    let answer = over_mesh(&clinic.rig, &service("portal"), "patients", "/none", "");
    assert!(
        answer.starts_with("HTTP/1.1 403") && clinic.refusal("/none").0 == "delegate.required",
        "{answer}"
    );
}

#[test]
fn a_gateway_brings_its_own_tokens_alone() {
    let clinic = clinic();
    let keeper = &clinic.rig.control.keeper;
    let by_gateway = |path: &str, fields: &str| over_mesh(&clinic.rig, GATEWAY, "portal", path, fields);
    let own = keeper.sign("txntoken+jwt", &json!({}));
    assert_eq!(told(&by_gateway("/own", &txn(&own)), "ringfence-user"), Some("ada"));
    let other =
        keeper.sign("txntoken+jwt", &json!({ "req_wl": format!("spiffe://{TRUST_DOMAIN}/gateway/other") }));
    assert!(by_gateway("/other", &txn(&other)).starts_with("HTTP/1.1 403"));
    assert_eq!(clinic.refusal("/other").0, "delegate.workload");
    let chained = txn(&own) + "Ringfence-Chain: portal\r\n";
    assert!(by_gateway("/chained", &chained).starts_with("HTTP/1.1 400"));
    // What used to say whom the gateway had verified says nothing any more.
    let answer = by_gateway(
        "/said",
        "Ringfence-Principal: {\"kind\":\"user\",\"id\":\"root\"}\r\nRingfence-User: root\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("root"), "{answer}");
}

#[test]
fn a_service_that_sends_what_it_was_not_given_acts_for_itself() {
    let clinic = clinic();
    for (path, token, _) in wrong(&clinic) {
        let answer = clinic.call(&clinic.portal, "appointments", path, &txn(&token));
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        for name in ["txn-token", "ringfence-user", "ringfence-scopes"] {
            assert_eq!(told(&answer, name), None, "{path}");
        }
        dropped(&clinic, path);
    }
    let token = clinic.given(&trace(1));
    let (good, forged) = (txn(&token) + &trace(1), "Ringfence-Chain: patients\r\nRingfence-Principal: x\r\n");
    let answer = clinic.call(&clinic.portal, "appointments", "/forged-chain", &(good.clone() + forged));
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("hain: "), "{answer}");
    let event = clinic.rig.event("the call", |r| {
        field(r, "/http_request/url/path") == "/forged-chain" && field(r, "/unmapped/point") == "sidecar-in"
    });
    assert_eq!(event.json["unmapped"]["chain"], json!(["portal"]), "by its certificate");
    let two = clinic.call(&clinic.portal, "appointments", "/two", &(good + &txn(&token)));
    assert!(two.starts_with("HTTP/1.1 400") && clinic.refusal("/two").0 == "delegate.several", "{two}");
}

#[test]
fn a_head_that_is_larger_than_any_is_refused_and_the_node_goes_on() {
    let clinic = clinic();
    let head = format!(
        "GET /x HTTP/1.1\r\nHost: x\r\nTxn-Token: {}\r\nConnection: close\r\n\r\n",
        "a".repeat(200_000)
    );
    let answer = raw(clinic.portal.connect(&clinic.rig.address("appointments"), 80), head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(clinic.call(&clinic.portal, "appointments", "/on", "").starts_with("HTTP/1.1 200"));
}
