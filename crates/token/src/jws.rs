//! The compact form: three parts, signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::SigningKey;
use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
pub(crate) use crate::error::TokenError;
use crate::json;
use crate::jwks::KeySet;
use crate::key::PublicKey;

/// Longest token in bytes: what fits a request header.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Longest `kid` in bytes.
pub(crate) const MAX_KEY_ID: usize = 256;
/// Longest `typ` in bytes.
const MAX_TYPE: usize = 64;

/// The members of a header that are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`.
    pub key_id: Option<String>,
    /// `typ`.
    pub token_type: Option<String>,
}

/// A token taken apart. Nothing of it is believed yet.
pub(crate) struct Compact<'a> {
    input: &'a str,
    pub(crate) header: Header,
    /// `jwk`, where it is allowed.
    pub(crate) embedded: Option<Map<String, Value>>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes apart what must not bring a key along.
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        Self::split(token, false)
    }

    /// Takes apart what must bring its key along.
    pub(crate) fn parse_with_key(token: &'a str) -> Result<Self, TokenError> {
        Self::split(token, true)
    }

    fn split(token: &'a str, with_key: bool) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (input, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (first, payload) = input.split_once('.').ok_or(TokenError::Malformed)?;
        if first.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let (header, embedded) = header(first, with_key)?;
        Ok(Self { input, header, embedded, payload: decode(payload)?, signature: decode(signature)? })
    }

    /// The payload, once the signature fits `key`.
    pub(crate) fn verify(self, key: &PublicKey) -> Result<Vec<u8>, TokenError> {
        key.verify(self.input.as_bytes(), &self.signature)?;
        Ok(self.payload)
    }
}

fn header(part: &str, with_key: bool) -> Result<(Header, Option<Map<String, Value>>), TokenError> {
    let mut members = json::object(&decode(part)?).ok_or(TokenError::Malformed)?;
    // Whatever brings keys along, points at some, or changes how the rest is to be read.
    for refused in ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"] {
        if members.contains_key(refused) && !(with_key && refused == "jwk") {
            return Err(TokenError::Refused(refused));
        }
    }
    let text = |member: &'static str, longest: usize| match members.get(member) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::Refused(member)),
    };
    let algorithm = text("alg", MAX_TYPE)?.and_then(|name| Algorithm::from_name(&name));
    let header = Header {
        algorithm: algorithm.ok_or(TokenError::Refused("alg"))?,
        key_id: text("kid", MAX_KEY_ID)?,
        token_type: text("typ", MAX_TYPE)?,
    };
    let embedded = match members.remove("jwk") {
        Some(Value::Object(jwk)) => Some(jwk),
        None if !with_key => None,
        _ => return Err(TokenError::Refused("jwk")),
    };
    Ok((header, embedded))
}

/// What is to be signed, by whoever holds the key.
#[derive(Clone, Debug)]
pub struct SigningInput(String);

impl SigningInput {
    /// The header and `claims` of a token of type `token_type`.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when it would be too long.
    pub fn new(
        token_type: &str,
        algorithm: Algorithm,
        key_id: &str,
        claims: &Map<String, Value>,
    ) -> Result<Self, TokenError> {
        let header = json!({ "alg": algorithm.name(), "kid": key_id, "typ": token_type });
        let claims = serde_json::to_vec(claims).map_err(|_| TokenError::Malformed)?;
        let input = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
        if input.len() > MAX_TOKEN { Err(TokenError::Malformed) } else { Ok(Self(input)) }
    }

    /// The bytes to sign.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The token, once signed in the form of JOSE.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when it is too long.
    pub fn seal(self, signature: &[u8]) -> Result<String, TokenError> {
        let token = format!("{}.{}", self.0, encode(signature));
        if token.len() > MAX_TOKEN { Err(TokenError::Malformed) } else { Ok(token) }
    }
}

/// Signs `claims` as a JWT.
///
/// # Errors
/// [`TokenError::Key`] when the key refuses, [`TokenError::Malformed`] when the result would be too long.
pub fn sign(key: &SigningKey, key_id: &str, claims: &Map<String, Value>) -> Result<String, TokenError> {
    let input = SigningInput::new("JWT", key.algorithm().into(), key_id, claims)?;
    let signature = key.sign(input.as_bytes())?;
    input.seal(&signature)
}

