//! What is said.

use std::fmt;

use bytes::Bytes;
use ringfence_keys::Secret;
use ringfence_snapshot::Der;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest message in bytes: a snapshot of the largest fence.
pub const MAX_FRAME: usize = 64 << 20;
/// Longest message of a host.
pub(crate) const MAX_SAID: usize = 8 << 20;

/// The one message of the service: JSON, as between our processes of one host.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Json {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) json: Bytes,
}

impl Json {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self { json: serde_json::to_vec(value)?.into() })
    }

    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }
}

/// Whom control says to believe. Worth nothing until it is compared with what the operator carried, or with what is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// The trust domain.
    pub trust_domain: String,
    /// Name of the fence.
    pub fence: String,
    /// X.509 authorities of the mesh, DER.
    pub roots: Vec<Der>,
    /// What a host that comes back signs, good on this connection alone; hexadecimal.
    pub challenge: String,
}

/// A host wants to join.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinAsk {
    /// The join token's text.
    pub token: Secret<String>,
    /// SubjectPublicKeyInfo of the host's key.
    pub spki: Der,
    /// Proof of possession for `spiffe://TRUST_DOMAIN/node/HOST`.
    pub proof: Der,
}

/// A host that belongs wants an SVID.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComeBackAsk {
    /// Its name.
    pub host: String,
    /// SubjectPublicKeyInfo of the key that it joined with.
    pub spki: Der,
    /// Proof of possession for [`come_back_subject`] of this connection's challenge.
    pub answer: Der,
    /// Proof of possession for `spiffe://TRUST_DOMAIN/node/HOST`.
    pub proof: Der,
}

/// What a host gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// Its SVID, leaf first, without the root.
    pub chain: Vec<Der>,
    /// When it ends, Unix time in seconds.
    pub not_after: u64,
    /// SubjectPublicKeyInfo of the key that signs snapshots.
    pub snapshot_key: Der,
}

/// What a host that comes back signs.
#[must_use]
pub fn come_back_subject(id: &str, challenge: &str) -> String {
    format!("{id} comes back: {challenge}")
}

/// Without the token.
impl fmt::Debug for JoinAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinAsk").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let said = Json { json: bytes.into() };
            let _ = said.read::<JoinAsk>();
            let _ = said.read::<ComeBackAsk>();
            let _ = said.read::<ringfence_snapshot::node::FromProxy>();
        }
    }
}
