//! Request heads that pass, case by case, and what is read from them.

use ringfence_proxy::h1::{Framing, Kind, Limits, Refusal, Version};

use crate::message::{Read, read_request};

/// A name, the bytes, then method, path, query, body and what is left for the next request.
pub(crate) type Passes = (
    &'static str,
    &'static [u8],
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static [u8],
    &'static [u8],
);

/// Requests that pass; the differential tests send each of them on.
pub(crate) const PASSING: &[Passes] = &[
    ("plain", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", None, b"", b""),
    ("after one empty line", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", None, b"", b""),
    ("query", b"GET /a?b=c?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/a", Some("b=c?d"), b"", b""),
    ("empty query", b"GET /a? HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/a", Some(""), b"", b""),
    (
        "query as browsers send it",
        b"GET /?a[]={|}^`%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET",
        "/",
        Some("a[]={|}^`%zz"),
        b"",
        b"",
    ),
    ("1.0", b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET", "/", None, b"", b""),
    ("absolute form", b"GET http://a/b?c HTTP/1.1\r\nHost: A\r\n\r\n", "GET", "/b", Some("c"), b"", b""),
    (
        "absolute form by https",
        b"GET HTTPS://a:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET",
        "/",
        None,
        b"",
        b"",
    ),
    ("absolute form, no path", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET", "/", None, b"", b""),
    (
        "OPTIONS, absolute form, no path",
        b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS",
        "*",
        None,
        b"",
        b"",
    ),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS", "*", None, b"", b""),
    (
        "normalized",
        b"GET /%61/./b/../c//d?%61 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET",
        "/a/c/d",
        Some("%61"),
        b"",
        b"",
    ),
    (
        "length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET",
        "POST",
        "/",
        None,
        b"abc",
        b"GET",
    ),
    (
        "length without a space",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:3\r\n\r\nabc",
        "POST",
        "/",
        None,
        b"abc",
        b"",
    ),
    (
        "length of zero",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET",
        "POST",
        "/",
        None,
        b"",
        b"GET",
    ),
    ("no length, no body", b"POST / HTTP/1.1\r\nHost: a\r\n\r\nGET", "POST", "/", None, b"", b"GET"),
    ("body of GET", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", "GET", "/", None, b"x", b""),
    (
        "chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET",
        "POST",
        "/",
        None,
        b"abc",
        b"GET",
    ),
    (
        "Chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:Chunked\r\n\r\n0\r\n\r\n",
        "POST",
        "/",
        None,
        b"",
        b"",
    ),
    ("another method", b"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH", "/", None, b"", b""),
    (
        "a method that begins as the preface does",
        b"PRIOR / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRIOR",
        "/",
        None,
        b"",
        b"",
    ),
    ("white space around a value", b"GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", "GET", "/", None, b"", b""),
    (
        "value beyond ASCII",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\xff\r\n\r\n",
        "GET",
        "/",
        None,
        b"",
        b"",
    ),
    (
        "aliases are not the fields",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\nTransfer_Encoding: x\r\n\r\n",
        "POST",
        "/",
        None,
        b"",
        b"",
    ),
];

#[test]
fn what_is_plain_passes() {
    for (name, bytes, method, path, query, body, rest) in PASSING {
        let read =
            read_request(bytes, &Limits::default()).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let Read::Message { head, body: found, rest: left, .. } = read else { panic!("{name}: {read:?}") };
        assert_eq!((head.method(), head.path(), head.query()), (*method, *path, *query), "{name}");
        assert_eq!((&found[..], &left[..]), (*body, *rest), "{name}");
    }
}

#[test]
fn an_unfinished_head_waits() {
    for bytes in [
        &b""[..],
        b"\r",
        b"\r\n",
        b"G",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        b"PRI * HTTP/2.0\r\n",
    ] {
        assert!(matches!(read_request(bytes, &Limits::default()), Ok(Read::Waits)), "{bytes:?}");
    }
}

#[test]
fn http_2_is_handed_on_only_as_the_first_bytes_of_a_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert!(matches!(read_request(PREFACE, &Limits::default()), Ok(Read::Http2)));
    let after_empty_line = [b"\r\n", PREFACE].concat();
    assert_eq!(read_request(&after_empty_line, &Limits::default()).err(), Some(Refusal::Version));
    let mut second = bytes::BytesMut::from(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]);
    second.extend_from_slice(PREFACE);
    let mut scratch = ringfence_proxy::h1::Scratch::default();
    let limits = Limits::default();
    assert!(ringfence_proxy::h1::parse_request(&mut second, &limits, &mut scratch).is_ok());
    assert_eq!(
        ringfence_proxy::h1::parse_request(&mut second, &limits, &mut scratch).err(),
        Some(Refusal::Version)
    );
}

#[test]
fn a_head_tells_what_the_connection_does_next() {
    let cases: &[(&[u8], bool, bool, bool)] = &[
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true, false, false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", false, false, false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: x, close\r\n\r\n", false, false, false),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", false, false, false),
        (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", true, false, false),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", true, true, false),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", true, false, false),
        (b"POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", false, false, false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n", true, false, true),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n", true, false, false),
        (b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n", true, false, false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n", true, false, false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n", true, false, false),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\nContent-Length: 1\r\n\r\nx", true, false, false),
    ];
    for (bytes, keep_alive, expects, websocket) in cases {
        let name = String::from_utf8_lossy(bytes);
        let Ok(Read::Message { head, .. }) = read_request(bytes, &Limits::default()) else {
            panic!("{name}")
        };
        assert_eq!(
            (head.keep_alive(), head.expects_continue(), head.websocket_upgrade()),
            (*keep_alive, *expects, *websocket),
            "{name}"
        );
    }
}

#[test]
fn fields_are_found_by_kind_and_by_name() {
    let bytes = b"POST /a HTTP/1.1\r\nhost:a.example:80\r\nX-Empty:\r\ntraceparent: 00-1\r\nX-Empty: second\r\nContent-Length: 2\r\n\r\nok";
    let Ok(Read::Message { head, .. }) = read_request(bytes, &Limits::default()) else { panic!() };
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(head.framing(), Framing::Length(2));
    assert_eq!(head.authority(), "a.example:80");
    assert_eq!(head.known(Kind::Traceparent), Some(&b"00-1"[..]));
    assert_eq!(head.known(Kind::Cookie), None);
    assert_eq!(head.fields().first("x-empty"), Some(&b""[..]));
    assert_eq!(head.fields().len(), 5);
    let names: Vec<_> =
        head.fields().iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names, ["host", "X-Empty", "traceparent", "X-Empty", "Content-Length"]);
    assert_eq!(head.wire_len() + 2, bytes.len());
}
