//! Sealing: AES-256-GCM under a data key, bound to what the secret is.
//!
//! A sealed blob is `version (1) | data key id (4, big-endian) | nonce (12) | ciphertext and tag`. The associated data binds
//! purpose, name and version of the secret, so a blob that was moved to another place, or an old one put back under a
//! newer version, does not open. Each purpose has a key of its own, derived from the data key by HKDF.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use crate::{Secret, SecretBytes};

const FORMAT: u8 = 1;
const HEADER: usize = 1 + 4 + NONCE_LEN;
const TAG: usize = 16;

/// What a sealed secret is for; blobs of one purpose do not open as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// Private keys of certificate authorities.
    Authority,
    /// A data key, sealed by the master key.
    DataKey,
    /// What keys for data of other processes are derived from.
    Derivation,
    /// An export that leaves this data directory, such as a root taken offline.
    Export,
    /// The key that a host joined with.
    Host,
    /// The key that signs snapshots.
    Snapshot,
    /// Keys that sign tokens.
    Token,
}

impl Purpose {
    const fn label(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::DataKey => "data-key",
            Self::Derivation => "derivation",
            Self::Export => "export",
            Self::Host => "host",
            Self::Snapshot => "snapshot",
            Self::Token => "token",
        }
    }
}

/// Why a sealed secret did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Too short, or written by a newer Ringfence.
    #[error("sealed secret `{0}` has an unknown format; was it written by a newer ringfence?")]
    Format(String),
    /// The key it was sealed with is not in this keyring.
    #[error(
        "sealed secret `{name}` needs data key {id}, which this keyring does not have; restore keeper/keyring.json from the same backup"
    )]
    UnknownKey {
        /// The secret.
        name: String,
        /// The data key it asks for.
        id: u32,
    },
    /// Altered, moved from elsewhere, or of another version.
    #[error("sealed secret `{0}` was altered or does not belong here; restore it from a backup")]
    Altered(String),
}

/// A 256-bit key that others are derived from.
pub(crate) type Root = Secret<[u8; 32]>;

/// HKDF-SHA256 of `root` for one use.
pub(crate) fn derive(root: &[u8], salt: &[u8], info: &str) -> Root {
    let prk = Salt::new(HKDF_SHA256, salt).extract(root);
    let mut key = Zeroizing::new([0; 32]);
    prk.expand(&[info.as_bytes()], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key[..]))
        .expect("invariant: 32 bytes is a length HKDF-SHA256 gives");
    Secret::new(*key)
}

/// The key for one use that belongs to a secret of 32 random bytes: always the same, and nothing of the secret or of other keys can be
/// told from it.
#[must_use]
pub fn derived(secret: &SecretBytes, usage: &str) -> Secret<[u8; 32]> {
    derive(secret.expose(), b"ringfence derived v1", usage)
}

/// The data key that a blob asks for.
pub(crate) fn key_id(name: &str, blob: &[u8]) -> Result<u32, SealError> {
    match blob {
        [FORMAT, a, b, c, d, rest @ ..] if rest.len() >= NONCE_LEN + TAG => {
            Ok(u32::from_be_bytes([*a, *b, *c, *d]))
        }
        _ => Err(SealError::Format(name.to_owned())),
    }
}

pub(crate) fn seal(
    root: &Root,
    id: u32,
    purpose: Purpose,
    name: &str,
    version: u64,
    secret: &[u8],
) -> Vec<u8> {
    let mut blob = Vec::with_capacity(HEADER + secret.len() + TAG);
    blob.push(FORMAT);
    blob.extend(id.to_be_bytes());
    blob.extend(crate::random::<NONCE_LEN>());
    blob.extend(secret);
    let associated = associated(&blob[..5], purpose, name, version);
    let (header, body) = blob.split_at_mut(HEADER);
    let tag = cipher(root, purpose)
        .seal_in_place_separate_tag(nonce(header), Aad::from(associated), body)
        .expect("invariant: a secret is shorter than what AES-GCM may seal");
    blob.extend(tag.as_ref());
    blob
}

pub(crate) fn open(
    root: &Root,
    purpose: Purpose,
    name: &str,
    version: u64,
    blob: &[u8],
) -> Result<SecretBytes, SealError> {
    key_id(name, blob)?;
    let associated = associated(&blob[..5], purpose, name, version);
    let (header, body) = blob.split_at(HEADER);
    let mut body = Zeroizing::new(body.to_vec());
    let length = cipher(root, purpose)
        .open_in_place(nonce(header), Aad::from(associated), &mut body)
        .map_err(|_| SealError::Altered(name.to_owned()))?
        .len();
    Ok(Secret::new(body[..length].to_vec()))
}

fn cipher(root: &Root, purpose: Purpose) -> LessSafeKey {
    let key = derive(root.expose(), b"ringfence seal v1", purpose.label());
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("invariant: the key has 32 bytes"))
}

fn nonce(header: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(&header[5..HEADER]).expect("invariant: the header ends with a nonce")
}

fn associated(header: &[u8], purpose: Purpose, name: &str, version: u64) -> Vec<u8> {
    let mut bytes = header.to_vec();
    for part in [purpose.label(), name] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes.extend(version.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root() -> Root {
        Secret::new([7; 32])
    }

    #[test]
    fn a_blob_opens_only_where_it_was_sealed_for() {
        let blob = seal(&root(), 1, Purpose::Authority, "root-1", 3, b"key");
        assert_eq!(open(&root(), Purpose::Authority, "root-1", 3, &blob).unwrap().expose(), b"key");
        assert!(open(&root(), Purpose::Token, "root-1", 3, &blob).is_err());
        assert!(open(&root(), Purpose::Authority, "root-2", 3, &blob).is_err());
        assert!(open(&root(), Purpose::Authority, "root-1", 4, &blob).is_err());
        assert!(open(&Secret::new([8; 32]), Purpose::Authority, "root-1", 3, &blob).is_err());
    }

    #[test]
    fn two_seals_of_one_secret_differ() {
        let seal = || seal(&root(), 1, Purpose::Token, "t", 1, b"same");
        assert_ne!(seal(), seal());
    }

    #[test]
    fn each_use_of_a_secret_has_a_key_of_its_own_that_stays_the_same() {
        let (one, other) = (Secret::new(vec![1; 32]), Secret::new(vec![2; 32]));
        assert_eq!(derived(&one, "store").expose(), derived(&one, "store").expose());
        assert_ne!(derived(&one, "store").expose(), derived(&one, "cookies/1").expose());
        assert_ne!(derived(&one, "store").expose(), derived(&other, "store").expose());
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(secret: Vec<u8>, position: prop::sample::Index, bit in 0..8u8) {
            let mut blob = seal(&root(), 9, Purpose::Snapshot, "s", 1, &secret);
            let clear = open(&root(), Purpose::Snapshot, "s", 1, &blob).unwrap();
            prop_assert_eq!(clear.expose(), &secret);
            let at = position.index(blob.len());
            blob[at] ^= 1 << bit;
            prop_assert!(open(&root(), Purpose::Snapshot, "s", 1, &blob).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes: Vec<u8>) {
            prop_assert!(open(&root(), Purpose::Snapshot, "s", 1, &bytes).is_err());
        }
    }
}
