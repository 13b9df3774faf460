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
    if matches!(body, [0] | [0, 0] | [0, 0, 0]) {
        return None;
    }
    let as_wide = match wide(body) {
        Some(wide) => start(&decoded(body, wide))?.look,
        None => Look::Other,
    };
    match as_wide {
        Look::Other => start(body).map(|start| start.look),
        look => Some(look),
    }
}

/// Where a body begins, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) look: Look,
    /// What stands before are blanks, comments and the like.
    pub(crate) at: usize,
    /// There is more than blanks before.
    pub(crate) after_comment: bool,
}

/// What text of one byte a character begins like to a lenient reader; `None` as long as that cannot be told.
pub(crate) fn start(body: &[u8]) -> Option<Start> {
    let (mut rest, mut after_comment) = (body, false);
    let look = loop {
        rest = match rest {
            // What may go on as one of those below.
            [] | [0xc2 | 0xe1..=0xe3 | 0xef | b'/'] => return None,
            [0xef, 0xbb] | [0xe1, 0x9a] | [0xe2, 0x80 | 0x81] | [0xe3, 0x80] => return None,
            [b')'] | [b')', b']'] | [b')', b']', b'}'] => return None,
            [0xef, 0xbb, 0xbf, rest @ ..] => rest,
            [0xff | 0xfe | b' ' | b'\t'..=b'\r', rest @ ..] => rest,
            // The blanks of Unicode.
            [0xc2, 0x85 | 0xa0, rest @ ..]
            | [0xe1, 0x9a, 0x80, rest @ ..]
            | [0xe2, 0x80, 0x80..=0x8a | 0xa8 | 0xa9 | 0xaf, rest @ ..]
            | [0xe2, 0x81, 0x9f, rest @ ..]
            | [0xe3, 0x80, 0x80, rest @ ..] => rest,
            [b'/', b'/' | b'*', ..] => {
                after_comment = true;
                comment(rest)?
            }
            // What servers put before JSON so that it is no script, and readers of theirs skip.
            [b')', b']', b'}', b'\'', rest @ ..] => {
                after_comment = true;
                rest.strip_prefix(b",").unwrap_or(rest)
            }
            [b'{' | b'[' | b'"', ..] => break Look::Json,
            [b'<', ..] if !after_comment => break Look::Xml,
            _ => break Look::Other,
        }
    };
    Some(Start { look, at: body.len() - rest.len(), after_comment })
}

/// What follows the comment that a text begins with; `None` if it does not end.
fn comment(text: &[u8]) -> Option<&[u8]> {
    let inside = &text[2..];
    if text[1] == b'*' {
        return memchr::memmem::find(inside, b"*/").map(|end| &inside[end + 2..]);
    }
    // JSON5 ends lines with two characters of Unicode too.
    let ends = |at: &usize| matches!(inside[*at..], [b'\n' | b'\r', ..] | [0xe2, 0x80, 0xa8 | 0xa9, ..]);
    (0..inside.len()).find(ends).map(|end| &inside[end..])
}

/// How text of more than one byte a character is written.
#[derive(Clone, Copy)]
struct Wide {
    /// Bytes of a unit: two or four.
    unit: usize,
    big_endian: bool,
    /// Bytes of the mark before it.
    mark: usize,
}

/// Whether a body is such text: by its mark, or by where the zeros of its first characters stand.
fn wide(body: &[u8]) -> Option<Wide> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t'..=b'\r');
    let opens = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r') || b"{[\"</)".contains(&byte);
    let (unit, big_endian, mark) = match *body {
        [0xff, 0xfe, 0, 0, ..] => (4, false, 4),
        [0, 0, 0xfe, 0xff, ..] => (4, true, 4),
        [0xff, 0xfe, ..] => (2, false, 2),
        [0xfe, 0xff, ..] => (2, true, 2),
        // A frame of gRPC begins with zeros too, and hardly goes on with one.
        [0, 0, 0, one] | [0, 0, 0, one, 0, ..] if is_plain(one) => (4, true, 0),
        [one, 0, 0, 0, ..] if is_plain(one) => (4, false, 0),
        [0, one, 0, two, ..] if is_plain(one) && is_plain(two) => (2, true, 0),
        [one, 0, two, 0, ..] if is_plain(one) && is_plain(two) => (2, false, 0),
        [0, one, ..] if opens(one) => (2, true, 0),
        [one, 0, ..] if opens(one) => (2, false, 0),
        _ => return None,
    };
    Some(Wide { unit, big_endian, mark })
}

