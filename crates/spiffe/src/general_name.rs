//! Names in a certificate.

use crate::der::{self, DerError, Element, Reader, tag};

/// Most names that one certificate may carry; bounds the work that names and name constraints can cause.
const MAX_NAMES: usize = 512;

/// One name, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeneralName<'a> {
    /// directoryName: the Name inside.
    Directory(&'a [u8]),
    /// dNSName
    Dns(&'a str),
    /// rfc822Name
    Email(&'a str),
    /// iPAddress: the octets, an address or (in constraints) an address and a mask.
    Ip(&'a [u8]),
    /// Another kind, by its tag number.
    Other(u8),
    /// uniformResourceIdentifier
    Uri(&'a str),
}

impl<'a> TryFrom<Element<'a>> for GeneralName<'a> {
    type Error = DerError;

    fn try_from(element: Element<'a>) -> Result<Self, DerError> {
        Ok(match element.tag {
            0x81 => Self::Email(ia5(element.value)?),
            0x82 => Self::Dns(ia5(element.value)?),
            0x86 => Self::Uri(ia5(element.value)?),
            0x87 => Self::Ip(element.value),
            0xa4 => {
                der::single(element.value, tag::SEQUENCE)?;
                Self::Directory(element.value)
            }
            0xa0 | 0xa3 | 0xa5 | 0x88 => Self::Other(element.tag & 0x1f),
            tag => return Err(DerError::Tag(tag)),
        })
    }
}

/// The names of a subjectAltName, form checked, at most [`MAX_NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneralNames<'a>(&'a [u8]);

impl<'a> GeneralNames<'a> {
    /// Parses the extension's value.
    pub(crate) fn parse(input: &'a [u8]) -> Result<Self, DerError> {
        let names = der::single(input, tag::SEQUENCE)?;
        let mut reader = Reader::new(names);
        let mut count = 0;
        while !reader.is_empty() {
            count += 1;
            if count > MAX_NAMES {
                return Err(DerError::TooMany("names"));
            }
            match GeneralName::try_from(reader.any()?)? {
                GeneralName::Ip(octets) if !matches!(octets.len(), 4 | 16) => {
                    return Err(DerError::Value("ip address"));
                }
                _ => {}
            }
        }
        if count == 0 {
            return Err(DerError::Value("no name in the list"));
        }
        Ok(Self(names))
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = GeneralName<'a>> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || reader.any().ok().and_then(|element| element.try_into().ok()))
    }

    /// The URIs.
    pub fn uris(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.iter().filter_map(|name| if let GeneralName::Uri(uri) = name { Some(uri) } else { None })
    }
}

fn ia5(value: &[u8]) -> Result<&str, DerError> {
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => Ok(text),
        _ => Err(DerError::Value("text beyond ASCII")),
    }
}
