//! Tokens that are worth nothing to a thief (DPoP, RFC 9449; mutual TLS, RFC 8705) and tokens that say nothing by themselves (RFC 7662), as
//! clients made by others use them.

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::clients::{NODE, client, url};
use crate::provider::Provider;
use crate::running::{Clinic, Who, eventually, text};
use crate::{ECHO, SOON, ask};

/// One provider whose tokens must be bound to a key, one whose must be bound to a certificate, and one whose are opaque.
fn start(key: &Provider, certificate: &Provider, opaque: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  key: {{ issuer: {}, audiences: [clinic], bound: dpop, ca: id/key.pem, allow_private: true }}
  holder: {{ issuer: {}, audiences: [clinic], bound: mtls, ca: id/certificate.pem, allow_private: true }}
  opaque:
    issuer: {}
    audiences: [clinic]
    client: {{ id: clinic-gateway, secret: {{ file: secrets/opaque }} }}
    opaque: introspect
    ca: id/opaque.pem
    allow_private: true
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes:
      - {{ path: / }}
      - {{ path: /key, accept: [{{ token: key }}], require: {{ scopes: [read] }} }}
      - {{ path: /certificate, accept: [{{ token: holder }}] }}
      - {{ path: /opaque, accept: [{{ token: opaque }}], require: {{ scopes: [read] }} }}
      - {{ path: /opaque/admin, accept: [{{ token: opaque }}], require: {{ scopes: [write] }} }}
",
        key.issuer, certificate.issuer, opaque.issuer
    );
    Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        for name in ["app", "id", "secrets"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
        std::fs::write(folder.join("secrets/opaque"), "secret").unwrap();
        for (name, provider) in [("key", key), ("certificate", certificate), ("opaque", opaque)] {
            std::fs::copy(&provider.ca, folder.join(format!("id/{name}.pem"))).unwrap();
        }
    })
}

/// Waits until the keys of a provider are there: a token that is not bound is refused then for that reason, and not for want of keys.
fn known(clinic: &Clinic, path: &str, provider: &Provider) {
    let token = provider.token("reader", "read");
    let known = eventually(SOON, || (ask(clinic, path, &token).0 == 401).then_some(()));
    assert!(known.is_some(), "{path}: {:?}\n{}", ask(clinic, path, &token), clinic.said());
    clinic.settle_at(&["-H", &format!("authorization: Bearer {token}")], path, 401);
}