/// Checks form, header and signature of a JWS whose payload may be anything, and so is no token: nothing that it says of its
/// kind, issuer or time was looked at. For tokens there is [`crate::Profile`].
///
/// # Errors
/// [`TokenError`].
pub fn verify_payload(token: &str, keys: &KeySet) -> Result<(Header, Vec<u8>), TokenError> {
    let compact = Compact::parse(token)?;
    let header = compact.header.clone();
    let key = keys.find(header.key_id.as_deref(), header.algorithm)?;
    Ok((header, compact.verify(key)?))
}

/// The `kid` that a token claims, to find its keys by; nothing is verified.
#[must_use]
pub fn peek_key_id(token: &str) -> Option<String> {
    let first = token.split('.').next().filter(|_| token.len() <= MAX_TOKEN)?;
    header(first, false).ok()?.0.key_id
}

/// The issuer that a token claims, to choose by whom it is judged or whose keys to ask for; nothing is verified.
#[must_use]
pub fn peek_issuer(token: &str) -> Option<String> {
    read_issuer(token).ok()?
}

pub(crate) fn read_issuer(token: &str) -> Result<Option<String>, TokenError> {
    let claims = json::object(&Compact::parse(token)?.payload).ok_or(TokenError::Malformed)?;
    Ok(claims.get("iss").and_then(Value::as_str).map(str::to_owned))
}

/// base64url without padding, in its one spelling (the engine refuses stray trailing bits).
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)
}

/// base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_keys::Algorithm;

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
        let input = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
        format!("{input}.{}", encode(&key.sign(input.as_bytes()).unwrap()))
    }

    #[test]
    fn what_is_signed_is_verified_with_both_kinds_of_key() {
        for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
            let (key, set) = keyed(algorithm);
            let token = sign(&key, "k1", &claims()).unwrap();
            assert_eq!(verify_payload(&token, &set).unwrap().1, br#"{"sub":"x"}"#);
            let (_, others) = keyed(algorithm);
            assert!(matches!(verify_payload(&token, &others), Err(TokenError::Signature)));
            assert!(matches!(
                verify_payload(&sign(&key, "k2", &claims()).unwrap(), &set),
                Err(TokenError::UnknownKey)
            ));
        }
    }

    #[test]
    fn a_header_cannot_choose_how_it_is_verified() {
        let (key, set) = keyed(Algorithm::P256);
        assert!(verify_payload(&forged(&key, r#"{"alg":"ES256","kid":"k1"}"#, "{}"), &set).is_ok());
        for (header, what) in [
            (r#"{"alg":"none","kid":"k1"}"#, "alg"),
            (r#"{"alg":"HS256","kid":"k1"}"#, "alg"),
            (r#"{"alg":"EdDSA","kid":"k1"}"#, "another algorithm"),
            (r#"{"alg":"ES256"}"#, "names no key"),
            (r#"{"alg":"ES256","kid":"k1","crit":[]}"#, "crit"),
            (r#"{"alg":"ES256","kid":"k1","jku":"https://x"}"#, "jku"),
            (r#"{"alg":"ES256","kid":"k1","x5u":"https://x"}"#, "x5u"),
            (r#"{"alg":"ES256","kid":"k1","jwk":{}}"#, "jwk"),
            (r#"{"alg":"ES256","kid":"k1","typ":1}"#, "typ"),
            (r#"{"alg":"none","alg":"ES256","kid":"k1"}"#, "strict"),
        ] {
            let error = verify_payload(&forged(&key, header, "{}"), &set).unwrap_err().to_string();
            assert!(error.contains(what), "{header}: {error}");
        }
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
        assert!(matches!(verify_payload(&other, &set), Err(TokenError::Malformed)));
        assert!(verify_payload(&format!("{token}="), &set).is_err());
        assert!(verify_payload(&format!("{token}."), &set).is_err());
        assert!(verify_payload(&format!("{token}{}", "A".repeat(MAX_TOKEN)), &set).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_never_a_token(text in "[A-Za-z0-9_.=-]{0,200}|.*") {
            let (_, set) = keyed(Algorithm::P256);
            prop_assert!(verify_payload(&text, &set).is_err());
        }

        #[test]
        fn no_changed_character_survives(position: prop::sample::Index, replacement in "[A-Za-z0-9_-]") {
            let (key, set) = keyed(Algorithm::Ed25519);
            let token = sign(&key, "k1", &claims()).unwrap();
            let at = position.index(token.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &replacement);
            prop_assert_eq!(verify_payload(&changed, &set).is_ok(), changed == token);
        }
    }
}
