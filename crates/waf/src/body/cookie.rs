//! The `Cookie` header, in the form of Netscape that all browsers send (`SecCookieFormat 0`) and in that of RFC 2109 (`1`).

use memchr::memchr;

use super::{Counted, Error, Limits, Outcome, Sink};

/// Which of the two forms a header is read as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Pieces end at `;`, quotes mean nothing.
    #[default]
    Netscape,
    /// Pieces end at `;` or `,` outside of quotes, values may be quoted, names with `$` are attributes.
    Version1,
}

/// Takes one `Cookie` header apart. A piece without a name is skipped, as servers do.
pub fn parse<S: Sink + ?Sized>(header: &[u8], format: Format, limits: &Limits, sink: &mut S) -> Outcome {
    let mut sink = Counted::new(sink, limits);
    let result = match format {
        Format::Netscape => netscape(header, &mut sink),
        Format::Version1 => version1(header, &mut sink),
    };
    Outcome { error: result.err(), ..Outcome::default() }
}

fn netscape<S: Sink + ?Sized>(header: &[u8], sink: &mut Counted<'_, S>) -> Result<(), Error> {
    for piece in header.trim_ascii_end().split(|byte| *byte == b';') {
        let (name, value) = split(piece);
        if !name.is_empty() {
            sink.pair(name, value)?;
        }
    }
    Ok(())
}

fn version1<S: Sink + ?Sized>(header: &[u8], sink: &mut Counted<'_, S>) -> Result<(), Error> {
    let mut rest = header;
    while !rest.is_empty() {
        let end = end_of_piece(rest);
        let (name, value) = split(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
        let name = name.trim_ascii_end();
        if name.is_empty() || name.starts_with(b"$") {
            continue;
        }
        let value = value.trim_ascii();
        let value = match value {
            [b'"', inner @ .., b'"'] => inner,
            plain => plain,
        };
        sink.pair(name, value)?;
    }
    Ok(())
}

/// Where the first `;` or `,` outside of quotes stands. A quote that is never closed quotes nothing.
fn end_of_piece(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b';' | b',' => break,
            b'"' => at += memchr(b'"', &rest[at + 1..]).map_or(1, |closing| closing + 2),
            _ => at += 1,
        }
    }
    at
}

fn split(piece: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'=', piece) {
        Some(equals) => (piece[..equals].trim_ascii_start(), &piece[equals + 1..]),
        None => (piece.trim_ascii_start(), &[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Kept;
    use super::*;

    fn parsed(header: &[u8], format: Format) -> Vec<String> {
        let mut kept = Kept::default();
        let outcome = parse(header, format, &Limits::default(), &mut kept);
        assert_eq!(outcome, Outcome::default());
        kept.0
    }

    #[test]
    fn browsers_cookies() {
        let pairs = parsed(b"a=1; b=x=y;;  =no; c; d=\"q;r\"  ", Format::Netscape);
        assert_eq!(pairs, ["a=1", "b=x=y", "c=", "d=\\\"q", "r\\\"="]);
    }

    #[test]
    fn version_1_cookies() {
        let pairs = parsed(b"$Version=1; a = \"x;y\", b=2;$Path=/;c=\"open; d=1", Format::Version1);
        assert_eq!(pairs, ["a=x;y", "b=2", "c=\\\"open", "d=1"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_bounded(header: Vec<u8>) {
            for format in [Format::Netscape, Format::Version1] {
                prop_assert!(parsed(&header, format).len() <= header.len());
            }
        }

        #[test]
        fn plain_cookies_read_alike_in_both_forms(pairs in prop::collection::vec(("[a-z]{1,9}", "[a-zA-Z0-9=%/]{0,9}"), 0..9)) {
            let text: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let header = text.join("; ");
            prop_assert_eq!(&parsed(header.as_bytes(), Format::Netscape), &text);
            prop_assert_eq!(&parsed(header.as_bytes(), Format::Version1), &text);
        }
    }
}
