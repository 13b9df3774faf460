//! Tokens of a provider that this run makes up: the same for every contender.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringfence_keys::{Algorithm, SigningKey};
use ringfence_token::{KeySet, sign};
use serde_json::{Map, Value, json};

pub(crate) const ISSUER: &str = "https://id.bench.example";
pub(crate) const AUDIENCE: &str = "bench";
/// What a request needs besides a signature.
pub(crate) const SCOPE: &str = "read";
pub(crate) const GROUP: &str = "nurse";

const USERS: usize = 100;
const KEY: &str = "bench-1";
/// Longer than any run.
const LIFE: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Tokens {
    /// The provider's keys.
    pub(crate) jwks: String,
    /// Unix time in seconds at which they end, all of them.
    pub(crate) until: u64,
    pub(crate) good: Vec<String>,
    /// Signed by somebody else in the provider's name.
    pub(crate) strange: String,
    /// Without the scope.
    pub(crate) weak: String,
}

impl Tokens {
    pub(crate) fn make() -> io::Result<Self> {
        let generate = || SigningKey::generate(Algorithm::Ed25519).map_err(io::Error::other);
        let (key, other) = (generate()?, generate()?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let until = now + LIFE.as_secs();
        let token = |key: &SigningKey, user: usize, scope: &str| {
            sign(key, KEY, &claims(user, scope, (now, until))).map_err(io::Error::other)
        };
        let scope = format!("openid profile {SCOPE} write");
        Ok(Self {
            jwks: KeySet::from_keys([(KEY.to_owned(), key.verifying_key().clone())]).to_json("sig"),
            until,
            good: (0..USERS).map(|user| token(&key, user, &scope)).collect::<io::Result<_>>()?,
            strange: token(&other, 0, &scope)?,
            weak: token(&key, 0, "openid profile")?,
        })
    }
}

fn claims(user: usize, scope: &str, (issued, until): (u64, u64)) -> Map<String, Value> {
    let claims = json!({
        "iss": ISSUER, "sub": format!("5c9d3c8e-3b0f-4f0e-9a1d-0f5a7d9c{user:04}"), "aud": [AUDIENCE],
        "client_id": "portal", "iat": issued, "exp": until, "jti": format!("f3c1d2e4-{user}"), "sid": "0b1f6e7a",
        "acr": "phr", "scope": scope, "groups": [GROUP, "ward-7"], "auth_time": issued - 600,
    });
    claims.as_object().cloned().unwrap_or_default()
}
