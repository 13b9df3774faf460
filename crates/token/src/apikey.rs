//! API keys: what a client without tokens shows. `rf_PREFIX_SECRET` with a checksum at its end.
//!
//! The prefix is public and finds the record; the secret has 256 random bits, so a plain SHA-256 of it can be stored: there is
//! nothing to guess that a slow hash would protect. The checksum lets a scanner for leaked secrets tell a key from noise,
//! and a wrong one is refused before any lookup.

mod table;

use std::fmt;

use ringfence_keys::digest::{Sha256, sha256};
use ringfence_keys::{Secret, random};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use table::{ApiKeyError, KeyRecord, KeyTable, Known, TableError};

const MARK: &str = "rf_";
/// Characters of prefix, secret and checksum.
const PREFIX: usize = 12;
const SECRET: usize = 52;
const CHECKSUM: usize = 6;
/// Length of a key.
const LENGTH: usize = MARK.len() + PREFIX + 1 + SECRET + CHECKSUM;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The public part of an API key, which names it in records and logs: 60 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPrefix(u64);

impl KeyPrefix {
    /// Reads twelve characters of base32.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == PREFIX { number(text).map(Self) } else { None }
    }

    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    pub(crate) const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self.0, PREFIX))
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for KeyPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyPrefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a key's prefix has twelve characters of base32"))
    }
}

/// What is stored of a secret: its SHA-256, together with the prefix that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest")
    }
}

impl Serialize for SecretDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&ringfence_keys::to_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes =
            ringfence_keys::from_hex(&String::deserialize(deserializer)?).and_then(|b| b.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a digest has 64 lower-case hexadecimal digits"))
    }
}

/// An API key as its holder has it.
#[derive(Debug)]
pub struct ApiKey {
    prefix: KeyPrefix,
    secret: Secret<[u8; 32]>,
}

impl ApiKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        Self::generate_for(KeyPrefix(u64::from_le_bytes(random()) >> 4))
    }

    /// A new secret for a record that is there, to rotate it.
    #[must_use]
    pub fn generate_for(prefix: KeyPrefix) -> Self {
        Self { prefix, secret: Secret::new(random()) }
    }

    /// Reads a key, in its one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != LENGTH || !text.is_ascii() {
            return None;
        }
        let (signed, checksum) = text.split_at(LENGTH - CHECKSUM);
        let (prefix, secret) = signed.strip_prefix(MARK)?.split_once('_')?;
        let prefix = KeyPrefix::parse(prefix)?;
        if number(checksum)? != u64::from(self::checksum(signed)) {
            return None;
        }
        let mut bytes = [0; 32];
        // Eight characters are five bytes; the last four are two and a half, whose half must be empty.
        for (text, bytes) in secret.as_bytes().chunks(8).zip(bytes.chunks_mut(5)) {
            let value = number(std::str::from_utf8(text).ok()?)? << (40 - 5 * text.len());
            let value = value.to_be_bytes();
            let (head, rest) = value[3..].split_at(bytes.len());
            if rest.iter().any(|b| *b != 0) {
                return None;
            }
            bytes.copy_from_slice(head);
        }
        Some(Self { prefix, secret: Secret::new(bytes) })
    }

    /// The key as its holder keeps it; shown once.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        let mut text = format!("{MARK}{}_", self.prefix);
        text.reserve(SECRET + CHECKSUM);
        for bytes in self.secret.expose().chunks(5) {
            let value =
                bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)) << (40 - 8 * bytes.len());
            let whole = Secret::new(write(value, 8));
            text.push_str(&whole.expose()[..(bytes.len() * 8).div_ceil(5)]);
        }
        text.push_str(&write(checksum(&text).into(), CHECKSUM));
        Secret::new(text)
    }

    /// Its public part.
    #[must_use]
    pub const fn prefix(&self) -> KeyPrefix {
        self.prefix
    }

    /// What is stored of it.
    #[must_use]
    pub fn digest(&self) -> SecretDigest {
        let mut hash = Sha256::new();
        hash.update(&self.prefix.0.to_le_bytes());
        hash.update(self.secret.expose());
        SecretDigest(hash.finish())
    }
}

/// 30 bits of a digest of all that goes before.
fn checksum(signed: &str) -> u32 {
    let [a, b, c, d, ..] = sha256(signed.as_bytes());
    u32::from_be_bytes([a, b, c, d]) >> 2
}

/// `length` characters of base32, the last for the lowest five bits.
fn write(value: u64, length: usize) -> String {
    (0..length).rev().map(|i| char::from(ALPHABET[(value >> (5 * i)) as usize & 31])).collect()
}

/// Up to twelve characters of base32.
fn number(text: &str) -> Option<u64> {
    text.bytes().try_fold(0, |value, c| {
        let digit = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        Some(value << 5 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_shows_nothing_else() {
        for _ in 0..100 {
            let key = ApiKey::generate();
            let text = key.to_text();
            assert_eq!(text.expose().len(), LENGTH);
            let again = ApiKey::parse(text.expose()).unwrap();
            assert_eq!((again.prefix(), again.digest()), (key.prefix(), key.digest()));
            let shown = format!("{key:?} {:?}", key.digest());
            assert!(!shown.contains(&text.expose()[16..24]), "{shown}");
            assert!(shown.contains(&key.prefix().to_string()));
        }
        let key = ApiKey::generate();
        let other = ApiKey::generate_for(key.prefix());
        assert!(key.prefix() == other.prefix() && key.digest() != other.digest());
    }

    #[test]
    fn one_wrong_character_is_no_key() {
        let text = ApiKey::generate().to_text();
        let text = text.expose();
        for at in 0..text.len() {
            for c in ["a", "b", "7", "A", "_", "1", " "] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, c);
                assert!(changed == *text || ApiKey::parse(&changed).is_none(), "{at} {c}");
            }
        }
        assert!(ApiKey::parse(&format!("{text}a")).is_none());
        assert!(ApiKey::parse(&text[..text.len() - 1]).is_none());
        assert!(ApiKey::parse("").is_none());
    }

    #[test]
    fn bits_beyond_the_secret_are_another_spelling_and_refused() {
        let key = ApiKey::generate();
        let text = key.to_text();
        let body = &text.expose()[..LENGTH - CHECKSUM];
        let last = number(&body[body.len() - 1..]).unwrap();
        assert_eq!(last & 0xf, 0);
        let changed = format!("{}{}", &body[..body.len() - 1], write(last | 1, 1));
        let changed = format!("{changed}{}", write(checksum(&changed).into(), CHECKSUM));
        assert!(ApiKey::parse(&changed).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,90}|rf_[a-z2-7]{12}_[a-z2-7]{58}") {
            if let Some(key) = ApiKey::parse(&text) {
                let again = key.to_text();
                prop_assert_eq!(again.expose(), &text);
            }
        }
    }
}
