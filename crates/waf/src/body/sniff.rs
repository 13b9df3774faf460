//! Bodies whose type does not say how they are read, or may not be believed.
//!
//! Services read leniently: many take a body for JSON whatever its type says, or when it says nothing. So what a body begins with counts
//! too. Where a parser gives up on such a body, it is no error, since nobody claimed that it is JSON; what stands in it is looked at as text.

use std::ops::ControlFlow;

use super::decode::digit;

/// What a body begins like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// `{`, `[` or `"`
    Json,
    /// `<`
    Xml,
    /// Anything else.
    Other,
}

/// Types of which the subtype does not matter.
const OPAQUE_FAMILIES: [&[u8]; 5] = [b"image", b"audio", b"video", b"font", b"model"];

/// Beginnings of subtypes of `application`.
const OPAQUE: [&[u8]; 36] = [
    b"octet-stream",
    b"offset+octet-stream",
    b"grpc",
    b"protobuf",
    b"x-protobuf",
    b"vnd.google.protobuf",
    b"msgpack",
    b"x-msgpack",
    b"vnd.msgpack",
    b"cbor",
    b"avro",
    b"vnd.apache",
    b"zip",
    b"x-zip",
    b"gzip",
    b"x-gzip",
    b"zstd",
    b"zlib",
    b"x-bzip",
    b"x-xz",
    b"x-7z",
    b"x-tar",
    b"x-rar",
    b"vnd.rar",
    b"java-archive",
    b"wasm",
    b"pdf",
    b"dicom",
    b"ogg",
    b"x-git",
    b"vnd.docker.image",
    b"vnd.oci.image.layer",
    b"msword",
    b"vnd.ms-",
    b"vnd.oasis",
    b"vnd.openxmlformats",
];

/// Whether a type says that nothing in the body is text.
#[must_use]
pub fn is_opaque(content_type: &[u8]) -> bool {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let media = content_type[..end].trim_ascii();
    let Some(slash) = memchr::memchr(b'/', media) else { return false };
    let (family, subtype) = (&media[..slash], &media[slash + 1..]);
    let begins = |start: &&[u8]| subtype.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start));
    if family.eq_ignore_ascii_case(b"application") {
        return OPAQUE.iter().any(begins);
    }
    OPAQUE_FAMILIES.iter().any(|opaque| family.eq_ignore_ascii_case(opaque))
}

/// What a body begins like; `None` as long as that cannot be told.
#[must_use]
pub fn begins(body: &[u8]) -> Option<Look> {
    // Of UTF-16 and UTF-32 there are so many zeros before the first character. Frames of gRPC have more, or another byte.
    let (mut zeros, mut rest) = (3, body);
    loop {
        rest = match rest {
            [] | [0xef] | [0xef, 0xbb] => return None,
            [0xef, 0xbb, 0xbf, rest @ ..] => rest,
            [0xff | 0xfe | b' ' | b'\t' | b'\r' | b'\n', rest @ ..] => rest,
            [0, rest @ ..] if zeros > 0 => {
                zeros -= 1;
                rest
            }
            [b'{' | b'[' | b'"', ..] => return Some(Look::Json),
            [b'<', ..] => return Some(Look::Xml),
            _ => return Some(Look::Other),
        }
    }
}

/// Text of two or four bytes a character as one of one, if it is such.
pub(crate) fn narrowed(body: &[u8]) -> Option<Vec<u8>> {
    let start = &body[..body.len().min(64)];
    let zeros = memchr::memchr_iter(0, start).count();
    (zeros * 3 >= start.len() && zeros > 0).then(|| {
        let body = body.strip_prefix(b"\xff\xfe").or_else(|| body.strip_prefix(b"\xfe\xff")).unwrap_or(body);
        body.iter().copied().filter(|byte| *byte != 0).collect()
    })
}

/// Whether there are bytes that text does not have.
pub(crate) fn is_binary(body: &[u8]) -> bool {
    body.iter().any(|byte| is_control(*byte))
}

/// Text between bytes that text does not have, at least so long. `ascii`: bytes beyond ASCII are not taken for text.
pub(crate) fn runs(body: &[u8], least: usize, ascii: bool) -> impl Iterator<Item = &[u8]> {
    let pieces = body.split(move |byte| is_control(*byte) || (ascii && !byte.is_ascii()));
    pieces.filter(move |piece| piece.len() >= least)
}

fn is_control(byte: u8) -> bool {
    (byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')) || byte == 0x7f
}

/// Whether text is a form and nothing else: names as forms have them, each with a value.
pub(crate) fn is_form(body: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-[]%+$:".contains(byte);
        !name.is_empty() && name.len() <= 128 && name.iter().all(plain)
    };
    body.trim_ascii_end().split(|byte| *byte == b'&').all(|piece| {
        let equals = memchr::memchr(b'=', piece);
        equals.is_some_and(|at| is_name(&piece[..at]))
    })
}

