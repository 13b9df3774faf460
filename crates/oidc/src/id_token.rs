//! ID tokens: what the profile of the crate `token` cannot know, since only whoever asked for a token does.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::digest::{sha256, sha384, sha512};
use ringfence_token::{Profile, SKEW, TokenError, VerifiedToken};
use serde_json::Value;

use crate::known::Known;

/// What was asked for.
#[derive(Default)]
pub(crate) struct Asked<'a> {
    pub(crate) nonce: Option<&'a str>,
    /// What came beside the token.
    pub(crate) access_token: Option<&'a str>,
    pub(crate) code: Option<&'a str>,
    pub(crate) max_age: Option<u64>,
    pub(crate) acr_values: &'a [String],
    /// Whom it must be about.
    pub(crate) subject: Option<&'a str>,
}

/// Why an ID token is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdTokenError {
    #[error("the ID token is not believed: {0}")]
    Token(#[from] TokenError),
    #[error("the ID token answers another sign-in: its nonce is not the one that was sent")]
    Nonce,
    #[error("the ID token does not belong to what came with it (`{0}`)")]
    Hash(&'static str),
    #[error("the ID token does not say when the user was authenticated (`auth_time`), which was asked for")]
    NoAuthTime,
    #[error("the user was authenticated longer ago than was asked for (`max_age`)")]
    TooOld,
    #[error("the provider authenticated the user as `{0}`, not as was asked for (`acr_values`)")]
    Acr(String),
    #[error("the ID token is about another user")]
    Subject,
}

/// Verifies an ID token.
pub(crate) fn verify(
    token: &str,
    known: &Known,
    profile: &Profile,
    asked: &Asked<'_>,
    now: u64,
) -> Result<VerifiedToken, IdTokenError> {
    let verified = profile.verify(token, &known.keys, now)?;
    if asked.nonce.is_some_and(|nonce| !verified.has_nonce(nonce)) {
        return Err(IdTokenError::Nonce);
    }
    if asked.subject.is_some_and(|subject| verified.subject() != Some(subject)) {
        return Err(IdTokenError::Subject);
    }
    for (claim, value) in [("at_hash", asked.access_token), ("c_hash", asked.code)] {
        match (verified.claims().get(claim), value) {
            (Some(said), Some(value)) if said.as_str() != half_hash(token, value).as_deref() => {
                return Err(IdTokenError::Hash(claim));
            }
            _ => {}
        }
    }
    if let Some(max_age) = asked.max_age {
        let at =
            verified.claims().get("auth_time").and_then(Value::as_u64).ok_or(IdTokenError::NoAuthTime)?;
        if now.saturating_sub(at) > max_age.saturating_add(SKEW) {
            return Err(IdTokenError::TooOld);
        }
    }
    let acr = verified.text("acr").unwrap_or_default();
    if !asked.acr_values.is_empty() && !asked.acr_values.iter().any(|wanted| wanted == acr) {
        return Err(IdTokenError::Acr(printable(acr, 60)));
    }
    Ok(verified)
}

/// The left half of the hash that goes with the token's algorithm (OpenID Connect Core 1.0, 3.1.3.6).
fn half_hash(token: &str, value: &str) -> Option<String> {
    // The header was verified with the rest.
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    let hash = match header.get("alg")?.as_str()? {
        "ES256" | "RS256" | "PS256" => sha256(value.as_bytes()).to_vec(),
        "ES384" => sha384(value.as_bytes()).to_vec(),
        "EdDSA" | "Ed25519" => sha512(value.as_bytes()).to_vec(),
        _ => return None,
    };
    Some(URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]))
}

/// What a stranger wrote, as far as an operator's terminal can take it.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(longest).collect()
}
