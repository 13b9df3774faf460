//! What goes out is what was judged, and only the proxy speaks for the caller.

use bytes::BytesMut;
use ringfence_proxy::h1::{
    Asked, ClientConnection, DropList, Framing, Limits, Outbound, Reply, RequestWriter, ResponseWriter,
    Version,
};
use ringfence_proxy::view::{HeadView, ResponseView};

use crate::message::{Read, read_request, read_response};

fn forwarded(bytes: &[u8], drop: &DropList, upgrade: bool) -> String {
    let Ok(Read::Message { head, .. }) = read_request(bytes, &Limits::default()) else {
        panic!("{}", String::from_utf8_lossy(bytes))
    };
    let how = Outbound { framing: head.framing(), host: None, upgrade, expect: false, drop };
    let mut out = BytesMut::new();
    let mut writer = RequestWriter::new(&mut out, HeadView::H1(&head), &how);
    writer.field("X-Forwarded-For", b"192.0.2.1");
    writer.finish();
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn hop_by_hop_and_spoofable_fields_end_here() {
    let bytes = b"GET http://a/%61?b HTTP/1.0\r\nX-First: 1\r\nHost: a\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n\
        Proxy-Connection: x\r\nProxy-Authorization: x\r\nTE: gzip\r\nTrailer: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\
        X-Forwarded-For: spoofed\r\nX-Forwarded-Client-Cert: spoofed\r\nForwarded: spoofed\r\nX-Real-IP: spoofed\r\n\
        Ringfence-Caller: spoofed\r\nX_Forwarded_For: spoofed\r\nx-forwarded_proto: spoofed\r\nX-Original-URL: /admin\r\n\
        X-Rewrite-Url: /admin\r\nContent_Length: 9\r\nExpect: x\r\nX-Second:2\r\nX-Third: 3  \r\nx_own: 4\r\nX-Last: 5\r\n\r\n";
    assert_eq!(
        forwarded(bytes, &DropList::default(), false),
        "GET /a?b HTTP/1.1\r\nHost: a\r\nX-First: 1\r\nX-Second: 2\r\nX-Third: 3\r\nx_own: 4\r\nX-Last: 5\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    );
}

#[test]
fn a_route_can_drop_more() {
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-HTTP-Method-Override: DELETE\r\nx_http_method_override: DELETE\r\nX-Internal-A: 1\r\nX-Intern: 1\r\n\r\n";
    let drop = DropList::new(["X-HTTP-Method-Override", "x-internal-*"]);
    assert_eq!(
        forwarded(bytes, &drop, false),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Intern: 1\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    );
}

#[test]
fn an_upgrade_is_passed_on_exactly_when_it_is_meant() {
    let bytes = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let fields = "Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n";
    assert_eq!(
        forwarded(bytes, &DropList::default(), true),
        format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\n{fields}Connection: Upgrade\r\nUpgrade: websocket\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        )
    );
    assert_eq!(
        forwarded(bytes, &DropList::default(), false),
        format!("GET /ws HTTP/1.1\r\nHost: a\r\n{fields}X-Forwarded-For: 192.0.2.1\r\n\r\n")
    );
}

#[test]
fn the_callers_own_value_cannot_end_its_line() {
    let Ok(Read::Message { head, .. }) =
        read_request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &Limits::default())
    else {
        panic!()
    };
    let drop = DropList::default();
    let how =
        Outbound { framing: Framing::None, host: Some("b:8080"), upgrade: false, expect: true, drop: &drop };
    let mut out = BytesMut::new();
    let mut writer = RequestWriter::new(&mut out, HeadView::H1(&head), &how);
    writer.field("X-A", b"1\r\nX-B: 2\0");
    writer.finish();
    assert_eq!(
        &out[..],
        b"GET / HTTP/1.1\r\nHost: b:8080\r\nExpect: 100-continue\r\nX-A: 1__X-B: 2_\r\n\r\n"
    );
}

fn replied(bytes: &[u8], asked: Asked, how: &Reply<'_>) -> String {
    let Ok(Read::Message { head, .. }) = read_response(bytes, asked) else {
        panic!("{}", String::from_utf8_lossy(bytes))
    };
    let mut out = BytesMut::new();
    ResponseWriter::new(&mut out, ResponseView::H1(&head), how).finish();
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn a_response_is_written_for_its_client() {
    let drop = DropList::new(["server"]);
    let reply = |framing, connection| Reply { framing, connection, drop: &drop };
    let get = Asked::default();
    let bytes = b"HTTP/1.1 200 Whatever\r\nServer: x\r\nTransfer-Encoding: chunked\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nDate: d\r\nSet-Cookie: a\r\nX-Forwarded-For: b\r\nRingfence-Trace: c\r\n\r\n0\r\n\r\n";
    let kept = "Date: d\r\nSet-Cookie: a\r\nX-Forwarded-For: b\r\n";
    assert_eq!(
        replied(bytes, get, &reply(Framing::Chunked, ClientConnection::KeepAlive)),
        format!("HTTP/1.1 200 OK\r\n{kept}Transfer-Encoding: chunked\r\n\r\n")
    );
    assert_eq!(
        replied(bytes, get, &reply(Framing::UntilClose, ClientConnection::of(Version::Http10, true))),
        format!("HTTP/1.1 200 OK\r\n{kept}Connection: close\r\n\r\n")
    );
    let fixed = b"HTTP/1.1 299 x\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(
        replied(fixed, get, &reply(Framing::Length(2), ClientConnection::of(Version::Http10, true))),
        "HTTP/1.1 299 \r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n"
    );
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551\r\n\r\n";
    assert_eq!(
        replied(
            head,
            Asked { head: true, upgrade: false },
            &reply(Framing::None, ClientConnection::of(Version::Http11, false))
        ),
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551\r\nConnection: close\r\n\r\n"
    );
    let none = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        replied(none, get, &reply(Framing::None, ClientConnection::KeepAlive)),
        "HTTP/1.1 204 No Content\r\n\r\n"
    );
    let switched =
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n";
    assert_eq!(
        replied(
            switched,
            Asked { head: false, upgrade: true },
            &reply(Framing::None, ClientConnection::Upgrade)
        ),
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
}

#[test]
fn the_proxys_own_answer_is_a_response_too() {
    let mut out = BytesMut::new();
    let mut writer = ResponseWriter::own(&mut out, 431, Framing::Length(2), ClientConnection::Close);
    writer.field("Content-Type", b"application/problem+json");
    writer.finish();
    out.extend_from_slice(b"{}");
    let Ok(Read::Message { head, body, .. }) = read_response(&out, Asked::default()) else { panic!() };
    assert_eq!((head.status(), &body[..], head.keep_alive()), (431, &b"{}"[..], false));
}
