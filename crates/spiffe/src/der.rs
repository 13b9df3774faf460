//! A strict, bounded reader of DER: definite minimal lengths, single-byte tags, nothing left over.
//!
//! webpki keeps what it parsed to itself; the SVID rules need extensions that it does not show.

/// Why bytes are not the DER that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DerError {
    /// The input ends inside an element.
    #[error("the input ends inside an element")]
    Truncated,
    /// An indefinite or non-minimal length, or one beyond the bound.
    #[error("a length is indefinite, not minimal or too large")]
    Length,
    /// An element of another kind than the one expected.
    #[error("an element has an unexpected tag {0:#04x}")]
    Tag(u8),
    /// Bytes follow the last element.
    #[error("bytes follow the last element")]
    Trailing,
    /// The contents of an element break its rules.
    #[error("the contents of an element are malformed ({0})")]
    Value(&'static str),
    /// More elements than the bound allows.
    #[error("there are more elements than the bound allows ({0})")]
    TooMany(&'static str),
}

/// Universal and context tags that certificates use.
pub mod tag {
    #![expect(missing_docs, reason = "the names are those of X.690")]
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OID: u8 = 0x06;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;

    /// Context-specific, primitive.
    pub const fn context(number: u8) -> u8 {
        0x80 | number
    }

    /// Context-specific, constructed.
    pub const fn context_constructed(number: u8) -> u8 {
        0xa0 | number
    }
}

/// One element: its tag, its contents, and both with the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The identifier octet.
    pub tag: u8,
    /// The contents octets.
    pub value: &'a [u8],
    /// Header and contents.
    pub raw: &'a [u8],
}

/// A cursor over a sequence of elements.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, of any kind.
    pub fn any(&mut self) -> Result<Element<'a>, DerError> {
        let (&tag, after_tag) = self.rest.split_first().ok_or(DerError::Truncated)?;
        if tag & 0x1f == 0x1f {
            return Err(DerError::Tag(tag));
        }
        let (&first, after_first) = after_tag.split_first().ok_or(DerError::Truncated)?;
        let (length, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x83 => {
                let count = usize::from(first & 0x7f);
                let octets = after_first.get(..count).ok_or(DerError::Truncated)?;
                let length = octets.iter().fold(0usize, |sum, &b| (sum << 8) | usize::from(b));
                let minimal = if count == 1 { length >= 0x80 } else { octets[0] != 0 };
                if !minimal {
                    return Err(DerError::Length);
                }
                (length, 2 + count)
            }
            _ => return Err(DerError::Length),
        };
        let end = header + length;
        let raw = self.rest.get(..end).ok_or(DerError::Truncated)?;
        self.rest = &self.rest[end..];
        Ok(Element { tag, value: &raw[header..], raw })
    }

    /// The contents of the next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        self.element(tag).map(|element| element.value)
    }

    /// The next element, which must have this tag.
    pub fn element(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err(DerError::Tag(element.tag)) }
    }

    /// The contents of the next element if it has this tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, DerError> {
        if self.rest.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), DerError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DerError::Trailing) }
    }
}

/// The contents of the one element that `input` is.
pub fn single(input: &[u8], tag: u8) -> Result<&[u8], DerError> {
    let mut reader = Reader::new(input);
    let value = reader.expect(tag)?;
    reader.end()?;
    Ok(value)
}

/// A BOOLEAN's contents.
pub fn boolean(value: &[u8]) -> Result<bool, DerError> {
    match value {
        [0x00] => Ok(false),
        [0xff] => Ok(true),
        _ => Err(DerError::Value("boolean")),
    }
}

/// An INTEGER's contents, checked to be minimal.
pub fn integer(value: &[u8]) -> Result<&[u8], DerError> {
    match value {
        [] => Err(DerError::Value("integer")),
        [0x00, next, ..] if next & 0x80 == 0 => Err(DerError::Value("integer")),
        [0xff, next, ..] if next & 0x80 != 0 => Err(DerError::Value("integer")),
        _ => Ok(value),
    }
}

/// An INTEGER's contents as a number from 0 to 255.
pub fn small_integer(value: &[u8]) -> Result<u8, DerError> {
    match integer(value)? {
        [byte @ 0..=0x7f] => Ok(*byte),
        [0x00, byte] => Ok(*byte),
        _ => Err(DerError::Value("integer")),
    }
}

/// A BIT STRING of whole octets: the octets.
pub fn octet_aligned_bits(value: &[u8]) -> Result<&[u8], DerError> {
    match value.split_first() {
        Some((0, octets)) => Ok(octets),
        _ => Err(DerError::Value("bit string")),
    }
}

/// A BIT STRING of named bits (trailing zero bits removed, as DER wants), at most 16 of them. Bit 0 is the
/// highest bit of the result.
pub fn named_bits(value: &[u8]) -> Result<u16, DerError> {
    let (&unused, octets) = value.split_first().ok_or(DerError::Value("bit string"))?;
    let bad = Err(DerError::Value("bit string"));
    match octets {
        [] => return if unused == 0 { Ok(0) } else { bad },
        [_] | [_, _] => {}
        _ => return bad,
    }
    let last = octets[octets.len() - 1];
    if unused > 7 || last.trailing_zeros() != u32::from(unused) {
        return bad;
    }
    Ok(u16::from_be_bytes([octets[0], octets.get(1).copied().unwrap_or(0)]))
}

