//! The one form of a request's path: what is judged is what is sent.
//!
//! Two readers of `/a/%2e%2e;x/b` see different resources. So a path is brought to one form, in which no reader has
//! anything left to resolve, and what has no such form is refused:
//!
//! - percent-encoded unreserved characters are decoded, other encodings get upper-case digits, characters that have no
//!   place in a path (`"`, `<`, `[`, `|` and so on) are encoded;
//! - `.` and `..` segments are resolved, empty segments merged (nginx, Apache and most frameworks read `//` as `/`; kept
//!   apart, `//admin` would be judged as another path than it is served as);
//! - refused: climbing above the root, control characters, backslashes, invalid percent-encoding, bytes that are not
//!   UTF-8, and, unless allowed, the [`Oddities`].

use std::borrow::Cow;

use crate::h1::Refusal;

/// Unusual forms in a path that a route may allow. A set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oddities(u8);

impl Oddities {
    /// Nothing unusual.
    pub const NONE: Self = Self(0);
    /// `%2F` or `%5C`: a slash or backslash within a segment.
    pub const ENCODED_SLASH: Self = Self(1);
    /// `;`: path parameters.
    pub const PARAMETER: Self = Self(2);
    /// `%25` followed by two hexadecimal digits: something encoded twice.
    pub const DOUBLE_ENCODING: Self = Self(4);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `allowed` has all that is in here.
    #[must_use]
    pub const fn within(self, allowed: Self) -> bool {
        self.0 & !allowed.0 == 0
    }
}

/// A path in its one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normal<'a> {
    /// The path; borrowed when it was in this form already.
    pub path: Cow<'a, str>,
    /// What is unusual in it, all of it allowed.
    pub oddities: Oddities,
}

/// What a byte means in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself.
    Plain,
    /// Has to be looked at with what follows.
    Look,
}

const CLASS: [Class; 256] = {
    let mut table = [Class::Look; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        if is_unreserved(c)
            || matches!(c, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
        {
            table[byte] = Class::Plain;
        }
        byte += 1;
    }
    table
};

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Brings the path of a request (origin form, without its query) to its one form.
///
/// # Errors
/// The first rule that the path breaks.
pub fn path(raw: &str, allowed: Oddities) -> Result<Normal<'_>, Refusal> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(Refusal::TargetForm);
    }
    if is_normal(bytes) {
        return Ok(Normal { path: Cow::Borrowed(raw), oddities: Oddities::NONE });
    }
    let (normal, oddities) = bring_to_form(bytes, allowed)?;
    let path = if normal == raw { Cow::Borrowed(raw) } else { Cow::Owned(normal) };
    Ok(Normal { path, oddities })
}

/// The same for a path of a head: nothing where it is in its form already.
pub(crate) fn path_of_head(raw: &[u8], allowed: Oddities) -> Result<Option<(Box<str>, Oddities)>, Refusal> {
    if raw.first() != Some(&b'/') {
        return Err(Refusal::TargetForm);
    }
    if is_normal(raw) {
        return Ok(None);
    }
    bring_to_form(raw, allowed).map(|(path, oddities)| Some((path.into_boxed_str(), oddities)))
}

fn bring_to_form(bytes: &[u8], allowed: Oddities) -> Result<(String, Oddities), Refusal> {
    let (decoded, oddities) = decode(bytes)?;
    if let Some(refusal) = not_allowed(oddities, allowed) {
        return Err(refusal);
    }
    Ok((resolve(&decoded)?, oddities))
}

/// For each byte, in the low half what it is (1: to be looked at, 2: slash, 4: dot), in the high half which of these
/// must not follow it: nothing to be looked at anywhere, no slash and no dot after a slash.
const STEP: [u8; 256] = {
    let mut table = [0x11; 256];
    let mut byte = 0;
    while byte < 128 {
        if matches!(CLASS[byte], Class::Plain) {
            table[byte] = 0x10;
        }
        byte += 1;
    }
    table[b'.' as usize] = 0x14;
    table[b'/' as usize] = 0x72;
    table
};

/// Whether nothing has to be looked at: plain characters, no empty segment, none that begins with a dot and could be
/// `.` or `..`.
fn is_normal(bytes: &[u8]) -> bool {
    let mut must_not = 1;
    let mut found = 0;
    for byte in bytes {
        let step = STEP[usize::from(*byte)];
        found |= step & must_not;
        must_not = step >> 4;
    }
    found == 0
}

