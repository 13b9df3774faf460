//! Whether a value brings a script into a page.

use std::sync::OnceLock;

use super::html::{Markup, Place, Token};

/// What an attribute's value can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Harmless,
    /// It runs, whatever it is.
    Script,
    /// An address, which runs with some schemes.
    Address,
    /// The name of an attribute.
    Name,
}

/// Elements that run or load something; those of SVG and XSL, by their first letters, besides.
const ELEMENTS: [&[u8]; 20] = [
    b"applet",
    b"base",
    b"comment",
    b"embed",
    b"frame",
    b"frameset",
    b"handler",
    b"iframe",
    b"import",
    b"isindex",
    b"link",
    b"listener",
    b"meta",
    b"noscript",
    b"object",
    b"script",
    b"style",
    b"vmlframe",
    b"xml",
    b"xss",
];

const ATTRIBUTES: [(&[u8], Attribute); 20] = [
    (b"action", Attribute::Address),
    (b"attributename", Attribute::Name),
    (b"background", Attribute::Address),
    (b"by", Attribute::Address),
    (b"dataformatas", Attribute::Script),
    (b"datasrc", Attribute::Script),
    (b"dynsrc", Attribute::Address),
    (b"filter", Attribute::Script),
    (b"folder", Attribute::Address),
    (b"formaction", Attribute::Address),
    (b"from", Attribute::Address),
    (b"handler", Attribute::Address),
    (b"href", Attribute::Address),
    (b"lowsrc", Attribute::Address),
    (b"poster", Attribute::Address),
    (b"src", Attribute::Address),
    (b"style", Attribute::Script),
    (b"to", Attribute::Address),
    (b"values", Attribute::Address),
    (b"xlink:href", Attribute::Address),
];

/// Schemes of addresses that run; `java` stands for itself and for JavaScript.
const SCHEMES: [&[u8]; 4] = [b"DATA", b"VIEW-SOURCE", b"JAVA", b"VBSCRIPT"];

/// The events of `on…` attributes, sorted; whatever begins with one of them counts.
const EVENTS: &str = include_str!("events.txt");

/// No event's name is longer.
const MAX_EVENT: usize = 48;

/// Whether a value would run as a script, or let one run, in some place of a page.
pub fn xss(value: &[u8]) -> bool {
    // A name decides nothing without `<` before it or `=` after it.
    if memchr::memchr2(b'<', b'=', value).is_none() {
        return false;
    }
    runs(value, Place::Text)
        || runs(value, Place::Attributes)
        || [b'\'', b'"', b'`']
            .into_iter()
            .any(|quote| memchr::memchr(quote, value).is_some() && runs(value, Place::Value(quote)))
}

fn runs(value: &[u8], place: Place) -> bool {
    if place == Place::Text && memchr::memchr(b'<', value).is_none() {
        return false;
    }
    let mut markup = Markup::new(value, place);
    let mut attribute = Attribute::Harmless;
    while let Some(token) = markup.next() {
        let before = std::mem::replace(&mut attribute, Attribute::Harmless);
        let runs = match token {
            Token::Doctype => true,
            Token::Element(name) => is_bad_element(name),
            Token::Attribute(name) => {
                attribute = judge_attribute(name);
                false
            }
            Token::Value(text) => match before {
                Attribute::Harmless => false,
                Attribute::Script => true,
                Attribute::Address => is_bad_address(text),
                Attribute::Name => judge_attribute(text) != Attribute::Harmless,
            },
            Token::Comment(text) => is_bad_comment(text),
            Token::Text | Token::Close => false,
        };
        if runs {
            return true;
        }
    }
    false
}

/// Equal but for case and for null bytes in the first one, which old browsers read over.
fn is_name(text: &[u8], name: &[u8]) -> bool {
    let mut text = text.iter().filter(|byte| **byte != 0).map(u8::to_ascii_lowercase);
    name.iter().all(|byte| text.next() == Some(*byte)) && text.next().is_none()
}

fn begins_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|text| text.eq_ignore_ascii_case(prefix))
}

fn is_bad_element(name: &[u8]) -> bool {
    name.len() >= 3
        && (begins_with(name, b"svg")
            || begins_with(name, b"xsl")
            || ELEMENTS.iter().any(|element| is_name(name, element)))
}

fn judge_attribute(name: &[u8]) -> Attribute {
    if name.len() < 2 {
        return Attribute::Harmless;
    }
    if name.len() >= 5
        && ((begins_with(name, b"on") && begins_with_event(&name[2..]))
            || begins_with(name, b"xmlns")
            || begins_with(name, b"xlink"))
    {
        return Attribute::Script;
    }
    ATTRIBUTES
        .iter()
        .find(|(known, _)| is_name(name, known))
        .map_or(Attribute::Harmless, |(_, attribute)| *attribute)
}

fn begins_with_event(text: &[u8]) -> bool {
    static TABLE: OnceLock<Vec<&[u8]>> = OnceLock::new();
    let table = TABLE.get_or_init(|| EVENTS.lines().map(str::as_bytes).collect());
    // None begins with another one, so only the last one before the text can be what it begins with.
    let mut lower = [0; MAX_EVENT];
    let len = text.len().min(MAX_EVENT);
    lower[..len].copy_from_slice(&text[..len]);
    lower.make_ascii_lowercase();
    let after = table.partition_point(|event| *event <= &lower[..len]);
    after.checked_sub(1).is_some_and(|at| lower[..len].starts_with(table[at]))
}

fn is_bad_comment(text: &[u8]) -> bool {
    // A back tick ends a comment for Internet Explorer; the others are its conditional comments and XML's declarations.
    memchr::memchr(b'`', text).is_some()
        || (text.len() > 3 && (begins_with(text, b"[if") || begins_with(text, b"xml")))
        || (text.len() > 5 && (begins_with(text, b"import") || begins_with(text, b"entity")))
}

fn is_bad_address(text: &[u8]) -> bool {
    let begin = text.iter().position(|byte| matches!(byte, 33..=126)).unwrap_or(text.len());
    SCHEMES.iter().any(|scheme| has_scheme(&text[begin..], scheme))
}

/// Whether an address, with character references in it, begins so. Control characters before it and line ends within
/// do not count.
fn has_scheme(mut text: &[u8], scheme: &[u8]) -> bool {
    let mut scheme = scheme.iter();
    let Some(mut wanted) = scheme.next() else { return true };
    let mut first = true;
    while !text.is_empty() {
        let (code, len) = character(text);
        text = &text[len..];
        if (first && code <= 32) || code == 0 || code == 10 {
            continue;
        }
        first = false;
        let code = if (97..=122).contains(&code) { code - 32 } else { code };
        // The low byte decides, as in browsers that had no more.
        if code as u8 != *wanted {
            return false;
        }
        match scheme.next() {
            Some(next) => wanted = next,
            None => return true,
        }
    }
    false
}

/// The first character with its length: a reference by number, or a byte.
fn character(text: &[u8]) -> (u32, usize) {
    const LARGEST: u32 = 0x10_00ff;
    let plain = (u32::from(text[0]), 1);
    let (radix, prefix) = match text {
        [b'&', b'#', b'x' | b'X', ..] => (16, 3),
        [b'&', b'#', ..] => (10, 2),
        _ => return plain,
    };
    let (mut code, mut len) = (0, prefix);
    while let Some(digit) = text.get(len).and_then(|byte| char::from(*byte).to_digit(radix)) {
        code = code * radix + digit;
        if code > LARGEST {
            return plain;
        }
        len += 1;
    }
    if len == prefix {
        return plain;
    }
    (code, len + usize::from(text.get(len) == Some(&b';')))
}
