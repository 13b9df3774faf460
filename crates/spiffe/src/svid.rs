//! X.509-SVIDs: the one place where a peer becomes verified.
//!
//! The rules are those of the X509-SVID standard, sections 2 to 5, read strictly: a certificate that a reader
//! could understand in two ways is refused.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::BundleSet;
use crate::certificate::Certificate;
use crate::der::DerError;
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::path::{self, PathError, PathOptions, Usage};
use crate::profile::{self, Position, Violation};

/// Most certificates in a presented chain, the leaf included.
pub const MAX_CHAIN: usize = 5;
/// Largest certificate in a presented chain.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Most intermediates between an SVID and its root.
const MAX_INTERMEDIATES: usize = MAX_CHAIN - 1;

/// Which end of the connection the peer is.
pub type Role = Usage;

/// Why a peer is not verified. The message says what to do; [`SvidError::reason`] is the code for events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate.
    #[error("the peer presented no certificate: it must speak mutual TLS with an SVID of its own")]
    Empty,
    /// More than [`MAX_CHAIN`] certificates.
    #[error(
        "the peer presented more than {MAX_CHAIN} certificates: shorten its chain of signing certificates"
    )]
    TooManyCertificates,
    /// A certificate above [`MAX_CERTIFICATE_BYTES`].
    #[error("a certificate is larger than {MAX_CERTIFICATE_BYTES} bytes: issue a smaller one")]
    TooLarge,
    /// The certificate at this position is not one.
    #[error("certificate {position} of the chain is malformed ({source}): reissue it")]
    Malformed {
        /// 0 is the leaf.
        position: usize,
        /// What is wrong.
        source: DerError,
    },
    /// No URI SAN.
    #[error("the certificate has no URI name, so it is no SVID: issue one with exactly one `spiffe://` URI")]
    NoId,
    /// More than one URI SAN.
    #[error("the certificate has more than one URI name: an SVID has exactly one")]
    ManyIds,
    /// The URI is not a SPIFFE ID.
    #[error("the certificate's URI name is not a SPIFFE ID: {0}")]
    Id(#[from] IdError),
    /// The ID is that of a trust domain.
    #[error("the SPIFFE ID has no path: it names a trust domain, not a workload")]
    NoPath,
    /// No bundle for the trust domain.
    #[error("trust domain `{0}` is not trusted here: federate with it if its workloads are to be let in")]
    UnknownTrustDomain(TrustDomain),
    /// keyUsage is missing or not critical.
    #[error("keyUsage is missing or not critical: an SVID must carry it, marked critical")]
    KeyUsage,
    /// digitalSignature is missing.
    #[error("keyUsage lacks digitalSignature: a leaf SVID must have it")]
    NoDigitalSignature,
    /// extKeyUsage is there without both purposes.
    #[error("extKeyUsage must list both serverAuth and clientAuth if it is there")]
    ExtendedKeyUsage,
    /// A signing certificate's URI SAN is not that of the trust domain.
    #[error("a signing certificate carries another ID than its trust domain's: reissue it")]
    SigningId,
    /// A general rule is broken.
    #[error("the SVID or a certificate above it is not acceptable: {0}")]
    Violation(Violation),
    /// The leaf has expired.
    #[error("the SVID has expired: check that the peer renews it, and both clocks")]
    Expired,
    /// The leaf is not valid yet.
    #[error("the SVID is not valid yet: check the clocks of issuer, peer and this host")]
    NotValidYet,
    /// No path to a root of the bundle.
    #[error(
        "the SVID is not signed by an authority of its trust domain: the bundle may be out of date, or it is forged"
    )]
    Untrusted,
    /// A signature does not verify.
    #[error("a signature in the chain is invalid: the SVID was altered or is forged")]
    Signature,
    /// It was revoked.
    #[error("the SVID was revoked: `ringfence revocations` says by whom and why")]
    Revoked,
    /// Nobody has said yet what was revoked.
    #[error("it is not known yet which SVIDs were revoked: does control run?")]
    RevocationsUnknown,
    /// Anything else that webpki refuses.
    #[error("no acceptable path leads from the SVID to its trust bundle: {0}")]
    Path(webpki::Error),
}

