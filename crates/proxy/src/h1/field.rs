//! Header fields as ranges into the bytes of their head, so that a head owns one buffer and one list.

use super::kind::{self, Kind, classify};
use super::{MAX_FIELDS, Refusal};

/// Longest field name that is read.
const MAX_NAME: usize = 256;

/// One field, by position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    start: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    kind: Kind,
    /// Written exactly as the writer would: `Name: value` CRLF.
    canonical: bool,
    /// Named by the Connection field, so it ends at this hop.
    pub(super) nominated: bool,
}

impl Field {
    pub(super) fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.start as usize..self.start as usize + usize::from(self.name_len)]
    }

    pub(super) fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.value as usize..(self.value + self.value_len) as usize]
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The range of the whole line, when copying it is the same as writing the field anew.
    pub(super) fn canonical_line(&self) -> Option<(usize, usize)> {
        self.canonical.then_some((self.start as usize, (self.value + self.value_len) as usize + 2))
    }

    /// Whether the value stands as in `Name:value` or `Name: value`, directly followed by the end of the line.
    pub(super) fn plain_spacing(&self, head: &[u8]) -> bool {
        let after_colon = self.start + u32::from(self.name_len) + 1;
        let gap = &head[after_colon as usize..self.value as usize];
        (gap.is_empty() || gap == b" ") && head.get((self.value + self.value_len) as usize) == Some(&b'\r')
    }
}

/// Which kinds are present, and which more than once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Summary {
    pub(crate) present: u64,
    pub(crate) repeated: u64,
}

impl Summary {
    pub(crate) fn has(self, kind: Kind) -> bool {
        self.present & kind.bit() != 0
    }

    pub(crate) fn add(&mut self, kind: Kind) {
        self.repeated |= self.present & kind.bit();
        self.present |= kind.bit();
    }

    /// What HTTP/2 forbids, and what may not be repeated in any version.
    pub(crate) fn refuse_for_h2(self) -> Result<(), Refusal> {
        if self.present & kind::NOT_IN_H2 != 0 {
            return Err(Refusal::Http2Field);
        }
        if self.repeated & Kind::Host.bit() != 0 {
            return Err(Refusal::HostRepeated);
        }
        if self.repeated & kind::SINGLE != 0 { Err(Refusal::FieldRepeated) } else { Ok(()) }
    }
}

/// Turns what `httparse` found into positions, and refuses what it lets pass: lines that end in a bare LF.
///
/// `head` is the whole head with its empty line. `httparse` has checked every byte of names and values, so that the two
/// bytes before each name and the last four of the head are all that is left to look at.
pub(super) fn index(
    head: &[u8],
    headers: &[httparse::Header<'_>],
    fields: &mut Vec<Field>,
) -> Result<Summary, Refusal> {
    if headers.len() > MAX_FIELDS {
        return Err(Refusal::TooManyFields);
    }
    if u32::try_from(head.len()).is_err() {
        return Err(Refusal::HeadTooLarge);
    }
    if !head.ends_with(b"\r\n\r\n") && head != b"\r\n" {
        return Err(Refusal::BareLineEnd);
    }
    let base = head.as_ptr() as usize;
    let mut summary = Summary::default();
    fields.clear();
    fields.reserve(headers.len());
    for header in headers {
        let start = header.name.as_ptr() as usize - base;
        if start >= 2 && head[start - 2..start] != *b"\r\n" {
            return Err(Refusal::BareLineEnd);
        }
        let name = header.name.as_bytes();
        if name.len() > MAX_NAME {
            return Err(Refusal::HeadTooLarge);
        }
        let colon = start + name.len();
        let (value, value_len) = if header.value.is_empty() {
            (colon + 1, 0)
        } else {
            (header.value.as_ptr() as usize - base, header.value.len())
        };
        let kind = classify(name);
        summary.add(kind);
        let canonical =
            value == colon + 2 && head[colon + 1] == b' ' && head.get(value + value_len) == Some(&b'\r');
        // All positions lie within the head, whose length was checked above.
        fields.push(Field {
            start: start as u32,
            value: value as u32,
            value_len: value_len as u32,
            name_len: name.len() as u16,
            kind,
            canonical,
            nominated: false,
        });
    }
    Ok(summary)
}

/// The fields of one head or trailer section, in order, as received.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    head: &'a [u8],
    fields: &'a [Field],
}

impl<'a> Fields<'a> {
    pub(super) fn new(head: &'a [u8], fields: &'a [Field]) -> Self {
        Self { head, fields }
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.fields.is_empty()
    }

    /// Name and value of each field.
    #[must_use]
    pub fn iter(self) -> FieldsIter<'a> {
        FieldsIter { head: self.head, fields: self.fields.iter() }
    }

    /// Value of the first field of this name, which is compared without case.
    #[must_use]
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    pub(super) fn of_kind(self, kind: Kind) -> impl Iterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| field.kind == kind)
    }

    pub(super) fn first_of(self, kind: Kind) -> Option<&'a [u8]> {
        self.of_kind(kind).next().map(|field| field.value(self.head))
    }

    pub(super) fn raw(self) -> (&'a [u8], &'a [Field]) {
        (self.head, self.fields)
    }
}

impl<'a> IntoIterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = FieldsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator of [`Fields::iter`].
#[derive(Debug, Clone)]
pub struct FieldsIter<'a> {
    head: &'a [u8],
    fields: std::slice::Iter<'a, Field>,
}

impl<'a> Iterator for FieldsIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.next()?;
        Some((field.name(self.head), field.value(self.head)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

/// The parser's own errors, in our words.
pub(super) fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::HeaderValue => Refusal::FieldValue,
        httparse::Error::NewLine => Refusal::BareLineEnd,
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::Version => Refusal::Version,
        httparse::Error::Status => Refusal::ResponseStatus,
        httparse::Error::Token => Refusal::StartLine,
    }
}
