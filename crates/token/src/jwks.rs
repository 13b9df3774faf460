//! Sets of public keys as JSON (RFC 7517), in and out.
//!
//! What a set points at (`x5u`) or brings along (`x5c`) is neither fetched nor looked at: the keys are those written out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ringfence_keys::VerifyingKey;
use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
use crate::json;
use crate::jws::{MAX_KEY_ID, TokenError};
use crate::key::{JwkError, PublicKey};

/// Longest document in bytes and most keys of it.
const MAX_DOCUMENT: usize = 256 * 1024;
const MAX_KEYS: usize = 256;

/// Why a document is no key set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// Not strict JSON of the right shape, or too large.
    #[error("not a JSON Web Key Set of at most {MAX_KEYS} keys")]
    Malformed,
    /// No key that can be used.
    #[error("a JSON Web Key Set without a key that can be used")]
    Empty,
    /// A key that spoils the set: whoever publishes it cannot be believed.
    #[error("the key `{0}` is {1}")]
    Key(String, JwkError),
    /// Two keys with one name.
    #[error("two keys have the id `{0}`")]
    Twice(String),
}

/// A key of a set that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its id, where it has one.
    pub key_id: Option<String>,
    /// Why.
    pub reason: JwkError,
}

/// Public keys by `kid`, those that may verify signatures.
///
/// Each set that is made has a generation of its own, which its clones share: what was verified with one set is not taken for verified with
/// another. Keep the set while the keys stay the same ([`PartialEq`] compares keys alone).
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: BTreeMap<String, PublicKey>,
    left_out: Vec<LeftOut>,
    generation: u64,
}

impl KeySet {
    /// A set of keys that are trusted; of two with one id the later counts.
    pub fn from_keys(keys: impl IntoIterator<Item = (String, VerifyingKey)>) -> Self {
        Self::from_public(keys.into_iter().map(|(id, key)| (id, PublicKey::from(&key))))
    }

    pub(crate) fn from_public(keys: impl IntoIterator<Item = (String, PublicKey)>) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Self { keys: keys.into_iter().collect(), left_out: Vec::new(), generation }
    }

    /// Reads a key set. Keys of other kinds, for other uses, and weak ones are left out; so is one without id, unless it is the
    /// only key. A malformed, private or symmetric key and an id that is there twice make the whole set wrong.
    ///
    /// # Errors
    /// [`JwksError`].
    pub fn from_json(document: &[u8]) -> Result<Self, JwksError> {
        if document.len() > MAX_DOCUMENT {
            return Err(JwksError::Malformed);
        }
        let members = json::object(document).ok_or(JwksError::Malformed)?;
        let list = members.get("keys").and_then(Value::as_array).ok_or(JwksError::Malformed)?;
        if list.len() > MAX_KEYS {
            return Err(JwksError::Malformed);
        }
        let mut set = Self::default();
        let mut ids = std::collections::BTreeSet::new();
        for entry in list {
            let entry = entry.as_object().ok_or(JwksError::Malformed)?;
            let id = match entry.get("kid") {
                None => None,
                Some(id) => Some(id.as_str().ok_or(JwksError::Malformed)?),
            };
            if id.is_some_and(|id| !ids.insert(id)) {
                return Err(JwksError::Twice(id.unwrap_or_default().chars().take(MAX_KEY_ID).collect()));
            }
            set.add(id, entry, list.len() == 1)?;
        }
        Ok(set)
    }

    fn add(&mut self, id: Option<&str>, entry: &Map<String, Value>, only: bool) -> Result<(), JwksError> {
        let shown = || id.map(|id| id.chars().take(MAX_KEY_ID).collect::<String>());
        let named = match id {
            Some(id) if !id.is_empty() && id.len() <= MAX_KEY_ID => Some(id),
            // The one key of a set needs no name: a token that names none can only mean it.
            None if only => Some(""),
            _ => None,
        };
        let reason = match (PublicKey::from_jwk(entry), named) {
            (Ok(key), Some(id)) => {
                self.keys.insert(id.to_owned(), key);
                return Ok(());
            }
            (Ok(_), None) => JwkError::Unnamed,
            (Err(error @ (JwkError::Malformed | JwkError::Secret)), _) => {
                return Err(JwksError::Key(shown().unwrap_or_default(), error));
            }
            (Err(reason), _) => reason,
        };
        self.left_out.push(LeftOut { key_id: shown(), reason });
        Ok(())
    }

    /// Writes the set; `key_use` is `jwt-svid` in a SPIFFE bundle and `sig` elsewhere.
    #[must_use]
    pub fn to_json(&self, key_use: &str) -> String {
        let id = |id: &'_ String| (!id.is_empty()).then(|| id.clone());
        let keys: Vec<_> =
            self.keys.iter().map(|(kid, key)| key.to_jwk(id(kid).as_deref(), Some(key_use))).collect();
        json!({ "keys": keys }).to_string()
    }

    /// The key that a token names, if it is for this algorithm.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`], which a fresh set may help against, and [`TokenError::WrongAlgorithm`], which nothing helps against.
    pub fn find(&self, key_id: Option<&str>, algorithm: Algorithm) -> Result<&PublicKey, TokenError> {
        let key = self.keys.get(key_id.unwrap_or_default()).ok_or(TokenError::UnknownKey)?;
        if key.algorithm() == algorithm { Ok(key) } else { Err(TokenError::WrongAlgorithm) }
    }

    /// The keys that are not used.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Which set it is: no other has this number, and later ones have greater ones.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn keys(&self) -> &BTreeMap<String, PublicKey> {
        &self.keys
    }

    pub(crate) fn into_keys(self) -> BTreeMap<String, PublicKey> {
        self.keys
    }

    /// Whether it has no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

