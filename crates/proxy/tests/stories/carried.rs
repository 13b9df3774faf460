//! Transaction tokens over every protocol that can carry them: HTTP/2, gRPC metadata, WebSocket handshakes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use http::{HeaderMap, Request, Response};
use serde_json::json;

use crate::delegate::{clinic, fence, txn};
use crate::grpc::runtime;
use crate::patience::HELP;
use crate::rig::{Rig, eventually, field, local, unix};
use crate::tokens::{ISSUER, Provider, tell};

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, tls: off }
providers:
  staff: { issuer: ISSUER, audiences: [clinic], claims: { user: sub } }
services:
  ledger:
    run: [ledger]
    listen: 9003
    protocol: grpc
    routes: [{ path: /, accept: [{ token: staff }] }]
    calls: [{ service: books, on_behalf: required }]
  books: { run: [books], listen: 9004, protocol: grpc }
";

/// A gRPC service that says which metadata it got.
fn service(listener: TcpListener) {
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let mut head = Response::builder().header("grpc-status", "0");
                        for (name, value) in request.headers() {
                            head = head.header(format!("x-got-{name}"), value);
                        }
                        respond.send_response(head.body(()).unwrap(), true).unwrap();
                    }
                });
            }
        });
    });
}

/// A unary call over this connection; the head of the answer.
fn call(stream: TcpStream, path: &str, fields: &[(&str, &str)]) -> HeaderMap {
    stream.set_nonblocking(true).unwrap();
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut send: h2::client::SendRequest<bytes::Bytes> = send.ready().await.unwrap();
        let mut request =
            Request::post(format!("http://clinic.test{path}")).header("content-type", "application/grpc");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        response.await.unwrap().headers().clone()
    })
}

#[test]
fn grpc_metadata_carries_a_token_from_service_to_service() {
    let provider = Provider::new("k1");
    let mut rig = Rig::start(&FENCE.replace("ISSUER", ISSUER));
    tell(&rig, provider.keys(unix() + 600));
    let (ledger, books) = (rig.shim("ledger", &[80]), rig.shim("books", &[80]));
    service(ledger.service(9003));
    service(books.service(9004));
    let authorization = format!("Bearer {}", provider.token(&json!({})));
    let got =
        call(TcpStream::connect(rig.gateway).unwrap(), "/Ledger/Read", &[("authorization", &authorization)]);
    assert_eq!(got.get("x-got-ringfence-user").unwrap(), "ada", "{got:?} {:?}", rig.troubles());
    assert!(
        got.get("x-got-authorization").is_none() && got.get("x-got-ringfence-chain").is_none(),
        "{got:?}"
    );
    let token = got["x-got-txn-token"].to_str().unwrap();
    let trace = got["x-got-traceparent"].to_str().unwrap();

    let from = || ledger.connect(&rig.address("books"), 80);
    let passed = call(from(), "/Books/Read", &[("txn-token", token), ("traceparent", trace)]);
    assert_eq!(passed.get("x-got-ringfence-user").unwrap(), "ada", "{passed:?} {:?}", rig.troubles());
    assert_eq!(passed["x-got-txn-token"], token);
    let event = rig.event("the call", |r| {
        field(r, "/http_request/url/path") == "/Books/Read" && field(r, "/unmapped/point") == "sidecar-in"
    });
    assert_eq!(event.json["unmapped"]["chain"], json!(["ledger"]));
    let refused = call(from(), "/Books/None", &[]);
    assert_eq!(refused.get("grpc-status").unwrap(), "7", "permission denied: {refused:?}");
    let twice = call(from(), "/Books/Twice", &[("txn-token", token), ("txn-token", token)]);
    assert_eq!(twice.get("grpc-status").unwrap(), "13", "{twice:?}");
}

/// Serves WebSockets that begin by saying which head they got, and then send back what comes.
fn websocket(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let head = read_head(&mut stream);
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
                stream.write_all(switch.as_bytes()).unwrap();
                stream.write_all(head.as_bytes()).unwrap();
                let mut copy = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut copy);
            });
        }
    });
}

fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn open(mut stream: TcpStream, fields: &str) -> (TcpStream, String) {
    stream.set_read_timeout(Some(HELP)).unwrap();
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let switched = read_head(&mut stream);
    assert!(switched.starts_with("HTTP/1.1 101"), "{switched}");
    let got = read_head(&mut stream);
    (stream, got)
}

fn ping(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut back).is_ok() && back == *b"hello"
}

#[test]
fn a_websocket_is_opened_on_somebody_s_behalf_and_cut_when_it_would_have_to_be() {
    let mut clinic = clinic();
    let sockets = clinic.rig.shim("archive-room", &[]);
    let (_, external) = local();
    let fence = fence(external).replace(
        "  patients: { run",
        "  archive-room: { run: [archive-room], listen: 9005 }\n  patients: { run",
    );
    let fence = fence.replace("      - archive\n", "      - archive\n      - archive-room\n");
    clinic.rig.apply(&fence);
    websocket(sockets.service(9005));
    let token = clinic.given("");
    let connect = || clinic.portal.connect(&clinic.rig.address("archive-room"), 80);
    let (mut behalf, got) = open(connect(), &txn(&token));
    assert!(got.contains("ringfence-user: ada\r\n") && got.contains(&token), "{got}");
    let (mut own, got) = open(connect(), "");
    assert!(!got.contains("ringfence-user"), "{got}");
    // The same fence once more, as a lease is renewed.
    clinic.rig.apply(&fence);
    assert!(ping(&mut behalf) && ping(&mut own));
    // Now the edge demands it.
    clinic.rig.apply(
        &fence.replace("      - archive-room\n", "      - { service: archive-room, on_behalf: required }\n"),
    );
    eventually("the cut", || (!ping(&mut own)).then_some(()));
    let event = clinic.rig.event("the cut", |r| {
        field(r, "/firewall_rule/uid") == "delegate.required"
            && field(r, "/dst_endpoint/svc_name") == "archive-room"
    });
    assert!(field(&event, "/unmapped/position").starts_with("ringfence.yaml:"), "{}", event.line());
    assert!(ping(&mut behalf), "what is on somebody's behalf goes on");
}
