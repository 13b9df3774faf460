//! Revocation lists, for paths to servers outside. SVIDs have none: they are short-lived.

use rustls_pki_types::TrustAnchor;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::der::{self, DerError, Reader, tag};
use crate::path::PathError;

/// Largest revocation list that is read.
const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;
const MAX_EXTENSIONS: usize = 32;
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 20];

/// A list of revoked certificates, its signature not checked yet.
#[derive(Debug)]
pub struct RevocationList(CertRevocationList<'static>);

impl RevocationList {
    /// Reads a list.
    pub fn from_der(input: &[u8]) -> Result<Self, PathError> {
        check_form(input)?;
        OwnedCertRevocationList::from_der(input)
            .map(|list| Self(CertRevocationList::from(list)))
            .map_err(PathError::Path)
    }

    pub(crate) fn as_webpki(&self) -> &CertRevocationList<'static> {
        &self.0
    }

    /// Whether the list claims to be this root's.
    pub(crate) fn is_by(&self, anchor: &TrustAnchor<'_>) -> bool {
        self.0.issuer() == anchor.subject.as_ref()
    }
}

/// What webpki passes over: cRLNumber must be there and not be critical (RFC 5280, section 5.2.3).
fn check_form(input: &[u8]) -> Result<(), DerError> {
    if input.len() > MAX_LIST_BYTES {
        return Err(DerError::Length);
    }
    let mut outer = Reader::new(der::single(input, tag::SEQUENCE)?);
    let mut fields = Reader::new(outer.expect(tag::SEQUENCE)?);
    let numbered = DerError::Value("revocation list without a number that is not critical");
    let mut number = None;
    while !fields.is_empty() {
        let field = fields.any()?;
        if field.tag == tag::context_constructed(0) {
            number = crl_number(der::single(field.value, tag::SEQUENCE)?)?;
        }
    }
    if number == Some(false) { Ok(()) } else { Err(numbered) }
}

/// Whether cRLNumber is critical, if it is there.
fn crl_number(extensions: &[u8]) -> Result<Option<bool>, DerError> {
    let mut reader = Reader::new(extensions);
    let mut found = None;
    let mut count = 0;
    while !reader.is_empty() {
        count += 1;
        if count > MAX_EXTENSIONS {
            return Err(DerError::TooMany("extensions"));
        }
        let mut extension = Reader::new(reader.expect(tag::SEQUENCE)?);
        let id = extension.expect(tag::OID)?;
        let critical = extension.optional(tag::BOOLEAN)?.map_or(Ok(false), der::boolean)?;
        if id == CRL_NUMBER {
            der::integer(der::single(extension.expect(tag::OCTET_STRING)?, tag::INTEGER)?)?;
            found = Some(critical);
        }
    }
    Ok(found)
}
