//! What a token must be to be believed: one profile per kind of token and place where it is accepted.
//!
//! A token of one kind must not pass as another (an ID token as an access token, a logout token as either), so a
//! profile is of one kind, and each kind has a `typ` or, where old providers give none, claims that the others have not.

use ringfence_keys::digest::{Sha256, sha256};
use ringfence_spiffe::{SpiffeId, TrustDomain};
use serde_json::{Map, Value};

use crate::algorithm::{Algorithm, Algorithms};
use crate::claims::{self, Times};
use crate::json;
use crate::jwks::KeySet;
use crate::jws::{Compact, TokenError};
use crate::revocation;
use crate::session;
use crate::txn;
use crate::verified::VerifiedToken;

/// Difference of clocks that is tolerated unless said otherwise, in seconds.
pub const SKEW: u64 = 30;
/// The largest difference of clocks that can be asked for.
pub const MAX_SKEW: u64 = 120;
/// Longest life of a client assertion.
const MAX_ASSERTION_LIFE: u64 = 3600;
/// The event that makes a logout token (OpenID Connect Back-Channel Logout 1.0).
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// An OAuth access token (RFC 9068).
    AccessToken,
    /// A client's proof of itself to a provider (RFC 7523).
    ClientAssertion,
    /// What a provider tells a relying party of a login.
    IdToken,
    /// A SPIFFE JWT-SVID.
    JwtSvid,
    /// A provider's word that a session is over.
    LogoutToken,
    /// A session token of ours: somebody who signed in.
    Session,
    /// A transaction token, from service to service.
    TxnToken,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::AccessToken => "an access token (at+jwt)",
            Self::ClientAssertion => "a client assertion",
            Self::IdToken => "an ID token",
            Self::JwtSvid => "a JWT-SVID",
            Self::LogoutToken => "a logout token (logout+jwt)",
            Self::Session => "a session token (ringfence-session+jwt)",
            Self::TxnToken => "a transaction token (txntoken+jwt)",
        }
    }

    /// Its own `typ`, where it has one.
    const fn own_type(self) -> Option<&'static str> {
        match self {
            Self::AccessToken => Some("at+jwt"),
            Self::ClientAssertion => Some("client-authentication+jwt"),
            Self::LogoutToken => Some("logout+jwt"),
            Self::Session => Some(session::TYPE),
            Self::TxnToken => Some(txn::TYPE),
            Self::IdToken | Self::JwtSvid => None,
        }
    }
}

/// How a token must be bound to its holder. A token that says `cnf` is held to it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binding {
    /// It need not be.
    #[default]
    Any,
    /// To the key of a DPoP proof.
    Dpop,
    /// To a client certificate.
    Mtls,
}

/// What a token must be to be believed. Made once, used for every request.
#[derive(Clone, Debug)]
pub struct Profile {
    kind: Kind,
    issuer: Option<String>,
    audiences: Vec<String>,
    algorithms: Algorithms,
    plain: bool,
    leeway: u64,
    max_age: Option<u64>,
    binding: Binding,
    trust_domain: Option<TrustDomain>,
    id: u64,
}

impl Profile {
    /// Access tokens of `issuer` for one of `audiences`, with the `typ` of RFC 9068.
    #[must_use]
    pub fn access_token(issuer: &str, audiences: &[String]) -> Self {
        Self::new(Kind::AccessToken, Some(issuer), audiences)
    }

    /// ID tokens of `issuer` for the client `client_id`. Whoever asked for one also asks [`VerifiedToken::has_nonce`].
    #[must_use]
    pub fn id_token(issuer: &str, client_id: &str) -> Self {
        Self { plain: true, ..Self::new(Kind::IdToken, Some(issuer), &[client_id.to_owned()]) }.sealed()
    }

    /// Logout tokens of `issuer` for the client `client_id`.
    #[must_use]
    pub fn logout_token(issuer: &str, client_id: &str) -> Self {
        Self::new(Kind::LogoutToken, Some(issuer), &[client_id.to_owned()])
    }

