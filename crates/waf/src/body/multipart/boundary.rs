//! The boundary that `Content-Type` names.

use memchr::{memchr, memmem};

use super::super::Error;
use super::{Flags, is_space, malformed};

/// Content types longer than this hide something.
const MAX_CONTENT_TYPE: usize = 1_024;

pub(super) struct Boundary<'a> {
    pub(super) name: &'a [u8],
}

impl Boundary<'_> {
    /// Whether a line has the boundary somewhere behind its beginning.
    pub(super) fn within(&self, line: &[u8]) -> bool {
        memmem::find_iter(line, b"--").any(|at| line[at + 2..].starts_with(self.name))
    }

    /// Whether the unfinished last line of a body is the last boundary.
    pub(super) fn closes(&self, line: &[u8]) -> bool {
        let name = line.strip_prefix(b"--").and_then(|rest| rest.strip_suffix(b"--"));
        name == Some(self.name)
    }
}

/// Finds the boundary as a strict reader does: one parameter, in lower case, first.
pub(super) fn find<'a>(content_type: &'a [u8], flags: &mut Flags) -> Result<Boundary<'a>, Error> {
    let wrong = |what| Err(malformed(0, what));
    let kind = content_type.get(..MULTIPART.len()).unwrap_or_default();
    if !kind.eq_ignore_ascii_case(MULTIPART) {
        return wrong("the content type is not multipart/form-data");
    }
    if content_type.len() > MAX_CONTENT_TYPE {
        return wrong("the content type is too long");
    }
    let parameters = &content_type[MULTIPART.len()..];
    if named(parameters) > 1 {
        return wrong("the content type names two boundaries");
    }
    let Some(word) = memmem::find(parameters, b"boundary") else {
        return wrong("the content type names no boundary");
    };
    let before = parameters[..word].iter().filter(|b| !is_space(**b));
    match before.copied().collect::<Vec<_>>().as_slice() {
        b";" => {}
        b"" => flags.missing_semicolon = true,
        _ => return wrong("the content type has something before the boundary"),
    }
    let rest = &parameters[word + b"boundary".len()..];
    let Some(equals) = memchr(b'=', rest) else {
        return wrong("the content type names no boundary");
    };
    if !rest[..equals].iter().all(|b| is_space(*b)) {
        return wrong("the content type has another word that begins like boundary");
    }
    let value = &rest[equals + 1..];
    flags.boundary_whitespace |= equals > 0 || value.first().is_some_and(|b| is_space(*b));
    let name = match value {
        [b'"', quoted @ ..] => {
            let Some(end) = memchr(b'"', quoted) else {
                return wrong("the boundary in the content type has one quote");
            };
            if quoted[end + 1..].trim_ascii_start().first().is_some_and(|b| *b != b';') {
                return wrong("the content type has something behind the boundary");
            }
            flags.boundary_quoted = true;
            &quoted[..end]
        }
        plain => {
            let end = memchr(b';', plain).unwrap_or(plain.len());
            let name = &plain[..end];
            // Space before further parameters belongs to nobody.
            if end < plain.len() { name.trim_ascii_end() } else { name }
        }
    };
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b" '()+_,-./:=?".contains(b);
    if name.is_empty() || name.ends_with(b" ") || !name.iter().all(allowed) {
        return wrong("the boundary in the content type has bytes that it may not have");
    }
    if named(name) > 0 {
        return wrong("the content type names two boundaries");
    }
    Ok(Boundary { name })
}

const MULTIPART: &[u8] = b"multipart/form-data";

/// How often the word `boundary` stands before some `=`.
fn named(text: &[u8]) -> usize {
    let lower = text.to_ascii_lowercase();
    memmem::find_iter(&lower, b"boundary").filter(|at| lower[*at..].contains(&b'=')).count()
}
