//! An OpenID provider, as far as its signatures go.

use std::time::{SystemTime, UNIX_EPOCH};

use ringfence_keys::{Algorithm, SigningKey};
use ringfence_snapshot::node::ProviderKeys;
use ringfence_token::{KeySet, SigningInput};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://id.clinic.example";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) struct Provider {
    key: SigningKey,
    issuer: &'static str,
}

impl Provider {
    pub(crate) fn new(issuer: &'static str) -> Self {
        Self { key: SigningKey::generate(Algorithm::Ed25519).unwrap(), issuer }
    }

    pub(crate) fn keys(&self, provider: &str) -> ProviderKeys {
        let set = KeySet::from_keys([("k".to_owned(), self.key.verifying_key().clone())]);
        ProviderKeys {
            provider: provider.to_owned(),
            issuer: self.issuer.to_owned(),
            jwks: set.to_json("sig"),
            until: now() + 3600,
        }
    }

    /// An access token, with these claims changed; `null` takes one out.
    pub(crate) fn access(&self, change: Value) -> String {
        let claims = json!({
            "iss": self.issuer, "sub": "u-1", "name": "nora", "aud": "clinic", "iat": now() - 5, "exp": now() + 600,
            "scope": "read write", "client_id": "app", "groups": ["nurse"], "jti": "t1",
        });
        self.token("at+jwt", claims, change)
    }

    /// An ID token for our client.
    pub(crate) fn id(&self, change: Value) -> String {
        let claims = json!({
            "iss": self.issuer, "sub": "u-1", "name": "nora", "aud": "portal", "iat": now(), "exp": now() + 300,
            "nonce": "n", "sid": "p1", "groups": ["nurse"], "acr": "phr", "auth_time": now() - 3,
        });
        self.token("JWT", claims, change)
    }

    pub(crate) fn token(&self, typ: &str, claims: Value, change: Value) -> String {
        let mut claims = claims.as_object().unwrap().clone();
        claims.extend(change.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let input = SigningInput::new(typ, self.key.algorithm().into(), "k", &claims).unwrap();
        let signature = self.key.sign(input.as_bytes()).unwrap();
        input.seal(&signature).unwrap()
    }
}