impl SvidError {
    /// A short, stable code for events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "no_certificate",
            Self::TooManyCertificates => "chain_too_long",
            Self::TooLarge => "certificate_too_large",
            Self::Malformed { .. } => "malformed",
            Self::NoId => "no_spiffe_id",
            Self::ManyIds => "many_spiffe_ids",
            Self::Id(_) => "bad_spiffe_id",
            Self::NoPath => "no_path",
            Self::UnknownTrustDomain(_) => "unknown_trust_domain",
            Self::KeyUsage | Self::NoDigitalSignature => "key_usage",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::SigningId => "signing_id",
            Self::Violation(Violation::LeafIsCa | Violation::LeafMaySign) => "leaf_may_sign",
            Self::Violation(Violation::Expired | Violation::NotValidYet) => "authority_not_valid_now",
            Self::Violation(_) => "profile",
            Self::Expired => "expired",
            Self::NotValidYet => "not_valid_yet",
            Self::Untrusted => "untrusted",
            Self::Signature => "bad_signature",
            Self::Revoked => "svid.revoked",
            Self::RevocationsUnknown => "revocations.unready",
            Self::Path(_) => "no_path_to_root",
        }
    }
}

/// Proof that a peer showed a valid X.509-SVID. Only [`verify_svid`] makes one. That the peer also holds the
/// key is proved by the handshake that the chain came from.
#[derive(Clone)]
pub struct VerifiedPeer(Arc<Verified>);

#[derive(PartialEq, Eq)]
struct Verified {
    id: SpiffeId,
    not_before: u64,
    not_after: u64,
    serial: String,
    fingerprint: [u8; 32],
    generation: u64,
}

impl VerifiedPeer {
    /// Who the peer is.
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// Until when: the earliest end of validity of any certificate of the path.
    pub fn not_after(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.not_after)
    }

    /// [`VerifiedPeer::not_after`] in seconds since 1970.
    pub fn not_after_unix(&self) -> u64 {
        self.0.not_after
    }

    /// From when the leaf is valid, in seconds since 1970.
    pub fn not_before_unix(&self) -> u64 {
        self.0.not_before
    }

    /// The leaf's serial number in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// SHA-256 of the leaf.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.0.fingerprint
    }

    /// Generation of the bundles that it was verified with.
    pub fn bundle_generation(&self) -> u64 {
        self.0.generation
    }
}

