//! What RFC 5280 (and, for public servers, the CA/Browser Forum's baseline) demands of each certificate of a path
//! and webpki lets pass.

use crate::certificate::Certificate;
use crate::general_name::GeneralName;
use crate::name_constraints;
use crate::spki;

/// Most octets of a serial number (RFC 5280, section 4.1.2.2).
const MAX_SERIAL_OCTETS: usize = 20;

/// A rule that a certificate of a path breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum Violation {
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the serial number is not a positive number of at most 20 octets")]
    SerialNumber,
    #[error("the issuer is empty")]
    EmptyIssuer,
    #[error("a signing certificate has an empty subject")]
    EmptySubject,
    #[error("a critical extension is unknown")]
    UnknownCriticalExtension,
    #[error("the public key is weak, or of a kind that is not accepted")]
    WeakKey,
    #[error("basicConstraints is missing, not critical or not a CA's on a signing certificate")]
    NotSigningCertificate,
    #[error("keyUsage lacks keyCertSign on a signing certificate")]
    KeyCertSignMissing,
    #[error("keyUsage of a root lacks cRLSign, yet it issued a revocation list")]
    CrlSignMissing,
    #[error("keyUsage has keyCertSign or cRLSign on a leaf certificate")]
    LeafMaySign,
    #[error("basicConstraints makes the leaf a CA or limits its path")]
    LeafIsCa,
    #[error("authorityKeyIdentifier is critical")]
    AuthorityKeyIdCritical,
    #[error("authorityKeyIdentifier or its key identifier is missing")]
    AuthorityKeyIdMissing,
    #[error("authorityKeyIdentifier of a root names an issuer, a serial number, or another key")]
    AuthorityKeyIdOfRoot,
    #[error("authorityKeyIdentifier names another key than the issuer's")]
    AuthorityKeyIdMismatch,
    #[error("subjectKeyIdentifier is critical")]
    SubjectKeyIdCritical,
    #[error("subjectKeyIdentifier is missing on a signing certificate")]
    SubjectKeyIdMissing,
    #[error("authorityInfoAccess is critical")]
    AuthorityInfoAccessCritical,
    #[error("policyConstraints is not critical")]
    PolicyConstraintsNotCritical,
    #[error("nameConstraints is on a leaf certificate")]
    NameConstraintsOnLeaf,
    #[error("nameConstraints is not critical")]
    NameConstraintsNotCritical,
    #[error("nameConstraints is empty or malformed")]
    NameConstraintsMalformed,
    #[error("subjectAltName is missing")]
    SubjectAltNameMissing,
    #[error("subjectAltName is not critical although the subject is empty")]
    SubjectAltNameNotCritical,
    #[error("subjectAltName is critical although the subject is not empty")]
    SubjectAltNameCritical,
    #[error("subjectAltName has a malformed DNS name")]
    SubjectAltNameMalformed,
    #[error("the name matches only a wildcard over a public suffix")]
    PublicSuffixWildcard,
    #[error("the subject's common name is none of the names in subjectAltName")]
    CommonName,
    #[error("extKeyUsage is missing, critical or lists any purpose on a leaf certificate")]
    ExtendedKeyUsageOfLeaf,
    #[error("extKeyUsage is on a root certificate")]
    ExtendedKeyUsageOfRoot,
    #[error("the certificate is not valid yet")]
    NotValidYet,
    #[error("the certificate has expired")]
    Expired,
    #[error("too many intermediate certificates")]
    PathTooLong,
}

/// Where in a path a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    Leaf,
    Intermediate,
    Anchor,
}

/// The rules of RFC 5280 for a certificate of any path.
pub(crate) fn check(cert: &Certificate<'_>, position: Position) -> Result<(), Violation> {
    let extensions = &cert.extensions;
    if extensions.unknown_critical {
        return Err(Violation::UnknownCriticalExtension);
    }
    // Roots with serial number 0 are in every trust store, and nothing depends on a root's.
    if position != Position::Anchor && !is_serial_number(cert.serial) {
        return Err(Violation::SerialNumber);
    }
    if cert.has_empty_issuer() {
        return Err(Violation::EmptyIssuer);
    }
    if !spki::is_acceptable(cert.spki) {
        return Err(Violation::WeakKey);
    }
    if extensions.authority_key_id.is_some_and(|id| id.critical) {
        return Err(Violation::AuthorityKeyIdCritical);
    }
    if extensions.subject_key_id.is_some_and(|id| id.critical) {
        return Err(Violation::SubjectKeyIdCritical);
    }
    if extensions.authority_info_access.is_some_and(|access| access.critical) {
        return Err(Violation::AuthorityInfoAccessCritical);
    }
    if extensions.policy_constraints.is_some_and(|constraints| !constraints.critical) {
        return Err(Violation::PolicyConstraintsNotCritical);
    }
    if cert.has_empty_subject() && extensions.subject_alt_name.is_some_and(|names| !names.critical) {
        return Err(Violation::SubjectAltNameNotCritical);
    }
    match position {
        Position::Leaf => check_leaf(cert),
        Position::Intermediate | Position::Anchor => check_signer(cert),
    }
}

