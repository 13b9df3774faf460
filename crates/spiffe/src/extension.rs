//! The extensions that a path or an SVID is judged by.

use crate::der::{self, DerError, Reader, tag};
use crate::general_name::{GeneralName, GeneralNames};

const MAX_EXTENSIONS: usize = 64;
const MAX_KEY_PURPOSES: usize = 32;
const MAX_ACCESS_DESCRIPTIONS: usize = 32;

/// A value and whether its extension is critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked<T> {
    /// Whether who does not understand it must refuse the certificate.
    pub critical: bool,
    /// The value.
    pub value: T,
}

/// basicConstraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicConstraints {
    /// Whether the extension is critical.
    pub critical: bool,
    /// The `cA` flag.
    pub ca: bool,
    /// How many intermediates may follow.
    pub path_len: Option<u8>,
}

/// Named bits of keyUsage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage(u16);

impl KeyUsage {
    /// Signing anything but certificates and CRLs.
    pub fn digital_signature(self) -> bool {
        self.0 & 0x8000 != 0
    }

    /// Signing certificates.
    pub fn key_cert_sign(self) -> bool {
        self.0 & 0x0400 != 0
    }

    /// Signing revocation lists.
    pub fn crl_sign(self) -> bool {
        self.0 & 0x0200 != 0
    }
}

/// What extKeyUsage lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyPurposes {
    /// `anyExtendedKeyUsage`
    pub any: bool,
    /// `id-kp-clientAuth`
    pub client_auth: bool,
    /// `id-kp-serverAuth`
    pub server_auth: bool,
}

/// authorityKeyIdentifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityKeyId<'a> {
    /// The issuer's key identifier.
    pub key_id: Option<&'a [u8]>,
    /// Whether issuer name or serial number are given too.
    pub names_issuer: bool,
}

/// The extensions of a certificate, each at most once.
#[derive(Debug, Clone, Default)]
pub struct Extensions<'a> {
    /// authorityInfoAccess: checked for form only.
    pub authority_info_access: Option<Marked<()>>,
    /// authorityKeyIdentifier
    pub authority_key_id: Option<Marked<AuthorityKeyId<'a>>>,
    /// basicConstraints
    pub basic_constraints: Option<BasicConstraints>,
    /// extKeyUsage
    pub extended_key_usage: Option<Marked<KeyPurposes>>,
    /// keyUsage
    pub key_usage: Option<Marked<KeyUsage>>,
    /// nameConstraints, the contents of its sequence
    pub name_constraints: Option<Marked<&'a [u8]>>,
    /// policyConstraints: present or not; no policies are processed.
    pub policy_constraints: Option<Marked<()>>,
    /// subjectAltName
    pub subject_alt_name: Option<Marked<GeneralNames<'a>>>,
    /// subjectKeyIdentifier
    pub subject_key_id: Option<Marked<&'a [u8]>>,
    /// Whether a critical extension is none of the above.
    pub unknown_critical: bool,
}

impl<'a> Extensions<'a> {
    /// Parses the contents of the Extensions sequence.
    pub(crate) fn parse(input: &'a [u8]) -> Result<Self, DerError> {
        let mut extensions = Self::default();
        let mut seen: Vec<&[u8]> = Vec::with_capacity(10);
        let mut reader = Reader::new(input);
        while !reader.is_empty() {
            if seen.len() == MAX_EXTENSIONS {
                return Err(DerError::TooMany("extensions"));
            }
            let mut extension = Reader::new(reader.expect(tag::SEQUENCE)?);
            let id = der::oid(extension.expect(tag::OID)?)?;
            let critical = match extension.optional(tag::BOOLEAN)? {
                // DER leaves out a default, but certificates that spell out `false` are common.
                Some(value) => der::boolean(value)?,
                None => false,
            };
            let value = extension.expect(tag::OCTET_STRING)?;
            extension.end()?;
            if seen.contains(&id) {
                return Err(DerError::Value("duplicate extension"));
            }
            seen.push(id);
            extensions.remember(id, critical, value)?;
        }
        if seen.is_empty() {
            return Err(DerError::Value("no extension in the list"));
        }
        Ok(extensions)
    }

