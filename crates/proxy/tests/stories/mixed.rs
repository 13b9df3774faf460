//! Requests that bring more than one thing at once: whose they are, and by which way they came.

use std::net::TcpStream;
use std::sync::Arc;

use ringfence_snapshot::node::ApiKeys;
use ringfence_token::{ApiKey, KeyRecord};
use serde_json::json;

use crate::delegate::{told, trace, txn};
use crate::net::{Net, echo};
use crate::rig::{Rig, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

fn fence() -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], claims: {{ user: sub, groups: groups }} }}
services:
  portal: {{ run: [portal], listen: 9000, routes: [{{ path: /portal, accept: [api_key] }}], calls: [patients] }}
  archive: {{ run: [archive], listen: 9002, routes: [{{ path: /archive, accept: [api_key] }}] }}
  patients: {{ run: [patients], listen: 9001, accept: [{{ token: staff }}] }}
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
    let provider = Provider::new("k1");
    let mut rig = Rig::start(&fence());
    tell(&rig, provider.keys(unix() + 600));
    let (portal, patients) = (rig.shim("portal", &[80]), rig.shim("patients", &[80]));
    let archive = rig.shim("archive", &[80]);
    echo(portal.service(9000));
    echo(patients.service(9001));
    echo(archive.service(9002));
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
    fn ask(&self, path: &str, fields: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Connection: close\r\n\r\n");
        raw(TcpStream::connect(self.rig.gateway).unwrap(), request.as_bytes())
    }

    fn token(&self, path: &str) -> String {
        let answer = self.ask(path, &(self.key.clone() + &trace(1)));
        told(&answer, "txn-token").unwrap_or_else(|| panic!("{answer} {:?}", self.rig.troubles())).to_owned()
    }

    fn portal(&self, path: &str, fields: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: patients\r\n{fields}Connection: close\r\n\r\n");
        raw(self.portal.connect(&self.rig.address("patients"), 80), request.as_bytes())
    }
}

#[test]
fn what_lets_a_request_in_is_whom_it_is_for() {
    let world = world();
    let lab = txn(&world.token("/portal/a")) + &trace(1);
    assert!(world.portal("/lab", &lab).starts_with("HTTP/1.1 401"), "API keys are not accepted there");
    let ada = bearer(&world.provider.token(&json!({})));
    let answer = world.portal("/both", &(lab + &ada));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(told(&answer, "ringfence-user"), Some("ada"), "{answer}");
    assert!(!answer.contains("txn-token") && !answer.contains("lab"), "{answer}");
}

#[test]
fn two_ways_into_the_fence_have_two_tokens() {
    let world = world();
    // Threads have tokens of their own: whichever serves, none has the same for both.
    let of = |path: &str| (0..12).map(|_| world.token(path)).collect::<std::collections::BTreeSet<_>>();
    let (portal, archive) = (of("/portal/a"), of("/archive/a"));
    assert!(portal.is_disjoint(&archive));
    assert!(portal.len() < 12 && archive.len() < 12, "it is used again: {}", portal.len());
}
