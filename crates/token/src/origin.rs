//! Which credential a token of ours stands for: what is needed to know that it was revoked.

use serde_json::{Map, Value};

use crate::claims;
use crate::jws::TokenError;
use crate::profile::Kind;
use crate::revocation::Mark;
use crate::verified::VerifiedToken;

/// Member that names the session of ours that is in between, if one is.
const SESSION: &str = "session";

/// The credential that a session or transaction token stands for. It is written into that token as `iss`, `sub`, `sid`, `jti`, `client_id`,
/// `kid`, `iat` and `session`, as far as there are such; whatever of these is revoked ends the token too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Map<String, Value>);

impl Origin {
    /// A token: a provider's, or one of ours, which stands for a credential itself.
    #[must_use]
    pub fn of_token(token: &VerifiedToken) -> Self {
        let mut origin = match token.kind() {
            Kind::Session | Kind::TxnToken => {
                read(token.kind(), token.claims()).ok().flatten().cloned().unwrap_or_default()
            }
            _ => collect(token.issuer().unwrap_or_default(), token.claims(), token.key_id()),
        };
        if token.kind() == Kind::Session {
            origin.extend(token.token_id().map(|id| (SESSION.to_owned(), id.into())));
        }
        Self(origin)
    }

    /// What `issuer` says of an opaque token (RFC 7662).
    ///
    /// # Errors
    /// [`TokenError::Claim`] for what is of the wrong type or too long.
    pub fn of_claims(issuer: &str, claims: &Map<String, Value>) -> Result<Self, TokenError> {
        let origin = Self(collect(issuer, claims, None));
        origin.marks("")?;
        Ok(origin)
    }

    /// Something with an id of its own: an API key (issuer `api_key`, id its prefix), a certificate (`certificate`, its SHA-256).
    #[must_use]
    pub fn named(issuer: &str, id: &str, client: &str) -> Self {
        let members = [("iss", issuer), ("jti", id), ("client_id", client)];
        Self(members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
    }

    /// The user at the issuer.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.get("sub").and_then(Value::as_str)
    }

    /// The credential behind the session of ours, if one is in between.
    #[must_use]
    pub fn without_session(mut self) -> Self {
        self.0.remove(SESSION);
        self
    }

    /// With what `before` says and this one does not, because the issuer did not repeat it.
    #[must_use]
    pub fn or(mut self, before: &Self) -> Self {
        for (name, value) in &before.0 {
            self.0.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    pub(crate) const fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// What of it can be revoked; `trust_domain` issues our sessions.
    pub(crate) fn marks(&self, trust_domain: &str) -> Result<Vec<Mark>, TokenError> {
        marks(&self.0, trust_domain)
    }
}

/// The same of an origin as a token says it.
pub(crate) fn marks(origin: &Map<String, Value>, trust_domain: &str) -> Result<Vec<Mark>, TokenError> {
    let issued_at = claims::date(origin, "iat", true)?.unwrap_or(0);
    let issuer = claims::required(origin, "iss")?;
    let mut marks = Vec::with_capacity(7);
    crate::revocation::add(&mut marks, issuer, issued_at, origin, claims::identifier(origin, "kid")?)?;
    if let Some(session) = claims::identifier(origin, SESSION)? {
        marks.push(Mark::of_session(trust_domain, session));
    }
    Ok(marks)
}

/// The origin that a token of ours says.
pub(crate) fn read(
    kind: Kind,
    claims: &Map<String, Value>,
) -> Result<Option<&Map<String, Value>>, TokenError> {
    let (place, name) = match kind {
        Kind::Session => (claims.get(crate::session::ORIGIN), crate::session::ORIGIN),
        Kind::TxnToken => {
            let context = claims.get(crate::txn::CONTEXT);
            (context.and_then(|context| context.get(crate::session::ORIGIN)), crate::txn::CONTEXT)
        }
        _ => (None, ""),
    };
    match place {
        None => Ok(None),
        Some(Value::Object(origin)) => Ok(Some(origin)),
        Some(_) => Err(TokenError::Claim(name)),
    }
}

fn collect(issuer: &str, claims: &Map<String, Value>, key_id: Option<&str>) -> Map<String, Value> {
    let mut origin = Map::new();
    origin.insert("iss".into(), issuer.into());
    for name in ["sub", "sid", "jti", "iat"] {
        origin.extend(claims.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    let client = claims.get("client_id").or_else(|| claims.get("azp"));
    origin.extend(client.map(|client| ("client_id".to_owned(), client.clone())));
    origin.extend(key_id.map(|id| ("kid".to_owned(), id.into())));
    origin
}