    /// Transaction tokens of this trust domain.
    #[must_use]
    pub fn txn_token(trust_domain: &TrustDomain) -> Self {
        let ours = Algorithms::from_iter([Algorithm::EdDsa, Algorithm::Es256]);
        Self::new(Kind::TxnToken, None, &[trust_domain.to_string()]).with_algorithms(ours)
    }

    /// Session tokens of this trust domain.
    #[must_use]
    pub fn session(trust_domain: &TrustDomain) -> Self {
        let ours = Algorithms::from_iter([Algorithm::EdDsa, Algorithm::Es256]);
        Self::new(Kind::Session, Some(trust_domain.as_str()), &[trust_domain.to_string()])
            .with_algorithms(ours)
    }

    /// Assertions by which the client `client_id` proves itself, for one of `audiences`.
    #[must_use]
    pub fn client_assertion(client_id: &str, audiences: &[String]) -> Self {
        Self { plain: true, ..Self::new(Kind::ClientAssertion, Some(client_id), audiences) }.sealed()
    }

    /// JWT-SVIDs of `trust_domain` for `audience`.
    #[must_use]
    pub fn jwt_svid(trust_domain: &TrustDomain, audience: &str) -> Self {
        let profile = Self::new(Kind::JwtSvid, None, &[audience.to_owned()]);
        Self { plain: true, trust_domain: Some(trust_domain.clone()), ..profile }.sealed()
    }

    fn new(kind: Kind, issuer: Option<&str>, audiences: &[String]) -> Self {
        Self {
            kind,
            issuer: issuer.map(str::to_owned),
            audiences: audiences.iter().filter(|audience| !audience.is_empty()).cloned().collect(),
            algorithms: Algorithms::DEFAULT,
            plain: false,
            leeway: SKEW,
            max_age: None,
            binding: Binding::Any,
            trust_domain: None,
            id: 0,
        }
        .sealed()
    }

    /// Accepts these algorithms only.
    #[must_use]
    pub fn with_algorithms(self, algorithms: Algorithms) -> Self {
        Self { algorithms, ..self }.sealed()
    }

    /// Tolerates `typ: JWT` and none too, as providers before RFC 9068 write. Then what only ID tokens and logout tokens have is refused.
    #[must_use]
    pub fn with_plain_type(self) -> Self {
        // These are ours, and there are no old ones.
        Self { plain: !matches!(self.kind, Kind::Session | Kind::TxnToken), ..self }.sealed()
    }

    /// Tolerates clocks that differ by this many seconds, at most [`MAX_SKEW`].
    #[must_use]
    pub fn with_leeway(self, seconds: u64) -> Self {
        Self { leeway: seconds.min(MAX_SKEW), ..self }.sealed()
    }

    /// Refuses tokens made longer ago than this many seconds, and those that do not say when.
    #[must_use]
    pub fn with_max_age(self, seconds: u64) -> Self {
        Self { max_age: Some(seconds), ..self }.sealed()
    }

    /// Demands that tokens are bound to their holder.
    #[must_use]
    pub fn with_binding(self, binding: Binding) -> Self {
        Self { binding, ..self }.sealed()
    }

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The issuer that it believes.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// How tokens must be bound.
    #[must_use]
    pub const fn binding(&self) -> Binding {
        self.binding
    }