/// Such text as UTF-8, at most half as long again; what is no character is shown as such.
fn decoded(body: &[u8], wide: Wide) -> Vec<u8> {
    let units = body[wide.mark..].chunks_exact(wide.unit).map(|unit| {
        let add = |code: u32, byte: &u8| code << 8 | u32::from(*byte);
        if wide.big_endian { unit.iter().fold(0, add) } else { unit.iter().rev().fold(0, add) }
    });
    let text: String = if wide.unit == 4 {
        units.map(|code| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    } else {
        // Two bytes are no more than that.
        let characters = char::decode_utf16(units.map(|unit| unit as u16));
        characters.map(|character| character.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    text.into_bytes()
}

/// Text of two or four bytes a character as UTF-8, if it is such.
pub(crate) fn narrowed(body: &[u8]) -> Option<Vec<u8>> {
    if let Some(wide) = wide(body) {
        return Some(decoded(body, wide));
    }
    let start = &body[..body.len().min(64)];
    let zeros = memchr::memchr_iter(0, start).count();
    (zeros * 3 >= start.len() && zeros > 0).then(|| body.iter().copied().filter(|byte| *byte != 0).collect())
}

/// Text in which a few bytes are none: with blanks for them. `None` if it is all text, or hardly any.
pub(crate) fn blanked(body: &[u8]) -> Option<Vec<u8>> {
    (is_binary(body) && is_nearly_text(body))
        .then(|| body.iter().map(|byte| if is_control(*byte) { b' ' } else { *byte }).collect())
}

/// Whether a service may take it for text of one byte a character, or for UTF-8.
pub(crate) fn is_nearly_text(body: &[u8]) -> bool {
    let few = |is: fn(&u8) -> bool| body.iter().filter(|byte| is(byte)).count() * 4 <= body.len();
    few(|byte| is_control(*byte)) && (few(|byte| !byte.is_ascii()) || std::str::from_utf8(body).is_ok())
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
    // Databases take a vertical tab and a form feed for blanks.
    byte.is_ascii_control() && !matches!(byte, b'\t'..=b'\r')
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

/// Everything between quotes, with escapes decoded, in a text that looks like JSON and is none to a strict reader.
pub(crate) fn strings(
    body: &[u8],
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    // Between double quotes, wherever they stand.
    let (mut at, mut known) = (0, Vec::new());
    while let Some(quote) = memchr::memchr(b'"', &body[at..]) {
        let begin = at + quote + 1;
        buffer.clear();
        at = body.len() - string(&body[begin..], b'"', buffer).len();
        each(buffer)?;
        known.push(begin);
    }
    // As lenient readers have it: between either, but not in comments.
    let (mut last, mut endless) = (b',', Vec::new());
    at = 0;
    while let Some(found) = body[at..].iter().position(|byte| matches!(byte, b'"' | b'\'' | b'/' | b'\\')) {
        let is_blank = |byte: &&u8| **byte <= b' ' || !byte.is_ascii();
        last = *body[at..at + found].iter().rev().find(|byte| !is_blank(byte)).unwrap_or(&last);
        at += found;
        let after = match &body[at..] {
            // Where one does not end, no later one of its kind does, and none is looked for.
            [b'/', kind @ (b'/' | b'*'), after @ ..] if !endless.contains(kind) => comment(&body[at..])
                .unwrap_or_else(|| {
                    endless.push(*kind);
                    after
                }),
            // An apostrophe opens a string only where a name or a value may stand.
            [quote @ (b'"' | b'\''), inside @ ..] if *quote == b'"' || b"{[,:=>;".contains(&last) => {
                buffer.clear();
                let after = string(inside, *quote, buffer);
                if known.binary_search(&(at + 1)).is_err() {
                    each(buffer)?;
                }
                last = *quote;
                after
            }
            [b'\\', _, after @ ..] | [_, after @ ..] => {
                last = b'\\';
                after
            }
            [] => &[],
        };
        at = body.len() - after.len();
    }
    ControlFlow::Continue(())
}

/// Decodes a string up to its quote, or the end; what follows.
fn string<'b>(mut rest: &'b [u8], quote: u8, out: &mut Vec<u8>) -> &'b [u8] {
    loop {
        let end = memchr::memchr2(quote, b'\\', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..end]);
        rest = &rest[end..];
        if let Some((character, after)) = by_number(rest) {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
            continue;
        }
        rest = match rest {
            // The string goes on in the next line.
            [b'\\', b'\r', b'\n', after @ ..] | [b'\\', b'\r' | b'\n', after @ ..] => after,
            [b'\\', escaped, after @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' | b'f' | b'v' => b' ',
                    other => *other,
                });
                after
            }
            [byte, after @ ..] if *byte == quote => return after,
            _ => return &[],
        };
    }
}