fn machine(id: &str, more: Value) -> Value {
    let mut job = json!({ "flow": "machine", "client": { "id": id, "secret": "secret" }, "scope": "read" });
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

fn user(call: &Value) -> Value {
    let fields: Value = serde_json::from_str(call["body"].as_str().unwrap_or_default()).unwrap_or_default();
    fields["ringfence-user"].clone()
}

/// A certificate that only its holder made, and its key; PEM.
fn certificate(name: &str) -> Value {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    json!({ "cert": certificate.pem(), "key": key.serialize_pem() })
}

#[test]
fn bound_and_opaque_tokens_let_their_holders_in_and_nobody_else() {
    let (key, mtls, opaque) =
        (Provider::start_with(json!({ "nonces": true })), Provider::start(), Provider::start());
    let clinic = start(&key, &mtls, &opaque);
    known(&clinic, "/key", &key);
    known(&clinic, "/certificate", &mtls);
    // What this one is asked, it can be asked once its metadata is there.
    let known = eventually(SOON, || (ask(&clinic, "/opaque", "unheard-of").0 == 401).then_some(()));
    assert!(known.is_some(), "{:?}\n{}", ask(&clinic, "/opaque", "unheard-of"), clinic.said());
    for library in NODE {
        proved(&clinic, &key, library);
        certified(&clinic, &mtls, library);
        asked_for(&clinic, &opaque, library);
    }
    assert_eq!(clinic.stop(), [""; 0]);
}

/// The provider and the gateway demand nonces, which the client has to be told of first.
fn proved(clinic: &Clinic, provider: &Provider, library: &str) {
    let calls =
        json!([{ "url": url(clinic, "/key/1?a=b") }, { "url": url(clinic, "/key/2"), "again": true }]);
    let seen = client(library, provider, clinic, machine("nightly", json!({ "dpop": true, "calls": calls })));
    assert!(seen["kind"].as_str().unwrap().eq_ignore_ascii_case("dpop"), "{library}: {seen}");
    for call in seen["calls"].as_array().unwrap() {
        assert_eq!((&call["status"], user(call)), (&json!(200), json!("nightly")), "{library}: {seen}");
    }
    assert_eq!(seen["calls"][1]["again"], 401, "{library}: the same proof twice");
    let told = |rule: &str| clinic.event(SOON, |e| e["firewall_rule"]["uid"] == rule).is_some();
    assert!(told("proof.nonce") && told("proof.replayed"), "{}", text(&clinic.ringfence(&["events"]).stdout));
    let stolen = seen["token"].as_str().unwrap();
    assert_eq!(ask(clinic, "/key", stolen).0, 401, "{library}: shown by a thief");
    let challenge =
        clinic.curl(&["-H", &format!("authorization: DPoP {stolen}"), "-o", "/dev/null", "-D", "-", "/key"]);
    let challenge = text(&challenge.stdout).to_ascii_lowercase();
    assert!(
        challenge.starts_with("http/2 401") && challenge.contains("www-authenticate: dpop"),
        "{challenge}"
    );

    // A human's, whose refresh is bound to the same key.
    let calls = json!([{ "url": url(clinic, "/key") }]);
    let human = json!({
        "flow": "code", "client": { "id": "app", "secret": "secret" }, "user": "ann", "scope": "openid read",
        "dpop": true, "refresh": 1, "calls": calls,
    });
    let seen = client(library, provider, clinic, human);
    assert_eq!(
        (&seen["calls"][0]["status"], user(&seen["calls"][0])),
        (&json!(200), json!("ann")),
        "{library}: {seen}"
    );
}

fn certified(clinic: &Clinic, provider: &Provider, library: &str) {
    let (mine, theirs) = (certificate("laboratory.example"), certificate("thief.example"));
    let calls = json!([{ "url": url(clinic, "/certificate") }]);
    let seen = client(library, provider, clinic, machine("bound", json!({ "tls": mine, "calls": calls })));
    assert_eq!(
        (&seen["calls"][0]["status"], user(&seen["calls"][0])),
        (&json!(200), json!("bound")),
        "{library}: {seen}"
    );
    let stolen = seen["token"].as_str().unwrap();
    assert_eq!(ask(clinic, "/certificate", stolen).0, 401, "{library}: without a certificate");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("thief.pem");
    std::fs::write(&file, format!("{}{}", theirs["cert"].as_str().unwrap(), theirs["key"].as_str().unwrap()))
        .unwrap();
    let field = format!("authorization: Bearer {stolen}");
    let shown = clinic.curl(&[
        "--cert",
        file.to_str().unwrap(),
        "-H",
        &field,
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "/certificate",
    ]);
    assert_eq!(text(&shown.stdout), "401", "{library}: with another's: {}", text(&shown.stderr));
}

fn asked_for(clinic: &Clinic, provider: &Provider, library: &str) {
    let calls = json!([{ "url": url(clinic, "/opaque") }, { "url": url(clinic, "/opaque/admin") }]);
    for bound in [false, true] {
        let human = json!({
            "flow": "code", "client": { "id": "app", "secret": "secret" }, "user": "ann", "scope": "openid read",
            "resource": "https://opaque.clinic.example/", "dpop": bound, "calls": calls,
        });
        let seen = client(library, provider, clinic, human);
        let token = seen["token"].as_str().unwrap();
        assert!(!token.contains('.'), "it is no JWT: {token}");
        if bound {
            // The gateway holds nobody to a proof by what introspection says, so it lets nobody in.
            assert_eq!(seen["calls"][0]["status"], 401, "{library}: {seen}");
            assert!(clinic.event(SOON, |e| e["firewall_rule"]["uid"] == "token.bound").is_some());
            continue;
        }
        assert_eq!(
            (&seen["calls"][0]["status"], user(&seen["calls"][0])),
            (&json!(200), json!("ann")),
            "{library}: {seen}"
        );
        assert_eq!(seen["calls"][1]["status"], 403, "{library}: {seen}");
        let unheard_of = token.chars().rev().collect::<String>();
        assert_eq!(ask(clinic, "/opaque", &unheard_of).0, 401, "nobody gave this one");
    }
}
