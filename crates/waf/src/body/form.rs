//! `application/x-www-form-urlencoded` bodies and query strings.

use memchr::memchr;

use super::decode::plus_and_percent;
use super::{Counted, Error, Limits, Outcome, Scratch, Sink};

/// Takes `raw` apart at each `separator` (`SecArgumentSeparator`, by default `&`). A piece without `=` is a name without a value.
pub fn parse<S: Sink + ?Sized>(
    raw: &[u8],
    separator: u8,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut S,
) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.error = pieces(raw, separator, limits, scratch, sink, &mut outcome.encoding_error).err();
    outcome
}

fn pieces<S: Sink + ?Sized>(
    raw: &[u8],
    separator: u8,
    limits: &Limits,
    scratch: &mut Scratch,
    sink: &mut S,
    encoding_error: &mut bool,
) -> Result<(), Error> {
    let mut sink = Counted::new(sink, limits);
    let mut rest = raw;
    while !rest.is_empty() {
        let piece = match memchr(separator, rest) {
            Some(end) => {
                let piece = &rest[..end];
                rest = &rest[end + 1..];
                piece
            }
            None => std::mem::take(&mut rest),
        };
        let (name, value) = match memchr(b'=', piece) {
            Some(equals) => (&piece[..equals], &piece[equals + 1..]),
            None => (piece, &[][..]),
        };
        let name = plus_and_percent(name, &mut scratch.name, encoding_error);
        let value = plus_and_percent(value, &mut scratch.value, encoding_error);
        sink.pair(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Kept;
    use super::*;

    fn parsed(raw: &[u8]) -> (Vec<String>, Outcome) {
        let mut kept = Kept::default();
        let outcome = parse(raw, b'&', &Limits::default(), &mut Scratch::default(), &mut kept);
        (kept.0, outcome)
    }

    #[test]
    fn names_and_values_are_decoded() {
        let (pairs, outcome) = parsed(b"a=1&b+c=%41%2b&d&=e&f==g&&h=i%26&");
        assert_eq!(pairs, ["a=1", "b c=A+", "d=", "=e", "f==g", "=", "h=i&"]);
        assert_eq!(outcome, Outcome::default());
    }

    #[test]
    fn a_lone_percent_stays_and_is_told() {
        for raw in [&b"a=%4"[..], b"a=%zz", b"%=1"] {
            let (pairs, outcome) = parsed(raw);
            assert!(outcome.encoding_error);
            assert_eq!(pairs.concat().len(), raw.len() + usize::from(!raw.contains(&b'=')));
        }
    }

    #[test]
    fn more_pairs_than_allowed_are_an_error() {
        let limits = Limits { items: 2, ..Limits::default() };
        let mut kept = Kept::default();
        let outcome = parse(b"a&b&c", b'&', &limits, &mut Scratch::default(), &mut kept);
        assert_eq!(outcome.error, Some(Error::TooMany));
        assert_eq!(kept.0, ["a=", "b="]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(pairs in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 1..8)) {
            let encode = |bytes: &[u8]| bytes.iter().map(|b| format!("%{b:02x}")).collect::<String>();
            let raw: Vec<_> = pairs.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
            let (kept, outcome) = parsed(raw.join("&").as_bytes());
            let expected: Vec<_> = pairs.iter().map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii())).collect();
            prop_assert_eq!(kept, expected);
            prop_assert_eq!(outcome, Outcome::default());
        }

        #[test]
        fn there_are_as_many_pairs_as_pieces(raw: Vec<u8>) {
            let (kept, _) = parsed(&raw);
            let trailing = usize::from(raw.is_empty() || raw.ends_with(b"&"));
            prop_assert_eq!(kept.len(), raw.split(|b| *b == b'&').count() - trailing);
        }
    }
}
