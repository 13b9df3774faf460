//! JWT-SVIDs: what a workload shows where it cannot show a certificate.

use ringfence_keys::SigningKey;
use ringfence_spiffe::{SpiffeId, TrustDomain};
use serde_json::{Map, Value, json};

use crate::jwks::KeySet;
use crate::jws::{self, TokenError};
use crate::profile::Profile;

/// Most audiences of a token.
const MAX_AUDIENCES: usize = 16;

/// What a JWT-SVID shall say. Times are Unix seconds.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// Whose it is.
    pub subject: &'a SpiffeId,
    /// For whom it is, at least one.
    pub audiences: &'a [String],
    /// When it is made.
    pub issued_at: u64,
    /// When it ends.
    pub expires_at: u64,
}

/// What a verified JWT-SVID says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Whose it is.
    pub subject: SpiffeId,
    /// For whom it is.
    pub audiences: Vec<String>,
    /// When it ends, Unix seconds.
    pub expires_at: u64,
}

/// A JWT-SVID that was verified; made only by [`verify_svid`].
#[derive(Clone, Debug)]
pub struct VerifiedSvid {
    claims: Claims,
    all: Map<String, Value>,
}

impl VerifiedSvid {
    /// Whose it is.
    #[must_use]
    pub const fn subject(&self) -> &SpiffeId {
        &self.claims.subject
    }

    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Every claim as JSON.
    #[must_use]
    pub const fn all_claims(&self) -> &Map<String, Value> {
        &self.all
    }
}

/// Makes a JWT-SVID.
///
/// # Errors
/// [`TokenError::WrongAudience`] without an audience or with too many, [`TokenError::Malformed`] when it gets too long.
pub fn mint(key: &SigningKey, key_id: &str, spec: &Spec<'_>) -> Result<String, TokenError> {
    if spec.audiences.is_empty()
        || spec.audiences.len() > MAX_AUDIENCES
        || spec.audiences.iter().any(String::is_empty)
    {
        return Err(TokenError::WrongAudience);
    }
    let mut claims = Map::new();
    claims.insert("sub".into(), spec.subject.as_str().into());
    claims.insert("aud".into(), json!(spec.audiences));
    claims.insert("iat".into(), spec.issued_at.into());
    claims.insert("exp".into(), spec.expires_at.into());
    claims.insert("jti".into(), ringfence_keys::to_hex(&ringfence_keys::random::<16>()).into());
    jws::sign(key, key_id, &claims)
}

/// Verifies a JWT-SVID of `trust_domain` made for `audience`, at `now`.
///
/// # Errors
/// [`TokenError`].
pub fn verify_svid(
    token: &str,
    trust_domain: &TrustDomain,
    keys: &KeySet,
    audience: &str,
    now: u64,
) -> Result<VerifiedSvid, TokenError> {
    let token = Profile::jwt_svid(trust_domain, audience).verify(token, keys, now)?;
    let subject = token.subject().and_then(|sub| SpiffeId::parse(sub).ok()).ok_or(TokenError::Subject)?;
    let audiences = token.audiences().map(str::to_owned).collect();
    Ok(VerifiedSvid {
        claims: Claims { subject, audiences, expires_at: token.expires_at() },
        all: token.claims,
    })
}

#[cfg(test)]
mod tests {
    use ringfence_keys::Algorithm;

    use super::*;
    use crate::SKEW;

    const NOW: u64 = 1_800_000_000;

    struct World {
        key: SigningKey,
        keys: KeySet,
        domain: TrustDomain,
    }

    fn world() -> World {
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        let keys = KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())]);
        World { key, keys, domain: TrustDomain::new("clinic.example").unwrap() }
    }

    impl World {
        fn with(&self, claims: Value) -> Result<VerifiedSvid, TokenError> {
            let token = jws::sign(&self.key, "k", claims.as_object().unwrap()).unwrap();
            verify_svid(&token, &self.domain, &self.keys, "billing", NOW)
        }
    }

    #[test]
    fn a_minted_svid_is_verified_for_its_audience_until_it_ends() {
        let w = world();
        let subject = SpiffeId::service(&w.domain, "portal").unwrap();
        let audiences = ["billing".to_owned(), "mailer".to_owned()];
        let spec = Spec { subject: &subject, audiences: &audiences, issued_at: NOW, expires_at: NOW + 300 };
        let token = mint(&w.key, "k", &spec).unwrap();
        let verify = |audience, now| verify_svid(&token, &w.domain, &w.keys, audience, now);
        assert_eq!(verify("mailer", NOW).unwrap().subject(), &subject);
        assert!(matches!(verify("portal", NOW), Err(TokenError::WrongAudience)));
        assert!(verify("billing", NOW + 300 + SKEW - 1).is_ok());
        assert!(matches!(verify("billing", NOW + 300 + SKEW), Err(TokenError::Expired)));
        assert!(matches!(verify("billing", NOW - SKEW - 1), Err(TokenError::Expired)));
        assert!(mint(&w.key, "k", &Spec { audiences: &[], ..spec }).is_err());
    }

    #[test]
    fn every_claim_is_checked() {
        let w = world();
        let sub = "spiffe://clinic.example/service/portal";
        assert!(w.with(json!({"sub": sub, "aud": "billing", "exp": NOW + 60})).is_ok());
        assert!(w.with(json!({"sub": sub, "aud": ["billing"], "exp": NOW as f64 + 60.5})).is_ok());
        for bad in [
            json!({"aud": "billing", "exp": NOW + 60}),
            json!({"sub": "portal", "aud": "billing", "exp": NOW + 60}),
            json!({"sub": "spiffe://clinic.example", "aud": "billing", "exp": NOW + 60}),
            json!({"sub": "spiffe://other.example/service/portal", "aud": "billing", "exp": NOW + 60}),
            json!({"sub": sub, "exp": NOW + 60}),
            json!({"sub": sub, "aud": [], "exp": NOW + 60}),
            json!({"sub": sub, "aud": ["billing", 1], "exp": NOW + 60}),
            json!({"sub": sub, "aud": "billing"}),
            json!({"sub": sub, "aud": "billing", "exp": "soon"}),
            json!({"sub": sub, "aud": "billing", "exp": -1}),
            json!({"sub": sub, "aud": "billing", "exp": NOW + 60, "nbf": NOW + 50}),
            json!({"sub": sub, "aud": "billing", "exp": NOW + 60, "iat": "x"}),
        ] {
            assert!(w.with(bad.clone()).is_err(), "{bad}");
        }
    }
}
