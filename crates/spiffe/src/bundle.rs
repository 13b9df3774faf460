//! Trust bundles: which keys speak for a trust domain.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use rustls_pki_types::CertificateDer;

use crate::certificate::Certificate;
use crate::der::DerError;
use crate::id::TrustDomain;
use crate::path::{Anchors, PathError};
use crate::revoked::RevokedSvids;
use crate::svid::{self, SvidError};

/// Most authorities of either kind in one bundle.
pub const MAX_AUTHORITIES: usize = 64;
const MAX_KEY_ID_BYTES: usize = 256;

/// Why a bundle is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// More than [`MAX_AUTHORITIES`].
    #[error(
        "a bundle holds at most {MAX_AUTHORITIES} authorities of a kind: remove those that are not used any more"
    )]
    TooMany,
    /// An X.509 authority is not a certificate.
    #[error("X.509 authority {position} is malformed: {source}")]
    Malformed {
        /// Counted from 0.
        position: usize,
        /// What is wrong.
        source: DerError,
    },
    /// An X.509 authority may not sign SVIDs.
    #[error("X.509 authority {position} may not sign SVIDs: {reason}")]
    NotAuthority {
        /// Counted from 0.
        position: usize,
        /// Which rule it breaks.
        reason: String,
    },
    /// A JWT authority has no key ID, or one that is too long or used twice.
    #[error("a JWT authority has no key ID of its own: each needs a distinct `kid` of at most 256 bytes")]
    KeyId,
    /// A JWT authority's key is not a point on P-256.
    #[error("JWT authority `{0}` is not a P-256 public key")]
    PublicKey(String),
    /// The document is too large.
    #[error("the bundle document is larger than 1 MiB")]
    TooLarge,
    /// The document is not a JWK set with the SPIFFE parameters.
    #[error("the bundle document is not a SPIFFE bundle: {0}")]
    Json(String),
}

/// A key that JWT-SVIDs are verified with (ES256).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    key_id: String,
    public_key: [u8; 65],
}

impl JwtAuthority {
    /// A P-256 public key as an uncompressed point (`04 || x || y`) under a key ID.
    pub fn new(key_id: impl Into<String>, public_key: [u8; 65]) -> Result<Self, BundleError> {
        let key_id = key_id.into();
        if key_id.is_empty() || key_id.len() > MAX_KEY_ID_BYTES {
            return Err(BundleError::KeyId);
        }
        match ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key) {
            Ok(_) if public_key[0] == 4 => Ok(Self { key_id, public_key }),
            _ => Err(BundleError::PublicKey(key_id)),
        }
    }

    /// The key ID (`kid`).
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The uncompressed point.
    pub fn public_key(&self) -> &[u8; 65] {
        &self.public_key
    }
}

/// The authorities of one trust domain. What verification needs of them is computed here, once.
#[derive(Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    x509_authorities: Vec<CertificateDer<'static>>,
    jwt_authorities: Vec<JwtAuthority>,
    sequence: u64,
    refresh_hint: Option<u64>,
    anchors: Anchors,
}

impl TrustBundle {
    /// A bundle of these authorities. Each X.509 authority must be allowed to sign SVIDs of the trust domain; it may
    /// have expired.
    pub fn new(
        trust_domain: TrustDomain,
        x509_authorities: Vec<CertificateDer<'static>>,
        jwt_authorities: Vec<JwtAuthority>,
        sequence: u64,
        refresh_hint: Option<u64>,
    ) -> Result<Self, BundleError> {
        if x509_authorities.len() > MAX_AUTHORITIES || jwt_authorities.len() > MAX_AUTHORITIES {
            return Err(BundleError::TooMany);
        }
        for (i, authority) in jwt_authorities.iter().enumerate() {
            if jwt_authorities[..i].iter().any(|earlier| earlier.key_id == authority.key_id) {
                return Err(BundleError::KeyId);
            }
        }
        for (position, der) in x509_authorities.iter().enumerate() {
            check_authority(&trust_domain, position, der)?;
        }
        let (anchors, unusable) = Anchors::new(&x509_authorities, svid::check_signer);
        if let Some(error) = unusable.into_iter().next() {
            return Err(BundleError::NotAuthority { position: 0, reason: error.to_string() });
        }
        Ok(Self { trust_domain, x509_authorities, jwt_authorities, sequence, refresh_hint, anchors })
    }

    /// The trust domain that the bundle speaks for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Root certificates.
    pub fn x509_authorities(&self) -> &[CertificateDer<'static>] {
        &self.x509_authorities
    }

    /// Keys of JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt_authorities
    }

    /// The JWT authority with this key ID.
    pub fn jwt_authority(&self, key_id: &str) -> Option<&JwtAuthority> {
        self.jwt_authorities.iter().find(|authority| authority.key_id == key_id)
    }

    /// Grows with each change.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seconds after which to look for a newer one.
    pub fn refresh_hint(&self) -> Option<u64> {
        self.refresh_hint
    }

    pub(crate) fn anchors(&self) -> &Anchors {
        &self.anchors
    }
}

fn check_authority(
    trust_domain: &TrustDomain,
    position: usize,
    der: &CertificateDer<'static>,
) -> Result<(), BundleError> {
    if der.len() > svid::MAX_CERTIFICATE_BYTES {
        return Err(BundleError::Malformed { position, source: DerError::Length });
    }
    let cert = Certificate::parse(der).map_err(|source| BundleError::Malformed { position, source })?;
    let refuse = |reason: String| BundleError::NotAuthority { position, reason };
    svid::check_signing_id(&cert, trust_domain).map_err(|error: SvidError| refuse(error.to_string()))?;
    let (anchors, unusable) = Anchors::new([der], svid::check_signer);
    if let Some(error) = unusable.into_iter().next() {
        return Err(refuse(error.to_string()));
    }
    match anchors.first_violation() {
        Some(violation) => Err(refuse(PathError::Violation(violation).to_string())),
        None => Ok(()),
    }
}

/// The bundles that a verifier uses together. `generation` changes with every change of the set, so that whatever
/// was derived from an older set can be told apart.
#[derive(Debug, Clone, Default)]
pub struct BundleSet {
    generation: u64,
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    revoked: Arc<RevokedSvids>,
}

impl BundleSet {
    /// A set of bundles; of two for one trust domain the later wins.
    pub fn new(generation: u64, bundles: impl IntoIterator<Item = Arc<TrustBundle>>) -> Self {
        let bundles = bundles.into_iter().map(|bundle| (bundle.trust_domain.clone(), bundle)).collect();
        Self { generation, bundles, revoked: Arc::default() }
    }

    /// The same, and these SVIDs are not believed.
    #[must_use]
    pub fn with_revoked(self, revoked: Arc<RevokedSvids>) -> Self {
        Self { revoked, ..self }
    }

    /// Which SVIDs are not believed.
    pub fn revoked(&self) -> &Arc<RevokedSvids> {
        &self.revoked
    }

    /// The bundle of a trust domain.
    pub fn get(&self, trust_domain: &str) -> Option<&Arc<TrustBundle>> {
        self.bundles.get(trust_domain)
    }

    /// Generation of the set.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// All bundles, by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.bundles.values()
    }
}
