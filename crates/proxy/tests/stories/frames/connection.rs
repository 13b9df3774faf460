//! Frames, their sizes, and what belongs to the connection (RFC 9113, sections 4, 5.5, 6.7 to 6.10).

use super::Expected::{Answer, Gone, Ignored, Reset};
use super::hpack::{fields, get, literal, post};
use super::*;

/// A request whose block is spread over these frames.
fn spread(parts: &[&[u8]]) -> Vec<u8> {
    let last = parts.len() - 1;
    let piece = |(at, part): (usize, &&[u8])| {
        let flags = if at == last { END_HEADERS } else { 0 };
        let (kind, flags) = if at == 0 { (HEADERS, flags | END_STREAM) } else { (CONTINUATION, flags) };
        frame(kind, flags, 1, part)
    };
    parts.iter().enumerate().flat_map(piece).collect()
}

/// Headers without their end, then something.
fn interrupted(by: Vec<u8>) -> Vec<u8> {
    [frame(HEADERS, END_STREAM, 1, &get()), by].concat()
}

pub const CASES: &[Case] = &[
    ("RFC 9113 §4.1 unknown frame type on the connection", || frame(0xfa, 0, 0, b"x"), Ignored),
    ("RFC 9113 §4.1 unknown frame type with flags on a stream", || frame(0xfb, 0xff, 1, b"x"), Ignored),
    ("RFC 9113 §4.1 unknown flags of PING", || frame(PING, 0xfe, 0, b"12345678"), Ignored),
    ("RFC 9113 §4.1 the reserved bit is not looked at", || request(0x8000_0001, &get()), Answer(1, 200)),
    (
        "RFC 9113 §4.1 unknown flags of HEADERS",
        || frame(HEADERS, END_STREAM | END_HEADERS | 0x10 | 0x40, 1, &get()),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §4.2 DATA of the largest size",
        || [head(1, &post()), data(1, &[b'x'; 16_384], true)].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §4.2 DATA one byte larger",
        || [head(1, &post()), data(1, &[b'x'; 16_385], true)].concat(),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    ("RFC 9113 §4.2 HEADERS one byte larger", || request(1, &[0; 16_385]), Gone(&[FRAME_SIZE_ERROR])),
    (
        "RFC 9113 §4.2 unknown frame one byte larger",
        || frame(0xfa, 0, 0, &[0; 16_385]),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    ("RFC 9113 §4.2 a length of 2^24 - 1", || framed(0xff_ffff, DATA, 0, 1, b"x"), Gone(&[FRAME_SIZE_ERROR])),
    (
        "RFC 9113 §4.3 a block that cannot be decoded",
        || request(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Gone(&[COMPRESSION_ERROR]),
    ),
    ("RFC 9113 §4.3 PING within a block", || interrupted(frame(PING, 0, 0, OURS)), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §4.3 DATA within a block", || interrupted(data(1, b"x", true)), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §4.3 SETTINGS within a block",
        || interrupted(frame(SETTINGS, 0, 0, &[])),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §4.3 HEADERS of another stream within a block",
        || interrupted(request(3, &get())),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §4.3 HEADERS of the same stream within a block",
        || interrupted(request(1, &get())),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §4.3 CONTINUATION of another stream within a block",
        || interrupted(frame(CONTINUATION, END_HEADERS, 3, &[])),
        Gone(&[PROTOCOL_ERROR]),
    ),
    ("RFC 9113 §4.3 WINDOW_UPDATE within a block", || interrupted(window(0, 1)), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §4.3 PRIORITY within a block",
        || interrupted(frame(PRIORITY, 0, 1, &[0; 5])),
        Gone(&[PROTOCOL_ERROR]),
    ),
    ("RFC 9113 §4.3 RST_STREAM within a block", || interrupted(reset(1, CANCEL)), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §4.3 GOAWAY within a block",
        || interrupted(frame(GOAWAY, 0, 0, &[0; 8])),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §5.5 unknown frame type within a block",
        || interrupted(frame(0xfa, 0, 0, b"x")),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.6 PUSH_PROMISE of a client",
        || frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get()].concat()),
        Gone(&[PROTOCOL_ERROR]),
    ),
    ("RFC 9113 §6.7 PING on a stream", || frame(PING, 0, 1, b"12345678"), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §6.7 PING of seven bytes", || frame(PING, 0, 0, b"1234567"), Gone(&[FRAME_SIZE_ERROR])),
    ("RFC 9113 §6.7 PING of nine bytes", || frame(PING, 0, 0, b"123456789"), Gone(&[FRAME_SIZE_ERROR])),
    ("RFC 9113 §6.7 an answer to no PING", || frame(PING, ACK, 0, b"12345678"), Ignored),
    ("RFC 9113 §6.8 GOAWAY on a stream", || frame(GOAWAY, 0, 1, &[0; 8]), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §6.8 GOAWAY of seven bytes", || frame(GOAWAY, 0, 0, &[0; 7]), Gone(&[FRAME_SIZE_ERROR])),
    (
        "RFC 9113 §6.8 a request before GOAWAY is answered",
        || [request(1, &get()), frame(GOAWAY, 0, 0, &[0; 8])].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.8 GOAWAY with debug data",
        || [request(1, &get()), frame(GOAWAY, 0, 0, &[&[0; 8][..], b"bye"].concat())].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.9 WINDOW_UPDATE of three bytes",
        || frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.9 WINDOW_UPDATE of five bytes",
        || frame(WINDOW_UPDATE, 0, 0, &[0; 5]),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    ("RFC 9113 §6.9 the connection's window grows by nothing", || window(0, 0), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §6.9 a stream's window grows by nothing",
        || [head(1, &post()), window(1, 0)].concat(),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.9 the reserved bit of WINDOW_UPDATE",
        || frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 1]),
        Ignored,
    ),
    (
        "RFC 9113 §6.9.1 the connection's window beyond 2^31 - 1",
        || [window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)].concat(),
        Gone(&[FLOW_CONTROL_ERROR]),
    ),
    (
        "RFC 9113 §6.9.1 a stream's window beyond 2^31 - 1",
        || [head(1, &post()), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)].concat(),
        Reset(1, &[FLOW_CONTROL_ERROR]),
    ),
    (
        "RFC 9113 §6.10 CONTINUATION behind nothing",
        || frame(CONTINUATION, END_HEADERS, 1, &get()),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.10 CONTINUATION on the connection",
        || frame(CONTINUATION, END_HEADERS, 0, &get()),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.10 CONTINUATION behind END_HEADERS",
        || {
            [
                frame(HEADERS, END_HEADERS, 1, &post()),
                frame(CONTINUATION, END_HEADERS, 1, &literal("x", b"y")),
            ]
            .concat()
        },
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.10 CONTINUATION behind DATA",
        || {
            [head(1, &post()), data(1, b"x", false), frame(CONTINUATION, END_HEADERS, 1, &literal("x", b"y"))]
                .concat()
        },
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.10 a block in three frames",
        || {
            let block = get();
            spread(&[&block[..1], &block[1..3], &block[3..]])
        },
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.10 a field cut in two",
        || {
            let block = [get(), literal("x-long", b"0123456789")].concat();
            let at = block.len() - 5;
            spread(&[&block[..at], &block[at..]])
        },
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\nx-long: 0123456789\r\n\r\n"),
    ),
    ("RFC 9113 §6.10 an empty CONTINUATION ends the block", || spread(&[&get(), &[]]), Answer(1, 200)),
    ("RFC 9113 §6.10 an empty HEADERS begins the block", || spread(&[&[], &get()]), Answer(1, 200)),
    (
        "RFC 9113 §6.10 more CONTINUATION frames than anybody needs",
        || {
            let mut all = frame(HEADERS, END_STREAM, 1, &get());
            (0..200).for_each(|_| all.extend(frame(CONTINUATION, 0, 1, &literal("x", b"y"))));
            all
        },
        Gone(&[ENHANCE_YOUR_CALM]),
    ),
    (
        "RFC 9113 §7 an error code that nobody knows",
        || [head(1, &post()), reset(1, 0xdead_beef)].concat(),
        Ignored,
    ),
    (
        "RFC 9113 §9.1 GOAWAY with an error code that nobody knows, the request is answered",
        || {
            [
                request(
                    1,
                    &fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
                ),
                frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef]),
            ]
            .concat()
        },
        Gone(&[NO_ERROR, PROTOCOL_ERROR]),
    ),
];
use super::Expected::Sees;
