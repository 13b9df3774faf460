//! Session tokens: somebody signed in by a browser, and the gateway needs to ask nobody about it at each request.
//!
//! Signed by the keeper, which saw the provider's ID token, so that a gateway that was taken over cannot sign anybody in. A random id with a
//! record in a database was rejected: each request would ask it.

use ringfence_spiffe::TrustDomain;
use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
use crate::claims::{self, Times};
use crate::jws::{SigningInput, TokenError};
use crate::origin::{self, Origin};
use crate::profile::Kind;
use crate::verified::VerifiedToken;

/// `typ` of a session token.
pub const TYPE: &str = "ringfence-session+jwt";
/// Longest life in seconds.
pub const MAX_LIFE: u64 = 24 * 3600;
/// Member of our tokens that says who somebody is: of session tokens at the top, of transaction tokens in `tctx`.
pub const IDENTITY: &str = "idn";
/// Member of our tokens that says which credential they stand for, so that they end when that one is revoked.
pub(crate) const ORIGIN: &str = "origin";
/// Member that says by which mapping of claims the identity was made.
const MAPPING: &str = "map";
/// Longest identity and origin together in bytes of JSON: with what is around them they must fit a cookie.
const MAX_CONTEXT: usize = 1700;

/// What a session token shall say. Times are Unix seconds.
#[derive(Clone, Debug)]
pub struct SessionSpec<'a> {
    /// The trust domain, which issues it for itself.
    pub trust_domain: &'a TrustDomain,
    /// The session, `jti`; the same when it is renewed.
    pub id: &'a str,
    /// The user.
    pub subject: &'a str,
    /// Who that is.
    pub identity: Map<String, Value>,
    /// What names the mapping from claims that it was made by: by another one, it might be somebody else.
    pub mapping: &'a str,
    /// The ID token that it stands for.
    pub origin: &'a Origin,
    /// When it is made.
    pub issued_at: u64,
    /// Its absolute end, at most [`MAX_LIFE`] later.
    pub expires_at: u64,
}

impl SessionSpec<'_> {
    /// What the keeper signs.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] when it would not fit a cookie, [`TokenError::Claim`] for what is missing or lives too long.
    pub fn signing_input(&self, algorithm: Algorithm, key_id: &str) -> Result<SigningInput, TokenError> {
        let domain = self.trust_domain.as_str();
        let (identity, origin) = (json!(self.identity), json!(self.origin.members()));
        if identity.to_string().len() + origin.to_string().len() > MAX_CONTEXT {
            return Err(TokenError::TooLong);
        }
        let claims = json!({
            "iss": domain, "aud": domain, "jti": self.id, "sub": self.subject,
            "iat": self.issued_at, "exp": self.expires_at, IDENTITY: identity, MAPPING: self.mapping, ORIGIN: origin,
        });
        let Value::Object(claims) = claims else { return Err(TokenError::Malformed) };
        check(&claims, &Times::read(&claims, false)?)?;
        SigningInput::new(TYPE, algorithm, key_id, &claims)
    }
}

/// The claims that session tokens have.
pub(crate) fn check(claims: &Map<String, Value>, times: &Times) -> Result<(), TokenError> {
    let issuer = claims::required(claims, "iss")?;
    for name in ["sub", "jti"] {
        claims::required(claims, name)?;
    }
    if claims.get("aud").and_then(Value::as_str) != Some(issuer) {
        return Err(TokenError::Claim("aud"));
    }
    if !claims.get(IDENTITY).is_some_and(Value::is_object) {
        return Err(TokenError::Claim(IDENTITY));
    }
    let origin = origin::read(Kind::Session, claims)?.ok_or(TokenError::Claim(ORIGIN))?;
    origin::marks(origin, issuer)?;
    let issued_at = times.issued_at.ok_or(TokenError::Claim("iat"))?;
    if times.expires_at - issued_at > MAX_LIFE { Err(TokenError::TooOld) } else { Ok(()) }
}