/// The character that a text begins with as `\uXXXX` or `\xXX`, and what follows.
fn by_number(text: &[u8]) -> Option<(char, &[u8])> {
    let (digits, after) = match text {
        [b'\\', b'u', after @ ..] => after.split_at_checked(4)?,
        [b'\\', b'x', after @ ..] => after.split_at_checked(2)?,
        _ => return None,
    };
    let code = digits.iter().fold(0, |code, byte| code << 4 | u32::from(digit(*byte)));
    digits
        .iter()
        .all(u8::is_ascii_hexdigit)
        .then(|| (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), after))
}

/// A text with what stands in it by number decoded; `None` if nothing does.
pub(crate) fn unescaped(body: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut done) = (Vec::new(), 0);
    while let Some(found) = memchr::memchr(b'\\', &body[done..]) {
        let (before, rest) = body[done..].split_at(found);
        out.extend_from_slice(before);
        let after = match by_number(rest) {
            Some((character, after)) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                after
            }
            None => {
                out.push(b'\\');
                &rest[1..]
            }
        };
        done = body.len() - after.len();
    }
    out.extend_from_slice(&body[done..]);
    (out.len() != body.len()).then_some(out)
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
            (b"\0\0\0{\x20{}", Some(Look::Other)),
            (b"\xff\xfe \0 \0 \0 \0 \0<\0", Some(Look::Xml)),
            (b"\xfe\xff\0<\x4e\x8c", Some(Look::Xml)),
            (b"\xff\xfe{}", Some(Look::Json)),
            (b"/* a */ // b\n\x0b\xc2\xa0\x0c{", Some(Look::Json)),
            (b"// a\xe2\x80\xa8[1]", Some(Look::Json)),
            (b")]}',\n[1]", Some(Look::Json)),
            (b")]", None),
            (b"/* a", None),
            (b"// a", None),
            (b"/a/{", Some(Look::Other)),
            (b"/**/<a/>", Some(Look::Other)),
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
    fn either_quote_counts_and_an_apostrophe_is_none() {
        let text = br#"{/*'"*/'a':'b\u0027\x22\'c', "d" :'e\
f', g: don't, rtf: \'e9 \'e8 } // 'h'"#;
        let mut found = Vec::new();
        let _ = strings(text, &mut Vec::new(), |string| {
            found.push(String::from_utf8_lossy(string).into_owned());
            ControlFlow::Continue(())
        });
        // The first two are what stands between double quotes to a reader that knows no comments.
        assert_eq!(found[2..], ["a", "b'\"'c", "d", "ef"], "{found:?}");
        assert_eq!(unescaped(br"'\u0031\x27\n'").as_deref(), Some(&br"'1'\n'"[..]));
        assert_eq!(unescaped(br"a\n\u12"), None);
        // Each byte is looked at a few times, not as often as there are others.
        for piece in ["/*", "//", "'/*", "\"//", "\\u12", "'\\"] {
            let _ = strings(piece.repeat(1 << 18).as_bytes(), &mut Vec::new(), |_| ControlFlow::Continue(()));
        }
    }

    #[test]
    fn wide_text_is_decoded_whichever_way_it_is_written() {
        let text = "{\"a\":\"\u{4e8c}\u{1f600}\"}";
        let two = |turn: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(turn).collect::<Vec<_>>();
        let four = |turn: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| turn(c.into())).collect::<Vec<_>>();
        for (mark, body) in [
            (&b"\xff\xfe"[..], two(u16::to_le_bytes)),
            (b"\xfe\xff", two(u16::to_be_bytes)),
            (b"\xff\xfe\0\0", four(u32::to_le_bytes)),
            (b"\0\0\xfe\xff", four(u32::to_be_bytes)),
        ] {
            for body in [[mark, &body].concat(), body] {
                assert_eq!(narrowed(&body).as_deref(), Some(text.as_bytes()), "{body:?}");
                assert_eq!(begins(&body), Some(Look::Json));
            }
        }
        assert_eq!(narrowed(b"\xff\xfe\0\xd8a\0b").as_deref(), Some("\u{fffd}a".as_bytes()));
    }

    #[test]
    fn a_few_bytes_that_are_no_text_make_no_binary() {
        assert_eq!(blanked(b"ab\0cd\x01ef\x0b").as_deref(), Some(&b"ab cd ef\x0b"[..]));
        assert_eq!(blanked(b"ab\x0bcd"), None);
        assert_eq!(blanked(b"\0\0a"), None);
        assert_eq!(blanked(b"\x01\xff\xfe\xfd\x80abcd"), None);
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
            // Once between double quotes, once as JSON5 has it.
            prop_assert!(all <= 2 * bytes.len());
            prop_assert!(unescaped(&bytes).is_none_or(|text| text.len() < bytes.len()));
            prop_assert!(start(&bytes).is_none_or(|start| start.at <= bytes.len()));
            prop_assert!(blanked(&bytes).is_none_or(|text| !is_binary(&text)));
            prop_assert!(runs(&bytes, 4, true).all(|run| !is_binary(run)));
        }
    }
}
