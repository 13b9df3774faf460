//! HTTP/1.1 on both sides, byte by byte: framing, streaming, connections, bounds and failures.

use serde_json::{Value, json};

use crate::lab::{BOTH, From, Lab, SOON, Stalls, Who, eventually};

const SERVICES: &str = "
  web: { PY web_service.py 9000, listen: 9000, routes: [{ path: / }] }
  absent: { listen: 9002, routes: [{ path: /absent }] }
  caller: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [web, absent] }
";

fn start(who: Who) -> Lab {
    Lab::start(who, SERVICES, &[])
}

fn target(lab: &Lab, from: From) -> Value {
    match from {
        From::Outside => json!({ "address": "127.0.0.1", "port": lab.clinic.port, "ca": lab.ca() }),
        From::Caller | From::Beside => json!({ "address": "web", "port": 9000 }),
    }
}

fn tell(lab: &Lab, from: From, story: &str) -> Value {
    lab.tell(from, "web_client", story, &target(lab, from))
}

#[test]
fn requests_and_answers_pass_as_they_are_as_an_unprivileged_user() {
    as_they_are(&start(Who::Nobody));
}

#[test]
fn requests_and_answers_pass_as_they_are_as_root() {
    as_they_are(&start(Who::Root));
}

fn as_they_are(lab: &Lab) {
    for from in BOTH {
        let said = tell(lab, from, "chunked_both_ways");
        let pings: Vec<String> = (0..10).map(|n| format!("ping {n}")).collect();
        assert_eq!(
            (&said["status"], &said["said"], &said["rest"]),
            (&json!(200), &json!(pings), &json!(0)),
            "{from:?}: {said}"
        );
        assert_eq!(said["trailers"], json!({ "x-heard": "60", "x-back-x-sum": "60" }), "{from:?}");

        let said = tell(lab, from, "trailers_only_for_who_takes_them");
        assert_eq!(said, json!({ "body": "abc", "trailers": {} }), "{from:?}");

        let said = tell(lab, from, "expect_continue");
        let heard = json!({ "heard": 5, "framing": "length" });
        assert_eq!(said, json!({ "interim": 100, "status": 200, "body": heard }), "{from:?}");
        let said = tell(lab, from, "expect_refused");
        assert_eq!(said, json!({ "status": 417, "body": "no" }), "{from:?}");

        let said = tell(lab, from, "head");
        assert_eq!(said["heads"][0], json!([200, "1000"]), "{from:?}: {said}");
        assert_eq!(said["then"], 3, "{from:?}: {said}");

        let said = tell(lab, from, "keep_alive");
        assert_eq!(said, json!({ "in_order": true, "last": 200, "closed": true }), "{from:?}");
        assert_eq!(tell(lab, from, "pipelined"), json!([6, 6, 8, 100_000, 7]), "{from:?}");

        let stalls = Stalls::begin();
        let said = tell(lab, from, "early_answer");
        assert_eq!((&said["status"], &said["body"]), (&json!(413), &json!("enough")), "{from:?}: {said}");
        assert!(stalls.without(said["seconds"].as_f64().unwrap()) < 2.0, "{from:?}: {said}");

        assert_eq!(tell(lab, from, "interim"), json!({ "status": 200, "body": "after hints" }), "{from:?}");
        let stalls = Stalls::begin();
        let said = tell(lab, from, "streams_as_it_comes");
        assert_eq!(said["pieces"], 5, "{from:?}: {said}");
        assert!(
            stalls.without(said["first"].as_f64().unwrap()) < 0.6 && said["last"].as_f64().unwrap() > 0.7,
            "{from:?}: {said}"
        );
        let said = tell(lab, from, "until_close");
        assert_eq!(said, json!({ "status": 200, "body": "as long as it lasts" }), "{from:?}");
        let said = tell(lab, from, "empty");
        assert_eq!(said, json!({ "status": 204, "length": null, "then": "/after/it" }), "{from:?}");

        let said = tell(lab, from, "half");
        // How much had gone out when it broke off decides between a broken answer and a problem document.
        let honest = said.get("broken").is_some()
            || said["whole"].as_str().is_some_and(|body| body.contains("\"status\":502"));
        assert!(honest, "{from:?}: half an answer is not passed off as a whole one: {said}");
        let said = tell(lab, from, "reuse");
        assert!(said["requests"].as_u64() >= Some(50), "{from:?}: {said}");
        assert!(
            said["connections"].as_u64() <= Some(5),
            "{from:?}: connections to the callee are used again: {said}"
        );
    }
}

