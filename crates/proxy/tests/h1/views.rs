//! HTTP/2 heads by the same rules, and the way from one version to the other.

use http::Request;
use ringfence_proxy::h1::{
    DropList, Framing, Kind, Limits, Outbound, Refusal, RequestWriter, Trailers, forward_to_h2,
    respond_to_h2, write_last_chunk_with_map,
};
use ringfence_proxy::view::{H2Head, Head, HeadView, ResponseView, h2_response_framing};

use crate::message::{Read, read_request, read_response};

fn h2(
    build: impl FnOnce(http::request::Builder) -> http::request::Builder,
    end: bool,
) -> Result<H2Head, Refusal> {
    let builder = Request::builder().version(http::Version::HTTP_2).uri("https://a.example/b/../c?d");
    let (parts, ()) = build(builder).body(()).unwrap().into_parts();
    H2Head::new(parts, end, &Limits::default())
}

#[test]
fn an_http_2_head_is_held_to_the_rules_of_http_1() {
    use Refusal::*;
    let refused = |build: fn(http::request::Builder) -> http::request::Builder| h2(build, true).err();
    assert_eq!(refused(|b| b.header("host", "b.example")), Some(HostMismatch));
    assert_eq!(refused(|b| b.header("host", "a.example").header("host", "a.example")), Some(HostRepeated));
    assert_eq!(refused(|b| b.uri("/c")), Some(HostMissing));
    assert_eq!(refused(|b| b.uri("/c").header("host", "a b")), Some(HostInvalid));
    assert_eq!(refused(|b| b.uri("https://u@a.example/")), Some(HostInvalid));
    assert_eq!(refused(|b| b.uri("ftp://a.example/")), Some(Pseudo));
    assert_eq!(refused(|b| b.uri("https://a.example/%2e%2e/")), Some(PathAboveRoot));
    assert_eq!(refused(|b| b.uri("https://a.example/a%2fb")), Some(PathEncodedSlash));
    assert_eq!(refused(|b| b.method("CONNECT")), Some(Connect));
    assert_eq!(refused(|b| b.method("get")), Some(Method));
    assert_eq!(refused(|b| b.header("connection", "close")), Some(Http2Field));
    assert_eq!(refused(|b| b.header("transfer-encoding", "chunked")), Some(Http2Field));
    assert_eq!(refused(|b| b.header("upgrade", "websocket")), Some(Http2Field));
    assert_eq!(refused(|b| b.header("keep-alive", "1")), Some(Http2Field));
    assert_eq!(refused(|b| b.header("te", "gzip")), Some(Http2Field));
    assert_eq!(refused(|b| b.header("expect", "x")), Some(Expectation));
    assert_eq!(refused(|b| b.header("content-length", "1")), Some(LengthInvalid));
    assert_eq!(refused(|b| b.header("content-length", "+0")), Some(LengthInvalid));
    assert_eq!(
        refused(|b| b.header("content-length", "0").header("content-length", "0")),
        Some(FieldRepeated)
    );
    assert_eq!(refused(|b| b.header("authorization", "a").header("authorization", "b")), Some(FieldRepeated));
    let long = format!("https://a.example/{}", "a".repeat(9000));
    assert_eq!(h2(|b| b.uri(long), true).err(), Some(TargetTooLong));
    let many = |b: http::request::Builder| (0..101).fold(b, |b, n| b.header(format!("x-{n}"), "y"));
    assert_eq!(h2(many, true).err(), Some(TooManyFields));
}

