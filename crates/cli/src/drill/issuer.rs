//! The provider that drills bring: its metadata, its key, and tokens for whoever signs in.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::SigningKey;
use ringfence_token::KeySet;
use serde_json::{Value, json};

use super::Unable;
use super::server::Answer;

/// The audience of its tokens, and its one client.
pub(super) const AUDIENCE: &str = "drill";
/// The id of its key.
pub(super) const KEY_ID: &str = "drill-1";

/// What the provider at this address says.
pub(super) fn answer(key: &SigningKey, address: SocketAddr, request: &str) -> Answer {
    let issuer = format!("http://{address}");
    let body = if request.starts_with("GET /jwks ") {
        KeySet::from_keys([(KEY_ID.to_owned(), key.verifying_key().clone())]).to_json("sig")
    } else if request.starts_with("POST /token ") {
        tokens(key, &issuer, request).unwrap_or_else(|_| "{}".to_owned())
    } else {
        let at = |path: &str| format!("{issuer}/{path}");
        json!({
            "issuer": issuer, "jwks_uri": at("jwks"), "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
        })
        .to_string()
    };
    Answer::body("application/json", &body)
}

/// The code that it takes is the nonce of the sign-in, so nothing need be kept.
fn tokens(key: &SigningKey, issuer: &str, request: &str) -> Result<String, Unable> {
    let form = request.rsplit("\r\n\r\n").next().unwrap_or_default();
    let nonce = form.split('&').find_map(|pair| pair.strip_prefix("code=")).unwrap_or_default();
    let header = json!({ "typ": "JWT", "alg": "ES256", "kid": KEY_ID });
    let claims = json!({
        "iss": issuer, "sub": "somebody", "aud": AUDIENCE, "nonce": nonce, "iat": now(), "exp": now() + 300,
    });
    let id_token = token(key, &header, &claims)?;
    let tokens =
        json!({ "access_token": "opaque", "token_type": "Bearer", "expires_in": 3600, "id_token": id_token });
    Ok(tokens.to_string())
}

/// A compact JWS of any header: what a library would refuse to write is what has to be tried.
pub(super) fn token(key: &SigningKey, header: &Value, claims: &Value) -> Result<String, Unable> {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(input.as_bytes()).map_err(|e| Unable::new(format!("cannot sign: {e}")))?;
    Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// An access token of a stage's issuer with these claims changed.
pub(super) fn access_token(key: &SigningKey, issuer: &str, changes: &Value) -> Result<String, Unable> {
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": KEY_ID });
    token(key, &header, &changed(claims(issuer), changes))
}

pub(super) fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "sub": "somebody", "aud": AUDIENCE, "client_id": "app", "jti": "1", "iat": now(), "exp": now() + 300,
    })
}

pub(super) fn changed(mut value: Value, changes: &Value) -> Value {
    if let (Some(members), Some(changes)) = (value.as_object_mut(), changes.as_object()) {
        members.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    value
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
