//! Streams: their numbers, their states, DATA, HEADERS, PRIORITY and RST_STREAM (RFC 9113, sections 5 and 6.1 to 6.4).

use super::Expected::{Answer, Gone, Ignored, Reset, Sees};
use super::hpack::{get, literal, post};
use super::*;

/// A padded payload.
fn padded(pad: u8, payload: &[u8]) -> Vec<u8> {
    [&[pad][..], payload, &vec![0; usize::from(pad)]].concat()
}

fn open(stream: u32) -> Vec<u8> {
    head(stream, &post())
}

/// Far more bytes than the window of a stream takes, at once: no window opens as fast.
fn flood(stream: u32) -> Vec<u8> {
    let mut all = open(stream);
    (0..30).for_each(|_| all.extend(data(stream, &[0; 16_384], false)));
    all
}

pub const CASES: &[Case] = &[
    ("RFC 9113 §5.1 DATA on an idle stream", || data(1, b"x", true), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §5.1 RST_STREAM on an idle stream", || reset(1, CANCEL), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §5.1 WINDOW_UPDATE on an idle stream", || window(1, 1), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §5.1 PRIORITY on an idle stream", || frame(PRIORITY, 0, 7, &[0, 0, 0, 0, 1]), Ignored),
    (
        "RFC 9113 §5.1 DATA behind END_STREAM",
        || [request(1, &get()), data(1, b"x", true)].concat(),
        Reset(1, &[STREAM_CLOSED]),
    ),
    (
        "RFC 9113 §5.1 HEADERS behind END_STREAM",
        || [request(1, &get()), request(1, &get())].concat(),
        Reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §5.1 DATA behind DATA with END_STREAM",
        || [open(1), data(1, b"x", true), data(1, b"y", true)].concat(),
        Reset(1, &[STREAM_CLOSED]),
    ),
    (
        "RFC 9113 §5.1 DATA behind RST_STREAM",
        || [open(1), reset(1, CANCEL), data(1, b"x", true)].concat(),
        Reset(1, &[STREAM_CLOSED]),
    ),
    (
        "RFC 9113 §5.1 HEADERS behind RST_STREAM",
        || [open(1), reset(1, CANCEL), request(1, &get())].concat(),
        Reset(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §5.1 WINDOW_UPDATE behind END_STREAM",
        || [request(1, &get()), window(1, 1)].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §5.1 PRIORITY behind END_STREAM",
        || [request(1, &get()), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §5.1 WINDOW_UPDATE behind RST_STREAM",
        || [open(1), reset(1, CANCEL), window(1, 1)].concat(),
        Ignored,
    ),
    ("RFC 9113 §5.1 RST_STREAM twice", || [open(1), reset(1, CANCEL), reset(1, CANCEL)].concat(), Ignored),
    ("RFC 9113 §5.1.1 an even number", || request(2, &get()), Gone(&[PROTOCOL_ERROR])),
    ("RFC 9113 §5.1.1 HEADERS on the connection", || request(0, &get()), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §5.1.1 a number below one that was used",
        || [open(5), request(3, &get())].concat(),
        Gone(&[PROTOCOL_ERROR, STREAM_CLOSED]),
    ),
    ("RFC 9113 §5.1.1 numbers may be skipped", || request(1001, &get()), Answer(1001, 200)),
    ("RFC 9113 §5.1.1 the largest number", || request(0x7fff_ffff, &get()), Answer(0x7fff_ffff, 200)),
    (
        "RFC 9113 §5.1.2 one stream more than allowed",
        || (0..17).flat_map(|n| open(2 * n + 1)).collect(),
        Reset(33, &[REFUSED_STREAM, PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §5.3.2 HEADERS with a priority",
        || {
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 0, 9][..], &get()].concat(),
            )
        },
        Answer(1, 200),
    ),
    (
        "RFC 9113 §5.3.2 HEADERS with an exclusive priority",
        || {
            frame(
                HEADERS,
                END_STREAM | END_HEADERS | WITH_PRIORITY,
                3,
                &[&[0x80, 0, 0, 1, 255][..], &get()].concat(),
            )
        },
        Answer(3, 200),
    ),
    ("RFC 9113 §6.1 DATA on the connection", || data(0, b"x", true), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §6.1 padding is no body",
        || [open(1), frame(DATA, END_STREAM | PADDED, 1, &padded(5, b"abc"))].concat(),
        Sees(1, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ),
    (
        "RFC 9113 §6.1 nothing but padding",
        || [open(1), frame(DATA, END_STREAM | PADDED, 1, &padded(9, b""))].concat(),
        Sees(1, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ),
    (
        "RFC 9113 §6.1 padding as long as the payload",
        || [open(1), frame(DATA, END_STREAM | PADDED, 1, &[4, 0, 0, 0])].concat(),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.1 padding longer than the payload",
        || [open(1), frame(DATA, END_STREAM | PADDED, 1, &[255, 0, 0])].concat(),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.1 padded and empty",
        || [open(1), frame(DATA, END_STREAM | PADDED, 1, &[])].concat(),
        Gone(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.1 an empty DATA ends the body",
        || [open(1), data(1, b"abc", false), data(1, b"", true)].concat(),
        Sees(1, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ),
    (
        "RFC 9113 §6.2 padded HEADERS",
        || frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &padded(7, &get())),
        Answer(1, 200),
    ),
    (
        "RFC 9113 §6.2 padding of HEADERS longer than the payload",
        || frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[&[99][..], &get()].concat()),
        Gone(&[PROTOCOL_ERROR]),
    ),
    (
        "RFC 9113 §6.2 padded and empty HEADERS",
        || frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1, &[]),
        Gone(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.2 HEADERS too short for their priority",
        || frame(HEADERS, END_STREAM | END_HEADERS | WITH_PRIORITY, 1, &[0, 0, 0]),
        Gone(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.2 padding that eats the priority",
        || frame(HEADERS, END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, 1, &[5, 0, 0, 0, 0, 0]),
        Gone(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
    ),
    ("RFC 9113 §6.3 PRIORITY on the connection", || frame(PRIORITY, 0, 0, &[0; 5]), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §6.3 PRIORITY of four bytes",
        || [open(1), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
        Reset(1, &[FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.3 PRIORITY of six bytes",
        || [open(1), frame(PRIORITY, 0, 1, &[0; 6])].concat(),
        Reset(1, &[FRAME_SIZE_ERROR]),
    ),
    ("RFC 9113 §6.4 RST_STREAM on the connection", || reset(0, CANCEL), Gone(&[PROTOCOL_ERROR])),
    (
        "RFC 9113 §6.4 RST_STREAM of three bytes",
        || [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.4 RST_STREAM of five bytes",
        || [open(1), frame(RST_STREAM, 0, 1, &[0; 5])].concat(),
        Gone(&[FRAME_SIZE_ERROR]),
    ),
    (
        "RFC 9113 §6.4 a request that is given up is none to the service",
        || [open(1), data(1, b"smuggled", false), reset(1, CANCEL)].concat(),
        Ignored,
    ),
    ("RFC 9113 §6.9.1 DATA beyond a stream's window", || flood(1), Reset(1, &[FLOW_CONTROL_ERROR])),
    (
        "RFC 9113 §8.1 trailers without END_STREAM",
        || [open(1), data(1, b"x", false), head(1, &literal("x-sum", b"1"))].concat(),
        Reset(1, &[PROTOCOL_ERROR]),
    ),
];