    /// What sets it apart from every other profile.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    fn sealed(mut self) -> Self {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(&[self.kind as u8, self.algorithms.bits(), self.plain.into(), self.binding as u8]);
        add(&self.leeway.to_le_bytes());
        add(&self.max_age.map_or_else(Vec::new, |age| age.to_le_bytes().to_vec()));
        add(self.trust_domain.as_ref().map_or(&[], |domain| domain.as_str().as_bytes()));
        // "None" and an empty issuer differ by the length that goes before.
        add(&[self.issuer.is_some().into()]);
        add(self.issuer.as_deref().unwrap_or_default().as_bytes());
        for audience in &self.audiences {
            add(audience.as_bytes());
        }
        let [a, b, c, d, e, f, g, h, ..] = hash.finish();
        self.id = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        self
    }

    /// Verifies `token` with `keys` at `now`: its form, signature and claims. Not whether it was revoked or is shown by its holder, which
    /// [`crate::Verifier::verify`] does too.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, keys: &KeySet, now: u64) -> Result<VerifiedToken, TokenError> {
        self.verify_hashed(token, sha256(token.as_bytes()), keys, now)
    }

    pub(crate) fn verify_hashed(
        &self,
        token: &str,
        digest: [u8; 32],
        keys: &KeySet,
        now: u64,
    ) -> Result<VerifiedToken, TokenError> {
        let compact = Compact::parse(token)?;
        let own_type = self.check_type(compact.header.token_type.as_deref())?;
        let algorithm = compact.header.algorithm;
        if !self.algorithms.contains(algorithm) {
            return Err(TokenError::Refused("alg"));
        }
        let key_id = compact.header.key_id.clone();
        let key = keys.find(key_id.as_deref(), algorithm)?;
        let claims = json::object(&compact.verify(key)?).ok_or(TokenError::Malformed)?;
        claims::check_forms(&claims)?;
        self.check_issuer(&claims)?;
        claims::check_audience(&claims, &self.audiences)?;
        let times = Times::read(&claims, self.kind == Kind::JwtSvid)?;
        let accepted_until = self.check_times(&times, now)?;
        self.check_kind(&claims, &times, own_type)?;
        let confirmation = claims::confirmation(&claims)?;
        Ok(VerifiedToken {
            kind: self.kind,
            marks: revocation::marks(self, &claims, &times, key_id.as_deref())?,
            claims,
            times,
            leeway: self.leeway,
            accepted_until,
            confirmation,
            key_id,
            generation: keys.generation(),
            digest,
        })
    }

    /// Whether the token has the `typ` of its kind; an error when it has another.
    fn check_type(&self, token_type: Option<&str>) -> Result<bool, TokenError> {
        // RFC 7515, 4.1.9: a media type, whose `application/` is left out.
        let short = token_type.map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        let is = |name: &str| short.is_some_and(|typ| typ.eq_ignore_ascii_case(name));
        if self.kind.own_type().is_some_and(is) {
            return Ok(true);
        }
        let plain = match self.kind {
            // SPIFFE writes these two, in this spelling.
            Kind::JwtSvid => matches!(token_type, None | Some("JWT" | "JOSE")),
            _ => token_type.is_none() || is("jwt"),
        };
        if plain && self.plain { Ok(false) } else { Err(TokenError::Type(self.kind.name())) }
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        match (&self.issuer, claims::identifier(claims, "iss")?) {
            (Some(issuer), Some(iss)) if issuer != iss => Err(TokenError::Issuer),
            (Some(_), None) => Err(TokenError::Claim("iss")),
            _ => Ok(()),
        }
    }

    /// Until when the token is accepted, if it is at `now`.
    fn check_times(&self, times: &Times, now: u64) -> Result<u64, TokenError> {
        if !times.hold_at(now, self.leeway) {
            return Err(TokenError::Expired);
        }
        let end = times.expires_at.saturating_add(self.leeway);
        let Some(age) = self.max_age else { return Ok(end) };
        let issued_at = times.issued_at.ok_or(TokenError::Claim("iat"))?;
        let end = end.min(issued_at.saturating_add(age).saturating_add(self.leeway));
        if now < end { Ok(end) } else { Err(TokenError::TooOld) }
    }

    /// What makes a token of this kind, and what shows that it is another.
    fn check_kind(
        &self,
        claims: &Map<String, Value>,
        times: &Times,
        own_type: bool,
    ) -> Result<(), TokenError> {
        let none_of = |names: &[&'static str]| match names.iter().find(|name| claims.contains_key(**name)) {
            Some(name) => Err(TokenError::Claim(name)),
            None => Ok(()),
        };
        // Keycloak writes the kind of a token into its claims.
        let said = |names: &[&str]| match claims.get("typ").map(Value::as_str) {
            Some(Some(typ)) if names.iter().any(|name| name.eq_ignore_ascii_case(typ)) => {
                Err(TokenError::Type(self.kind.name()))
            }
            _ => Ok(()),
        };
        match self.kind {
            Kind::AccessToken => {
                claims::required(claims, "sub")?;
                if !own_type {
                    none_of(&["nonce", "at_hash", "c_hash", "s_hash", "events", "txn", "req_wl"])?;
                    said(&["id", "refresh", "offline", "logout"])?;
                    // An ID token may lack all that only it has. So something must be there that only access tokens have: what may be
                    // done with it, or which client it was given to.
                    const SIGNS: [&str; 7] = ["scope", "scp", "client_id", "cid", "appid", "roles", "gty"];
                    let bearer = claims.get("typ").and_then(Value::as_str);
                    let bearer = bearer.is_some_and(|typ| typ.eq_ignore_ascii_case("bearer"));
                    let usage = claims.get("token_use").map(|usage| usage == "access");
                    if usage == Some(false)
                        || !(bearer || SIGNS.iter().any(|sign| claims.contains_key(*sign)))
                    {
                        return Err(TokenError::Type(self.kind.name()));
                    }
                }
            }
            Kind::IdToken => {
                claims::required(claims, "sub")?;
                times.issued_at.ok_or(TokenError::Claim("iat"))?;
                none_of(&["events", "txn", "req_wl"])?;
                said(&["bearer", "dpop", "refresh", "offline", "logout"])?;
                let several = claims.get("aud").and_then(Value::as_array).is_some_and(|aud| aud.len() > 1);
                match claims::identifier(claims, "azp")? {
                    Some(party) if !self.audiences.iter().any(|a| a == party) => {
                        return Err(TokenError::WrongAudience);
                    }
                    None if several => return Err(TokenError::Claim("azp")),
                    _ => {}
                }
            }
            Kind::LogoutToken => {
                times.issued_at.ok_or(TokenError::Claim("iat"))?;
                claims::required(claims, "jti")?;
                none_of(&["nonce"])?;
                said(&["id", "bearer", "refresh", "offline"])?;
                let events = claims.get("events").and_then(Value::as_object);
                if !events.is_some_and(|e| e.get(LOGOUT_EVENT).is_some_and(Value::is_object)) {
                    return Err(TokenError::Claim("events"));
                }
                if !claims.contains_key("sub") && !claims.contains_key("sid") {
                    return Err(TokenError::Claim("sub"));
                }
            }
            Kind::ClientAssertion => {
                claims::required(claims, "jti")?;
                if claims::required(claims, "sub")? != self.issuer.as_deref().unwrap_or_default() {
                    return Err(TokenError::Claim("sub"));
                }
                none_of(&["nonce", "at_hash", "events", "txn", "req_wl"])?;
                let start = times.issued_at.or(times.not_before).ok_or(TokenError::Claim("iat"))?;
                if times.expires_at - start > MAX_ASSERTION_LIFE {
                    return Err(TokenError::TooOld);
                }
            }
            Kind::Session => session::check(claims, times)?,
            Kind::TxnToken => txn::check(claims, times)?,
            Kind::JwtSvid => {
                let subject = claims::required(claims, "sub")?;
                let subject = SpiffeId::parse(subject).map_err(|_| TokenError::Subject)?;
                if Some(subject.trust_domain()) != self.trust_domain.as_ref() || subject.path().is_empty() {
                    return Err(TokenError::Subject);
                }
            }
        }
        Ok(())
    }
}