#[test]
fn both_versions_read_alike_through_the_view() {
    let bytes = b"POST http://a.example/b/../c?d HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\ntraceparent: 00\r\nX-A: 1\r\n\r\nabc";
    let Ok(Read::Message { head, .. }) = read_request(bytes, &Limits::default()) else { panic!() };
    let second = h2(
        |b| b.method("POST").header("content-length", "3").header("traceparent", "00").header("x-a", "1"),
        false,
    )
    .unwrap();
    for head in [Head::H1(head), Head::H2(second)] {
        let view = head.view();
        assert_eq!((view.method(), view.path(), view.query()), ("POST", "/c", Some("d")));
        assert_eq!(
            (view.authority(), view.host(), view.framing()),
            ("a.example", "a.example", Framing::Length(3))
        );
        assert_eq!((view.field("X-A"), view.known(Kind::Traceparent)), (Some(&b"1"[..]), Some(&b"00"[..])));
        assert_eq!(view.known(Kind::Cookie), None);
        assert!(view.fields().any(|(name, value)| name.eq_ignore_ascii_case(b"x-a") && value == b"1"));
    }
}

#[test]
fn an_http_2_request_goes_to_an_http_1_upstream() {
    let head = h2(
        |b| {
            b.method("POST")
                .header("cookie", "a=1")
                .header("x-forwarded-for", "spoofed")
                .header("cookie", "b=2")
                .header("te", "trailers")
                .header("x-a", "1")
        },
        false,
    )
    .unwrap();
    let mut out = bytes::BytesMut::new();
    let view = HeadView::H2(&head);
    let how = Outbound {
        framing: view.framing(),
        host: None,
        upgrade: false,
        expect: false,
        drop: &DropList::default(),
    };
    RequestWriter::new(&mut out, view, &how).finish();
    assert_eq!(
        std::str::from_utf8(&out).unwrap(),
        "POST /c?d HTTP/1.1\r\nHost: a.example\r\nx-a: 1\r\ncookie: a=1; b=2\r\nTransfer-Encoding: chunked\r\nConnection: TE\r\nTE: trailers\r\n\r\n"
    );
}

#[test]
fn an_http_1_request_goes_to_an_http_2_upstream() {
    let bytes = b"POST /b?c HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: gzip, trailers\r\nX_Real_IP: 1\r\nContent-Length: 1\r\nX-Keep: 1\r\nX-Drop-Me: 1\r\n\r\nx";
    let Ok(Read::Message { head, .. }) = read_request(bytes, &Limits::default()) else { panic!() };
    let drop = DropList::new(["x-drop-*"]);
    let request = forward_to_h2(HeadView::H1(&head), "https", "callee.example", &drop).unwrap();
    assert_eq!(request.uri(), "https://callee.example/b?c");
    let mut names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "te", "x-keep"]);
}

#[test]
fn an_http_1_response_goes_back_over_http_2_and_the_other_way() {
    let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nRingfence-X: 1\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n";
    let Ok(Read::Message { head, trailers: Some(trailers), .. }) = read_response(bytes, Default::default())
    else {
        panic!()
    };
    let response = respond_to_h2(ResponseView::H1(&head), head.framing(), &DropList::default()).unwrap();
    assert_eq!(response.headers().len(), 2);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    let mut map = trailers.to_map();
    map.insert("content-length", "1".parse().unwrap());
    Trailers::filter_map(&mut map);
    assert_eq!(map.len(), 1);
    map.insert("authorization", "x".parse().unwrap());
    let mut out = bytes::BytesMut::new();
    write_last_chunk_with_map(&mut out, &map);
    assert_eq!(&out[..], b"0\r\ngrpc-status: 0\r\n\r\n");

    let framing = |build: http::response::Builder, end, head| {
        let (parts, ()) = build.body(()).unwrap().into_parts();
        h2_response_framing(&parts, end, head)
    };
    let response = http::Response::builder;
    assert_eq!(framing(response().header("content-length", "3"), false, false), Ok(Framing::Length(3)));
    assert_eq!(framing(response(), false, false), Ok(Framing::Chunked));
    assert_eq!(framing(response(), true, false), Ok(Framing::Length(0)));
    assert_eq!(framing(response().header("content-length", "3"), true, true), Ok(Framing::None));
    assert_eq!(framing(response().status(304), true, false), Ok(Framing::None));
    assert_eq!(framing(response().header("content-length", "x"), false, false), Err(Refusal::LengthInvalid));
}
