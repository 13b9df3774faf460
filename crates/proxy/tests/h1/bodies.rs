//! Bodies, case by case.

use bytes::BytesMut;
use ringfence_proxy::h1::{Decoded, Decoder, Framing, Limits, Refusal, write_chunk_start};

use crate::message::{Read, read_request};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunked(body: &[u8]) -> Vec<u8> {
    [HEAD, body].concat()
}

#[test]
fn chunked_framing_that_two_parsers_could_read_in_two_ways_is_refused() {
    use Refusal::*;
    let cases: &[(&str, &[u8], Refusal)] = &[
        ("no size", b"\r\n", ChunkSize),
        ("no digit", b"x\r\n", ChunkSize),
        ("a space before the size", b" 1\r\na\r\n0\r\n\r\n", ChunkSize),
        ("a space after the size", b"1 \r\na\r\n0\r\n\r\n", ChunkSize),
        ("a tab after the size", b"1\t\r\na\r\n0\r\n\r\n", ChunkSize),
        ("a space before the extension", b"1 ;a\r\na\r\n0\r\n\r\n", ChunkSize),
        ("0x", b"0x1\r\na\r\n0\r\n\r\n", ChunkSize),
        ("plus", b"+1\r\na\r\n0\r\n\r\n", ChunkSize),
        ("minus", b"-1\r\na\r\n0\r\n\r\n", ChunkSize),
        ("underscore", b"1_0\r\na\r\n0\r\n\r\n", ChunkSize),
        ("comma", b"1,0\r\na\r\n0\r\n\r\n", ChunkSize),
        ("seventeen digits", b"00000000000000001\r\na\r\n0\r\n\r\n", ChunkSize),
        ("2^63", b"8000000000000000\r\n", ChunkSize),
        ("2^64 - 1", b"ffffffffffffffff\r\n", ChunkSize),
        ("2^64 + 1", b"10000000000000001\r\na\r\n0\r\n\r\n", ChunkSize),
        ("NUL after the size", b"1\0\r\na\r\n0\r\n\r\n", ChunkSize),
        ("size ends in LF", b"1\na\r\n0\r\n\r\n", BareLineEnd),
        ("size ends in CR", b"1\ra\r\n0\r\n\r\n", BareLineEnd),
        ("size ends in CR CR LF", b"1\r\r\na\r\n0\r\n\r\n", BareLineEnd),
        ("extension ends in LF", b"1;a\na\r\n0\r\n\r\n", BareLineEnd),
        ("extension ends in CR", b"1;a\ra\r\n0\r\n\r\n", BareLineEnd),
        ("extension with a NUL", b"1;\0\r\na\r\n0\r\n\r\n", ChunkExtension),
        ("extension beyond ASCII", b"1;\xff\r\na\r\n0\r\n\r\n", ChunkExtension),
        ("data longer than its size", b"1\r\nab\r\n0\r\n\r\n", ChunkEnd),
        ("data ends in LF", b"1\r\na\n0\r\n\r\n", ChunkEnd),
        ("data ends in CR and more", b"1\r\na\rx0\r\n\r\n", ChunkEnd),
        ("data without an end", b"1\r\na0\r\n\r\n", ChunkEnd),
        ("last chunk ends in LF", b"0\n\r\n", BareLineEnd),
        ("body ends in LF", b"0\r\n\n", BareLineEnd),
        ("body ends in CR and more", b"0\r\n\rx", BareLineEnd),
        ("trailer ends in LF", b"0\r\nA: b\n\r\n", BareLineEnd),
        ("trailer section ends in LF", b"0\r\nA: b\r\n\n", BareLineEnd),
        ("trailer with a space before the colon", b"0\r\nA : b\r\n\r\n", FieldName),
        ("folded trailer", b"0\r\nA: b\r\n c\r\n\r\n", FieldName),
        ("trailer without a colon", b"0\r\nA\r\n\r\n", FieldName),
        ("the next request as a trailer", b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", FieldName),
        ("trailer with a NUL", b"0\r\nA: \0\r\n\r\n", FieldValue),
    ];
    for (name, body, reason) in cases {
        assert_eq!(read_request(&chunked(body), &Limits::default()).err(), Some(*reason), "{name}");
    }
}

#[test]
fn plain_chunks_pass() {
    let cases: &[(&str, &[u8], &[u8])] = &[
        ("none", b"0\r\n\r\n", b""),
        ("several zeros", b"000\r\n\r\n", b""),
        ("one", b"1\r\na\r\n0\r\n\r\n", b"a"),
        ("leading zeros within sixteen digits", b"0000000000000001\r\na\r\n0\r\n\r\n", b"a"),
        (
            "hexadecimal in both cases",
            b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            b"01234567890123456789",
        ),
        ("extensions end here", b"1;a=b;c=\"d e\"\r\na\r\n0;z\r\n\r\n", b"a"),
        ("data that looks like framing", b"7\r\n0\r\n\r\nGE\r\n0\r\n\r\n", b"0\r\n\r\nGE"),
    ];
    for (name, body, data) in cases {
        let bytes = [&chunked(body)[..], b"NEXT"].concat();
        let Ok(Read::Message { body, rest, .. }) = read_request(&bytes, &Limits::default()) else {
            panic!("{name}")
        };
        assert_eq!((&body[..], &rest[..]), (*data, &b"NEXT"[..]), "{name}");
    }
}

#[test]
fn a_body_that_is_cut_off_is_not_complete() {
    for body in [
        &b""[..],
        b"5",
        b"5\r",
        b"5\r\n",
        b"5\r\nab",
        b"5\r\nabcde",
        b"5\r\nabcde\r",
        b"5\r\nabcde\r\n",
        b"5\r\nabcde\r\n0\r\n",
        b"0\r\n\r",
        b"0\r\nA: b\r\n",
        b"0\r\nA: b\r\n\r",
        b"0;",
        b"0;a\r",
    ] {
        assert!(matches!(read_request(&chunked(body), &Limits::default()), Ok(Read::Waits)), "{body:?}");
    }
    let mut decoder = Decoder::new(Framing::Length(2), &Limits::default());
    let mut buf = BytesMut::from(&b"a"[..]);
    assert!(matches!(decoder.decode(&mut buf), Ok(Decoded::Data(data)) if &data[..] == b"a"));
    assert_eq!(decoder.remaining(), Some(1));
    assert_eq!(decoder.closed(), Err(Refusal::Truncated));
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let limits =
        Limits { chunk_line: 20, chunk_extensions: 30, trailer: 40, trailer_fields: 2, ..Limits::default() };
    let long_line = format!("1;{}", "a".repeat(30));
    let many = "1;aaaaaaaaa\r\na\r\n".repeat(4);
    let trailers = "0\r\nA: b\r\nA: b\r\nA: b\r\n\r\n";
    let large = format!("0\r\nA: {}\r\n\r\n", "b".repeat(50));
    let endless = format!("0\r\nA: {}", "b".repeat(50));
    for (body, reason) in [
        (format!("{long_line}\r\n"), Refusal::ChunkExtension),
        (long_line, Refusal::ChunkExtension),
        (many, Refusal::ChunkExtension),
        (trailers.to_owned(), Refusal::TrailerSection),
        (large, Refusal::TrailerSection),
        (endless, Refusal::TrailerSection),
    ] {
        assert_eq!(read_request(&chunked(body.as_bytes()), &limits).err(), Some(reason), "{body}");
    }
}

#[test]
fn trailers_bring_nothing_that_frames_routes_or_authenticates() {
    let body = b"0\r\ngrpc-status: 0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: x\r\nCookie: x\r\nX-Forwarded-For: x\r\nx_forwarded_for: x\r\nRingfence-Caller: x\r\nConnection: x\r\nTrailer: x\r\nSet-Cookie: x\r\nX-Sum: 1\r\n\r\n";
    let Ok(Read::Message { trailers: Some(trailers), .. }) = read_request(&chunked(body), &Limits::default())
    else {
        panic!()
    };
    let left: Vec<_> =
        trailers.fields().iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(left, ["grpc-status", "X-Sum"]);
    assert_eq!(trailers.to_map().len(), 2);
    let nothing_left = b"0\r\nHost: b\r\n\r\n";
    assert!(matches!(
        read_request(&chunked(nothing_left), &Limits::default()),
        Ok(Read::Message { trailers: None, .. })
    ));
}

#[test]
fn a_chunk_of_no_bytes_is_not_written_because_it_would_end_the_body() {
    let mut out = BytesMut::new();
    write_chunk_start(&mut out, 0);
    assert!(out.is_empty());
    for (len, line) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (65536, "10000\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        out.clear();
        write_chunk_start(&mut out, len);
        assert_eq!(&out[..], line.as_bytes());
    }
}
