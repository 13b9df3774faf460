//! WebSockets by the package `websockets`, client and server, and the clinic's `/live`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::lab::{BOTH, Clinic, From, Lab, SOON, Stalls, Who, eventually, pause};

const SERVICES: &str = "
  sock: { PY sock_service.py 9300, listen: 9300, routes: [{ path: /sock }] }
  shut: { PY sock_service.py 9301, listen: 9301 }
  caller: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [sock] }
---
limits: { idle: 8s }
";

fn start(who: Who) -> Lab {
    Lab::start(who, SERVICES, &["websockets"])
}

fn target(lab: &Lab, from: From) -> Value {
    match from {
        From::Outside => {
            json!({ "url": format!("wss://127.0.0.1:{}/sock", lab.clinic.port), "ca": lab.ca() })
        }
        From::Caller | From::Beside => json!({ "url": "ws://sock:9300/sock" }),
    }
}

fn tell(lab: &Lab, from: From, story: &str) -> Value {
    lab.tell(from, "sock_client", story, &target(lab, from))
}

#[test]
fn text_binary_parts_pings_and_close_codes_pass_as_an_unprivileged_user() {
    conversation(&start(Who::Nobody));
}

#[test]
fn text_binary_parts_pings_and_close_codes_pass_as_root() {
    conversation(&start(Who::Root));
}

fn conversation(lab: &Lab) {
    for from in BOTH {
        let said = tell(lab, from, "talk");
        assert_eq!(
            (&said["text"], &said["subprotocol"]),
            (&json!("grüße"), &json!("lab")),
            "{from:?}: {said}"
        );
        assert_eq!((&said["binary"], &said["large"]), (&json!(true), &json!(true)), "{from:?}: {said}");
        assert_eq!(
            (&said["parts"], &said["pong"]),
            (&json!("in three parts"), &json!(true)),
            "{from:?}: {said}"
        );
        let expected = [1000, 1001, 1011, 4321].map(|code| json!([code, "as you wish"]));
        assert_eq!(tell(lab, from, "close_codes"), json!(expected), "{from:?}");
    }
}

#[test]
fn an_idle_conversation_goes_on_within_the_limit_and_ends_beyond_it() {
    let lab = start(Who::Nobody);
    for from in [From::Outside, From::Beside] {
        let mut target = target(&lab, from);
        target["seconds"] = json!(2.5);
        assert_eq!(
            lab.tell(from, "sock_client", "idle", &target),
            json!({ "heard": "still here" }),
            "{from:?}"
        );
        target["seconds"] = json!(11);
        let said = lab.tell(from, "sock_client", "idle", &target);
        assert!(said.get("closed").is_some(), "{from:?}: nothing was said for longer than the limit: {said}");
    }
}

#[test]
fn an_undeclared_conversation_is_refused() {
    let lab = start(Who::Nobody);
    let said = lab.tell(From::Caller, "sock_client", "refused", &json!({ "url": "ws://shut:9301/" }));
    assert_eq!(said, json!({ "status": 403, "type": "application/problem+json" }));
    let outside = json!({ "url": format!("wss://127.0.0.1:{}/nothing", lab.clinic.port), "ca": lab.ca() });
    let said = lab.tell(From::Outside, "sock_client", "refused", &outside);
    assert_eq!(said["status"], 404);
}

#[test]
fn a_conversation_is_cut_within_a_second_of_the_removal_of_its_edge() {
    for (from, before, after) in
        [(From::Beside, "calls: [sock]", "calls: []"), (From::Outside, ", routes: [{ path: /sock }]", "")]
    {
        let lab = start(Who::Nobody);
        let (said, late) = std::thread::scope(|scope| {
            let talking = scope.spawn(|| tell(&lab, from, "until_cut"));
            pause(3.0);
            let (removed, stalls) = (SystemTime::now(), Stalls::begin());
            lab.change(|fence| fence.replace(before, after));
            let said = talking.join().unwrap();
            let late =
                said["at"].as_f64().unwrap() - removed.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            (said, stalls.without(late))
        });
        assert!(said["told"].as_u64().unwrap() > 0, "{from:?}: {said}");
        assert!(late < 1.5, "{from:?}: cut after {late} s: {said}");
        let cut = eventually(SOON, || {
            let removed = |e: &Value| {
                e["firewall_rule"]["uid"] == "edge.removed" && e["dst_endpoint"]["svc_name"] == "sock"
            };
            lab.events(removed).pop()
        });
        assert!(cut.is_some(), "{from:?}: an event says so");
    }
}

#[test]
fn the_portal_s_live_news_reach_a_client_outside() {
    let clinic = Clinic::start(Who::Nobody);
    let live = json!({
        "url": format!("wss://127.0.0.1:{}/live", clinic.port),
        "ca": clinic.folder.join(".ringfence/ca.pem"),
    });
    let said = Lab { clinic }.tell(From::Outside, "sock_client", "live", &live);
    assert!(said[0].as_str().unwrap().contains("welcome"), "{said}");
    assert_eq!(said[1], "heard?");
}
