//! HPACK (RFC 7541): indices, sizes, integers, strings.

use super::Expected::{Gone, Sees};
use super::hpack::{
    coded, get, indexed, integer, literal, literal_as, never, remembered, remembered_as, resize,
};
use super::*;

/// GET with something behind it.
fn and(more: &[u8]) -> Vec<u8> {
    request(1, &[&get()[..], more].concat())
}

/// A request on stream 1 with this behind it, then one on stream 3 with that.
fn twice(first: &[u8], second: &[u8]) -> Vec<u8> {
    [and(first), request(3, &[&get()[..], second].concat())].concat()
}

const ERROR: Expected = Gone(&[COMPRESSION_ERROR]);
const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const WITH_FIELD: &str = "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n";

/// `www.example.com` (appendix C.4.1).
const EXAMPLE: &[u8] = &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];

pub const CASES: &[Case] = &[
    (
        "RFC 7541 §2.3.2 a new entry is the first of the dynamic table",
        || twice(&remembered("x", b"y"), &indexed(62)),
        Sees(3, WITH_FIELD),
    ),
    (
        "RFC 7541 §2.3.2 entries are counted from the newest",
        || twice(&[remembered("x", b"y"), remembered("z", b"w")].concat(), &indexed(63)),
        Sees(3, WITH_FIELD),
    ),
    (
        "RFC 7541 §2.3.2 an entry is there within its own block",
        || and(&[remembered("x", b"y"), indexed(62)].concat()),
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\nx: y\r\n\r\n"),
    ),
    (
        "RFC 7541 §2.3.2 a name of the dynamic table",
        || twice(&remembered("x", b"z"), &literal_as(62, b"y")),
        Sees(3, WITH_FIELD),
    ),
    ("RFC 7541 §2.3.3 index 0", || and(&indexed(0)), ERROR),
    ("RFC 7541 §2.3.3 an index beyond an empty dynamic table", || and(&indexed(62)), ERROR),
    (
        "RFC 7541 §2.3.3 an index beyond the dynamic table",
        || twice(&remembered("x", b"y"), &indexed(63)),
        ERROR,
    ),
    ("RFC 7541 §2.3.3 a huge index", || and(&indexed(1 << 27)), ERROR),
    ("RFC 7541 §2.3.3 a name beyond the tables, literal", || and(&literal_as(70, b"y")), ERROR),
    ("RFC 7541 §2.3.3 a name beyond the tables, remembered", || and(&remembered_as(70, b"y")), ERROR),
    (
        "RFC 7541 §3.2 a block is decoded in order",
        || twice(&[remembered("x", b"1"), remembered("x", b"y")].concat(), &indexed(62)),
        Sees(3, WITH_FIELD),
    ),
    (
        "RFC 7541 §4.2 a table of nothing",
        || request(1, &[resize(0), get(), remembered("x", b"y")].concat()),
        Sees(1, WITH_FIELD),
    ),
    (
        "RFC 7541 §4.2 a smaller table at the start of a block",
        || request(1, &[resize(100), get()].concat()),
        Sees(1, PLAIN),
    ),
    (
        "RFC 7541 §4.2 the table's size to nothing and back",
        || request(1, &[resize(0), resize(4096), get()].concat()),
        Sees(1, PLAIN),
    ),
    ("RFC 7541 §4.2 a size update behind a field", || and(&resize(100)), ERROR),
    (
        "RFC 7541 §4.2 a size update between fields",
        || and(&[literal("x", b"y"), resize(100), literal("z", b"w")].concat()),
        ERROR,
    ),
    (
        "RFC 7541 §4.3 what a smaller table evicts is gone",
        || [and(&remembered("x", b"y")), request(3, &[resize(0), get(), indexed(62)].concat())].concat(),
        ERROR,
    ),
    (
        "RFC 7541 §4.4 an entry that is larger than the table empties it",
        || {
            [
                and(&remembered("x", b"y")),
                request(3, &[resize(64), get(), remembered("z", &[b'w'; 64]), indexed(62)].concat()),
            ]
            .concat()
        },
        ERROR,
    ),
    (
        "RFC 7541 §4.4 the oldest entry makes room",
        || {
            [
                request(
                    1,
                    &[resize(70), get(), remembered("a", b"1"), remembered("b", b"2"), remembered("x", b"y")]
                        .concat(),
                ),
                request(3, &[get(), indexed(64)].concat()),
            ]
            .concat()
        },
        ERROR,
    ),
    (
        "RFC 7541 §5.1 an integer of more bits than any index has",
        || and(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ERROR,
    ),
    ("RFC 7541 §5.1 an integer that does not end", || and(&[0xff, 0x80]), ERROR),
    (
        "RFC 7541 §5.1 an integer of nothing but zeros behind",
        || and(&[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        ERROR,
    ),
    (
        "RFC 7541 §5.1 a length that overflows",
        || and(&[0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, b'x']),
        ERROR,
    ),
    (
        "RFC 7541 §5.2 a name longer than the block",
        || and(&[&[0x00][..], &integer(0, 7, 90), b"x"].concat()),
        ERROR,
    ),
    (
        "RFC 7541 §5.2 a value longer than the block",
        || and(&[&[0x00, 1, b'x'][..], &integer(0, 7, 90), b"y"].concat()),
        ERROR,
    ),
    ("RFC 7541 §5.2 a name and no value", || and(&[0x00, 1, b'x']), ERROR),
    ("RFC 7541 §5.2 a representation and nothing else", || and(&[0x00]), ERROR),
    (
        "RFC 7541 §5.2 Huffman code",
        || request(1, &[&[0x82, 0x86, 0x84, 0x01][..], &coded(EXAMPLE)].concat()),
        Sees(1, "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n"),
    ),
    (
        "RFC 7541 §5.2 an empty string in Huffman code",
        || and(&[&[0x00, 1, b'x'][..], &coded(&[])].concat()),
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n"),
    ),
    (
        "RFC 7541 §5.2 padding of more than seven bits",
        || and(&[&[0x00, 1, b'x'][..], &coded(&[0x07, 0xff])].concat()),
        ERROR,
    ),
    (
        "RFC 7541 §5.2 padding that is not of ones",
        || and(&[&[0x00, 1, b'x'][..], &coded(&[0x00])].concat()),
        ERROR,
    ),
    (
        "RFC 7541 §5.2 the end-of-string symbol",
        || and(&[&[0x00, 1, b'x'][..], &coded(&[0xff, 0xff, 0xff, 0xff])].concat()),
        ERROR,
    ),
    (
        "RFC 7541 §5.2 a byte of padding alone",
        || and(&[&[0x00, 1, b'x'][..], &coded(&[0xff])].concat()),
        ERROR,
    ),
    (
        "RFC 7541 §5.2 a line end in Huffman code",
        || and(&[&[0x00, 1, b'x'][..], &coded(&[0xff, 0xff, 0xff, 0xf3])].concat()),
        Expected::Malformed(1),
    ),
    (
        "RFC 7541 §6.1 indexed",
        || request(1, &[indexed(2), indexed(6), indexed(5), literal_as(1, b"a")].concat()),
        Sees(1, "GET /index.html HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "RFC 7541 §6.2.1 remembered with a name of the static table",
        || twice(&remembered_as(58, b"z"), &indexed(62)),
        Sees(3, "GET / HTTP/1.1\r\nHost: a\r\nuser-agent: z\r\n\r\n"),
    ),
    ("RFC 7541 §6.2.2 literal with a new name", || and(&literal("x", b"y")), Sees(1, WITH_FIELD)),
    (
        "RFC 7541 §6.2.2 what is not remembered is not there",
        || twice(&literal("x", b"y"), &indexed(62)),
        ERROR,
    ),
    ("RFC 7541 §6.2.3 never indexed", || and(&never("x", b"y")), Sees(1, WITH_FIELD)),
    ("RFC 7541 §6.2.3 what is never indexed is not there", || twice(&never("x", b"y"), &indexed(62)), ERROR),
    ("RFC 7541 §6.3 a table larger than was offered", || request(1, &[resize(4097), get()].concat()), ERROR),
    ("RFC 7541 §6.3 a table of 2^32 bytes", || request(1, &[resize(1 << 32), get()].concat()), ERROR),
    (
        "RFC 7541 §7.1 a value is remembered for its own connection only",
        || request(1, &[get(), indexed(62)].concat()),
        ERROR,
    ),
];