/// What only our own tokens say.
impl VerifiedToken {
    /// Who somebody is, in a session or transaction token.
    #[must_use]
    pub fn told_identity(&self) -> Option<&Value> {
        match self.kind() {
            Kind::Session => self.claims().get(IDENTITY),
            Kind::TxnToken => self.context()?.get(IDENTITY),
            _ => None,
        }
    }

    /// What names the mapping from claims that the identity in a session token was made by.
    #[must_use]
    pub fn mapping(&self) -> Option<&str> {
        self.claims().get(MAPPING).filter(|_| self.kind() == Kind::Session)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use ringfence_keys::SigningKey;

    use super::*;
    use crate::testing::{Issuer, NOW};
    use crate::{KeySet, Profile, Revocations, Revoked, TxnSpec};

    struct World {
        key: SigningKey,
        keys: KeySet,
        domain: TrustDomain,
        origin: Origin,
    }

    fn world() -> World {
        let key = SigningKey::generate(ringfence_keys::Algorithm::P256).unwrap();
        let keys = KeySet::from_keys([("t".to_owned(), key.verifying_key().clone())]);
        let issuer = Issuer::new();
        let claims = json!({"sid": "p1", "jti": "i1", "client_id": "portal"});
        let token = issuer.profile().verify(&issuer.access_token(claims), &issuer.keys, NOW).unwrap();
        let domain = TrustDomain::new("clinic.example").unwrap();
        World { key, keys, domain, origin: Origin::of_token(&token) }
    }

    impl World {
        fn spec(&self) -> SessionSpec<'_> {
            SessionSpec {
                trust_domain: &self.domain,
                id: "s1",
                subject: "ann",
                identity: json!({"kind": "user", "id": "ann"}).as_object().unwrap().clone(),
                mapping: "m1",
                origin: &self.origin,
                issued_at: NOW,
                expires_at: NOW + 8 * 3600,
            }
        }

        fn seal(&self, input: SigningInput) -> String {
            let signature = self.key.sign(input.as_bytes()).unwrap();
            input.seal(&signature).unwrap()
        }

        fn sign(&self, spec: &SessionSpec<'_>) -> String {
            self.seal(spec.signing_input(Algorithm::Es256, "t").unwrap())
        }

        fn verify(&self, token: &str, now: u64) -> Result<VerifiedToken, TokenError> {
            Profile::session(&self.domain).verify(token, &self.keys, now)
        }
    }

    #[test]
    fn a_session_is_somebody_s_until_its_end_or_a_revocation_of_whatever_it_stands_for() {
        let w = world();
        let verified = w.verify(&w.sign(&w.spec()), NOW + 7 * 3600).unwrap();
        assert_eq!((verified.kind(), verified.token_id()), (Kind::Session, Some("s1")));
        assert_eq!(verified.told_identity().unwrap()["id"], "ann");
        assert_eq!(verified.mapping(), Some("m1"));
        assert!(w.verify(&w.sign(&w.spec()), NOW + 9 * 3600).is_err());
        for (issuer, what) in [
            (Issuer::ISSUER, Revoked::Subject("ann")),
            (Issuer::ISSUER, Revoked::Session("p1")),
            (Issuer::ISSUER, Revoked::Client("portal")),
            (Issuer::ISSUER, Revoked::Token("i1")),
            (Issuer::ISSUER, Revoked::Key("k")),
            (Issuer::ISSUER, Revoked::Issuer),
            ("clinic.example", Revoked::Token("s1")),
            ("clinic.example", Revoked::Issuer),
        ] {
            let mut list = Revocations::new(1);
            list.revoke(issuer, what, u64::MAX, u64::MAX).unwrap();
            assert!(list.check(&verified).is_err(), "{what:?}");
            let mut other = Revocations::new(1);
            other.revoke("https://else.example", what, u64::MAX, u64::MAX).unwrap();
            other.check(&verified).unwrap();
        }
    }

