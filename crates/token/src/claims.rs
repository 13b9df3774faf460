//! The registered claims, read strictly.

use serde_json::{Map, Value};

use crate::jws::{TokenError, decode};

/// Most claims of a token, audiences of it, and bytes of an identifier in it.
const MAX_CLAIMS: usize = 128;
const MAX_AUDIENCES: usize = 16;
const MAX_IDENTIFIER: usize = 2048;
/// The end of the year 9999: a later time is a mistake, or milliseconds.
const LATEST: u64 = 253_402_300_799;

/// What a token is bound to (`cnf`, RFC 7800). At least one is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// `jkt`: thumbprint of the key of a DPoP proof (RFC 9449).
    pub key: Option<[u8; 32]>,
    /// `x5t#S256`: SHA-256 of the client's certificate (RFC 8705).
    pub certificate: Option<[u8; 32]>,
}

impl Confirmation {
    /// What `cnf` among these claims says, as of a token that its provider was asked for. A way of confirmation that is not known cannot be
    /// held to, so it is refused.
    ///
    /// # Errors
    /// [`TokenError::Claim`].
    pub fn of(claims: &Map<String, Value>) -> Result<Option<Self>, TokenError> {
        confirmation(claims)
    }
}

/// The times of a token, Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) expires_at: u64,
    pub(crate) issued_at: Option<u64>,
    pub(crate) not_before: Option<u64>,
    pub(crate) authenticated_at: Option<u64>,
}

impl Times {
    /// Reads them; `fractions` are dropped where they are tolerated.
    pub(crate) fn read(claims: &Map<String, Value>, fractions: bool) -> Result<Self, TokenError> {
        let times = Self {
            expires_at: date(claims, "exp", fractions)?.ok_or(TokenError::Claim("exp"))?,
            issued_at: date(claims, "iat", fractions)?,
            not_before: date(claims, "nbf", fractions)?,
            authenticated_at: date(claims, "auth_time", fractions)?,
        };
        let start = times.issued_at.max(times.not_before);
        if start.is_some_and(|start| start >= times.expires_at) {
            Err(TokenError::Claim("exp"))
        } else {
            Ok(times)
        }
    }

    pub(crate) fn hold_at(&self, now: u64, leeway: u64) -> bool {
        let start = self.issued_at.max(self.not_before).unwrap_or(0);
        now < self.expires_at.saturating_add(leeway) && start <= now.saturating_add(leeway)
    }
}

/// A NumericDate, whole seconds of it.
pub(crate) fn date(
    claims: &Map<String, Value>,
    name: &'static str,
    fractions: bool,
) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = match value.as_u64() {
        None if fractions => value.as_f64().filter(|s| (0.0..=LATEST as f64).contains(s)).map(|s| s as u64),
        seconds => seconds,
    };
    seconds.filter(|s| *s <= LATEST).map(Some).ok_or(TokenError::Claim(name))
}

/// An identifier: a text that is neither empty nor long and has no control characters.
pub(crate) fn identifier<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<Option<&'a str>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_identifier(text) => Ok(Some(text)),
        Some(_) => Err(TokenError::Claim(name)),
    }
}

pub(crate) fn is_identifier(text: &str) -> bool {
    (1..=MAX_IDENTIFIER).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(crate) fn required<'a>(
    claims: &'a Map<String, Value>,
    name: &'static str,
) -> Result<&'a str, TokenError> {
    identifier(claims, name)?.ok_or(TokenError::Claim(name))
}

/// Whether `aud` is a text or list of texts; one of which must be in `accepted`.
pub(crate) fn check_audience(claims: &Map<String, Value>, accepted: &[String]) -> Result<(), TokenError> {
    let wrong = || TokenError::Claim("aud");
    let list = match claims.get("aud") {
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        Some(Value::Array(list)) if (1..=MAX_AUDIENCES).contains(&list.len()) => list,
        _ => return Err(wrong()),
    };
    let mut found = false;
    for audience in list {
        let audience = audience.as_str().filter(|a| is_identifier(a)).ok_or_else(wrong)?;
        found |= accepted.iter().any(|a| a == audience);
    }
    if found { Ok(()) } else { Err(TokenError::WrongAudience) }
}

/// Checks the form of what is there, whoever may need it.
pub(crate) fn check_forms(claims: &Map<String, Value>) -> Result<(), TokenError> {
    if claims.len() > MAX_CLAIMS {
        return Err(TokenError::Malformed);
    }
    for name in ["iss", "sub", "jti", "client_id", "azp", "sid", "acr", "nonce", "txn", "req_wl"] {
        identifier(claims, name)?;
    }
    for name in ["scope", "scp"] {
        let fits = match claims.get(name) {
            None | Some(Value::String(_)) => true,
            Some(Value::Array(list)) => list.iter().all(Value::is_string),
            Some(_) => false,
        };
        if !fits {
            return Err(TokenError::Claim(name));
        }
    }
    Ok(())
}

/// Reads `cnf`. A way of confirmation that is not known cannot be held to, so it is refused.
pub(crate) fn confirmation(claims: &Map<String, Value>) -> Result<Option<Confirmation>, TokenError> {
    let wrong = || TokenError::Claim("cnf");
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let cnf = cnf.as_object().ok_or_else(wrong)?;
    if cnf.is_empty() || cnf.keys().any(|name| !matches!(name.as_str(), "jkt" | "x5t#S256")) {
        return Err(wrong());
    }
    let digest = |name: &str| match cnf.get(name) {
        None => Ok(None),
        Some(value) => value.as_str().and_then(digest).map(Some).ok_or_else(wrong),
    };
    Ok(Some(Confirmation { key: digest("jkt")?, certificate: digest("x5t#S256")? }))
}

/// A SHA-256 in base64url.
pub(crate) fn digest(text: &str) -> Option<[u8; 32]> {
    decode(text).ok()?.try_into().ok()
}
