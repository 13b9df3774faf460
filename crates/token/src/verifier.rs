//! The door at an enforcement point: verified once, asked again at each request.
//!
//! What cannot change about a token (its signature, what it says) is remembered for a minute. What can change is checked each
//! time: the clock, revocations, and whether the caller holds what the token is bound to. One verifier belongs to one
//! thread, so that there is no lock.

use std::sync::Arc;

use ringfence_keys::digest::sha256;

use crate::clock::Clock;
use crate::jwks::KeySet;
use crate::jws::{self, MAX_TOKEN, TokenError};
use crate::possession::Possession;
use crate::profile::Profile;
use crate::revocation::Revocations;
use crate::verified::VerifiedToken;

/// How long a verified token is remembered, in seconds.
const REMEMBER: u64 = 60;
/// How long a wrong signature is remembered, in seconds.
const REMEMBER_REFUSED: u64 = 10;

/// The digest of the whole token, the profile and the key generation: whatever of it changes, it is verified again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    token: [u8; 32],
    profile: u64,
    generation: u64,
}

impl Key {
    const fn new(token: [u8; 32], check: &Check<'_>) -> Self {
        Self { token, profile: check.profile.id(), generation: check.keys.generation() }
    }
}

/// Whether who shows the token holds what it is bound to, asked each time.
fn admit(token: Arc<VerifiedToken>, check: &Check<'_>) -> Result<Arc<VerifiedToken>, TokenError> {
    check.possession.check(&token, check.profile.binding())?;
    Ok(token)
}

/// What is remembered of a token.
struct Entry {
    token: Arc<VerifiedToken>,
    verified_at: u64,
    /// The version of the revocations that it was not among.
    unrevoked: u64,
}

/// What decides about one request.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// What the token must be.
    pub profile: &'a Profile,
    /// The keys of its issuer.
    pub keys: &'a KeySet,
    /// What was revoked.
    pub revocations: &'a Revocations,
    /// What else the caller shows.
    pub possession: Possession<'a>,
    /// Unix seconds.
    pub now: u64,
}

/// Verifies tokens and remembers, bounded, which it verified.
pub struct Verifier {
    verified: Clock<Key, Entry>,
    refused: Clock<Key, u64>,
    hits: u64,
    misses: u64,
}

