//! Request heads that are refused, case by case, with which reason and status.

use ringfence_proxy::h1::{Limits, Refusal};

use crate::message::{Read, read_request};

/// A name, the bytes, the reason of the refusal.
type Refused = (&'static str, &'static [u8], Refusal);

fn refuses(cases: &[Refused]) {
    for (name, bytes, reason) in cases {
        match read_request(bytes, &Limits::default()) {
            Err(refusal) => assert_eq!(refusal, *reason, "{name}"),
            other => panic!("{name}: passed as {other:?}"),
        }
    }
}

#[test]
fn a_start_line_that_two_parsers_could_read_in_two_ways_is_refused() {
    use Refusal::*;
    refuses(&[
        ("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingWhitespace),
        ("a bare LF first", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingWhitespace),
        ("a bare CR first", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareLineEnd),
        ("a space first", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingWhitespace),
        ("a tab first", b"\tGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingWhitespace),
        ("a NUL first", b"\0GET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingWhitespace),
        ("a space after the empty line", b"\r\n GET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingWhitespace),
        ("TLS on the plain port", b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03", LeadingWhitespace),
        ("start line ends in LF", b"GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineEnd),
        ("start line ends in CR", b"GET / HTTP/1.1\rHost: a\r\n\r\n", BareLineEnd),
        ("two spaces before the target", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("two spaces before the version", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("tab before the target", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("tab before the version", b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("a space after the version", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BareLineEnd),
        ("words after the version", b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", BareLineEnd),
        ("no method", b"/ HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("no target", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("method with a colon", b"GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("method with a NUL", b"GE\0T / HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("method in lower case", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
        ("method in mixed case", b"Delete / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
        ("method with a quote", b"GET' / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
        ("method of 33 letters", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
        ("HTTP/0.9", b"GET /\r\n\r\n", Http09),
        ("HTTP/0.9 with fields", b"GET /\r\nHost: a\r\n\r\n", Http09),
        ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
        ("HTTP/3.0", b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", Version),
        ("http/1.1 in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", BareLineEnd),
        ("HTTP/01.1", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", StartLine),
        ("HTTP/1", b"GET / HTTP/1\r\nHost: a\r\n\r\n", StartLine),
        ("HTTPS/1.1", b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", StartLine),
    ]);
}

#[test]
fn a_target_is_a_plain_path_or_names_the_same_host() {
    use Refusal::*;
    refuses(&[
        ("fragment", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Fragment),
        ("fragment in the query", b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", Fragment),
        ("fragment alone", b"GET # HTTP/1.1\r\nHost: a\r\n\r\n", Fragment),
        ("non-ASCII path", b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", TargetByte),
        ("non-ASCII query", b"GET /?\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", TargetByte),
        ("invalid UTF-8 path", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("NUL in the path", b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("DEL in the path", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("escape in the query", b"GET /?\x1b HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("tab in the query", b"GET /?a\tb HTTP/1.1\r\nHost: a\r\n\r\n", StartLine),
        ("no slash first", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("query alone", b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("authority form", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("backslash first", b"GET \\a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("asterisk of GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("asterisk and a path", b"OPTIONS */a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Connect),
        ("CONNECT with a path", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Connect),
        ("another scheme", b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("file scheme", b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("scheme without slashes", b"GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("absolute form of another host", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", HostMismatch),
        ("absolute form of another port", b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", HostMismatch),
        ("absolute form with a user", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", HostInvalid),
        ("absolute form with an empty host", b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n", HostInvalid),
        ("absolute form with a backslash", b"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n", HostInvalid),
        ("absolute form without a path", b"GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
        ("encoded slash", b"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", PathEncodedSlash),
        ("path parameter", b"GET /a;b/c HTTP/1.1\r\nHost: a\r\n\r\n", PathParameter),
        ("backslash in the path", b"GET /a\\..\\b HTTP/1.1\r\nHost: a\r\n\r\n", PathBackslash),
        ("encoded NUL", b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", PathControl),
        ("encoded line end", b"GET /a%0d%0aX:y HTTP/1.1\r\nHost: a\r\n\r\n", PathControl),
        ("encoded twice", b"GET /%252e%252e/ HTTP/1.1\r\nHost: a\r\n\r\n", PathDoubleEncoding),
        ("above the root", b"GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", PathAboveRoot),
        ("overlong slash", b"GET /..%c0%af HTTP/1.1\r\nHost: a\r\n\r\n", PathUtf8),
        ("%u", b"GET /%u002e HTTP/1.1\r\nHost: a\r\n\r\n", PathEncoding),
        ("odd path in absolute form", b"GET http://a/%2f HTTP/1.1\r\nHost: a\r\n\r\n", PathEncodedSlash),
    ]);
}

#[test]
fn a_request_names_one_valid_host() {
    use Refusal::*;
    refuses(&[
        ("no Host", b"GET / HTTP/1.1\r\n\r\n", HostMissing),
        ("no Host among others", b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", HostMissing),
        ("no Host in 1.0", b"GET / HTTP/1.0\r\n\r\n", HostMissing),
        ("no Host with absolute form", b"GET http://a/ HTTP/1.1\r\n\r\n", HostMissing),
        ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HostRepeated),
        ("the same Host twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", HostRepeated),
        ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", HostInvalid),
        ("Host of white space", b"GET / HTTP/1.1\r\nHost: \t \r\n\r\n", HostInvalid),
        ("list of Hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HostInvalid),
        ("Host with a user", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", HostInvalid),
        ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HostInvalid),
        ("Host with a bad port", b"GET / HTTP/1.1\r\nHost: a:http\r\n\r\n", HostInvalid),
        ("Host with a large port", b"GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n", HostInvalid),
        ("Host with percent-encoding", b"GET / HTTP/1.1\r\nHost: %61\r\n\r\n", HostInvalid),
        ("Host beyond ASCII", b"GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", HostInvalid),
        ("Host with a scheme", b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", HostInvalid),
        ("a broken IPv6 Host", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", HostInvalid),
        ("Host by an underscore alias only", b"GET / HTTP/1.1\r\nHo_st: a\r\n\r\n", HostMissing),
    ]);
}

#[test]
fn field_lines_have_one_reading() {
    use Refusal::*;
    refuses(&[
        ("field ends in LF", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", BareLineEnd),
        ("last field ends in LF", b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineEnd),
        ("empty line is LF", b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineEnd),
        ("all lines end in LF", b"GET / HTTP/1.1\nHost: a\n\n", BareLineEnd),
        ("empty-valued field ends in LF", b"GET / HTTP/1.1\r\nHost: a\r\nX:\nY: z\r\n\r\n", BareLineEnd),
        ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", FieldValue),
        ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", FieldValue),
        ("bare CR as the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", BareLineEnd),
        ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", FieldValue),
        ("vertical tab in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", FieldValue),
        ("DEL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", FieldValue),
        ("fold by a space", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", FieldName),
        ("fold by a tab", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", FieldName),
        ("fold of an empty value", b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n y\r\n\r\n", FieldName),
        ("fold of the start line", b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", FieldName),
        ("space before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", FieldName),
        ("tab before the colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n", FieldName),
        ("Host with a space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", FieldName),
        ("empty name", b"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", FieldName),
        ("no colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", FieldName),
        ("name with a NUL", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n", FieldName),
        ("name beyond ASCII", b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: y\r\n\r\n", FieldName),
        ("name with a slash", b"GET / HTTP/1.1\r\nHost: a\r\nX/Y: y\r\n\r\n", FieldName),
        ("name with parentheses", b"GET / HTTP/1.1\r\nHost: a\r\nX(Y): y\r\n\r\n", FieldName),
        ("pseudo-header field", b"GET / HTTP/1.1\r\nHost: a\r\n:path: /b\r\n\r\n", FieldName),
        (
            "two Authorizations",
            b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n",
            FieldRepeated,
        ),
        (
            "two Content-Types",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n",
            FieldRepeated,
        ),
        ("another expectation", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", Expectation),
        (
            "expectations as a list",
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n",
            Expectation,
        ),
        ("Connection drops Host", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n", ConnectionField),
        (
            "Connection drops Authorization",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Authorization\r\n\r\n",
            ConnectionField,
        ),
        (
            "Connection drops Content-Length",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: content-length\r\n\r\n",
            ConnectionField,
        ),
        (
            "Connection drops Cookie",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: cookie\r\n\r\n",
            ConnectionField,
        ),
        (
            "Connection is no token list",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n",
            ConnectionField,
        ),
    ]);
}

#[test]
fn a_body_has_one_length() {
    use Refusal::*;
    refuses(&[
        ("CL and TE", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", LengthAndEncoding),
        ("TE and CL", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", LengthAndEncoding),
        ("CL 0 and TE", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", LengthAndEncoding),
        ("CL and TE identity", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n", LengthAndEncoding),
        ("two CLs that differ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", LengthRepeated),
        ("two CLs that agree", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", LengthRepeated),
        ("CL list that agrees", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", LengthInvalid),
        ("CL list that differs", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,2\r\n\r\na", LengthInvalid),
        ("CL with a plus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", LengthInvalid),
        ("CL with a minus", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", LengthInvalid),
        ("CL in hexadecimal", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", LengthInvalid),
        ("CL with a leading zero", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 010\r\n\r\naaaaaaaaaa", LengthInvalid),
        ("CL with a fraction", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\na", LengthInvalid),
        ("CL with words", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 a\r\n\r\na", LengthInvalid),
        ("CL with an underscored digit", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\na", LengthInvalid),
        ("CL in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"1\"\r\n\r\na", LengthInvalid),
        ("empty CL", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", LengthInvalid),
        ("CL of 2^63", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", LengthInvalid),
        ("CL of 2^64", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", LengthInvalid),
        ("CL of 2^64 + 1", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\na", LengthInvalid),
        ("CL beyond ASCII", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xd9\xa1\r\n\r\na", LengthInvalid),
        ("CL after a tab", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t1\r\n\r\na", LengthInvalid),
        ("CL before a tab", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\t\r\n\r\na", LengthInvalid),
        ("CL before a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\x0b\r\n\r\na", FieldValue),
        ("CL with a space before the colon", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\na", FieldName),
        ("TE after x", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n", EncodingUnknown),
        ("TE after gzip", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", EncodingUnknown),
        ("TE after identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", EncodingUnknown),
        ("TE twice in a list", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE in two fields", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE in two fields, other first", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", EncodingUnknown),
        ("TE in two fields, other last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE before identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE identity", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", EncodingInvalid),
        ("TE xchunked", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", EncodingInvalid),
        ("TE chunkedx", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n", EncodingInvalid),
        ("TE in quotes", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", EncodingInvalid),
        ("TE with a parameter", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", EncodingInvalid),
        ("TE with a comma first", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE with a comma last", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("empty TE", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", EncodingInvalid),
        ("TE after a tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE after two spaces", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  chunked\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE before a space", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE before a tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n", EncodingInvalid),
        ("TE after a vertical tab", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", FieldValue),
        ("TE after a fold", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", FieldName),
        ("TE with a space before the colon", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", FieldName),
        ("TE behind a bare LF", b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BareLineEnd),
        ("TE in 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", EncodingIn10),
        ("TRACE with a body", b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", TraceBody),
    ]);
}

#[test]
fn each_refusal_has_the_status_that_the_standard_gives_it() {
    for (refusal, status) in [
        (Refusal::BareLineEnd, 400),
        (Refusal::HostMissing, 400),
        (Refusal::LengthAndEncoding, 400),
        (Refusal::Connect, 405),
        (Refusal::TargetTooLong, 414),
        (Refusal::Expectation, 417),
        (Refusal::HeadTooLarge, 431),
        (Refusal::TooManyFields, 431),
        (Refusal::EncodingUnknown, 501),
        (Refusal::Method, 501),
        (Refusal::Version, 505),
        (Refusal::Http09, 505),
    ] {
        assert_eq!(refusal.status(), status, "{refusal}");
    }
}

#[test]
fn bounds_hold_whether_the_head_is_finished_or_not() {
    let limits = Limits { head: 1000, target: 100, fields: 5, ..Limits::default() };
    let cases: [(&str, Vec<u8>, Refusal); 7] = [
        (
            "long target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(100)).into(),
            Refusal::TargetTooLong,
        ),
        ("endless target", format!("GET /{}", "a".repeat(150)).into(), Refusal::TargetTooLong),
        (
            "large head",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(1000)).into(),
            Refusal::HeadTooLarge,
        ),
        (
            "endless head",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(1000)).into(),
            Refusal::HeadTooLarge,
        ),
        (
            "long name",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}: a\r\n\r\n", "a".repeat(300)).into(),
            Refusal::HeadTooLarge,
        ),
        (
            "many fields",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(5)).into(),
            Refusal::TooManyFields,
        ),
        (
            "endless fields",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "a: b\r\n".repeat(5)).into(),
            Refusal::TooManyFields,
        ),
    ];
    for (name, bytes, reason) in cases {
        assert_eq!(read_request(&bytes, &limits).err(), Some(reason), "{name}");
    }
    let enough = format!("GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n", "a".repeat(99), "a: b\r\n".repeat(4));
    assert!(matches!(read_request(enough.as_bytes(), &limits), Ok(Read::Message { .. })));
    let options = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "a,".repeat(40));
    assert_eq!(read_request(options.as_bytes(), &limits).err(), Some(Refusal::ConnectionField));
}