/// An OBJECT IDENTIFIER's contents, checked to be well formed.
pub fn oid(value: &[u8]) -> Result<&[u8], DerError> {
    let starts_arc = |i: usize| i == 0 || value[i - 1] & 0x80 == 0;
    let ends = value.last().is_some_and(|last| last & 0x80 == 0);
    let padded = value.iter().enumerate().any(|(i, &b)| b == 0x80 && starts_arc(i));
    if ends && !padded { Ok(value) } else { Err(DerError::Value("object identifier")) }
}

/// A Time (RFC 5280, section 4.1.2.5) as seconds since 1970; UTCTime until 2049, GeneralizedTime after.
pub fn time(element: Element<'_>) -> Result<i64, DerError> {
    let bad = DerError::Value("time");
    let digits = |text: &[u8]| -> Result<i64, DerError> {
        text.iter().try_fold(0i64, |sum, b| {
            if b.is_ascii_digit() { Ok(sum * 10 + i64::from(b - b'0')) } else { Err(bad) }
        })
    };
    let (year, rest) = match (element.tag, element.value.len()) {
        (tag::UTC_TIME, 13) => {
            let year = digits(&element.value[..2])?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &element.value[2..])
        }
        (tag::GENERALIZED_TIME, 15) => {
            let year = digits(&element.value[..4])?;
            if year < 2050 {
                return Err(bad);
            }
            (year, &element.value[4..])
        }
        (tag::UTC_TIME | tag::GENERALIZED_TIME, _) => return Err(bad),
        (tag, _) => return Err(DerError::Tag(tag)),
    };
    let field = |i: usize| digits(&rest[2 * i..2 * i + 2]);
    let (month, day, hour, minute, second) = (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_of_month = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return Err(bad),
    };
    if rest[10] != b'Z' || !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(bad);
    }
    Ok(days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; counts years from March, so that a leap day
/// is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time_of(tag: u8, text: &str) -> Result<i64, DerError> {
        time(Element { tag, value: text.as_bytes(), raw: text.as_bytes() })
    }

    #[test]
    fn times_count_seconds_since_1970() {
        assert_eq!(time_of(tag::UTC_TIME, "700101000000Z"), Ok(0));
        assert_eq!(time_of(tag::UTC_TIME, "240229120000Z"), Ok(1_709_208_000));
        assert_eq!(time_of(tag::UTC_TIME, "500101000000Z"), Ok(-631_152_000));
        assert_eq!(time_of(tag::GENERALIZED_TIME, "20500101000000Z"), Ok(2_524_608_000));
        assert_eq!(time_of(tag::GENERALIZED_TIME, "99991231235959Z"), Ok(253_402_300_799));
    }

    #[test]
    fn times_outside_the_profile_are_refused() {
        for (tag, text) in [
            (tag::UTC_TIME, "230229000000Z"),
            (tag::UTC_TIME, "231301000000Z"),
            (tag::UTC_TIME, "230100000000Z"),
            (tag::UTC_TIME, "2301010000Z"),
            (tag::UTC_TIME, "230101000000+0100"),
            (tag::UTC_TIME, "230101240000Z"),
            (tag::UTC_TIME, "230101006000Z"),
            (tag::UTC_TIME, "230101000060Z"),
            (tag::UTC_TIME, "2301010000 0Z"),
            (tag::GENERALIZED_TIME, "20300101000000Z"),
            (tag::GENERALIZED_TIME, "20600101000000.5Z"),
            (tag::INTEGER, "230101000000Z"),
        ] {
            assert!(time_of(tag, text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_minimal_and_definite() {
        for bytes in [
            &[0x30, 0x80, 0x00, 0x00][..],
            &[0x30, 0x81, 0x01, 0x00],
            &[0x30, 0x82, 0x00, 0x80, 0x00],
            &[0x30, 0x84, 0x00, 0x00, 0x00, 0x01],
            &[0x30, 0x02, 0x00],
            &[0x3f, 0x21, 0x00],
            &[0x30],
            &[],
        ] {
            assert!(Reader::new(bytes).any().is_err(), "{bytes:x?}");
        }
        assert_eq!(single(&[0x30, 0x00, 0x00], tag::SEQUENCE), Err(DerError::Trailing));
    }

    #[test]
    fn primitive_values_have_one_encoding() {
        assert!(boolean(&[0x01]).is_err());
        assert!(integer(&[0x00, 0x01]).is_err());
        assert!(integer(&[0xff, 0x80]).is_err());
        assert_eq!(small_integer(&[0x00, 0xff]), Ok(255));
        assert!(small_integer(&[0x80]).is_err());
        assert_eq!(named_bits(&[0x07, 0x80]), Ok(0x8000));
        assert_eq!(named_bits(&[0x07, 0x06, 0x80]), Ok(0x0680));
        assert_eq!(named_bits(&[0x00]), Ok(0));
        for bits in [&[][..], &[0x06, 0x80], &[0x00, 0x80], &[0x08, 0x00], &[0x00, 0x00], &[0, 1, 1, 1]] {
            assert!(named_bits(bits).is_err(), "{bits:x?}");
        }
        assert!(oid(&[]).is_err());
        assert!(oid(&[0x2a, 0x80, 0x01]).is_err());
        assert!(oid(&[0x2a, 0x86]).is_err());
        assert!(oid(&[0x2a, 0x86, 0x48]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_never_beyond_the_end(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let mut seen = 0;
            while let Ok(element) = reader.any() {
                seen += element.raw.len();
                let _ = (time(element), named_bits(element.value), oid(element.value), integer(element.value));
            }
            prop_assert!(seen <= bytes.len());
        }
    }
}