fn check_leaf(cert: &Certificate<'_>) -> Result<(), Violation> {
    let extensions = &cert.extensions;
    if extensions
        .basic_constraints
        .is_some_and(|constraints| constraints.ca || constraints.path_len.is_some())
    {
        return Err(Violation::LeafIsCa);
    }
    if extensions.key_usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
        return Err(Violation::LeafMaySign);
    }
    if extensions.name_constraints.is_some() {
        return Err(Violation::NameConstraintsOnLeaf);
    }
    Ok(())
}

fn check_signer(cert: &Certificate<'_>) -> Result<(), Violation> {
    let extensions = &cert.extensions;
    if cert.has_empty_subject() {
        return Err(Violation::EmptySubject);
    }
    if !extensions.basic_constraints.is_some_and(|constraints| constraints.ca && constraints.critical) {
        return Err(Violation::NotSigningCertificate);
    }
    if extensions.key_usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(Violation::KeyCertSignMissing);
    }
    if let Some(constraints) = extensions.name_constraints {
        if !constraints.critical {
            return Err(Violation::NameConstraintsNotCritical);
        }
        name_constraints::check_form(constraints.value).map_err(|_| Violation::NameConstraintsMalformed)?;
    }
    Ok(())
}

/// The further rules for a server that is known by a DNS name or an address.
pub(crate) fn check_server(cert: &Certificate<'_>, position: Position) -> Result<(), Violation> {
    let extensions = &cert.extensions;
    let authority = extensions.authority_key_id.map(|id| id.value);
    match (position, authority) {
        (Position::Anchor, Some(id)) if cert.is_self_issued() => {
            let own = extensions.subject_key_id.map(|id| id.value);
            if id.names_issuer || id.key_id.is_none() || id.key_id != own {
                return Err(Violation::AuthorityKeyIdOfRoot);
            }
        }
        (Position::Anchor, None) if cert.is_self_issued() => {}
        (_, Some(id)) if id.key_id.is_some() => {}
        _ => return Err(Violation::AuthorityKeyIdMissing),
    }
    match position {
        Position::Leaf => check_server_leaf(cert),
        Position::Intermediate => subject_key_id_of_signer(cert),
        Position::Anchor => {
            if extensions.extended_key_usage.is_some() {
                return Err(Violation::ExtendedKeyUsageOfRoot);
            }
            subject_key_id_of_signer(cert)
        }
    }
}

fn subject_key_id_of_signer(cert: &Certificate<'_>) -> Result<(), Violation> {
    if cert.extensions.subject_key_id.is_none() { Err(Violation::SubjectKeyIdMissing) } else { Ok(()) }
}

fn check_server_leaf(cert: &Certificate<'_>) -> Result<(), Violation> {
    let extensions = &cert.extensions;
    if !extensions.extended_key_usage.is_some_and(|usage| !usage.critical && !usage.value.any) {
        return Err(Violation::ExtendedKeyUsageOfLeaf);
    }
    let names = extensions.subject_alt_name.ok_or(Violation::SubjectAltNameMissing)?;
    if names.critical && !cert.has_empty_subject() {
        return Err(Violation::SubjectAltNameCritical);
    }
    for name in names.value.iter() {
        if let GeneralName::Dns(name) = name
            && !is_presented_dns_name(name)
        {
            return Err(Violation::SubjectAltNameMalformed);
        }
    }
    for common_name in cert.common_names().map_err(|_| Violation::CommonName)? {
        let text = std::str::from_utf8(common_name).map_err(|_| Violation::CommonName)?;
        if !names.value.iter().any(|name| is_same_name(text, name)) {
            return Err(Violation::CommonName);
        }
    }
    Ok(())
}

/// Whether a common name repeats this name exactly, an address in its canonical text form.
fn is_same_name(text: &str, name: GeneralName<'_>) -> bool {
    match name {
        GeneralName::Dns(dns) => dns == text,
        GeneralName::Ip(octets) => {
            let address = <[u8; 4]>::try_from(octets)
                .map(std::net::IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(octets).map(std::net::IpAddr::from));
            address.is_ok_and(|address| address.to_string() == text)
        }
        _ => false,
    }
}

/// A DNS name that a certificate may present: a host name, or one with `*` as its whole first label.
fn is_presented_dns_name(name: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => is_host_name(parent) && parent.contains('.'),
        None => is_host_name(name),
    }
}

/// Letters, digits and inner dashes in labels of 1 to 63, at most 253 in all, and not an IPv4 address.
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= 253 && name.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

fn is_serial_number(serial: &[u8]) -> bool {
    let positive = serial.first().is_some_and(|first| first & 0x80 == 0) && serial != [0];
    positive && serial.len() <= MAX_SERIAL_OCTETS
}
