//! Sealing of many small values that travel, such as cookies.
//!
//! A keyring seals few secrets; a gateway seals a cookie with each sign-in and renewal, on every thread and node, under keys
//! that all of them share. With random nonces of 96 bits one AES-GCM key may seal 2^32 times; so each value gets a key of its own,
//! derived from 128 random bits, and no counter has to be kept anywhere.
//!
//! `version (1) | key id (4, big-endian) | salt (16) | nonce (12) | ciphertext and tag`. The context is part of the derivation:
//! what was sealed for one use does not open for another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::seal::derive;
use crate::{Secret, SecretBytes};

const FORMAT: u8 = 1;
const SALT: usize = 16;
const NAMED: usize = 1 + 4;
const HEADER: usize = NAMED + SALT + NONCE_LEN;
const TAG: usize = 16;

/// Keys that seal and open values that travel: one seals, the others still open while keys are rotated.
#[derive(Clone, Debug)]
pub struct EnvelopeKeys {
    id: u32,
    key: Secret<[u8; 32]>,
    older: Vec<(u32, Secret<[u8; 32]>)>,
}

impl EnvelopeKeys {
    /// How much longer a sealed value is than what it holds.
    pub const OVERHEAD: usize = HEADER + TAG;

    /// Seals with `key`, which has the number `id`; opens what this key and the `older` ones sealed.
    #[must_use]
    pub fn new(id: u32, key: Secret<[u8; 32]>, older: Vec<(u32, Secret<[u8; 32]>)>) -> Self {
        Self { id, key, older }
    }

    /// Seals `clear` for one use.
    #[must_use]
    pub fn seal(&self, context: &str, clear: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(clear.len() + Self::OVERHEAD);
        sealed.push(FORMAT);
        sealed.extend(self.id.to_be_bytes());
        sealed.extend(crate::random::<{ SALT + NONCE_LEN }>());
        sealed.extend(clear);
        let (header, body) = sealed.split_at_mut(HEADER);
        let tag = cipher(&self.key, header, context)
            .seal_in_place_separate_tag(nonce(header), Aad::from(&header[..NAMED]), body)
            .expect("invariant: a value is shorter than what AES-GCM may seal");
        sealed.extend(tag.as_ref());
        sealed
    }

    /// Opens what was sealed for this use; `None` for anything else.
    #[must_use]
    pub fn open(&self, context: &str, sealed: &[u8]) -> Option<SecretBytes> {
        if sealed.len() < Self::OVERHEAD || sealed[0] != FORMAT {
            return None;
        }
        let (header, body) = sealed.split_at(HEADER);
        let id = u32::from_be_bytes(header[1..NAMED].try_into().ok()?);
        let key = std::iter::once((&self.id, &self.key))
            .chain(self.older.iter().map(|(id, key)| (id, key)))
            .find_map(|(known, key)| (*known == id).then_some(key))?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = cipher(key, header, context)
            .open_in_place(nonce(header), Aad::from(&header[..NAMED]), &mut body)
            .ok()?
            .len();
        body.truncate(length);
        Some(Secret::new(std::mem::take(&mut *body)))
    }
}

fn cipher(key: &Secret<[u8; 32]>, header: &[u8], context: &str) -> LessSafeKey {
    let info = format!("ringfence envelope v1 {context}");
    let key = derive(key.expose(), &header[NAMED..NAMED + SALT], &info);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("invariant: the key has 32 bytes"))
}

fn nonce(header: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(&header[NAMED + SALT..HEADER])
        .expect("invariant: the header ends with a nonce")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(id: u32) -> EnvelopeKeys {
        EnvelopeKeys::new(id, Secret::new([id as u8; 32]), Vec::new())
    }

    #[test]
    fn a_value_opens_only_for_its_use_and_under_its_key() {
        let sealed = keys(1).seal("session", b"who");
        assert_eq!(keys(1).open("session", &sealed).unwrap().expose(), b"who");
        assert!(keys(1).open("login", &sealed).is_none());
        assert!(keys(2).open("session", &sealed).is_none());
        let other = EnvelopeKeys::new(1, Secret::new([9; 32]), Vec::new());
        assert!(other.open("session", &sealed).is_none());
        assert_ne!(sealed, keys(1).seal("session", b"who"));
        assert_eq!(sealed.len(), 3 + EnvelopeKeys::OVERHEAD);
    }

    #[test]
    fn an_older_key_still_opens_and_no_longer_seals() {
        let rotated = EnvelopeKeys::new(2, Secret::new([2; 32]), vec![(1, Secret::new([1; 32]))]);
        let old = keys(1).seal("session", b"who");
        assert!(rotated.open("session", &old).is_some());
        assert!(keys(1).open("session", &rotated.seal("session", b"who")).is_none());
        assert!(keys(2).open("session", &old).is_none());
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(clear: Vec<u8>, position: prop::sample::Index, bit in 0..8u8) {
            let mut sealed = keys(7).seal("s", &clear);
            let opened = keys(7).open("s", &sealed).unwrap();
            prop_assert_eq!(opened.expose(), &clear);
            let at = position.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(keys(7).open("s", &sealed).is_none());
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes: Vec<u8>) {
            prop_assert!(keys(7).open("s", &bytes).is_none());
        }
    }
}
