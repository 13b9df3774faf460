//! The registry as a service finds it in its own network: the Consul API.

use ringfence_snapshot::OWN_IP;
use serde_json::{Value, json};

use crate::net::echo;
use crate::rig::{Rig, eventually, field, raw};

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
services:
  portal: { run: [portal], listen: 9000, calls: [patients] }
  patients: { run: [patients], listen: 9001, port: 8081 }
  vault: { run: [vault], listen: 9002 }
";

fn rig() -> Rig {
    let mut rig = Rig::start(FENCE);
    for (service, port) in [("portal", 9000), ("patients", 9001)] {
        let net = rig.shim(service, &[80, 8500]);
        echo(net.service(port));
    }
    rig
}

fn send(rig: &Rig, service: &str, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: consul\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let answer = raw(rig.nets[service].connect(&OWN_IP.to_string(), 8500), request.as_bytes());
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} {:?}", rig.troubles()));
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

fn get(rig: &Rig, service: &str, path: &str) -> (u64, Value) {
    let (status, head, body) = send(rig, service, "GET", path, "");
    assert_eq!(status, 200, "{path}: {body}");
    let index = head.lines().find_map(|line| line.strip_prefix("x-consul-index: "));
    (index.map_or(0, |index| index.parse().unwrap()), serde_json::from_str(&body).unwrap())
}

#[test]
fn a_service_is_told_of_whom_it_may_call_and_of_nobody_else() {
    let rig = rig();
    let (_, services) = get(&rig, "portal", "/v1/catalog/services");
    assert_eq!(services, json!({ "patients": [], "portal": [] }));
    let (_, found) = get(&rig, "portal", "/v1/health/service/patients?passing=true");
    assert_eq!(found[0]["Service"]["Address"], rig.address("patients"));
    assert_eq!(found[0]["Service"]["Port"], 8081);
    let (hidden, absent) = (
        send(&rig, "portal", "GET", "/v1/health/service/vault", ""),
        send(&rig, "portal", "GET", "/v1/health/service/quilt", ""),
    );
    assert_eq!(hidden, absent);
    assert_eq!(get(&rig, "patients", "/v1/catalog/services").1, json!({ "patients": [] }));
    // What it has at port 80 it does not have here, and the other way round.
    assert_eq!(send(&rig, "portal", "GET", "/.well-known/authzen-configuration", "").0, 404);
    assert_eq!(send(&rig, "portal", "DELETE", "/v1/catalog/services", "").0, 405);
    assert_eq!(send(&rig, "portal", "GET", "/v1/kv/secret", "").0, 404);
}

#[test]
fn a_request_that_waits_is_answered_by_news_of_its_own_view() {
    let rig = rig();
    let (index, _) = get(&rig, "portal", "/v1/health/service/patients");
    let path = format!("/v1/health/service/patients?index={index}&wait=60s");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(&rig, "portal", &path));
        let body = json!({ "Name": "patients", "Tags": ["v2"], "Port": 9001, "Check": { "TTL": "60s", "Status": "passing" } });
        let (status, _, why) = send(&rig, "patients", "PUT", "/v1/agent/service/register", &body.to_string());
        assert_eq!((status, &*why), (200, ""));
        let (after, found) = waiting.join().unwrap();
        assert!(after > index);
        assert_eq!(found[0]["Service"]["Tags"], json!(["v2"]));
    });
    // Nothing happens: the time that was asked for passes, and the index is the same.
    let (index, _) = get(&rig, "portal", "/v1/catalog/services");
    assert_eq!(get(&rig, "portal", &format!("/v1/catalog/services?index={index}&wait=100ms")).0, index);
    // An edge that is removed is news too, and takes the name with it.
    rig.apply_policy(&FENCE.replace(", calls: [patients]", ""));
    eventually("the name to be gone", || {
        (get(&rig, "portal", "/v1/catalog/services").1 == json!({ "portal": [] })).then_some(())
    });
}

#[test]
fn nobody_registers_as_somebody_else_or_where_it_is_not() {
    let rig = rig();
    let register = |service: &str, body: Value| {
        send(&rig, service, "PUT", "/v1/agent/service/register", &body.to_string()).0
    };
    for claim in [
        json!({ "Name": "patients" }),
        json!({ "Name": "vault", "Address": "127.0.0.1" }),
        json!({ "Name": "portal", "Address": rig.address("patients") }),
        json!({ "Name": "portal", "Port": 9001 }),
        json!({ "Name": "portal", "ID": "patients", "Address": "10.0.0.9" }),
    ] {
        assert_eq!(register("portal", claim.clone()), 403, "{claim}");
    }
    let told = rig.event("the attempt", |r| field(r, "/firewall_rule/uid") == "registry.hijack");
    assert!(told.json.to_string().contains("patients"), "{}", told.json);
    assert_eq!(get(&rig, "portal", "/v1/catalog/service/patients").1[0]["ServiceID"], "patients");
    assert_eq!(register("portal", json!({ "Name": "portal", "ID": "p-1" })), 200);
    assert_eq!(send(&rig, "patients", "PUT", "/v1/agent/service/deregister/p-1", "").0, 404);
    assert_eq!(send(&rig, "portal", "PUT", "/v1/agent/service/deregister/p-1", "").0, 200);
    // A listener that is not there proves nothing.
    rig.tell(&ringfence_proxy::protocol::ToNode::ShimGone { service: "portal".into() });
    eventually("the shim to be gone", || {
        (register("portal", json!({ "Name": "portal" })) == 403).then_some(())
    });
    rig.event("the attempt without proof", |r| field(r, "/firewall_rule/uid") == "registry.unproved");
}
