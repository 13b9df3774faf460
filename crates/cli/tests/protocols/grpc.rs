//! gRPC by the package `grpcio`, client and server, and the clinic's billing in Rust.

use serde_json::{Value, json};

use crate::lab::{BOTH, From, Lab, SOON, Stalls, Who, eventually};

const SERVICES: &str = "
  echo: { PY grpc_service.py 9200, listen: 9200, protocol: grpc, routes: [{ path: /lab.Echo }] }
  closed: { PY grpc_service.py 9201, listen: 9201, protocol: grpc }
  absent: { listen: 9202, protocol: grpc, routes: [{ path: /absent }] }
  patients: { run: [python3, patients.py], listen: 9001 }
  billing:
    run: [clinic, billing]
    listen: 9003
    protocol: grpc
    routes: [{ path: /clinic.billing.v1.Billing }]
    calls: [patients]
  caller: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [echo, absent, billing] }
";

fn start(who: Who) -> Lab {
    let patients = |folder: &std::path::Path| {
        let source = crate::lab::running::workspace().join("examples/clinic/services/patients.py");
        std::fs::copy(source, folder.join("patients.py")).unwrap();
    };
    Lab::start_before(who, SERVICES, &["grpc", "typing_extensions"], Vec::new(), patients)
}

fn tell(lab: &Lab, from: From, story: &str) -> Value {
    let target = match from {
        From::Outside => json!({ "address": format!("127.0.0.1:{}", lab.clinic.port), "ca": lab.ca() }),
        From::Caller if story == "invoices" => json!({ "address": "billing:9003" }),
        From::Caller | From::Beside => json!({ "address": "echo:9200" }),
    };
    lab.tell(from, "grpc_client", story, &target)
}

#[test]
fn every_kind_of_call_works_as_an_unprivileged_user() {
    every_kind_of_call(&start(Who::Nobody));
}

#[test]
fn every_kind_of_call_works_as_root() {
    every_kind_of_call(&start(Who::Root));
}

fn every_kind_of_call(lab: &Lab) {
    for from in BOTH {
        let said = tell(lab, from, "unary");
        assert_eq!(said["answer"], "hello");
        assert_eq!(said["first"]["lab-first"], "before", "{from:?}: {said}");
        assert_eq!(said["last"]["lab-last"], "after", "{from:?}: {said}");
        assert_eq!(said["last"]["lab-saw"], "given", "{from:?}: {said}");
        assert_eq!(said["last"]["lab-bin"], json!([0, 255, 16]), "{from:?}: {said}");

        assert_eq!(tell(lab, from, "server_stream"), json!((0..1000).collect::<Vec<_>>()));
        assert_eq!(tell(lab, from, "client_stream"), 500_000);

        assert_eq!(tell(lab, from, "enough"), json!(["INVALID_ARGUMENT enough"]), "{from:?}");

        let said = tell(lab, from, "ping_pong");
        let expected: Vec<String> = (0..50).map(|n| format!("re:{n}")).collect();
        assert_eq!(said, json!({ "said": expected, "rest": 0, "code": "OK" }), "{from:?}");

        let said = tell(lab, from, "statuses");
        assert_eq!(said.as_object().unwrap().len(), 6, "{from:?}: {said}");
        for (code, refusal) in said.as_object().unwrap() {
            assert_eq!(&refusal["code"], code);
            assert_eq!(refusal["details"], "zu früh, 100 %", "{from:?}");
            assert_eq!(refusal["trailing"]["lab-why"], "asked", "{from:?}: {refusal}");
        }

        let said = tell(lab, from, "large");
        assert_eq!(said, json!({ "length": 8 << 20, "same": true }), "{from:?}");
    }
}

#[test]
fn deadlines_and_cancellations_reach_the_other_side() {
    let lab = start(Who::Nobody);
    for from in BOTH {
        let stalls = Stalls::begin();
        let said = tell(&lab, from, "deadline");
        assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{from:?}: {said}");
        let took = said["seconds"].as_f64().unwrap();
        assert!(took > 0.4 && stalls.without(took) < 3.0, "{from:?}: {said}");
        let left = tell(&lab, from, "deadline_is_told");
        // A minute, which grpcio rounds up a little on its way.
        assert!((1.0..=62.0).contains(&left.as_f64().unwrap()), "{from:?}: {left}");
        let stalls = Stalls::begin();
        let said = tell(&lab, from, "cancel");
        assert_eq!((&said["more"], &said["code"]), (&json!(1), &json!("CANCELLED")), "{from:?}: {said}");
        assert!(stalls.without(said["seconds"].as_f64().unwrap()) < 2.0, "{from:?}: {said}");
    }
}

#[test]
fn two_hundred_streams_converse_at_once() {
    let lab = start(Who::Nobody);
    for from in BOTH {
        assert_eq!(tell(&lab, from, "many_streams"), json!({ "answered": 600, "codes": ["OK"] }), "{from:?}");
    }
}

#[test]
fn what_may_not_be_is_permission_denied_and_what_is_not_there_is_unavailable() {
    let lab = start(Who::Nobody);
    let refused = |from, target: Value| lab.tell(from, "grpc_client", "refused", &target);
    let said = refused(From::Caller, json!({ "address": "closed:9201" }));
    assert_eq!(said["code"], "PERMISSION_DENIED", "{said}");
    assert!(said["details"].as_str().unwrap().starts_with("refused, event "), "{said}");
    let told = eventually(SOON, || {
        lab.events(|e| {
            e["dst_endpoint"]["svc_name"] == "closed" && e["firewall_rule"]["uid"] == "edge.undeclared"
        })
        .pop()
    });
    let missing = told.expect("an event")["unmapped"]["missing"].clone();
    assert!(
        missing.as_str().is_some_and(|line| line.contains("services.caller.calls: [closed]")),
        "{missing}"
    );

    let stalls = Stalls::begin();
    let said = refused(From::Caller, json!({ "address": "absent:9202" }));
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    assert!(stalls.without(said["seconds"].as_f64().unwrap()) < 5.0, "{said}");
}

#[test]
fn the_clinic_s_billing_speaks_to_grpcio() {
    let lab = start(Who::Nobody);
    for from in BOTH {
        let said = tell(&lab, from, "invoices");
        assert_eq!(said["invoice"], true, "{from:?}: {said}");
        assert_eq!(said["all"], 6, "{from:?}: {said}");
        assert_eq!((&said["notice"], &said["changed"]), (&json!(true), &json!(true)), "{from:?}: {said}");
        // Receipt: recorded = 2, cents = 300.
        assert_eq!(said["receipt"], json!([8, 2, 16, 0x80 | (300 & 0x7f), 300 >> 7]), "{from:?}: {said}");
        assert_eq!(said["missing"]["code"], "NOT_FOUND", "{from:?}: {said}");
    }
}