/// Whether it is a page of HTML, which is no XML and need not be.
pub(crate) fn is_page(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let begins = |with: &[u8]| start.get(..with.len()).is_some_and(|s| s.eq_ignore_ascii_case(with));
    begins(b"<!doctype html") || begins(b"<html") || begins(b"<head") || begins(b"<body")
}

/// Everything between double quotes, with escapes decoded, in a text that looks like JSON and is none to a strict reader.
pub(crate) fn strings(
    body: &[u8],
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut rest = body;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        buffer.clear();
        rest = string(&rest[quote + 1..], buffer);
        each(buffer)?;
    }
    ControlFlow::Continue(())
}

/// Decodes a string up to its quote, or the end; what follows.
fn string<'b>(mut rest: &'b [u8], out: &mut Vec<u8>) -> &'b [u8] {
    loop {
        let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..end]);
        rest = match &rest[end..] {
            [b'\\', b'u', a, b, c, d, after @ ..] if [a, b, c, d].iter().all(|d| d.is_ascii_hexdigit()) => {
                let code = [a, b, c, d].iter().fold(0, |code, d| code << 4 | u32::from(digit(**d)));
                let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                after
            }
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' | b'f' => b' ',
                    other => *other,
                });
                after
            }
            [b'"', after @ ..] => return after,
            _ => return &[],
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_body_begins_with_tells_how_it_is_read() {
        for (body, look) in [
            (&b"{}"[..], Some(Look::Json)),
            (b" \r\n\t[1]", Some(Look::Json)),
            (b"\xef\xbb\xbf{", Some(Look::Json)),
            (b"\xff\xfe{\0", Some(Look::Json)),
            (b"\0\0\0{", Some(Look::Json)),
            (b"\"a\"", Some(Look::Json)),
            (b"\n<a/>", Some(Look::Xml)),
            (b"a=1", Some(Look::Other)),
            (b"\x1f\x8b", Some(Look::Other)),
            // A frame of gRPC whose message has as many bytes as `{` is.
            (b"\0\0\0\0{", Some(Look::Other)),
            (b"\x01\0\0\0{", Some(Look::Other)),
            (b"", None),
            (b" \n", None),
            (b"\xef\xbb", None),
        ] {
            assert_eq!(begins(body), look, "{body:?}");
        }
    }

    #[test]
    fn only_what_cannot_be_text_is_opaque() {
        for opaque in ["application/octet-stream", "Image/PNG", "application/grpc+proto; x=y", "video/mp4"] {
            assert!(is_opaque(opaque.as_bytes()), "{opaque}");
        }
        for text in
            ["", "text/plain", "application/x-ndjson", "application/javascript", "octet-stream", "x/image"]
        {
            assert!(!is_opaque(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn strings_are_found_in_what_is_no_json() {
        let text = br#"{"a":1} // "b\u0027\"c" {x: "\n\ud800" , "open"#;
        let mut found = Vec::new();
        let _ = strings(text, &mut Vec::new(), |string| {
            found.push(String::from_utf8_lossy(string).into_owned());
            ControlFlow::Continue(())
        });
        assert_eq!(found, ["a", "b'\"c", "\n\u{fffd}", "open"]);
    }

    #[test]
    fn text_among_other_bytes_is_found() {
        let found: Vec<_> = runs(b"ab\0abcd\x01\xc3\xa9abc\x7fab\ncd", 4, false).collect();
        assert_eq!(found, [&b"abcd"[..], b"\xc3\xa9abc", b"ab\ncd"]);
        assert_eq!(runs(b"abcd\xc3\xa9abc", 4, true).collect::<Vec<_>>(), [b"abcd"]);
        assert_eq!(narrowed(b"\xff\xfe{\0}\0").as_deref(), Some(&b"{}"[..]));
        assert_eq!(narrowed(b"{}"), None);
    }

    #[test]
    fn a_form_is_one_when_nothing_else_stands_in_it() {
        for form in [&b"a=1"[..], b"a[0]=1&b.c=x y' or 1\r\n", b"%61=&b="] {
            assert!(is_form(form), "{form:?}");
        }
        for other in [&b""[..], b"a", b"a=1&", b"a b=1", b"1' or a=b", b"a=1&&b=2"] {
            assert!(!is_form(other), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            let _ = begins(&bytes);
            let _ = narrowed(&bytes);
            let mut all = 0;
            let _ = strings(&bytes, &mut Vec::new(), |string| {
                all += string.len();
                ControlFlow::Continue(())
            });
            prop_assert!(all <= bytes.len());
            prop_assert!(runs(&bytes, 4, true).all(|run| !is_binary(run)));
        }
    }
}