impl PartialEq for VerifiedPeer {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for VerifiedPeer {}

impl fmt::Debug for VerifiedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedPeer")
            .field("id", &self.0.id)
            .field("serial", &self.0.serial)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of a leaf, by which a verified peer can be recognised.
pub fn fingerprint(leaf: &CertificateDer<'_>) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
    out
}

/// Verifies the chain that a peer presented, leaf first, against the bundle of the leaf's own trust domain.
pub fn verify_svid(
    chain: &[CertificateDer<'_>],
    bundles: &BundleSet,
    role: Role,
    now: UnixTime,
) -> Result<VerifiedPeer, SvidError> {
    let leaf_der = chain.first().ok_or(SvidError::Empty)?;
    if chain.len() > MAX_CHAIN {
        return Err(SvidError::TooManyCertificates);
    }
    if chain.iter().any(|cert| cert.len() > MAX_CERTIFICATE_BYTES) {
        return Err(SvidError::TooLarge);
    }
    let leaf = Certificate::parse(leaf_der).map_err(|source| SvidError::Malformed { position: 0, source })?;
    let uri = only_uri(&leaf)?.ok_or(SvidError::NoId)?;
    let (name, path) = crate::id::split(uri)?;
    if path.is_empty() {
        return Err(SvidError::NoPath);
    }
    let Some(bundle) = bundles.get(name) else {
        return Err(SvidError::UnknownTrustDomain(TrustDomain::new(name)?));
    };
    let trust_domain = bundle.trust_domain();
    let id = SpiffeId::parse_in(uri, trust_domain)?.ok_or(SvidError::Untrusted)?;
    check_leaf(&leaf, role)?;
    for (position, der) in chain.iter().enumerate().skip(1) {
        let cert = Certificate::parse(der).map_err(|source| SvidError::Malformed { position, source })?;
        check_signing_id(&cert, trust_domain)?;
    }

    let options = PathOptions {
        anchors: bundle.anchors(),
        crls: &[],
        max_intermediates: MAX_INTERMEDIATES,
        shared_suffix_wildcards: false,
        now,
        usage: role,
    };
    let not_after = path::find_path(chain, &options, check_signer).map_err(explain)?;
    let (not_before, serial) = (u64::try_from(leaf.not_before).unwrap_or(0), leaf.serial_hex());
    bundles.revoked().check(&id, &serial, not_before)?;
    Ok(VerifiedPeer(Arc::new(Verified {
        id,
        not_before,
        not_after: u64::try_from(not_after).unwrap_or(0),
        serial,
        fingerprint: fingerprint(leaf_der),
        generation: bundles.generation(),
    })))
}

/// The one URI of a certificate; `None` if there is none.
fn only_uri<'a>(cert: &Certificate<'a>) -> Result<Option<&'a str>, SvidError> {
    let Some(names) = cert.extensions.subject_alt_name else {
        return Ok(None);
    };
    let mut uris = names.value.uris();
    let first = uris.next();
    if uris.next().is_some() { Err(SvidError::ManyIds) } else { Ok(first) }
}

fn check_leaf(leaf: &Certificate<'_>, _role: Role) -> Result<(), SvidError> {
    profile::check(leaf, Position::Leaf).map_err(SvidError::Violation)?;
    let extensions = &leaf.extensions;
    let usage = extensions.key_usage.filter(|usage| usage.critical).ok_or(SvidError::KeyUsage)?;
    if !usage.value.digital_signature() {
        return Err(SvidError::NoDigitalSignature);
    }
    // Both purposes, whichever end the peer is: an SVID that serves only one end is not an SVID.
    if extensions
        .extended_key_usage
        .is_some_and(|usage| !(usage.value.server_auth && usage.value.client_auth))
    {
        return Err(SvidError::ExtendedKeyUsage);
    }
    Ok(())
}

/// If a signing certificate carries an ID, it is exactly that of the trust domain.
pub(crate) fn check_signing_id(cert: &Certificate<'_>, trust_domain: &TrustDomain) -> Result<(), SvidError> {
    match only_uri(cert)? {
        None => Ok(()),
        Some(uri) => match crate::id::split(uri) {
            Ok((name, "")) if name == trust_domain.as_str() => Ok(()),
            _ => Err(SvidError::SigningId),
        },
    }
}

/// keyUsage must be there, critical, with keyCertSign; the rest of the signing rules are RFC 5280's.
pub(crate) fn check_signer(cert: &Certificate<'_>) -> Result<(), Violation> {
    match cert.extensions.key_usage {
        Some(usage) if usage.critical && usage.value.key_cert_sign() => Ok(()),
        _ => Err(Violation::KeyCertSignMissing),
    }
}

fn explain(error: PathError) -> SvidError {
    use webpki::Error;
    match error {
        PathError::Empty => SvidError::Empty,
        PathError::TooMany => SvidError::TooManyCertificates,
        PathError::Malformed(source) => SvidError::Malformed { position: 0, source },
        PathError::Violation(violation) => SvidError::Violation(violation),
        PathError::Name => SvidError::NoId,
        PathError::Path(error) => match error {
            Error::CertExpired { .. } => SvidError::Expired,
            Error::CertNotValidYet { .. } => SvidError::NotValidYet,
            Error::UnknownIssuer => SvidError::Untrusted,
            Error::InvalidSignatureForPublicKey => SvidError::Signature,
            other => SvidError::Path(other),
        },
    }
}
