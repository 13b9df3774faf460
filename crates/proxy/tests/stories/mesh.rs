//! Between fenced services: two sidecars, mutual TLS, and what must not pass.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ringfence_proxy::protocol::ToNode;

use crate::net::{Net, echo};
use crate::patience::{HELP, Stopwatch};
use crate::rig::{Rig, eventually, field, get, raw};

/// portal may call patients (only GET of records), records at will, and the TCP service vault; patients may call nobody.
pub const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, tls: off }
services:
  portal:
    run: [portal]
    listen: 9000
    routes: [{ path: / }]
    calls:
      - service: patients
        allow: [{ methods: [GET], paths: [/patients/*] }]
      - records
      - vault
  patients: { run: [patients], listen: 9001 }
  records: { run: [records], listen: 9002 }
  billing: { run: [billing], listen: 9003 }
  vault: { run: [vault], listen: 9004, protocol: tcp }
";

pub struct Clinic {
    pub rig: Rig,
    pub portal: Arc<Net>,
}

pub fn clinic() -> Clinic {
    let mut rig = Rig::start(FENCE);
    let portal = rig.shim("portal", &[80, 9001, 9002, 9003, 9004]);
    let patients = rig.shim("patients", &[80]);
    let records = rig.shim("records", &[80]);
    echo(portal.service(9000));
    echo(patients.service(9001));
    echo(records.service(9002));
    Clinic { rig, portal }
}

impl Clinic {
    pub fn call(&self, callee: &str, port: u16) -> TcpStream {
        self.portal.connect(&self.rig.address(callee), port)
    }
}

#[test]
fn a_declared_call_passes_two_sidecars_and_says_who_called() {
    let clinic = clinic();
    for port in [80, 9001] {
        let answer = get(clinic.call("patients", port), "patients", "/patients/7");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("X-Port: 9001"), "{answer}");
        assert!(
            answer.contains("x-forwarded-client-cert: URI=spiffe://clinic.example/service/portal\r\n"),
            "{answer}"
        );
    }
    let sent = clinic.rig.event("a call that left", |r| field(r, "/unmapped/point") == "sidecar-out");
    // There were two calls, and each side tells of them in any order.
    let received = clinic.rig.event("the same call where it came, of the same trace", |r| {
        field(r, "/unmapped/point") == "sidecar-in" && field(r, "/trace/uid") == field(&sent, "/trace/uid")
    });
    assert_eq!(field(&received, "/src_endpoint/uid"), "spiffe://clinic.example/service/portal");
    eventually("counted edge", || {
        let stats = clinic.rig.control.stats.lock().unwrap().clone()?;
        stats
            .edges
            .iter()
            .any(|e| e.caller == "portal" && e.callee == "patients" && e.requests == 2)
            .then_some(())
    });
    eventually("counted handshakes with a hybrid group", || {
        let stats = clinic.rig.control.stats.lock().unwrap().clone()?;
        stats.groups.iter().any(|(group, n)| group == "x25519mlkem768" && *n > 0).then_some(())
    });
}

#[test]
fn an_undeclared_call_is_refused_with_the_line_that_is_missing() {
    let clinic = clinic();
    let answer = raw(
        clinic.call("billing", 80),
        b"GET /x HTTP/1.1\r\nHost: billing\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    let instance = answer.split("urn:uuid:").nth(1).unwrap()[..36].to_owned();
    for internal in ["portal", "edge", "ringfence.yaml", "198.18"] {
        assert!(!answer.contains(internal), "{internal} is for the operator only: {answer}");
    }
    let event = clinic.rig.event("the refusal", |r| field(r, "/metadata/uid") == instance);
    assert_eq!(field(&event, "/src_endpoint/svc_name"), "portal");
    assert_eq!(field(&event, "/dst_endpoint/svc_name"), "billing");
    assert_eq!(field(&event, "/firewall_rule/uid"), "edge.undeclared");
    assert_eq!(field(&event, "/trace/uid"), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(field(&event, "/unmapped/missing"), "services.portal.calls: [billing] at ringfence.yaml:5:3");
    assert_eq!(event.json["unmapped"]["revision"], 1);
}

#[test]
fn rules_of_an_edge_bind_method_and_path_and_ports_are_the_declared_ones() {
    let clinic = clinic();
    for (request, port) in [
        ("POST /patients/7 HTTP/1.1", 80),
        ("GET /patients HTTP/1.1", 80),
        ("GET /patients/7/notes HTTP/1.1", 80),
        ("GET /admin/../patients/7/x HTTP/1.1", 80),
        ("GET /patients/7 HTTP/1.1", 9002),
    ] {
        let head = format!("{request}\r\nHost: patients\r\nConnection: close\r\n\r\n");
        let answer = raw(clinic.call("patients", port), head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403"), "{request} at {port}: {answer}");
    }
    let answer = get(clinic.call("patients", 80), "patients", "/x/../patients/%37");
    assert!(answer.contains("GET /patients/7 HTTP/1.1"), "sent as judged: {answer}");
}

#[test]
fn through_the_gateway_the_client_s_address_arrives_and_nothing_that_it_made_up() {
    let clinic = clinic();
    let answer = raw(
        TcpStream::connect(clinic.rig.gateway).unwrap(),
        b"GET / HTTP/1.1\r\nHost: clinic.test\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Client-Cert: URI=spiffe://clinic.example/service/admin\r\n\
Forwarded: for=6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nRingfence-Caller: admin\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nX-Kept: yes\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        !answer.contains("6.6.6.6") && !answer.contains("admin") && !answer.contains("X-Secret"),
        "{answer}"
    );
    for kept in [
        "X-Kept: yes",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: clinic.test",
        "forwarded: for=127.0.0.1;proto=http;host=clinic.test",
        "x-forwarded-client-cert: URI=spiffe://clinic.example/gateway/clinic",
        "traceparent: 00-",
    ] {
        assert!(answer.contains(kept), "{kept}: {answer}");
    }
}

#[test]
fn a_service_that_is_not_ready_or_gone_is_told_fast() {
    let clinic = clinic();
    clinic.rig.tell(&ToNode::ShimNotReady { service: "records".into() });
    eventually("a 503", || {
        get(clinic.call("records", 80), "records", "/").starts_with("HTTP/1.1 503").then_some(())
    });
    clinic.rig.tell(&ToNode::ShimReady { service: "records".into() });
    eventually("a 200", || {
        get(clinic.call("records", 80), "records", "/").starts_with("HTTP/1.1 200").then_some(())
    });
    clinic.rig.tell(&ToNode::ShimGone { service: "records".into() });
    eventually("a 503", || {
        get(clinic.call("records", 80), "records", "/").starts_with("HTTP/1.1 503").then_some(())
    });
}

/// Serves one WebSocket by hand: upgrade, then what comes goes back.
fn websocket(net: &Net, port: u16) {
    let listener = net.service(port);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                assert!(String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: websocket"));
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
                    .unwrap();
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut copy);
            });
        }
    });
}

pub const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: records\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn open_websocket(mut stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(HELP)).unwrap();
    stream.write_all(UPGRADE).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

fn ping(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn websocket_and_tcp_pass_every_hop_and_are_cut_when_their_edge_is_removed() {
    let mut rig = Rig::start(FENCE);
    let portal = rig.shim("portal", &[80, 9004]);
    let records = rig.shim("records", &[80]);
    let vault = rig.shim("vault", &[]);
    websocket(&records, 9002);
    let safe = vault.service(9004);
    std::thread::spawn(move || {
        for mut stream in safe.incoming().flatten() {
            std::thread::spawn(move || {
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut copy);
                // The end of the client's half was passed on; now this half ends too.
                let _ = copy.write_all(b"bye");
            });
        }
    });
    let mut socket = open_websocket(portal.connect(&rig.address("records"), 80));
    let big = vec![b'x'; 300_000];
    ping(&mut socket, b"hello");
    let mut writer = socket.try_clone().unwrap();
    let sent = big.clone();
    let sending = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; big.len()];
    socket.read_exact(&mut back).unwrap();
    sending.join().unwrap();
    assert_eq!(back, big);

    let half_closed = portal.connect(&rig.address("vault"), 9004);
    let mut tcp = half_closed.try_clone().unwrap();
    ping(&mut tcp, b"data");
    half_closed.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    tcp.set_read_timeout(Some(HELP)).unwrap();
    tcp.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");

    let mut tcp = portal.connect(&rig.address("vault"), 9004);
    ping(&mut tcp, b"data");
    let began = Stopwatch::start();
    rig.apply_policy(&FENCE.replace("      - records\n      - vault\n", ""));
    for stream in [&mut socket, &mut tcp] {
        stream.set_read_timeout(Some(HELP)).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    for callee in ["records", "vault"] {
        let event = rig.event("the cut", |r| {
            field(r, "/firewall_rule/uid") == "edge.removed" && field(r, "/dst_endpoint/svc_name") == callee
        });
        assert_eq!(field(&event, "/src_endpoint/svc_name"), "portal");
    }
    // A new one is refused, and said to be.
    assert_eq!(raw(portal.connect(&rig.address("vault"), 9004), b"data"), "");
    rig.event("the refusal", |r| {
        field(r, "/firewall_rule/uid") == "edge.undeclared" && field(r, "/dst_endpoint/svc_name") == "vault"
    });
}

#[test]
fn smuggled_requests_reach_no_service() {
    let clinic = clinic();
    for (name, bytes) in [
        ("both lengths", &b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        ("two lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 30\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two hosts", b"GET /smuggled HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("folded", b"GET /smuggled HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
        ("bare lf", b"GET /smuggled HTTP/1.1\nHost: a\n\n"),
        ("bad chunk", b"POST /smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ("not chunked", b"POST /smuggled HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("space before colon", b"GET /smuggled HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("encoded slash", b"GET /smuggled%2f.. HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let answer = raw(TcpStream::connect(clinic.rig.gateway).unwrap(), bytes);
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: {answer}");
        assert!(!answer.contains("GET /smuggled"), "{name}: {answer}");
    }
    clinic.rig.event("a refusal", |r| field(r, "/firewall_rule/uid") == "framing");
    assert!(
        !clinic.rig.events().iter().any(|r| field(r, "/http_request/url/path") == "/smuggled"
            && field(r, "/unmapped/point") == "sidecar-in"
            && r.json["action_id"] == 1),
        "nothing was passed on"
    );
}

#[test]
fn a_service_that_takes_all_the_connections_it_can_takes_none_of_the_others() {
    let mut rig = Rig::start(&FENCE.replace("services:\n", "limits: { connections: 8 }\nservices:\n"));
    let portal = rig.shim("portal", &[80, 9004]);
    let vault = rig.shim("vault", &[]);
    echo(portal.service(9000));
    let safe = vault.service(9004);
    std::thread::spawn(move || safe.incoming().flatten().collect::<Vec<_>>());
    let held: Vec<_> = (0..40).map(|_| portal.connect(&rig.address("vault"), 9004)).collect();
    rig.event("the connections beyond its own limit", |r| {
        field(r, "/firewall_rule/uid") == "limit.connections"
    });
    for _ in 0..8 {
        let answer = get(TcpStream::connect(rig.gateway).unwrap(), "x", "/");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    drop(held);
}
