//! What a token says once it was believed.

use serde_json::{Map, Value};

use crate::claims::{Confirmation, Times};
use crate::profile::Kind;
use crate::revocation::Mark;

/// A token whose signature and claims were checked; made only by [`crate::Profile::verify`].
///
/// What is not in it: whether it was revoked since, and whether the caller holds the key that it is bound to. Both change from request to
/// request and are checked at each by [`crate::Verifier::verify`].
#[derive(Debug)]
pub struct VerifiedToken {
    pub(crate) kind: Kind,
    pub(crate) claims: Map<String, Value>,
    pub(crate) times: Times,
    pub(crate) leeway: u64,
    /// When its profile no longer accepts it: by its end, or by its age.
    pub(crate) accepted_until: u64,
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) key_id: Option<String>,
    pub(crate) generation: u64,
    pub(crate) digest: [u8; 32],
    pub(crate) marks: Vec<Mark>,
}

impl VerifiedToken {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Every claim.
    #[must_use]
    pub const fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// `iss`.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    /// `sub`.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    /// `aud`, one or several.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        texts(self.claims.get("aud"))
    }

    /// The scopes of `scope`, or of `scp` as some providers call it; a text or a list.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let claim = self.claims.get("scope").or_else(|| self.claims.get("scp"));
        texts(claim).flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty())
    }

    /// The client that it was issued to: `client_id`, or `azp` where there is none.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.text("client_id").or_else(|| self.text("azp"))
    }

    /// `sid`.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.text("sid")
    }

    /// `jti`.
    #[must_use]
    pub fn token_id(&self) -> Option<&str> {
        self.text("jti")
    }

    /// `acr`.
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.text("acr")
    }

    /// `auth_time`, Unix seconds.
    #[must_use]
    pub const fn authenticated_at(&self) -> Option<u64> {
        self.times.authenticated_at
    }

    /// `exp`, Unix seconds.
    #[must_use]
    pub const fn expires_at(&self) -> u64 {
        self.times.expires_at
    }

    /// `iat`, Unix seconds.
    #[must_use]
    pub const fn issued_at(&self) -> Option<u64> {
        self.times.issued_at
    }

    /// `nbf`, Unix seconds.
    #[must_use]
    pub const fn not_before(&self) -> Option<u64> {
        self.times.not_before
    }

    /// The key or certificate that it is bound to (`cnf`).
    #[must_use]
    pub const fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }

    /// `kid` of the key that signed it.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Generation of the key set that it was verified with.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// SHA-256 of the token, which may stand for it in logs.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether it is valid at `now`, by its own times and those of its profile.
    #[must_use]
    pub fn is_valid_at(&self, now: u64) -> bool {
        now < self.accepted_until && self.times.hold_at(now, self.leeway)
    }

    /// Whether `nonce` is `expected`, compared in constant time. The login that asked for an ID token must ask this.
    #[must_use]
    pub fn has_nonce(&self, expected: &str) -> bool {
        self.text("nonce")
            .is_some_and(|n| ringfence_keys::constant_time_eq(n.as_bytes(), expected.as_bytes()))
    }
}

/// A claim that is one text or a list of texts.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match claim {
        Some(Value::String(one)) => (Some(one.as_str()), &[][..]),
        Some(Value::Array(many)) => (None, many.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}