impl Verifier {
    /// Remembers at most `capacity` tokens, and a quarter as many wrong signatures.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { verified: Clock::new(capacity), refused: Clock::new(capacity / 4), hits: 0, misses: 0 }
    }

    /// Whether `token` is believed in this request.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&mut self, token: &str, check: &Check<'_>) -> Result<Arc<VerifiedToken>, TokenError> {
        self.verify_any(token, std::slice::from_ref(check)).map(|(_, verified)| verified)
    }

    /// Whether one of `checks` believes `token`, and which: the first of those whose issuer the token names. It is hashed once,
    /// and read only when none remembers it.
    ///
    /// # Errors
    /// [`TokenError`]; that of the first check that was asked, or [`TokenError::Issuer`] when none is of the token's issuer.
    pub fn verify_any(
        &mut self,
        token: &str,
        checks: &[Check<'_>],
    ) -> Result<(usize, Arc<VerifiedToken>), TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let digest = sha256(token.as_bytes());
        for (at, check) in checks.iter().enumerate() {
            if let Some(verified) = self.remembered(&Key::new(digest, check), check) {
                return admit(verified?, check).map(|verified| (at, verified));
            }
        }
        let issuer = if checks.len() > 1 { jws::read_issuer(token)? } else { None };
        let mut refusal = TokenError::Issuer;
        for (at, check) in checks.iter().enumerate() {
            if checks.len() > 1 && check.profile.issuer().is_some_and(|i| Some(i) != issuer.as_deref()) {
                continue;
            }
            match self.verify_anew(token, &Key::new(digest, check), check) {
                Ok(verified) => return admit(verified, check).map(|verified| (at, verified)),
                // The first says most, but for one that a fresh key set may help against.
                Err(error) => {
                    if matches!((&refusal, &error), (TokenError::Issuer, _) | (_, TokenError::UnknownKey)) {
                        refusal = error;
                    }
                }
            }
        }
        Err(refusal)
    }

    /// A token that was verified lately, unless it was revoked since.
    fn remembered(&mut self, key: &Key, check: &Check<'_>) -> Option<Result<Arc<VerifiedToken>, TokenError>> {
        let entry = self.verified.get(key)?;
        // A clock that was set back makes nothing younger.
        let young = check.now.checked_sub(entry.verified_at).is_some_and(|age| age < REMEMBER);
        if !young || !entry.token.is_valid_at(check.now) {
            self.verified.remove(key);
            return None;
        }
        if entry.unrevoked != check.revocations.version() {
            if let Err(revoked) = check.revocations.check(&entry.token) {
                return Some(Err(revoked));
            }
            entry.unrevoked = check.revocations.version();
        }
        self.hits += 1;
        Some(Ok(entry.token.clone()))
    }

    fn verify_anew(
        &mut self,
        token: &str,
        key: &Key,
        check: &Check<'_>,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        if let Some(refused_at) = self.refused.get(key) {
            if check.now.checked_sub(*refused_at).is_some_and(|age| age < REMEMBER_REFUSED) {
                return Err(TokenError::Signature);
            }
            self.refused.remove(key);
        }
        self.misses += 1;
        match check.profile.verify_hashed(token, key.token, check.keys, check.now) {
            Ok(verified) => {
                let token = Arc::new(verified);
                check.revocations.check(&token)?;
                let unrevoked = check.revocations.version();
                self.verified.insert(*key, Entry { token: token.clone(), verified_at: check.now, unrevoked });
                Ok(token)
            }
            // The one refusal that costs as much as a verification.
            Err(TokenError::Signature) => {
                self.refused.insert(*key, check.now);
                Err(TokenError::Signature)
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets everything, as after a key was compromised.
    pub fn forget(&mut self) {
        self.verified.clear();
        self.refused.clear();
    }

    /// How often a token was remembered, and how often not.
    #[must_use]
    pub const fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// How many tokens are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.verified.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verifier({} remembered)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::revocation::Revoked;
    use crate::testing::{Issuer, NOW};

    struct World {
        issuer: Issuer,
        profile: Profile,
        revocations: Revocations,
        verifier: Verifier,
    }

    fn world() -> World {
        let issuer = Issuer::new();
        World {
            profile: issuer.profile(),
            issuer,
            revocations: Revocations::new(8),
            verifier: Verifier::new(8),
        }
    }

    impl World {
        fn at(&mut self, token: &str, now: u64) -> Result<Arc<VerifiedToken>, TokenError> {
            let Self { issuer, profile, revocations, verifier } = self;
            let check = Check { profile, keys: &issuer.keys, revocations, possession: Possession::NONE, now };
            verifier.verify(token, &check)
        }
    }

    #[test]
    fn a_token_is_verified_once_a_minute_and_its_end_counts_at_once() {
        let mut w = world();
        let token = w.issuer.access_token(json!({"exp": NOW + 40}));
        for second in 0..40 {
            assert!(w.at(&token, NOW + second).is_ok());
        }
        assert_eq!(w.verifier.hits_and_misses(), (39, 1));
        assert!(matches!(w.at(&token, NOW + 40 + crate::SKEW), Err(TokenError::Expired)));
        let long = w.issuer.access_token(json!({"exp": NOW + 400}));
        for second in [0, 59, 60, 61, 120] {
            assert!(w.at(&long, NOW + second).is_ok());
        }
        assert_eq!(w.verifier.hits_and_misses(), (41, 5));
        assert!(w.at(&long, NOW + 100).is_ok(), "a clock set back verifies anew");
        assert_eq!(w.verifier.hits_and_misses(), (41, 6));
    }

    #[test]
    fn a_revocation_counts_for_a_remembered_token() {
        let mut w = world();
        let token = w.issuer.access_token(json!({"sid": "s"}));
        assert!(w.at(&token, NOW).is_ok());
        w.revocations.revoke(Issuer::ISSUER, Revoked::Session("s"), u64::MAX, NOW + 99).unwrap();
        assert!(matches!(w.at(&token, NOW), Err(TokenError::Revoked(_))));
        let other = w.issuer.access_token(json!({"sid": "t"}));
        assert!(w.at(&other, NOW).is_ok());
        w.revocations.revoke(Issuer::ISSUER, Revoked::Session("u"), u64::MAX, NOW + 99).unwrap();
        assert!(w.at(&other, NOW).is_ok());
        let mut elsewhere = w.revocations.clone();
        elsewhere.revoke(Issuer::ISSUER, Revoked::Session("t"), u64::MAX, NOW + 99).unwrap();
        std::mem::swap(&mut elsewhere, &mut w.revocations);
        assert!(w.at(&other, NOW).is_err());
        std::mem::swap(&mut elsewhere, &mut w.revocations);
        assert!(w.at(&other, NOW).is_ok());
    }

    #[test]
    fn another_profile_and_another_generation_verify_anew() {
        let mut w = world();
        let token = w.issuer.access_token(json!({}));
        assert!(w.at(&token, NOW).is_ok());
        w.profile = Profile::access_token(Issuer::ISSUER, &["another".to_owned()]);
        assert!(matches!(w.at(&token, NOW), Err(TokenError::WrongAudience)));
        w.profile = w.issuer.profile();
        let stranger = Issuer::new();
        w.issuer.keys = stranger.keys;
        assert!(matches!(w.at(&token, NOW), Err(TokenError::Signature)));
    }

    #[test]
    fn of_several_providers_the_one_that_the_token_names_decides() {
        let (a, b) = (Issuer::new(), Issuer::new());
        let revocations = Revocations::new(1);
        let profiles = ["https://a.example", "https://b.example"]
            .map(|issuer| Profile::access_token(issuer, &["clinic".to_owned()]));
        let check = |profile, keys| Check {
            profile,
            keys,
            revocations: &revocations,
            possession: Possession::NONE,
            now: NOW,
        };
        let checks = [check(&profiles[0], &a.keys), check(&profiles[1], &b.keys)];
        let mut verifier = Verifier::new(8);
        let good = b.access_token(json!({"iss": "https://b.example"}));
        for _ in 0..2 {
            assert_eq!(verifier.verify_any(&good, &checks).unwrap().0, 1);
        }
        assert_eq!(verifier.hits_and_misses(), (1, 1));
        let mixed = b.access_token(json!({"iss": "https://a.example"}));
        assert!(matches!(verifier.verify_any(&mixed, &checks), Err(TokenError::Signature)));
        let strange = b.access_token(json!({"iss": "https://c.example"}));
        assert!(matches!(verifier.verify_any(&strange, &checks), Err(TokenError::Issuer)));
        assert!(matches!(verifier.verify_any(&good, &[]), Err(TokenError::Issuer)));
        assert!(matches!(verifier.verify_any("x", &checks), Err(TokenError::Malformed)));
    }

    #[test]
    fn the_age_that_a_profile_demands_counts_for_a_remembered_token() {
        let mut w = world();
        w.profile = w.issuer.profile().with_max_age(20).with_leeway(0);
        let token = w.issuer.access_token(json!({"iat": NOW - 10}));
        assert!(w.at(&token, NOW + 9).is_ok());
        assert!(matches!(w.at(&token, NOW + 10), Err(TokenError::TooOld)));
    }

    #[test]
    fn a_wrong_signature_is_remembered_for_a_while_and_within_bounds() {
        let mut w = world();
        let good = w.issuer.access_token(json!({}));
        let bad = Issuer::new().access_token(json!({}));
        assert!(w.at(&bad, NOW).is_err() && w.at(&bad, NOW + 9).is_err());
        assert_eq!(w.verifier.hits_and_misses(), (0, 1));
        assert!(w.at(&bad, NOW + 10).is_err());
        assert_eq!(w.verifier.hits_and_misses(), (0, 2));
        assert!(w.at(&good, NOW).is_ok());
        for i in 0..100 {
            let token = w.issuer.access_token(json!({ "jti": i.to_string() }));
            assert!(w.at(&token, NOW).is_ok());
            assert!(w.verifier.len() <= 8);
        }
        let forged = Issuer::new();
        for i in 0..20 {
            assert!(w.at(&forged.access_token(json!({ "jti": i.to_string() })), NOW).is_err());
            assert!(w.verifier.refused.len() <= 2);
        }
        w.verifier.forget();
        assert!(w.verifier.is_empty());
    }
}
