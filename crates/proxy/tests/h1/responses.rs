//! Responses of upstreams, case by case.

use ringfence_proxy::h1::{Asked, Framing, Limits, Refusal, Version, reply_framing};

use crate::message::{Read, read_response, read_response_in_pieces};

const GET: Asked = Asked { head: false, upgrade: false };
const HEAD: Asked = Asked { head: true, upgrade: false };
const UPGRADE: Asked = Asked { head: false, upgrade: true };

#[test]
fn a_response_that_could_be_read_in_two_ways_is_refused() {
    use Refusal::*;
    let cases: &[(&str, Asked, &[u8], Refusal)] = &[
        ("empty line first", GET, b"\r\nHTTP/1.1 200 OK\r\n\r\n", StartLine),
        ("LF first", GET, b"\nHTTP/1.1 200 OK\r\n\r\n", StartLine),
        ("no status line", GET, b"<html>", StartLine),
        ("status line ends in LF", GET, b"HTTP/1.1 200 OK\nA: b\r\n\r\n", BareLineEnd),
        ("no reason, LF", GET, b"HTTP/1.1 200\nA: b\r\n\r\n", BareLineEnd),
        ("HTTP/2.0", GET, b"HTTP/2.0 200 OK\r\n\r\n", Version),
        ("two digits", GET, b"HTTP/1.1 20 OK\r\n\r\n", ResponseStatus),
        ("four digits", GET, b"HTTP/1.1 2000 OK\r\n\r\n", ResponseStatus),
        ("status 099", GET, b"HTTP/1.1 099 No\r\n\r\n", ResponseStatus),
        ("status 600", GET, b"HTTP/1.1 600 No\r\n\r\n", ResponseStatus),
        ("field ends in LF", GET, b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", BareLineEnd),
        ("empty line is LF", GET, b"HTTP/1.1 200 OK\r\nA: b\r\n\n", BareLineEnd),
        ("folded field", GET, b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", FieldName),
        ("space before the colon", GET, b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", FieldName),
        ("bare CR", GET, b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", FieldValue),
        ("NUL", GET, b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", FieldValue),
        (
            "CL and TE",
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            LengthAndEncoding,
        ),
        (
            "two CLs",
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            LengthRepeated,
        ),
        ("CL list", GET, b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na", LengthInvalid),
        ("CL with a plus", GET, b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na", LengthInvalid),
        (
            "TE gzip, chunked",
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            EncodingUnknown,
        ),
        ("TE identity", GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", EncodingInvalid),
        ("TE in 1.0", GET, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", EncodingIn10),
        ("204 with a body", GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\na", ResponseBody),
        (
            "204 with chunks",
            GET,
            b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ResponseBody,
        ),
        ("100 with a body", GET, b"HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\na", ResponseBody),
        (
            "101 unasked",
            GET,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            ResponseStatus,
        ),
        (
            "101 to another protocol",
            UPGRADE,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            ResponseStatus,
        ),
        (
            "101 without Connection",
            UPGRADE,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            ResponseStatus,
        ),
        (
            "bad chunk",
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            ChunkEnd,
        ),
    ];
    for (name, asked, bytes, reason) in cases {
        match read_response(bytes, *asked) {
            Err(refusal) => assert_eq!(refusal, *reason, "{name}"),
            other => panic!("{name}: passed as {other:?}"),
        }
    }
}

#[test]
fn the_body_follows_from_method_status_and_fields() {
    let cases: &[(&str, Asked, &[u8], Framing, bool)] = &[
        ("length", GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Framing::Length(2), true),
        ("no reason", GET, b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Framing::Length(2), true),
        (
            "chunks",
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Framing::Chunked,
            true,
        ),
        ("until it closes", GET, b"HTTP/1.1 200 OK\r\n\r\nok", Framing::UntilClose, false),
        ("1.0 until it closes", GET, b"HTTP/1.0 200 OK\r\n\r\nok", Framing::UntilClose, false),
        (
            "1.0 with a length",
            GET,
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Framing::Length(2),
            false,
        ),
        (
            "1.0 kept alive",
            GET,
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
            Framing::Length(2),
            true,
        ),
        (
            "close",
            GET,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            Framing::Length(2),
            false,
        ),
        ("204", GET, b"HTTP/1.1 204 No Content\r\n\r\n", Framing::None, true),
        (
            "204 with length zero",
            GET,
            b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            "304 with a length",
            GET,
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            Framing::None,
            true,
        ),
        ("HEAD with a length", HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Framing::None, true),
        (
            "HEAD with chunks",
            HEAD,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::None,
            true,
        ),
        ("HEAD with neither", HEAD, b"HTTP/1.1 200 OK\r\n\r\n", Framing::None, true),
        ("100", GET, b"HTTP/1.1 100 Continue\r\n\r\n", Framing::None, true),
        ("103", GET, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Framing::None, true),
        (
            "101",
            UPGRADE,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            Framing::None,
            false,
        ),
    ];
    for (name, asked, bytes, framing, keep_alive) in cases {
        let read = read_response(bytes, *asked).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        let Read::Message { head, rest, .. } = read else { panic!("{name}: {read:?}") };
        assert_eq!((head.framing(), head.keep_alive()), (*framing, *keep_alive), "{name}");
        assert!(rest.is_empty(), "{name}");
    }
}

#[test]
fn bytes_after_a_response_are_left_for_the_pool_to_see() {
    let bytes = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n";
    let Ok(Read::Message { rest, .. }) = read_response(bytes, GET) else { panic!() };
    assert_eq!(&rest[..], b"HTTP/1.1 200 OK\r\n");
}

#[test]
fn interim_responses_are_told_from_final_ones() {
    for (status, interim) in [(100, true), (103, true), (199, true), (200, false), (500, false)] {
        let bytes = format!("HTTP/1.1 {status} x\r\n\r\n");
        let Ok(Read::Message { head, .. }) = read_response(bytes.as_bytes(), GET) else { panic!("{status}") };
        assert_eq!((head.status(), head.is_interim()), (status, interim));
    }
}

#[test]
fn a_response_head_is_bounded() {
    let limits = Limits { head: 200, fields: 3, ..Limits::default() };
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(200));
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(200));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(4));
    for (bytes, reason) in
        [(large, Refusal::HeadTooLarge), (endless, Refusal::HeadTooLarge), (many, Refusal::TooManyFields)]
    {
        assert_eq!(read_response_in_pieces([bytes.as_bytes()], GET, &limits).err(), Some(reason));
    }
}

#[test]
fn each_client_gets_a_framing_that_it_understands() {
    assert_eq!(reply_framing(Version::Http10, Framing::Chunked), Framing::UntilClose);
    assert_eq!(reply_framing(Version::Http11, Framing::UntilClose), Framing::Chunked);
    assert_eq!(reply_framing(Version::Http11, Framing::Length(1)), Framing::Length(1));
    assert_eq!(reply_framing(Version::Http2, Framing::UntilClose), Framing::UntilClose);
}
