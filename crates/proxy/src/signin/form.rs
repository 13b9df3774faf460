//! Queries and forms (`application/x-www-form-urlencoded`): bounded, and each name once.

/// Most members of one.
const MAX_PAIRS: usize = 32;

/// A query or form.
pub(super) struct Form(Vec<(String, String)>);

/// It is malformed, or says the same twice: what one part of a system reads, another may overlook.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Form {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let parts = text.split(|b| *b == b'&').filter(|part| !part.is_empty());
        let mut pairs = Vec::new();
        for part in parts {
            if pairs.len() == MAX_PAIRS {
                return Err(Malformed);
            }
            let at = part.iter().position(|b| *b == b'=').unwrap_or(part.len());
            let value = part.get(at + 1..).unwrap_or_default();
            pairs.push((decoded(&part[..at]).ok_or(Malformed)?, decoded(value).ok_or(Malformed)?));
        }
        Ok(Self(pairs))
    }

    /// The one value of a name.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Malformed> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Malformed),
            (value, None) => Ok(value),
        }
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn decoded(text: &[u8]) -> Option<String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (high, low) = (digit(rest.first()?)?, digit(rest.get(1)?)?);
                bytes.push((high << 4 | low) as u8);
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// As the value of a member.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_one_value() {
        let form = Form::parse(b"a=b%2Fc+d&x&e=f&e=g&&=").unwrap_or_else(|_| panic!("it is one"));
        assert_eq!(form.one("a"), Ok(Some("b/c d")));
        assert_eq!((form.one("x"), form.one("y")), (Ok(Some("")), Ok(None)));
        assert_eq!(form.one("e"), Err(Malformed));
        assert_eq!(form.all("e").collect::<Vec<_>>(), ["f", "g"]);
        for bad in ["a=%", "a=%2", "a=%zz", "a=%ff", &"a=b&".repeat(33)] {
            assert!(Form::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text: String) {
            let form = Form::parse(format!("a={}&b", encoded(&text)).as_bytes());
            prop_assert_eq!(form.ok().and_then(|form| Some(form.one("a").ok()??.to_owned())), Some(text));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Form::parse(&bytes);
        }
    }
}
