//! Our own identities: an SVID with its key, and which of them answers to which server name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ringfence_spiffe::certificate::Certificate;
use ringfence_spiffe::svid::MAX_CHAIN;
use ringfence_spiffe::{CertificateDer, LeafKey, RevokedSvids, SpiffeId};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use crate::mesh::server_name_text;

/// Why an SVID cannot be used as an identity of our own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// No certificate, or too many.
    #[error("an identity needs 1 to {MAX_CHAIN} certificates, leaf first")]
    Chain,
    /// The leaf is malformed.
    #[error("the leaf certificate is malformed: {0}")]
    Malformed(#[from] ringfence_spiffe::der::DerError),
    /// The leaf carries another ID.
    #[error("the leaf certificate is not that of {0}")]
    OtherId(SpiffeId),
    /// The key is not the leaf's.
    #[error("the private key does not belong to the leaf certificate")]
    OtherKey,
    /// rustls does not take the key.
    #[error("the private key cannot be used for TLS")]
    Key,
}

/// One of our own SVIDs with its private key.
#[derive(Clone)]
pub struct Identity {
    id: SpiffeId,
    serial: Arc<str>,
    not_before: u64,
    not_after: u64,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// An SVID chain, leaf first without the root, and its key.
    pub fn new(
        id: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: &LeafKey,
    ) -> Result<Self, IdentityError> {
        if !(1..=MAX_CHAIN).contains(&chain.len()) {
            return Err(IdentityError::Chain);
        }
        let leaf = Certificate::parse(&chain[0])?;
        let is_id = |uri: &str| uri == id.as_str();
        if !leaf.extensions.subject_alt_name.is_some_and(|names| names.value.uris().any(is_id)) {
            return Err(IdentityError::OtherId(id));
        }
        if leaf.spki != key.public_key_spki_der() {
            return Err(IdentityError::OtherKey);
        }
        let not_before = u64::try_from(leaf.not_before).unwrap_or(0);
        let not_after = u64::try_from(leaf.not_after).unwrap_or(0);
        let serial = leaf.serial_hex().into();
        let der = PrivatePkcs8KeyDer::from(key.pkcs8_der().as_slice());
        let signing_key = any_supported_type(&der.into()).map_err(|_| IdentityError::Key)?;
        let certified = Arc::new(CertifiedKey::new(chain, signing_key));
        Ok(Self { id, serial, not_before, not_after, certified })
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Seconds since 1970 until which the leaf is valid.
    pub fn not_after_unix(&self) -> u64 {
        self.not_after
    }

    /// Whether it was revoked, or nobody knows.
    pub fn is_revoked(&self, revoked: &RevokedSvids) -> bool {
        revoked.check(&self.id, &self.serial, self.not_before).is_err()
    }

    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// All identities of this node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identities {
    by_id: HashMap<SpiffeId, Identity>,
    /// Services only: a gateway or node is nobody's callee.
    by_server_name: HashMap<String, SpiffeId>,
}

impl Identities {
    pub(crate) fn new(identities: impl IntoIterator<Item = Identity>) -> Self {
        let mut all = Self::default();
        for identity in identities {
            all.put(identity);
        }
        all
    }

    pub(crate) fn put(&mut self, identity: Identity) {
        if let Some(name) = server_name_text(&identity.id) {
            self.by_server_name.insert(name, identity.id.clone());
        }
        self.by_id.insert(identity.id.clone(), identity);
    }

    pub(crate) fn remove(&mut self, id: &SpiffeId) {
        self.by_id.remove(id);
        self.by_server_name.retain(|_, known| known != id);
    }

    pub(crate) fn get(&self, id: &SpiffeId) -> Option<&Identity> {
        self.by_id.get(id)
    }

    pub(crate) fn by_server_name(&self, name: &str) -> Option<&Identity> {
        self.by_id.get(self.by_server_name.get(name)?)
    }
}
