//! Bodies, query strings and cookies taken apart into the arguments that rules look at.
//!
//! Every parser walks one slice and hands slices on: nothing is built up, file contents are never copied, and what a parser holds
//! itself is bounded by [`Limits`]. A whole slice was chosen over chunks because rules on `REQUEST_BODY` need one anyway and the
//! gateway holds the body until it is judged.
//!
//! A parser that cannot go on says why in [`Outcome::error`]. What it handed on until then stays: the rules judge the part that was
//! understood, and the error (`REQBODY_ERROR`) the rest.

pub mod cookie;
mod decode;
pub mod form;
pub mod json;
pub mod multipart;
pub mod sniff;
pub mod xml;

use std::ops::{ControlFlow, Range};

/// Receives what the parsers find, in the order of the bytes.
///
/// The slices are lent for the call alone. [`ControlFlow::Break`] says that the receiver is full: the parser ends with
/// [`Error::TooMany`].
pub trait Sink {
    /// One argument: a form field, a JSON leaf (`json.a.b`), a part of a multipart body that is not a file, or a cookie.
    fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()>;

    /// One header line of the part `name` of a multipart body (`MULTIPART_PART_HEADERS`), without its line end.
    fn part_header(&mut self, name: &[u8], line: &[u8]) -> ControlFlow<()> {
        let _ = (name, line);
        ControlFlow::Continue(())
    }

    /// One file of a multipart body: `FILES_NAMES`, `FILES` and `FILES_SIZES`.
    fn file(&mut self, name: &[u8], filename: &[u8], size: usize) -> ControlFlow<()> {
        let _ = (name, filename, size);
        ControlFlow::Continue(())
    }

    /// The value of one attribute of an XML document (`XML://@*`).
    fn xml_attribute(&mut self, value: &[u8]) -> ControlFlow<()> {
        let _ = value;
        ControlFlow::Continue(())
    }

    /// The text of all elements of an XML document, joined (`XML:/*`). Called once, last.
    fn xml_text(&mut self, text: &[u8]) -> ControlFlow<()> {
        let _ = text;
        ControlFlow::Continue(())
    }
}

/// What a body is read as: `REQBODY_PROCESSOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `application/x-www-form-urlencoded`
    Form,
    /// `multipart/form-data`
    Multipart,
    /// JSON
    Json,
    /// XML
    Xml,
}

impl Kind {
    /// The kind that `ctl:requestBodyProcessor` names, in any case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Form, Self::Multipart, Self::Json, Self::Xml]
            .into_iter()
            .find(|k| k.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The value of `REQBODY_PROCESSOR`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Form => "URLENCODED",
            Self::Multipart => "MULTIPART",
            Self::Json => "JSON",
            Self::Xml => "XML",
        }
    }

    /// The kind that `Content-Type` asks for: the two of forms as ModSecurity finds them, JSON and XML by what its recommended
    /// configuration has rules for (`application/json`, `application/xml`, `text/xml`, `+json` and `+xml`).
    pub fn of_content_type(content_type: &[u8]) -> Option<Self> {
        let starts = |prefix: &[u8]| {
            content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        if starts(b"multipart/form-data") {
            return Some(Self::Multipart);
        }
        if starts(b"application/x-www-form-urlencoded") {
            return Some(Self::Form);
        }
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let media = content_type[..end].trim_ascii().to_ascii_lowercase();
        let (family, subtype) = media.split_at(media.iter().position(|b| *b == b'/')?);
        match (family, &subtype[1..]) {
            (b"application" | b"text", b"json") => Some(Self::Json),
            (b"application" | b"text", b"xml") => Some(Self::Xml),
            (_, subtype) if subtype.ends_with(b"+json") => Some(Self::Json),
            (_, subtype) if subtype.ends_with(b"+xml") => Some(Self::Xml),
            _ => None,
        }
    }
}

/// Takes a body apart as `kind`. `content_type` names the boundary of a multipart body.
pub fn parse<S: Sink + ?Sized>(
    kind: Kind,
    content_type: &[u8],
    body: &[u8],
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Outcome {
    match kind {
        Kind::Form => form::parse(body, b'&', limits, scratch, sink),
        Kind::Multipart => multipart::parse(content_type, body, limits, scratch, sink),
        Kind::Json => json::parse(body, limits, scratch, sink),
        Kind::Xml => xml::parse(body, limits, scratch, sink),
    }
}

/// What a parser may hand on and hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arguments, files, part headers and attributes together.
    pub items: usize,
    /// Nested JSON containers or XML elements.
    pub depth: usize,
    /// Bytes of one header line of a part; also of the names of one path in a JSON document.
    pub line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { items: 5_000, depth: 512, line: 4_096 }
    }
}

