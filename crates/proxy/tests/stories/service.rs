//! What services accept at their own sidecars: whoever comes, from outside or from another service.

use std::net::TcpStream;
use std::sync::Arc;

use ringfence_snapshot::node::ApiKeys;
use ringfence_token::{ApiKey, KeyRecord};
use serde_json::json;

use crate::net::{Net, echo};
use crate::rig::{Rig, field, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

fn fence(external: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], claims: {{ user: sub, groups: groups }} }}
services:
  portal: {{ run: [portal], listen: 9000, routes: [{{ path: /portal }}], calls: [patients, archive] }}
  patients:
    run: [patients]
    listen: 9001
    accept: [{{ token: staff }}]
    require: {{ groups: [nurse] }}
    routes: [{{ path: /open }}, {{ path: /staff, accept: [{{ token: staff }}, api_key] }}]
external:
  archive:
    address: 127.0.0.1:{external}
    tls: off
    routes: [{{ path: /archive }}]
"
    )
}

struct World {
    rig: Rig,
    portal: Arc<Net>,
    provider: Provider,
    key: String,
}

fn world() -> World {
    let (listener, external) = local();
    echo(listener);
    let provider = Provider::new("k1");
    let mut rig = Rig::start(&fence(external));
    tell(&rig, provider.keys(unix() + 600));
    let (portal, patients) = (rig.shim("portal", &[80]), rig.shim("patients", &[80]));
    echo(portal.service(9000));
    echo(patients.service(9001));
    let key = ApiKey::generate();
    let record = KeyRecord {
        prefix: key.prefix(),
        secret: key.digest(),
        previous: None,
        client: "lab".into(),
        scopes: vec!["read".into()],
        not_before: None,
        expires_at: None,
        disabled: false,
        last_used: None,
    };
    rig.tell_keys(ApiKeys::Part { first: true, last: true, records: vec![record] });
    World { rig, portal, provider, key: format!("X-API-Key: {}\r\n", key.to_text().expose()) }
}

impl World {
    fn outside(&self, path: &str, fields: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
        raw(TcpStream::connect(self.rig.gateway).unwrap(), request.as_bytes())
    }

    fn portal(&self, callee: &str, path: &str, fields: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {callee}\r\n{fields}Connection: close\r\n\r\n");
        raw(self.portal.connect(&self.rig.address(callee), 80), request.as_bytes())
    }

    /// Which point refused, and by which rule.
    fn refused(&self, path: &str) -> (String, String) {
        let event =
            self.rig.event("the refusal", |r| r.denied() && field(r, "/http_request/url/path") == path);
        (field(&event, "/unmapped/point").to_owned(), field(&event, "/firewall_rule/uid").to_owned())
    }
}

fn at(point: &str, rule: &str) -> (String, String) {
    (point.to_owned(), rule.to_owned())
}

#[test]
fn behind_an_open_route_the_service_s_own_side_asks_for_the_credential() {
    let world = world();
    let nurse = bearer(&world.provider.token(&json!({})));
    let answer = world.outside("/open/a", &nurse);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("ringfence-user: ada\r\n") && answer.contains("ringfence-provider: staff\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("uthorization"), "the token goes no further: {answer}");
    let lies = "Ringfence-User: root\r\nRingfence.User: root\r\nTxn-Token: forged\r\n";
    assert!(!world.outside("/open/lies", &(nurse.clone() + lies)).contains("root"));
    for (path, fields, rule) in [
        ("/open/none", String::new(), "credential.none"),
        ("/open/lies-alone", lies.to_owned(), "credential.none"),
        ("/open/key", world.key.clone(), "credential.none"),
        ("/open/forged", bearer(&Provider::new("k1").token(&json!({}))), "token.signature"),
        ("/open/doctor", bearer(&world.provider.token(&json!({ "groups": ["doctor"] }))), "require.group"),
    ] {
        let answer = world.outside(path, &fields);
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
        assert_eq!(world.refused(path), at("sidecar-in", rule), "{path}");
    }
}

#[test]
fn what_the_gateway_verified_counts_at_the_service_if_it_accepts_that_too() {
    let world = world();
    let answer = world.outside("/staff/a", &bearer(&world.provider.token(&json!({}))));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("ringfence-user: ada\r\n") && answer.contains("txn-token: "), "{answer}");
    assert_eq!(answer.matches("ringfence-user").count(), 1, "{answer}");
    // The route lets API keys in, the service behind it does not.
    assert!(world.outside("/staff/key", &world.key).starts_with("HTTP/1.1 401"));
    assert_eq!(world.refused("/staff/key"), at("sidecar-in", "credential.other"));
    let doctor = bearer(&world.provider.token(&json!({ "groups": ["doctor"] })));
    assert!(world.outside("/staff/doctor", &doctor).starts_with("HTTP/1.1 403"));
    assert_eq!(world.refused("/staff/doctor"), at("sidecar-in", "require.group"));
}

#[test]
fn another_service_shows_a_credential_too() {
    let world = world();
    let nurse = bearer(&world.provider.token(&json!({})));
    let answer = world.portal("patients", "/inside/a", &nurse);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("ringfence-user: ada\r\n"), "{answer}");
    assert!(!answer.contains("uthorization"), "{answer}");
    assert!(world.portal("patients", "/inside/none", "").starts_with("HTTP/1.1 401"));
    assert_eq!(world.refused("/inside/none"), at("sidecar-in", "credential.none"));
}