    fn remember(&mut self, id: &'a [u8], critical: bool, value: &'a [u8]) -> Result<(), DerError> {
        match id {
            [0x55, 0x1d, 14] => {
                let value = der::single(value, tag::OCTET_STRING)?;
                self.subject_key_id = Some(Marked { critical, value });
            }
            [0x55, 0x1d, 15] => {
                let value = KeyUsage(der::named_bits(der::single(value, tag::BIT_STRING)?)?);
                self.key_usage = Some(Marked { critical, value });
            }
            [0x55, 0x1d, 17] => {
                let value = GeneralNames::parse(value)?;
                self.subject_alt_name = Some(Marked { critical, value });
            }
            [0x55, 0x1d, 19] => self.basic_constraints = Some(basic_constraints(critical, value)?),
            [0x55, 0x1d, 30] => {
                let value = der::single(value, tag::SEQUENCE)?;
                self.name_constraints = Some(Marked { critical, value });
            }
            [0x55, 0x1d, 35] => {
                let value = authority_key_id(value)?;
                self.authority_key_id = Some(Marked { critical, value });
            }
            [0x55, 0x1d, 36] => self.policy_constraints = Some(Marked { critical, value: () }),
            [0x55, 0x1d, 37] => {
                let value = key_purposes(value)?;
                self.extended_key_usage = Some(Marked { critical, value });
            }
            [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01] => {
                authority_info_access(value)?;
                self.authority_info_access = Some(Marked { critical, value: () });
            }
            _ => self.unknown_critical |= critical,
        }
        Ok(())
    }
}

fn basic_constraints(critical: bool, value: &[u8]) -> Result<BasicConstraints, DerError> {
    let mut reader = Reader::new(der::single(value, tag::SEQUENCE)?);
    let ca = reader.optional(tag::BOOLEAN)?.map_or(Ok(false), der::boolean)?;
    let path_len = reader.optional(tag::INTEGER)?.map(der::small_integer).transpose()?;
    reader.end()?;
    Ok(BasicConstraints { critical, ca, path_len })
}

fn key_purposes(value: &[u8]) -> Result<KeyPurposes, DerError> {
    let mut reader = Reader::new(der::single(value, tag::SEQUENCE)?);
    let mut purposes = KeyPurposes::default();
    let mut count = 0;
    while !reader.is_empty() {
        count += 1;
        if count > MAX_KEY_PURPOSES {
            return Err(DerError::TooMany("key purposes"));
        }
        match der::oid(reader.expect(tag::OID)?)? {
            [0x55, 0x1d, 37, 0] => purposes.any = true,
            [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 1] => purposes.server_auth = true,
            [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 2] => purposes.client_auth = true,
            _ => {}
        }
    }
    if count == 0 {
        return Err(DerError::Value("no key purpose in the list"));
    }
    Ok(purposes)
}

fn authority_key_id(value: &[u8]) -> Result<AuthorityKeyId<'_>, DerError> {
    let mut reader = Reader::new(der::single(value, tag::SEQUENCE)?);
    let key_id = reader.optional(tag::context(0))?;
    let issuer = reader.optional(tag::context_constructed(1))?;
    let serial = reader.optional(tag::context(2))?;
    reader.end()?;
    Ok(AuthorityKeyId { key_id, names_issuer: issuer.is_some() || serial.is_some() })
}

fn authority_info_access(value: &[u8]) -> Result<(), DerError> {
    let mut reader = Reader::new(der::single(value, tag::SEQUENCE)?);
    let mut count = 0;
    while !reader.is_empty() {
        count += 1;
        if count > MAX_ACCESS_DESCRIPTIONS {
            return Err(DerError::TooMany("access descriptions"));
        }
        let mut description = Reader::new(reader.expect(tag::SEQUENCE)?);
        der::oid(description.expect(tag::OID)?)?;
        GeneralName::try_from(description.any()?)?;
        description.end()?;
    }
    if count == 0 { Err(DerError::Value("no access description in the list")) } else { Ok(()) }
}