/// Half of a large body would be more than this.
const ROOM_KIB: u64 = 20 << 10;

#[test]
fn large_bodies_stream_in_constant_memory() {
    let lab = start(Who::Nobody);
    let node = lab.clinic.process("node");
    tell(&lab, From::Outside, "keep_alive");
    let before = memory(node, "VmRSS");
    for from in BOTH {
        let said = tell(&lab, from, "large_down");
        assert_eq!(said, json!({ "declared": 50 << 20, "length": 50 << 20 }), "{from:?}");
        assert_eq!(
            tell(&lab, from, "large_up"),
            json!({ "heard": 50 << 20, "framing": "length" }),
            "{from:?}"
        );
        assert_eq!(tell(&lab, from, "large_chunked_echo"), 50 << 20, "{from:?}");
    }
    let peak = memory(node, "VmHWM");
    assert_eq!(lab.clinic.process("node"), node, "it is still the same process");
    assert!(peak < before + ROOM_KIB, "{before} KiB before, {peak} KiB at most while 300 MiB passed");
}

fn memory(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn what_is_beyond_a_bound_or_ambiguous_gets_its_status_and_an_event() {
    let limits = "---\nlimits: { header_bytes: 12KiB, headers: 30, body: 1MiB, header_time: 2s, idle: 3s }\n";
    let lab = Lab::start(Who::Nobody, &format!("{SERVICES}{limits}"), &[]);
    for from in [From::Outside, From::Beside] {
        let stalls = Stalls::begin();
        let said = tell(&lab, from, "refusals");
        let expected = [
            ("bytes of a head", 431),
            ("number of fields", 431),
            ("length of a body", 413),
            ("growth of a body", 413),
            ("time of a head", 408),
            ("both framings", 400),
            ("two hosts", 400),
            ("no host", 400),
            ("version", 505),
            ("length of a target", 414),
            ("tunnel", 405),
        ];
        assert_eq!(said.as_object().unwrap().len(), expected.len());
        for (what, status) in expected {
            let said = &said[what];
            assert_eq!(said["status"], status, "{from:?} {what}: {said}");
            assert_eq!(said["problem"], status, "{from:?} {what}: {said}");
            assert_eq!(said["type"], "application/problem+json", "{from:?} {what}: {said}");
            assert_eq!(said["closed"], true, "{from:?} {what}: {said}");
            assert!(stalls.without(said["seconds"].as_f64().unwrap()) < 4.0, "{from:?} {what}: {said}");
            let id = said["event"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
            let told = eventually(SOON, || lab.events(|e| e["metadata"]["uid"] == id).pop());
            assert!(told.is_some(), "{from:?} {what}: no event {id}");
        }
        let stalls = Stalls::begin();
        let said = tell(&lab, from, "idle_connection_ends");
        assert_eq!(said["ended"], true, "{from:?}: {said}");
        let took = said["seconds"].as_f64().unwrap();
        assert!(took > 2.0 && stalls.without(took) < 6.0, "{from:?}: {said}");
    }
}

#[test]
fn a_callee_that_fails_gives_a_problem_document_and_the_connection_goes_on() {
    let lab = Lab::start(Who::Nobody, &format!("{SERVICES}---\nlimits: {{ request_time: 5s }}\n"), &[]);
    for from in [From::Outside, From::Beside] {
        let stalls = Stalls::begin();
        let said = tell(&lab, from, "failures");
        for (path, status) in [("drop", 502), ("junk", 502), ("sleep/9", 504)] {
            let said = &said[path];
            assert_eq!(
                (&said["status"], &said["type"]),
                (&json!(status), &json!("application/problem+json")),
                "{from:?} {path}: {said}"
            );
        }
        assert!(stalls.without(said["sleep/9"]["seconds"].as_f64().unwrap()) < 7.0, "{from:?}: {said}");
        assert_eq!(said["then"], "/still/good", "{from:?}: {said}");
    }
    for (from, at) in [
        (From::Outside, target(&lab, From::Outside)),
        (From::Caller, json!({ "address": "absent", "port": 9002 })),
    ] {
        let said = lab.tell(from, "web_client", "head_refused", &at);
        assert_eq!(said, json!({ "head": 503, "length": true, "then": 503, "told": 503 }), "{from:?}");
    }
    let said =
        lab.tell(From::Caller, "web_client", "plain_get", &json!({ "address": "absent", "port": 9002 }));
    assert_eq!((&said["status"], &said["body"]["status"]), (&json!(503), &json!(503)), "{said}");
    let (code, body) = lab.clinic.get("/absent");
    assert_eq!(code, 503, "{body}");
}
