//! Sets of public keys as JSON (RFC 7517), in and out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{Algorithm, VerifyingKey};
use serde_json::{Map, Value, json};

use crate::json;
use crate::jws::{decode, name};

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
    /// Two keys with one name.
    #[error("two keys have the id `{0}`")]
    Twice(String),
}

/// Public keys by `kid`, those that may verify signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(BTreeMap<String, VerifyingKey>);

impl KeySet {
    /// A set of keys that are trusted; of two with one id the later counts.
    pub fn from_keys(keys: impl IntoIterator<Item = (String, VerifyingKey)>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Reads a key set. Keys of other kinds, for other uses and without id are left out; a broken key of a kind that we know
    /// makes the whole set wrong.
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
        let mut keys = BTreeMap::new();
        for entry in list {
            let entry = entry.as_object().ok_or(JwksError::Malformed)?;
            if let Some((kid, key)) = read_key(entry)?
                && keys.insert(kid.clone(), key).is_some()
            {
                return Err(JwksError::Twice(kid));
            }
        }
        Ok(Self(keys))
    }

    /// Writes the set; `key_use` is `jwt-svid` in a SPIFFE bundle and `sig` elsewhere.
    #[must_use]
    pub fn to_json(&self, key_use: &str) -> String {
        let keys: Vec<Value> = self.0.iter().filter_map(|(kid, key)| write_key(kid, key, key_use)).collect();
        json!({ "keys": keys }).to_string()
    }

    /// The key with this id, if it is for this algorithm.
    #[must_use]
    pub fn find(&self, key_id: &str, algorithm: Algorithm) -> Option<&VerifyingKey> {
        self.0.get(key_id).filter(|key| key.algorithm() == algorithm)
    }

    /// Whether it has no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn read_key(entry: &Map<String, Value>) -> Result<Option<(String, VerifyingKey)>, JwksError> {
    let text = |member: &str| entry.get(member).and_then(Value::as_str);
    let (algorithm, parts): (_, &[&str]) = match (text("kty"), text("crv")) {
        (Some("EC"), Some("P-256")) => (Algorithm::P256, &["x", "y"]),
        (Some("OKP"), Some("Ed25519")) => (Algorithm::Ed25519, &["x"]),
        _ => return Ok(None),
    };
    let usable = match entry.get("use").map(|value| value.as_str()) {
        None | Some(Some("sig" | "jwt-svid")) => true,
        Some(_) => false,
    } && entry.get("key_ops").is_none_or(|ops| {
        ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify")))
    }) && entry.get("alg").is_none_or(|alg| alg.as_str() == name(algorithm));
    let Some(kid) = text("kid").filter(|kid| usable && !kid.is_empty() && kid.len() <= 256) else {
        return Ok(None);
    };
    if entry.contains_key("d") {
        // Somebody published a private key: nothing that it signs can be believed.
        return Err(JwksError::Malformed);
    }
    let mut raw = if algorithm == Algorithm::P256 { vec![4] } else { Vec::new() };
    for part in parts {
        let bytes = text(part).and_then(|text| decode(text).ok()).filter(|bytes| bytes.len() == 32);
        raw.extend(bytes.ok_or(JwksError::Malformed)?);
    }
    let key = VerifyingKey::from_raw(algorithm, &raw).map_err(|_| JwksError::Malformed)?;
    Ok(Some((kid.to_owned(), key)))
}

fn write_key(kid: &str, key: &VerifyingKey, key_use: &str) -> Option<Value> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let alg = name(key.algorithm())?;
    Some(match key.algorithm() {
        Algorithm::P256 => json!({
            "kty": "EC", "crv": "P-256", "kid": kid, "use": key_use, "alg": alg,
            "x": encode(&key.raw()[1..33]), "y": encode(&key.raw()[33..]),
        }),
        _ => {
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "use": key_use, "alg": alg, "x": encode(key.raw()) })
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_keys::SigningKey;

    use super::*;

    fn set() -> KeySet {
        let key = |algorithm| SigningKey::generate(algorithm).unwrap().verifying_key().clone();
        KeySet::from_keys([("a".into(), key(Algorithm::P256)), ("b".into(), key(Algorithm::Ed25519))])
    }

    #[test]
    fn a_set_that_is_written_is_read() {
        let set = set();
        assert_eq!(KeySet::from_json(set.to_json("jwt-svid").as_bytes()).unwrap(), set);
        assert!(KeySet::from_json(set.to_json("enc").as_bytes()).unwrap().is_empty());
        assert!(set.find("a", Algorithm::Ed25519).is_none());
    }

    #[test]
    fn a_broken_or_double_or_private_key_spoils_the_set_and_a_foreign_one_does_not() {
        let text = set().to_json("sig");
        assert!(KeySet::from_json(text.replace("\"kid\":\"b\"", "\"kid\":\"a\"").as_bytes()).is_err());
        assert!(KeySet::from_json(text.replace("\"x\":\"", "\"x\":\"AA").as_bytes()).is_err());
        assert!(KeySet::from_json(text.replace("\"crv\"", "\"d\":\"AA\",\"crv\"").as_bytes()).is_err());
        let foreign = text.replace("{\"kty\":\"EC\"", "{\"kty\":\"RSA\",\"kid\":\"r\"},{\"kty\":\"EC\"");
        assert_eq!(KeySet::from_json(foreign.as_bytes()).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = KeySet::from_json(&bytes);
        }
    }
}
