//! A view of an X.509 certificate, parsed strictly and without copying.
//!
//! It shows what webpki hides: criticality, key usage, every kind of name. It judges form only; what a
//! certificate may be used for is decided in `profile` and `svid`.

use crate::der::{self, DerError, Element, Reader, tag};
use crate::extension::Extensions;

/// Largest certificate that is looked at.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// A certificate's fields, borrowed from its DER.
#[derive(Debug, Clone)]
pub struct Certificate<'a> {
    /// The serial number's contents octets.
    pub serial: &'a [u8],
    /// The issuer's Name, header included.
    pub issuer: &'a [u8],
    /// The subject's Name, header included.
    pub subject: &'a [u8],
    /// Seconds since 1970 from which it is valid.
    pub not_before: i64,
    /// Seconds since 1970 until which it is valid, inclusive.
    pub not_after: i64,
    /// SubjectPublicKeyInfo, header included.
    pub spki: &'a [u8],
    /// The extensions.
    pub extensions: Extensions<'a>,
    /// The signed part, header included.
    pub tbs: &'a [u8],
    /// AlgorithmIdentifier of the signature, header included.
    pub signature_algorithm: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Parses the DER of one certificate: version 3 only, nothing left over.
    pub fn parse(input: &'a [u8]) -> Result<Self, DerError> {
        if input.len() > MAX_CERTIFICATE_BYTES {
            return Err(DerError::Length);
        }
        let mut outer = Reader::new(der::single(input, tag::SEQUENCE)?);
        let tbs = outer.element(tag::SEQUENCE)?;
        let signature_algorithm = outer.element(tag::SEQUENCE)?;
        der::octet_aligned_bits(outer.expect(tag::BIT_STRING)?)?;
        outer.end()?;
        Self::parse_tbs(tbs, signature_algorithm.raw)
    }

    fn parse_tbs(tbs: Element<'a>, signature_algorithm: &'a [u8]) -> Result<Self, DerError> {
        let mut fields = Reader::new(tbs.value);
        let version = fields.optional(tag::context_constructed(0))?.ok_or(DerError::Value("version"))?;
        if der::small_integer(der::single(version, tag::INTEGER)?)? != 2 {
            return Err(DerError::Value("version"));
        }
        let serial = der::integer(fields.expect(tag::INTEGER)?)?;
        if fields.element(tag::SEQUENCE)?.raw != signature_algorithm {
            return Err(DerError::Value("signature algorithms differ"));
        }
        let issuer = fields.element(tag::SEQUENCE)?.raw;
        let mut validity = Reader::new(fields.expect(tag::SEQUENCE)?);
        let not_before = der::time(validity.any()?)?;
        let not_after = der::time(validity.any()?)?;
        validity.end()?;
        let subject = fields.element(tag::SEQUENCE)?.raw;
        let spki = fields.element(tag::SEQUENCE)?.raw;
        // Unique identifiers ([1], [2]) are refused: RFC 5280 forbids them and nobody uses them.
        let extensions = match fields.optional(tag::context_constructed(3))? {
            Some(extensions) => Extensions::parse(der::single(extensions, tag::SEQUENCE)?)?,
            None => Extensions::default(),
        };
        fields.end()?;
        Ok(Self {
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            spki,
            extensions,
            tbs: tbs.raw,
            signature_algorithm,
        })
    }

    /// Whether subject and issuer are the same name.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether basicConstraints says that this is a CA.
    pub fn is_ca(&self) -> bool {
        self.extensions.basic_constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Whether the subject is an empty sequence.
    pub fn has_empty_subject(&self) -> bool {
        is_empty_name(self.subject)
    }

    /// Whether the issuer is an empty sequence.
    pub fn has_empty_issuer(&self) -> bool {
        is_empty_name(self.issuer)
    }

    /// The serial number as hexadecimal digits, without sign octet.
    pub fn serial_hex(&self) -> String {
        use std::fmt::Write;
        let octets = match self.serial {
            [0, rest @ ..] if !rest.is_empty() => rest,
            all => all,
        };
        octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The values of commonName in the subject, as the raw text octets.
    pub fn common_names(&self) -> Result<Vec<&'a [u8]>, DerError> {
        const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
        const MAX_ATTRIBUTES: usize = 64;
        let mut found = Vec::new();
        let mut count = 0;
        let mut relative_names = Reader::new(der::single(self.subject, tag::SEQUENCE)?);
        while !relative_names.is_empty() {
            let mut attributes = Reader::new(relative_names.expect(tag::SET)?);
            while !attributes.is_empty() {
                count += 1;
                if count > MAX_ATTRIBUTES {
                    return Err(DerError::TooMany("subject attributes"));
                }
                let mut attribute = Reader::new(attributes.expect(tag::SEQUENCE)?);
                let kind = der::oid(attribute.expect(tag::OID)?)?;
                let value = attribute.any()?.value;
                attribute.end()?;
                if kind == COMMON_NAME {
                    found.push(value);
                }
            }
        }
        Ok(found)
    }
}

fn is_empty_name(name: &[u8]) -> bool {
    name == [tag::SEQUENCE, 0x00]
}