impl Default for KeySet {
    fn default() -> Self {
        Self::from_public([])
    }
}

impl PartialEq for KeySet {
    /// Equal keys; where they come from does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

impl Eq for KeySet {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_keys::SigningKey;

    use super::*;

    fn set() -> KeySet {
        let key = |algorithm| SigningKey::generate(algorithm).unwrap().verifying_key().clone();
        KeySet::from_keys([
            ("a".into(), key(ringfence_keys::Algorithm::P256)),
            ("b".into(), key(ringfence_keys::Algorithm::Ed25519)),
        ])
    }

    #[test]
    fn a_set_that_is_written_is_read() {
        let set = set();
        assert_eq!(KeySet::from_json(set.to_json("jwt-svid").as_bytes()).unwrap(), set);
        let other = KeySet::from_json(set.to_json("enc").as_bytes()).unwrap();
        assert!(other.is_empty());
        assert_eq!(other.left_out().len(), 2);
        assert!(matches!(set.find(Some("a"), Algorithm::EdDsa), Err(TokenError::WrongAlgorithm)));
        assert!(matches!(set.find(Some("c"), Algorithm::EdDsa), Err(TokenError::UnknownKey)));
        assert!(matches!(set.find(None, Algorithm::EdDsa), Err(TokenError::UnknownKey)));
    }

    #[test]
    fn a_broken_or_double_or_private_key_spoils_the_set_and_a_foreign_one_does_not() {
        let text = set().to_json("sig");
        let read = |text: String| KeySet::from_json(text.as_bytes());
        assert!(read(text.replace("\"kid\":\"b\"", "\"kid\":\"a\"")).is_err());
        assert!(read(text.replace("\"x\":\"", "\"x\":\"AA")).is_err());
        assert!(read(text.replace("\"crv\"", "\"d\":\"AA\",\"crv\"")).is_err());
        let with = |jwk: &str| read(text.replace("{\"keys\":[", &format!("{{\"keys\":[{jwk},")));
        assert!(with(r#"{"kty":"oct","kid":"h","k":"AA"}"#).is_err());
        assert!(with(r#"{"kty":"RSA","kid":"r"}"#).is_err());
        let foreign = with(r#"{"kty":"EC","crv":"P-521","kid":"r","x":"AA","y":"AA"}"#).unwrap();
        assert_eq!((foreign.len(), foreign.left_out().len()), (2, 1));
        let weak = with(r#"{"kty":"RSA","kid":"r","n":"rJBIp6T1YK-RtPyvYqFFlcucqew","e":"AQAB"}"#).unwrap();
        assert_eq!((weak.len(), weak.left_out().len()), (2, 1));
        assert!(read(format!("{{\"keys\":[{}]}}", vec!["{}"; 257].join(","))).is_err());
    }

    #[test]
    fn only_a_single_key_may_be_without_a_name() {
        let key = set();
        let jwk = |id: &str| Value::from(key.keys()[id].to_jwk(None, None));
        let one = KeySet::from_json(json!({ "keys": [jwk("a")] }).to_string().as_bytes()).unwrap();
        assert!(one.find(None, Algorithm::Es256).is_ok());
        assert!(one.find(Some("x"), Algorithm::Es256).is_err());
        assert_eq!(KeySet::from_json(one.to_json("sig").as_bytes()).unwrap(), one);
        let two = KeySet::from_json(json!({ "keys": [jwk("a"), jwk("b")] }).to_string().as_bytes()).unwrap();
        assert!(two.is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = KeySet::from_json(&bytes);
        }
    }
}
