//! Peers that were verified before.
//!
//! Verifying a chain costs two or more signature checks; a mesh sees the same few leaves again and again. A leaf
//! that was accepted is accepted again in the same role, as long as no certificate of its path has expired. The cache
//! belongs to one set of bundles and is dropped with it. That the peer holds the leaf's key is proved anew by every handshake.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ringfence_spiffe::svid::fingerprint;
use ringfence_spiffe::{BundleSet, CertificateDer, Role, SvidError, UnixTime, VerifiedPeer, verify_svid};

/// Leaves kept: two generations of this many.
const HALF_CAPACITY: usize = 2048;

type Key = ([u8; 32], Role);

/// Two maps: when the young one is full it becomes the old one, and what was old is forgotten.
#[derive(Default)]
struct Maps {
    young: HashMap<Key, VerifiedPeer>,
    old: HashMap<Key, VerifiedPeer>,
}

#[derive(Default)]
pub(crate) struct PeerCache(Mutex<Maps>);

impl PeerCache {
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        bundles: &BundleSet,
        role: Role,
        now: UnixTime,
    ) -> Result<VerifiedPeer, SvidError> {
        let leaf = chain.first().ok_or(SvidError::Empty)?;
        let key = (fingerprint(leaf), role);
        if let Some(peer) = self.recall(&key)
            && now.as_secs() <= peer.not_after_unix()
        {
            return Ok(peer);
        }
        let peer = verify_svid(chain, bundles, role, now)?;
        self.remember(key, peer.clone());
        Ok(peer)
    }

    fn recall(&self, key: &Key) -> Option<VerifiedPeer> {
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = maps.young.get(key) {
            return Some(peer.clone());
        }
        let peer = maps.old.remove(key)?;
        maps.insert(*key, peer.clone());
        Some(peer)
    }

    fn remember(&self, key: Key, peer: VerifiedPeer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, peer);
    }
}

impl Maps {
    fn insert(&mut self, key: Key, peer: VerifiedPeer) {
        if self.young.len() >= HALF_CAPACITY {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, peer);
    }
}
