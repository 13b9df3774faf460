//! The compact form: three parts, signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{Algorithm, KeyError, SigningKey};
use serde_json::{Map, Value, json};

use crate::json;
use crate::jwks::KeySet;

/// Longest token in bytes: what fits a request header.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A claim that must be there is missing or of the wrong type.
    #[error("token claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// Past its end, or not yet valid.
    #[error("token is not valid at this time: compare the clocks, or fetch a fresh one")]
    Expired,
    /// The signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not three parts of base64url with strict JSON in the first two.
    #[error("not a compact JWS of at most {MAX_TOKEN} bytes with strict JSON inside")]
    Malformed,
    /// A header member that could make the token mean something else.
    #[error("token header member `{0}` is not accepted")]
    Refused(&'static str),
    /// The signature does not fit.
    #[error("token signature is wrong")]
    Signature,
    /// The subject is no SPIFFE ID, or of another trust domain.
    #[error("token subject is not a SPIFFE ID of this trust domain")]
    Subject,
    /// No key that is trusted has this `kid` and algorithm.
    #[error("token names no key that is trusted: fetch the bundle again, or the key was rotated out")]
    UnknownKey,
    /// It was made for somebody else.
    #[error("token is for another audience")]
    WrongAudience,
}

/// The members of a header that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub key_id: String,
}

/// The payload of a token whose signature was checked; made only by [`verify`].
#[derive(Clone, Debug)]
pub struct Verified {
    key_id: String,
    claims: Map<String, Value>,
}

impl Verified {
    /// `kid` of the key that signed it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// All claims.
    #[must_use]
    pub const fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// The name of an algorithm in JOSE.
pub(crate) const fn name(algorithm: Algorithm) -> Option<&'static str> {
    match algorithm {
        Algorithm::Ed25519 => Some("EdDSA"),
        Algorithm::P256 => Some("ES256"),
        _ => None,
    }
}

/// Signs `claims` as a compact JWS.
///
/// # Errors
/// [`TokenError::Key`] when the key refuses, [`TokenError::Malformed`] when the result would be too long.
pub fn sign(key: &SigningKey, key_id: &str, claims: &Map<String, Value>) -> Result<String, TokenError> {
    let algorithm = name(key.algorithm()).ok_or(TokenError::Refused("alg"))?;
    let header = json!({ "alg": algorithm, "kid": key_id, "typ": "JWT" });
    let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
    let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Malformed)?;
    let input = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
    let token = format!("{input}.{}", encode(&key.sign(input.as_bytes())?));
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    Ok(token)
}

/// Checks form, header and signature of `token` against the keys that are trusted, and that its payload is strict JSON.
///
/// # Errors
/// [`TokenError`]; no claim was looked at then.
pub fn verify(token: &str, keys: &KeySet) -> Result<Verified, TokenError> {
    let (header, payload) = verify_payload(token, keys)?;
    let claims = json::object(&payload).ok_or(TokenError::Malformed)?;
    Ok(Verified { key_id: header.key_id, claims })
}

/// Checks form, header and signature of `token`, whose payload may be anything.
///
/// # Errors
/// [`TokenError`].
pub fn verify_payload(token: &str, keys: &KeySet) -> Result<(Header, Vec<u8>), TokenError> {
    let (input, payload, signature) = split(token)?;
    let header = header(token)?;
    let key = keys.find(&header.key_id, header.algorithm).ok_or(TokenError::UnknownKey)?;
    // ECDSA as JOSE writes it and Ed25519 both have exactly 64 bytes.
    if signature.len() != 64 {
        return Err(TokenError::Signature);
    }
    key.verify(input.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
    Ok((header, payload))
}

/// Reads the header without trusting it.
pub(crate) fn header(token: &str) -> Result<Header, TokenError> {
    let first = token.split('.').next().filter(|_| token.len() <= MAX_TOKEN).ok_or(TokenError::Malformed)?;
    let members = json::object(&decode(first)?).ok_or(TokenError::Malformed)?;
    // Whatever brings keys along, points at some, or changes how the rest is to be read.
    for refused in ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"] {
        if members.contains_key(refused) {
            return Err(TokenError::Refused(refused));
        }
    }
    match members.get("typ").map(|typ| typ.as_str()) {
        None | Some(Some("JWT" | "JOSE")) => {}
        Some(_) => return Err(TokenError::Refused("typ")),
    }
    let algorithm = match members.get("alg").and_then(Value::as_str) {
        Some("ES256") => Algorithm::P256,
        Some("EdDSA") => Algorithm::Ed25519,
        _ => return Err(TokenError::Refused("alg")),
    };
    let key_id = members.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty() && kid.len() <= 256);
    Ok(Header { algorithm, key_id: key_id.ok_or(TokenError::UnknownKey)?.to_owned() })
}