/// Buffers that are used again from request to request.
#[derive(Debug, Default)]
pub struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
    levels: Vec<json::Level>,
    lines: Vec<Range<usize>>,
    text: Vec<u8>,
}

/// What a parser says at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why the parser could not go on: `REQBODY_ERROR` and `REQBODY_ERROR_MSG`.
    pub error: Option<Error>,
    /// A `%` was not followed by two hexadecimal digits: `URLENCODED_ERROR`.
    pub encoding_error: bool,
    /// What was unusual in a multipart body.
    pub multipart: multipart::Flags,
}

/// Why a body could not be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body ends early. What was complete, and the beginning of what was not, has been handed on.
    #[error("the body ends before it is complete")]
    Incomplete,
    /// More arguments, files, headers or attributes than allowed.
    #[error("the body has more arguments than may be inspected")]
    TooMany,
    /// Deeper nesting than allowed.
    #[error("the body is nested deeper than may be inspected")]
    TooDeep,
    /// A line or path longer than allowed.
    #[error("a name or header line in the body is longer than may be inspected")]
    TooLong,
    /// Not well-formed at this offset.
    #[error("the body is malformed at byte {at}: {what}")]
    Malformed {
        /// Offset into the body.
        at: usize,
        /// What was wrong there.
        what: &'static str,
    },
}

/// Hands items on and counts them.
struct Counted<'a, S: ?Sized> {
    sink: &'a mut S,
    left: usize,
}

impl<'a, S: Sink + ?Sized> Counted<'a, S> {
    fn new(sink: &'a mut S, limits: &Limits) -> Self {
        Self { sink, left: limits.items }
    }

    fn give(&mut self, hand: impl FnOnce(&mut S) -> ControlFlow<()>) -> Result<(), Error> {
        self.left = self.left.checked_sub(1).ok_or(Error::TooMany)?;
        match hand(self.sink) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::TooMany),
        }
    }

    fn pair(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.give(|sink| sink.pair(name, value))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_body_is_what_its_type_says() {
        let cases = [
            ("multipart/form-data; boundary=x", Some(Kind::Multipart)),
            ("Application/X-WWW-Form-Urlencoded; charset=utf-8", Some(Kind::Form)),
            ("application/json", Some(Kind::Json)),
            (" Application/Problem+JSON ; x=y", Some(Kind::Json)),
            ("text/xml;charset=utf-8", Some(Kind::Xml)),
            ("application/soap+xml", Some(Kind::Xml)),
            ("text/plain", None),
            ("json", None),
            ("", None),
        ];
        for (content_type, kind) in cases {
            assert_eq!(Kind::of_content_type(content_type.as_bytes()), kind, "{content_type}");
        }
        assert_eq!(Kind::from_name(b"xml"), Some(Kind::Xml));
        assert_eq!(Kind::from_name(b"yaml"), None);
    }

    /// Keeps everything as text.
    #[derive(Debug, Default, PartialEq, Eq)]
    pub(crate) struct Kept(pub(crate) Vec<String>);

    impl Kept {
        fn keep(&mut self, kind: &str, pieces: &[&[u8]]) -> ControlFlow<()> {
            let pieces: Vec<_> = pieces.iter().map(|p| p.escape_ascii().to_string()).collect();
            self.0.push(format!("{kind}{}", pieces.join("=")));
            ControlFlow::Continue(())
        }
    }

    impl Sink for Kept {
        fn pair(&mut self, name: &[u8], value: &[u8]) -> ControlFlow<()> {
            self.keep("", &[name, value])
        }

        fn part_header(&mut self, name: &[u8], line: &[u8]) -> ControlFlow<()> {
            self.keep("header ", &[name, line])
        }

        fn file(&mut self, name: &[u8], filename: &[u8], size: usize) -> ControlFlow<()> {
            self.keep("file ", &[name, filename, size.to_string().as_bytes()])
        }

        fn xml_attribute(&mut self, value: &[u8]) -> ControlFlow<()> {
            self.keep("attribute ", &[value])
        }

        fn xml_text(&mut self, text: &[u8]) -> ControlFlow<()> {
            self.keep("text ", &[text])
        }
    }
}
