//! From outside to an external plain service.

use std::net::TcpStream;

use crate::net::echo;
use crate::rig::{Rig, field, get, local, raw};

pub fn fence(port: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ path: / }}]
"
    )
}

#[test]
fn a_request_reaches_its_service_and_an_event_says_so() {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port));
    let answer = get(TcpStream::connect(rig.gateway).unwrap(), "portal.example", "/hello?q=1");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("GET /hello?q=1 HTTP/1.1\r\nHost: portal.example\r\n"), "{answer}");
    assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/hello");
    assert_eq!(field(&event, "/src_endpoint/svc_name"), "outside");
    assert_eq!(field(&event, "/dst_endpoint/svc_name"), "portal");
}

#[test]
fn several_requests_share_a_connection_on_both_sides() {
    let (listener, port) = local();
    echo(listener);
    let rig = Rig::start(&fence(port));
    let stream = TcpStream::connect(rig.gateway).unwrap();
    let answer = raw(
        stream,
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nfirstPOST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert!(answer.contains("\r\n\r\nfirst") && answer.contains("\r\n\r\nsecond"), "{answer}");
}
