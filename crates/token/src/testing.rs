//! An issuer for unit tests.

use ringfence_keys::SigningKey;
use serde_json::{Map, Value, json};

use crate::jws::SigningInput;
use crate::{Algorithm, KeySet, Profile};

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) struct Issuer {
    pub(crate) key: SigningKey,
    pub(crate) keys: KeySet,
}

impl Issuer {
    pub(crate) const ISSUER: &'static str = "https://id.clinic.example";

    pub(crate) fn new() -> Self {
        let key = SigningKey::generate(ringfence_keys::Algorithm::Ed25519).unwrap();
        let keys = KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())]);
        Self { key, keys }
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile::access_token(Self::ISSUER, &["clinic".to_owned()])
    }

    /// A good access token, with these claims changed; `null` takes one out.
    pub(crate) fn access_token(&self, change: Value) -> String {
        let claims = json!({
            "iss": Self::ISSUER, "sub": "ann", "aud": "clinic", "iat": NOW - 10, "exp": NOW + 300, "scope": "read",
        });
        self.token("at+jwt", claims, change)
    }

    pub(crate) fn token(&self, typ: &str, claims: Value, change: Value) -> String {
        let mut claims: Map<_, _> = claims.as_object().unwrap().clone();
        claims.extend(change.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let input = SigningInput::new(typ, Algorithm::EdDsa, "k", &claims).unwrap();
        let signature = self.key.sign(input.as_bytes()).unwrap();
        input.seal(&signature).unwrap()
    }
}
