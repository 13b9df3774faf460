//! What a request is (RFC 9113, section 8): fields, pseudo-header fields, bodies, trailers.

use super::Expected::{Answer, Gone, Malformed, Sees};
use super::hpack::{fields, get, indexed, literal, literal_as, post, remembered};
use super::*;

/// GET with one more field.
fn with(name: &str, value: &[u8]) -> Vec<u8> {
    request(1, &[get(), literal(name, value)].concat())
}

/// A request of these fields alone.
fn of(list: &[(&str, &str)]) -> Vec<u8> {
    request(1, &fields(list))
}

fn target(path: &str) -> Vec<u8> {
    of(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "a")])
}

fn method(method: &str) -> Vec<u8> {
    of(&[(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")])
}

/// POST with a declared length and this body, in pieces.
fn sized(length: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut all = head(1, &[post(), literal("content-length", length.as_bytes())].concat());
    let last = pieces.len().saturating_sub(1);
    pieces.iter().enumerate().for_each(|(at, piece)| all.extend(data(1, piece, at == last)));
    all
}

/// POST with a body and these trailers.
fn trailed(trailers: &[u8]) -> Vec<u8> {
    [head(1, &post()), data(1, b"abc", false), request(1, trailers)].concat()
}

pub const CASES: &[Case] = &[
    // Bodies and trailers
    (
        "RFC 9113 §8.1 trailers go on",
        || trailed(&literal("x-sum", b"1")),
        Sees(
            1,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
    ),
    (
        "RFC 9113 §8.1 trailers without a body",
        || [head(1, &post()), request(1, &literal("x-sum", b"1"))].concat(),
        Sees(1, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n"),
    ),
    (
        "RFC 9113 §8.1 trailers with a pseudo-header field",
        || trailed(&fields(&[(":path", "/smuggled")])),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.1 trailers frame and route nothing",
        || {
            trailed(&fields(&[
                ("content-length", "9"),
                ("host", "b"),
                ("authorization", "x"),
                ("x-sum", "1"),
            ]))
        },
        Sees(
            1,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
    ),
    ("RFC 9113 §8.1 trailers with a name in upper case", || trailed(&literal("X-Sum", b"1")), Malformed(1)),
    (
        "RFC 9113 §8.1 the body that looks like a request is a body",
        || [head(1, &post()), data(1, b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n", true)].concat(),
        Sees(
            1,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n\r\n0\r\n\r\n",
        ),
    ),
    (
        "RFC 9113 §8.1.1 length equals the body",
        || sized("3", &[b"abc"]),
        Sees(1, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    ),
    (
        "RFC 9113 §8.1.1 length of zero and an empty body",
        || request(1, &[post(), literal("content-length", b"0")].concat()),
        Sees(1, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
    ),
    ("RFC 9113 §8.1.1 length larger than the body", || sized("9", &[b"abc"]), Malformed(1)),
    ("RFC 9113 §8.1.1 length smaller than the body", || sized("2", &[b"abc"]), Malformed(1)),
    (
        "RFC 9113 §8.1.1 length smaller than the body in pieces",
        || sized("4", &[b"abc", b"smuggled"]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.1.1 length larger than the body in pieces",
        || sized("40", &[b"abc", b"smuggled"]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.1.1 length and no body",
        || request(1, &[post(), literal("content-length", b"9")].concat()),
        Malformed(1),
    ),
    ("RFC 9113 §8.1.1 length of GET and no body", || with("content-length", b"9"), Malformed(1)),
    (
        "RFC 9113 §8.1.1 two lengths that differ",
        || request(1, &[post(), literal("content-length", b"0"), literal("content-length", b"1")].concat()),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.1.1 two lengths that agree",
        || request(1, &[post(), literal("content-length", b"0"), literal("content-length", b"0")].concat()),
        Malformed(1),
    ),
    ("RFC 9113 §8.1.1 a list of lengths", || sized("3, 3", &[b"abc"]), Malformed(1)),
    ("RFC 9113 §8.1.1 a length with a plus", || sized("+3", &[b"abc"]), Malformed(1)),
    ("RFC 9113 §8.1.1 a length in words", || sized("three", &[b"abc"]), Malformed(1)),
    ("RFC 9113 §8.1.1 a length beyond 2^63", || sized("9223372036854775808", &[b"abc"]), Malformed(1)),
    ("RFC 9113 §8.1.1 an empty length", || sized("", &[b"abc"]), Malformed(1)),
    // Fields
    ("RFC 9113 §8.2 name in upper case", || with("X-A", b"b"), Malformed(1)),
    (
        "RFC 9113 §8.2 one letter of the name in upper case",
        || with("transfer-Encoding", b"chunked"),
        Malformed(1),
    ),
    ("RFC 9113 §8.2.1 name with a space", || with("x a", b"b"), Malformed(1)),
    ("RFC 9113 §8.2.1 name with a space at its end", || with("content-length ", b"0"), Malformed(1)),
    ("RFC 9113 §8.2.1 name with a colon", || with("x:a", b"b"), Malformed(1)),
    ("RFC 9113 §8.2.1 name with a NUL", || with("x\0a", b"b"), Malformed(1)),
    ("RFC 9113 §8.2.1 name with a line end", || with("x\r\nsmuggled", b"b"), Malformed(1)),
    ("RFC 9113 §8.2.1 name beyond ASCII", || with("x\u{e4}", b"b"), Malformed(1)),
    ("RFC 9113 §8.2.1 empty name", || with("", b"b"), Malformed(1)),
    ("RFC 9113 §8.2.1 value with a NUL", || with("x", b"a\0b"), Malformed(1)),
    ("RFC 9113 §8.2.1 value with a LF", || with("x", b"a\nsmuggled: b"), Malformed(1)),
    ("RFC 9113 §8.2.1 value with a CR", || with("x", b"a\rsmuggled: b"), Malformed(1)),
    (
        "RFC 9113 §8.2.1 value with a whole request",
        || with("x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        Malformed(1),
    ),
    ("RFC 9113 §8.2.1 empty value", || with("x", b""), Sees(1, "GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n")),
    ("RFC 9113 §8.2.1 value with white space at its start", || with("x", b" a"), Malformed(1)),
    ("RFC 9113 §8.2.1 value with a tab at its end", || with("x", b"a\t"), Malformed(1)),
    ("RFC 9113 §8.2.2 connection", || with("connection", b"close"), Malformed(1)),
    ("RFC 9113 §8.2.2 keep-alive", || with("keep-alive", b"1"), Malformed(1)),
    ("RFC 9113 §8.2.2 proxy-connection", || with("proxy-connection", b"keep-alive"), Malformed(1)),
    (
        "RFC 9113 §8.2.2 transfer-encoding",
        || {
            [
                head(1, &[post(), literal("transfer-encoding", b"chunked")].concat()),
                data(1, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", true),
            ]
            .concat()
        },
        Malformed(1),
    ),
    ("RFC 9113 §8.2.2 transfer-encoding in GET", || with("transfer-encoding", b"chunked"), Malformed(1)),
    ("RFC 9113 §8.2.2 upgrade", || with("upgrade", b"websocket"), Malformed(1)),
    ("RFC 9113 §8.2.2 http2-settings", || with("http2-settings", b"AAMAAABk"), Malformed(1)),
    ("RFC 9113 §8.2.2 te of gzip", || with("te", b"gzip"), Malformed(1)),
    ("RFC 9113 §8.2.2 te of trailers and gzip", || with("te", b"trailers, gzip"), Malformed(1)),
    (
        "RFC 9113 §8.2.2 te of trailers",
        || with("te", b"trailers"),
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n"),
    ),
    (
        "RFC 9113 §8.2.3 cookies in pieces are joined",
        || request(1, &[get(), literal("cookie", b"a=1"), literal("cookie", b"b=2")].concat()),
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\ncookie: a=1; b=2\r\n\r\n"),
    ),
    // Pseudo-header fields
    ("RFC 9113 §8.3 a pseudo-header field that nobody knows", || with(":smuggled", b"x"), Malformed(1)),
    (
        "RFC 9113 §8.3 a response's :status",
        || {
            of(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
                (":status", "200"),
            ])
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3 a pseudo-header field behind a field",
        || {
            of(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x", "y"),
                (":path", "/smuggled"),
                (":authority", "a"),
            ])
        },
        Malformed(1),
    ),
    ("RFC 9113 §8.3 a second :path behind the fields", || with(":path", b"/smuggled"), Malformed(1)),
    (
        "RFC 9113 §8.3 two :method",
        || {
            of(&[
                (":method", "GET"),
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
            ])
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3 two :scheme",
        || {
            of(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
            ])
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3 two :path",
        || {
            of(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":path", "/smuggled"),
                (":authority", "a"),
            ])
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3 two :authority",
        || {
            of(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
                (":authority", "b"),
            ])
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3 pseudo-header fields in any order",
        || of(&[(":authority", "a"), (":path", "/x"), (":scheme", "http"), (":method", "GET")]),
        Sees(1, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "RFC 9113 §8.3 a pseudo-header field in upper case",
        || of(&[(":METHOD", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 no :method",
        || of(&[(":scheme", "http"), (":path", "/"), (":authority", "a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 no :scheme",
        || of(&[(":method", "GET"), (":path", "/"), (":authority", "a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 no :path",
        || of(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")]),
        Malformed(1),
    ),
    ("RFC 9113 §8.3.1 no pseudo-header field at all", || of(&[("x", "y")]), Malformed(1)),
    ("RFC 9113 §8.3.1 an empty block", || request(1, &[]), Malformed(1)),
    ("RFC 9113 §8.3.1 empty :path", || target(""), Malformed(1)),
    ("RFC 9113 §8.3.1 :path without a slash", || target("smuggled"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path of another host", || target("http://b/smuggled"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path with a space", || target("/a HTTP/1.1\u{20}"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path with a line end", || target("/ HTTP/1.1\r\nsmuggled: x\r\n\r\n"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path with a NUL", || target("/a\0"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path with a fragment", || target("/a#smuggled"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path beyond ASCII", || target("/\u{e4}"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path above the root", || target("/../smuggled"), Malformed(1)),
    ("RFC 9113 §8.3.1 :path with an encoded slash", || target("/a%2fsmuggled"), Malformed(1)),
    (
        "RFC 9113 §8.3.1 :path with dot segments is resolved",
        || target("/a/./b/../c?d=/../e"),
        Sees(1, "GET /a/c?d=/../e HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    ("RFC 9113 §8.3.1 asterisk of GET", || target("*"), Malformed(1)),
    (
        "RFC 9113 §8.3.1 asterisk of OPTIONS",
        || of(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")]),
        Answer(1, 404),
    ),
    (
        "RFC 9113 §8.3.1 :authority with user information",
        || of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 empty :authority",
        || of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 :authority with a line end",
        || of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a\r\nsmuggled: x")]),
        Malformed(1),
    ),
    ("RFC 9113 §8.3.1 :authority and another host", || with("host", b"b"), Malformed(1)),
    (
        "RFC 9113 §8.3.1 :authority and the same host",
        || with("host", b"a"),
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "RFC 9113 §8.3.1 host instead of :authority",
        || of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]),
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "RFC 9113 §8.3.1 two hosts instead of :authority",
        || of(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a"), ("host", "a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 neither :authority nor host",
        || of(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 a scheme that is no web",
        || of(&[(":method", "GET"), (":scheme", "ftp"), (":path", "/"), (":authority", "a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.3.1 a scheme with a request in it",
        || of(&[(":method", "GET"), (":scheme", "http://b/smuggled?"), (":path", "/"), (":authority", "a")]),
        Malformed(1),
    ),
    ("RFC 9113 §8.3.1 a method in lower case", || method("get"), Malformed(1)),
    ("RFC 9113 §8.3.1 a method with a space", || method("GET /smuggled HTTP/1.1"), Malformed(1)),
    ("RFC 9113 §8.3.1 an empty method", || method(""), Malformed(1)),
    (
        "RFC 9113 §8.3.1 a method of somebody's own",
        || method("M-SEARCH"),
        Sees(1, "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    ("RFC 9113 §8.5 CONNECT", || of(&[(":method", "CONNECT"), (":authority", "a:443")]), Malformed(1)),
    (
        "RFC 9113 §8.5 CONNECT with a path",
        || of(&[(":method", "CONNECT"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
        Malformed(1),
    ),
    (
        "RFC 9113 §8.5 extended CONNECT that was not offered",
        || {
            of(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
            ])
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §8.8 HEAD",
        || of(&[(":method", "HEAD"), (":scheme", "http"), (":path", "/"), (":authority", "a")]),
        Sees(1, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "RFC 9113 §10.3 what only a gateway may say is not passed on",
        || {
            request(
                1,
                &[
                    get(),
                    literal("x-forwarded-for", b"10.0.0.1"),
                    literal("x_forwarded_for", b"10.0.0.1"),
                    literal("x-original-url", b"/admin"),
                ]
                .concat(),
            )
        },
        Sees(1, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "RFC 9113 §10.5.1 more fields than the limit",
        || {
            let mut block = get();
            (0..150).for_each(|_| block.extend(literal("x", b"y")));
            request(1, &block)
        },
        Malformed(1),
    ),
    (
        "RFC 9113 §10.5.1 a block that is larger when decoded than the limit",
        || {
            let mut block = [get(), remembered("x", &[b'y'; 4000])].concat();
            (0..100).for_each(|_| block.extend(indexed(62)));
            request(1, &block)
        },
        Gone(&[ENHANCE_YOUR_CALM]),
    ),
    (
        "RFC 9113 §8.3.1 a :path longer than the limit",
        || {
            let long = format!("/{}", "a".repeat(9000));
            request(
                1,
                &[indexed(2), indexed(6), literal_as(4, long.as_bytes()), literal_as(1, b"a")].concat(),
            )
        },
        Malformed(1),
    ),
    ("RFC 9113 §8.6 an expectation that nobody knows", || with("expect", b"200-ok"), Malformed(1)),
    (
        "RFC 9113 §8.1.1 a malformed request leaves its neighbours alone",
        || [of(&[("x", "y")]), request(3, &get())].concat(),
        Answer(3, 200),
    ),
    (
        "RFC 9113 §8.1.1 a block that cannot be decoded ends them all",
        || [head(1, &post()), request(3, &[0xff; 8])].concat(),
        Gone(&[COMPRESSION_ERROR]),
    ),
];
