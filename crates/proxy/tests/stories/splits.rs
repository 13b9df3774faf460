//! Some requests go to another service, by what that one says; nobody gets anywhere that way who would not get there without it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::breaker::{Gate, in_background};
use crate::handling::{Client, OK, Service};
use crate::rig::{Rig, eventually, field};

/// A gateway before two services elsewhere, the first of which is split.
fn fence(portal: u16, next: u16, split: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal:
    address: 127.0.0.1:{portal}
    tls: off
    routes: [{{ path: /, split: {split} }}]
  next:
    address: 127.0.0.1:{next}
    tls: off
    routes:
      - {{ host: next.example, path: / }}
      - {{ host: next.example, path: /admin, accept: [api_key] }}
      - {{ host: next.example, path: /broken, fault: {{ abort: 418, percent: 100 }} }}
"
    )
}

#[test]
fn a_field_and_a_weight_lead_elsewhere_by_the_other_service_s_own_routes() {
    let ((portal, at), (next, other)) = (Service::start(&[OK]), Service::start(&[OK]));
    let split =
        "{ to: [{ service: next, header: X-Canary, value: \"yes\" }, { service: next, weight: 30 }] }";
    let rig = Rig::start(&fence(at, other, split));
    let mut client = Client::of(&rig);
    let canary = "X-Canary: yes\r\n";
    assert_eq!(client.ask("GET", "/first", canary, "").0, 200);
    assert_eq!((portal.count(), next.count()), (0, 1));
    let event = rig.event("the request", |r| field(r, "/http_request/url/path") == "/first");
    assert!(event.line().contains("next"), "{}", event.line());
    // What the other service says of its own routes counts for what is led there.
    for path in ["/admin", "/admin/x", "/ADMIN"] {
        let (status, answer) = client.ask("GET", path, canary, "");
        assert!(matches!(status, 401 | 404), "{path}: {answer}");
    }
    assert_eq!(client.ask("GET", "/broken", canary, "").0, 418);
    assert_eq!((portal.count(), next.count()), (0, 1), "none of these came to a service");
    let requests = 300;
    for _ in 0..requests {
        assert_eq!(client.ask("GET", "/a", "X-Canary: no\r\n", "").0, 200);
    }
    let (stayed, led) = (portal.count(), next.count() - 1);
    assert_eq!(stayed + led, requests);
    // Seven standard deviations to each side.
    assert!((34..=146).contains(&led), "{led} of {requests}");
}

#[test]
fn a_cohort_stays_together() {
    let ((portal, at), (next, other)) = (Service::start(&[OK]), Service::start(&[OK]));
    let split = "{ by: { cookie: cohort }, to: [{ service: next, weight: 50 }] }";
    let rig = Rig::start(&fence(at, other, split));
    let mut went: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for _ in 0..3 {
        let mut client = Client::of(&rig);
        for user in 0..40 {
            let before = next.count();
            let cookie = format!("Cookie: a=b; cohort=user-{user}; c=d\r\n");
            assert_eq!(client.ask("GET", "/a", &cookie, "").0, 200);
            went.entry(user).or_default().push(next.count() > before);
        }
    }
    assert!(went.values().all(|ways| ways.iter().all(|way| *way == ways[0])), "{went:?}");
    let led = went.values().filter(|ways| ways[0]).count();
    assert!((1..40).contains(&led), "{led}: by a hash that is the same everywhere");
    let before = next.count();
    for _ in 0..20 {
        assert_eq!(Client::of(&rig).ask("GET", "/a", "", "").0, 200);
    }
    assert_eq!(next.count(), before, "who has no such cookie stays");
    assert!(portal.count() > 20);
}

#[test]
fn another_fence_does_not_cut_what_was_led_elsewhere() {
    let ((_portal, at), (gate, other)) = (Service::start(&[OK]), Gate::start());
    let rig = Rig::start(&fence(at, other, "{ to: [{ service: next, weight: 100 }] }"));
    let held = in_background(&rig, "/held");
    eventually("the request", || (gate.count() == 1).then_some(()));
    rig.apply(&fence(at, other, "{ to: [{ service: next, weight: 1 }] }"));
    // Time for what is open to be judged again; were it not enough, the request would only be judged later.
    std::thread::sleep(Duration::from_millis(500));
    gate.set(true);
    assert_eq!(held.join().unwrap(), 200);
}

#[test]
fn a_call_is_led_elsewhere_along_the_caller_s_own_edge_and_no_further_than_that_allows() {
    let mut rig = Rig::start(
        "fence: clinic
trust_domain: clinic.example
services:
  portal:
    run: [portal]
    listen: 9000
    calls:
      - { service: patients, split: { to: [{ service: records, header: X-Next, value: \"1\" }] } }
      - { service: records, allow: [{ methods: [GET], paths: [/open/*] }] }
  patients: { run: [patients], listen: 9001 }
  records: { run: [records], listen: 9002 }
",
    );
    let portal = rig.shim("portal", &[80]);
    let (patients, records) = (rig.shim("patients", &[80]), rig.shim("records", &[80]));
    let patients = Service::on(patients.service(9001), &[OK]);
    let records = Service::on(records.service(9002), &[OK]);
    let mut calls = Client::over(portal.connect(&rig.address("patients"), 80));
    let next = "X-Next: 1\r\n";
    assert_eq!(calls.ask("POST", "/a", "", "").0, 200);
    assert_eq!((patients.count(), records.count()), (1, 0));
    assert_eq!(calls.ask("GET", "/open/a", next, "").0, 200);
    assert_eq!((patients.count(), records.count()), (1, 1));
    for (method, path) in [("POST", "/open/a"), ("GET", "/a")] {
        assert_eq!(calls.ask(method, path, next, "").0, 403, "the edge to the other service says so");
    }
    assert_eq!((patients.count(), records.count()), (1, 1));
    assert_eq!(calls.ask("GET", "/a", "", "").0, 200, "the connection goes on as before");
    assert_eq!(patients.count(), 2);
}
