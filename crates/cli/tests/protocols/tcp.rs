//! Plain TCP from service to service, and from outside by server name.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::lab::{BOTH, From, Lab, SOON, Stalls, Who, eventually, pause};

const SERVICES: &str = "
  bytes: { PY tcp_service.py 9400, listen: 9400, protocol: tcp, routes: [{ host: bytes.lab.example }] }
  hidden: { PY tcp_service.py 9401, listen: 9401, protocol: tcp }
  absent: { listen: 9402, protocol: tcp }
  caller: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [bytes, absent] }
";

fn start(who: Who) -> Lab {
    Lab::start(who, SERVICES, &[])
}

fn tell(lab: &Lab, from: From, story: &str) -> Value {
    let target = match from {
        From::Outside => {
            json!({ "address": "127.0.0.1", "port": lab.clinic.port, "ca": lab.ca(), "name": "bytes.lab.example" })
        }
        From::Caller | From::Beside => json!({ "address": "bytes", "port": 9400 }),
    };
    lab.tell(from, "tcp_client", story, &target)
}

#[test]
fn bytes_pass_both_ways_and_each_half_ends_by_itself() {
    for who in [Who::Root, Who::Nobody] {
        let lab = start(who);
        // The TLS of Python ends both halves at once; from service to service TLS is the sidecars'.
        let said = tell(&lab, From::Caller, "half_close");
        assert_eq!(said, json!(["first", "second\nheard 11"]), "{who:?}");
        for from in BOTH {
            let said = tell(&lab, from, "both_ways");
            assert_eq!(said, json!({ "length": 10 << 20, "same": true }), "{who:?} {from:?}");
        }
    }
}

#[test]
fn a_connection_is_cut_within_a_second_of_the_removal_of_its_edge() {
    for (from, before, after) in [
        (From::Caller, "calls: [bytes, absent]", "calls: [absent]"),
        (From::Outside, ", routes: [{ host: bytes.lab.example }]", ""),
    ] {
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
    }
}

#[test]
fn what_is_not_declared_or_not_there_is_closed_without_a_byte_and_told() {
    let lab = start(Who::Nobody);
    for (name, port, event) in [("hidden", 9401, "denied"), ("absent", 9402, "failed")] {
        let said = lab.tell(From::Caller, "tcp_client", "dial", &json!({ "address": name, "port": port }));
        let nothing = said["heard"] == "" || said.get("refused").is_some();
        assert!(nothing, "{name}: {said}");
        let told = eventually(SOON, || {
            let told = if event == "denied" { ("action_id", 2) } else { ("status_id", 2) };
            lab.events(|e| {
                e["src_endpoint"]["svc_name"] == "caller"
                    && e["dst_endpoint"]["svc_name"] == name
                    && e[told.0] == told.1
            })
            .pop()
        });
        let told = told.expect(name);
        if event == "denied" {
            assert_eq!(told["firewall_rule"]["uid"], "edge.undeclared", "{told}");
            assert!(told["unmapped"]["missing"].as_str().unwrap().contains("hidden"), "{told}");
        }
    }
}
