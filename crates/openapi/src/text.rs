//! Texts of requests: percent-encoding, media types, and names that may be shown.

use std::borrow::Cow;

/// Decodes percent-encoding, and `+` as a space where `plus` says so. `None` where the encoding is broken.
pub(crate) fn percent_decode(text: &[u8], plus: bool) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|b| *b == b'%' || (plus && *b == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return None };
                out.push(hex(*high)? << 4 | hex(*low)?);
                rest = tail;
            }
            b'+' if plus => out.push(b' '),
            other => out.push(*other),
        }
    }
    Some(Cow::Owned(out))
}

/// The same for a text.
pub(crate) fn decode_text(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    match percent_decode(text.as_bytes(), plus)? {
        Cow::Borrowed(_) => Some(Cow::Borrowed(text)),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A media type without its parameters, in lower case, and the parameters that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MediaType {
    pub(crate) essence: String,
    pub(crate) charset: Option<String>,
    pub(crate) boundary: Option<String>,
}

impl MediaType {
    /// Reads the value of a `Content-Type` field. `None` where it is none, or says one thing twice.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        let essence = essence.trim().to_ascii_lowercase();
        let (kind, sub) = essence.split_once('/')?;
        if kind.is_empty() || sub.is_empty() || !kind.bytes().chain(sub.bytes()).all(is_token) {
            return None;
        }
        let mut out = Self { essence, charset: None, boundary: None };
        while !rest.trim().is_empty() {
            let (name, after) = rest.split_once('=')?;
            let name = name.trim().to_ascii_lowercase();
            let after = after.trim_start();
            let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
                let (value, end) = unquote(quoted)?;
                (value, quoted.get(end..)?)
            } else {
                let end = after.find(';').unwrap_or(after.len());
                (after.get(..end)?.trim().to_owned(), after.get(end..)?)
            };
            let slot = match name.as_str() {
                "charset" => Some(&mut out.charset),
                "boundary" => Some(&mut out.boundary),
                _ => None,
            };
            if let Some(slot) = slot
                && slot.replace(value).is_some()
            {
                return None;
            }
            rest = match after.trim_start() {
                "" => "",
                after => after.strip_prefix(';')?,
            };
        }
        Some(out)
    }

    /// Whether its text is in UTF-8, as everything that is read here must be.
    pub(crate) fn is_utf8(&self) -> bool {
        self.charset
            .as_deref()
            .is_none_or(|c| c.eq_ignore_ascii_case("utf-8") || c.eq_ignore_ascii_case("us-ascii"))
    }
}

fn unquote(text: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, at + 1)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A character of an HTTP token.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether this is a range such as `*/*` or `text/*` that holds the type; how narrow it is.
pub(crate) fn covers(range: &str, essence: &str) -> Option<u8> {
    match range.split_once('/') {
        Some(("*", "*")) => Some(1),
        Some((kind, "*")) => (essence.split_once('/')?.0 == kind).then_some(2),
        _ => (range == essence).then_some(3),
    }
}

/// A name of a field that somebody sent, where it may be shown to an operator: what looks like a name is one, all else might be a
/// value that was used as a key.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$' || c == '@')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.$@:[]".contains(&b))
        && name.bytes().filter(u8::is_ascii_digit).count() <= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        let parsed = |text: &str| MediaType::parse(text.as_bytes());
        let json = parsed("Application/JSON ; charset=\"UTF-8\"").unwrap();
        assert_eq!((json.essence.as_str(), json.is_utf8()), ("application/json", true));
        assert!(!parsed("text/plain;charset=latin1").unwrap().is_utf8());
        let form = parsed("multipart/form-data; boundary=\"a;b\\\"c\"; x=y").unwrap();
        assert_eq!(form.boundary.as_deref(), Some("a;b\"c"));
        for wrong in
            ["", "json", "/json", "a/", "a b/c", "a/b; charset", "a/b; boundary=x; boundary=y", "a/b; c=\"d"]
        {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        assert_eq!(covers("text/*", "text/plain"), Some(2));
        assert_eq!(covers("text/plain", "text/html"), None);
    }

    #[test]
    fn what_looks_like_a_value_is_no_name() {
        assert!(is_name("first_name") && is_name("$ref") && is_name("line2"));
        assert!(!is_name("123-45-6789") && !is_name("x 1") && !is_name("id20240101") && !is_name(""));
    }
}