fn not_allowed(found: Oddities, allowed: Oddities) -> Option<Refusal> {
    [
        (Oddities::ENCODED_SLASH, Refusal::PathEncodedSlash),
        (Oddities::PARAMETER, Refusal::PathParameter),
        (Oddities::DOUBLE_ENCODING, Refusal::PathDoubleEncoding),
    ]
    .into_iter()
    .find(|(oddity, _)| found.0 & oddity.0 & !allowed.0 != 0)
    .map(|(_, refusal)| refusal)
}

/// Decodes what may be decoded and encodes what must be; segments stay as they are.
fn decode(bytes: &[u8]) -> Result<(String, Oddities), Refusal> {
    let mut out = String::with_capacity(bytes.len() + 16);
    let mut oddities = Oddities::NONE;
    // Bytes above 127 that wait to be seen as a whole character.
    let mut wide = Wide::default();
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            wide.must_be_whole()?;
            match byte {
                0..=0x20 | 0x7f => return Err(Refusal::PathControl),
                b'\\' => return Err(Refusal::PathBackslash),
                b'#' | b'?' | 0x80.. => return Err(Refusal::TargetByte),
                b';' => {
                    oddities = oddities.with(Oddities::PARAMETER);
                    out.push(';');
                }
                b'/' => out.push('/'),
                plain if CLASS[usize::from(*plain)] == Class::Plain => out.push(char::from(*plain)),
                other => push_encoded(&mut out, *other),
            }
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(Refusal::PathEncoding) };
        let (Some(high), Some(low)) = (hex(*high), hex(*low)) else { return Err(Refusal::PathEncoding) };
        rest = tail;
        let value = high << 4 | low;
        if value < 0x80 {
            wide.must_be_whole()?;
        }
        match value {
            0..=0x1f | 0x7f => return Err(Refusal::PathControl),
            0x80.. => {
                wide.push(value)?;
                push_encoded(&mut out, value);
            }
            plain if is_unreserved(plain) => out.push(char::from(plain)),
            b'/' | b'\\' => {
                oddities = oddities.with(Oddities::ENCODED_SLASH);
                push_encoded(&mut out, value);
            }
            _ => push_encoded(&mut out, value),
        }
    }
    wide.must_be_whole()?;
    // Looked for in the result, because `%25%32%65` becomes `%252e` only now.
    if has_double_encoding(out.as_bytes()) {
        oddities = oddities.with(Oddities::DOUBLE_ENCODING);
    }
    Ok((out, oddities))
}

fn has_double_encoding(bytes: &[u8]) -> bool {
    memchr::memmem::find_iter(bytes, b"%25")
        .any(|at| matches!(bytes[at + 3..], [high, low, ..] if hex(high).is_some() && hex(low).is_some()))
}

/// The bytes of one character above ASCII, as far as they came.
#[derive(Default)]
struct Wide {
    bytes: [u8; 4],
    len: usize,
}

impl Wide {
    fn push(&mut self, byte: u8) -> Result<(), Refusal> {
        self.bytes[self.len] = byte;
        self.len += 1;
        match std::str::from_utf8(&self.bytes[..self.len]) {
            // U+0080 to U+009F are control characters, whichever way they are written.
            Ok(text) if text.chars().any(char::is_control) => Err(Refusal::PathControl),
            Ok(_) => {
                self.len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() && self.len < 4 => Ok(()),
            Err(_) => Err(Refusal::PathUtf8),
        }
    }

    fn must_be_whole(&self) -> Result<(), Refusal> {
        if self.len == 0 { Ok(()) } else { Err(Refusal::PathUtf8) }
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn push_encoded(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Resolves dot segments and merges empty ones.
fn resolve(decoded: &str) -> Result<String, Refusal> {
    let mut out = String::with_capacity(decoded.len());
    let mut segments = decoded[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" | "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or(Refusal::PathAboveRoot)?;
                out.truncate(parent);
            }
            _ => {
                refuse_hidden_dots(segment)?;
                out.push('/');
                out.push_str(segment);
                if last {
                    return Ok(out);
                }
            }
        }
        if last {
            out.push('/');
        }
    }
    Ok(out)
}

/// Where a route allows parameters or encoded slashes, a dot segment may still not hide behind one: servers that
/// strip the parameter or decode the slash would climb after the path was judged.
fn refuse_hidden_dots(segment: &str) -> Result<(), Refusal> {
    let mut pieces = segment.split("%2F").flat_map(|piece| piece.split("%5C"));
    let hidden = pieces.any(|piece| {
        let name = piece.split(';').next().unwrap_or_default();
        name == "." || name == ".."
    });
    if hidden { Err(Refusal::PathAboveRoot) } else { Ok(()) }
}