    #[test]
    fn what_was_made_from_a_session_ends_with_it() {
        let w = world();
        let session = w.verify(&w.sign(&w.spec()), NOW).unwrap();
        let origin = Origin::of_token(&session);
        let spec = TxnSpec {
            trust_domain: &w.domain,
            transaction: "t",
            subject: "ann",
            scope: "",
            workload: "gateway",
            context: Map::new(),
            request: Map::new(),
            origin: Some(&origin),
            issued_at: NOW,
            expires_at: NOW + 60,
        };
        let token = w.seal(spec.signing_input(Algorithm::Es256, "t").unwrap());
        let token = Profile::txn_token(&w.domain).verify(&token, &w.keys, NOW).unwrap();
        assert_eq!(Origin::of_token(&token), origin);
        for (issuer, what) in
            [("clinic.example", Revoked::Token("s1")), (Issuer::ISSUER, Revoked::Session("p1"))]
        {
            let mut list = Revocations::new(1);
            list.revoke(issuer, what, u64::MAX, u64::MAX).unwrap();
            assert!(list.check(&token).is_err() && list.check_origin(&origin, "clinic.example").is_err());
            assert!(list.check_origin(&w.origin, "clinic.example").is_ok() == (issuer == "clinic.example"));
        }
    }

    #[test]
    fn a_session_token_is_of_one_trust_domain_and_of_no_other_kind() {
        let w = world();
        let token = w.sign(&w.spec());
        let other = TrustDomain::new("other.example").unwrap();
        assert!(Profile::session(&other).verify(&token, &w.keys, NOW).is_err());
        assert!(Profile::txn_token(&w.domain).verify(&token, &w.keys, NOW).is_err());
        assert!(Profile::jwt_svid(&w.domain, "clinic.example").verify(&token, &w.keys, NOW).is_err());
        let access = Profile::access_token("clinic.example", &["clinic.example".to_owned()]);
        assert!(access.with_plain_type().verify(&token, &w.keys, NOW).is_err());
        let claims = json!({
            "iss": "clinic.example", "aud": "clinic.example", "jti": "s", "sub": "ann", "iat": NOW, "exp": NOW + 60,
            "idn": {}, "origin": {"iss": "x"},
        });
        let good = claims.as_object().unwrap();
        let token = |typ, claims: &Map<String, Value>| {
            w.seal(SigningInput::new(typ, Algorithm::Es256, "t", claims).unwrap())
        };
        assert!(w.verify(&token(TYPE, good), NOW).is_ok());
        let plain = Profile::session(&w.domain).with_plain_type();
        for typ in ["JWT", "at+jwt", "txntoken+jwt"] {
            assert!(plain.verify(&token(typ, good), &w.keys, NOW).is_err(), "{typ}");
        }
        for (name, value) in [
            ("aud", json!(["clinic.example"])),
            ("idn", json!("ann")),
            ("origin", json!("x")),
            ("origin", json!({})),
            ("origin", json!({"iss": "x", "session": 1})),
            ("jti", Value::Null),
            ("exp", json!(NOW + MAX_LIFE + 1)),
        ] {
            let mut claims = good.clone();
            claims.insert(name.into(), value.clone());
            assert!(w.verify(&token(TYPE, &claims), NOW).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn what_does_not_fit_a_cookie_or_lives_too_long_is_not_signed() {
        let w = world();
        let large = json!({"groups": ["x".repeat(MAX_CONTEXT)]}).as_object().unwrap().clone();
        let input = |spec: SessionSpec<'_>| spec.signing_input(Algorithm::Es256, "t");
        assert!(matches!(input(SessionSpec { identity: large, ..w.spec() }), Err(TokenError::TooLong)));
        assert!(input(SessionSpec { expires_at: NOW + MAX_LIFE + 1, ..w.spec() }).is_err());
        assert!(input(SessionSpec { id: "", ..w.spec() }).is_err());
    }
}