fn split(token: &str) -> Result<(&str, Vec<u8>, Vec<u8>), TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let (input, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = input.split_once('.').ok_or(TokenError::Malformed)?;
    if header.is_empty() || payload.is_empty() || payload.contains('.') {
        return Err(TokenError::Malformed);
    }
    Ok((input, decode(payload)?, decode(signature)?))
}

/// base64url without padding, in its one spelling (the engine refuses stray trailing bits).
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keyed(algorithm: Algorithm) -> (SigningKey, KeySet) {
        let key = SigningKey::generate(algorithm).unwrap();
        let set = KeySet::from_keys([("k1".to_owned(), key.verifying_key().clone())]);
        (key, set)
    }

    fn claims() -> Map<String, Value> {
        json!({ "sub": "x" }).as_object().unwrap().clone()
    }

    /// A token with a header of our choosing, correctly signed.
    fn forged(key: &SigningKey, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).unwrap()))
    }

    #[test]
    fn what_is_signed_is_verified_with_both_kinds_of_key() {
        for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
            let (key, set) = keyed(algorithm);
            let token = sign(&key, "k1", &claims()).unwrap();
            assert_eq!(verify(&token, &set).unwrap().claims(), &claims());
            let (_, others) = keyed(algorithm);
            assert!(matches!(verify(&token, &others), Err(TokenError::Signature)));
            assert!(matches!(
                verify(&sign(&key, "k2", &claims()).unwrap(), &set),
                Err(TokenError::UnknownKey)
            ));
        }
    }

    #[test]
    fn a_header_cannot_choose_how_it_is_verified() {
        let (key, set) = keyed(Algorithm::P256);
        assert!(verify(&forged(&key, r#"{"alg":"ES256","kid":"k1"}"#, "{}"), &set).is_ok());
        for (header, what) in [
            (r#"{"alg":"none","kid":"k1"}"#, "alg"),
            (r#"{"alg":"HS256","kid":"k1"}"#, "alg"),
            (r#"{"alg":"EdDSA","kid":"k1"}"#, "names no key"),
            (r#"{"alg":"ES256"}"#, "names no key"),
            (r#"{"alg":"ES256","kid":"k1","crit":[]}"#, "crit"),
            (r#"{"alg":"ES256","kid":"k1","jku":"https://x"}"#, "jku"),
            (r#"{"alg":"ES256","kid":"k1","x5u":"https://x"}"#, "x5u"),
            (r#"{"alg":"ES256","kid":"k1","jwk":{}}"#, "jwk"),
            (r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#, "typ"),
            (r#"{"alg":"ES256","kid":"k1","typ":1}"#, "typ"),
            (r#"{"alg":"none","alg":"ES256","kid":"k1"}"#, "strict"),
        ] {
            let error = verify(&forged(&key, header, "{}"), &set).unwrap_err().to_string();
            assert!(error.contains(what), "{header}: {error}");
        }
        let twice = verify(&forged(&key, r#"{"alg":"ES256","kid":"k1"}"#, r#"{"sub":"a","sub":"b"}"#), &set);
        assert!(matches!(twice, Err(TokenError::Malformed)));
    }

    #[test]
    fn a_token_has_exactly_one_spelling() {
        let (key, set) = keyed(Algorithm::P256);
        let token = sign(&key, "k1", &claims()).unwrap();
        // 64 bytes leave four unused bits in the last character; another spelling of them is another token.
        let last = token.chars().last().unwrap();
        let spelled = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let next = spelled.chars().nth(spelled.find(last).unwrap() + 1).unwrap();
        let other = format!("{}{next}", &token[..token.len() - 1]);
        assert!(matches!(verify(&other, &set), Err(TokenError::Malformed)));
        assert!(verify(&format!("{token}="), &set).is_err());
        assert!(verify(&format!("{token}."), &set).is_err());
        assert!(verify(&format!("{token}{}", "A".repeat(MAX_TOKEN)), &set).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_never_a_token(text in "[A-Za-z0-9_.=-]{0,200}|.*") {
            let (_, set) = keyed(Algorithm::P256);
            prop_assert!(verify(&text, &set).is_err());
        }

        #[test]
        fn no_changed_character_survives(position: prop::sample::Index, replacement in "[A-Za-z0-9_-]") {
            let (key, set) = keyed(Algorithm::Ed25519);
            let token = sign(&key, "k1", &claims()).unwrap();
            let at = position.index(token.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &replacement);
            prop_assert_eq!(verify(&changed, &set).is_ok(), changed == token);
        }
    }
}
