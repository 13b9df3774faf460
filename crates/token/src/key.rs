//! A public key as JOSE writes it (RFC 7517), with the one algorithm that it is for.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents, VerificationAlgorithm,
};
use ringfence_keys::VerifyingKey;
use ringfence_keys::digest::sha256;
use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
use crate::jws::{TokenError, decode, encode};
use crate::rsa;

/// Members that only a private or a symmetric key has.
const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a JWK is no key that verifies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkError {
    /// A member is missing or malformed, or the point is not on the curve.
    #[error("malformed")]
    Malformed,
    /// A private or symmetric key, which has no place in what is published.
    #[error("private or symmetric: it was published, so nothing that it signs can be believed")]
    Secret,
    /// A kind, curve or algorithm that is not spoken.
    #[error("of a kind, curve or algorithm that is not supported")]
    Unsupported,
    /// One of several keys, and without a name.
    #[error("one of several and without a `kid`")]
    Unnamed,
    /// `use`, `key_ops` or `alg` say that it is for something else.
    #[error("for something else than verifying signatures")]
    WrongUse,
    /// A key that proves nothing.
    #[error("weak: {0}")]
    Weak(&'static str),
}

/// A public key and its one algorithm, checked when read. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    algorithm: Algorithm,
    parsed: ParsedPublicKey,
    numbers: Numbers,
}

#[derive(PartialEq, Eq)]
enum Numbers {
    /// The raw key.
    Ed25519(Vec<u8>),
    /// `04 | x | y`.
    Point(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl PublicKey {
    /// Reads a JWK. An RSA key is for RS256 unless its `alg` says PS256.
    ///
    /// # Errors
    /// [`JwkError`].
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, JwkError> {
        Self::read(jwk, None)
    }

    /// Reads the JWK that a token brings along to be verified with; `algorithm` is what the token's header says.
    pub(crate) fn from_embedded(jwk: &Map<String, Value>, algorithm: Algorithm) -> Result<Self, JwkError> {
        let key = Self::read(jwk, Some(algorithm))?;
        if key.algorithm() == algorithm { Ok(key) } else { Err(JwkError::WrongUse) }
    }

    fn read(jwk: &Map<String, Value>, wanted: Option<Algorithm>) -> Result<Self, JwkError> {
        let text = |member: &str| {
            jwk.get(member).map_or(Ok(None), |v| v.as_str().map(Some).ok_or(JwkError::Malformed))
        };
        let kind = text("kty")?.ok_or(JwkError::Malformed)?;
        if kind == "oct" || SECRET.iter().any(|member| jwk.contains_key(*member)) {
            return Err(JwkError::Secret);
        }
        if !is_for_verifying(jwk)? {
            return Err(JwkError::WrongUse);
        }
        let alg = match text("alg")? {
            Some(name) => Some(Algorithm::from_name(name).ok_or(JwkError::Unsupported)?),
            None => None,
        };
        let number = |member: &str, length: Option<usize>| {
            let bytes = text(member)?.and_then(|text| decode(text).ok()).ok_or(JwkError::Malformed)?;
            if length.is_none_or(|length| bytes.len() == length) {
                Ok(bytes)
            } else {
                Err(JwkError::Malformed)
            }
        };
        let point =
            |size| Ok::<_, JwkError>([vec![4], number("x", Some(size))?, number("y", Some(size))?].concat());
        let (algorithm, numbers) = match (kind, text("crv")?) {
            ("OKP", Some("Ed25519")) => (Algorithm::EdDsa, Numbers::Ed25519(number("x", Some(32))?)),
            ("EC", Some("P-256")) => (Algorithm::Es256, Numbers::Point(point(32)?)),
            ("EC", Some("P-384")) => (Algorithm::Es384, Numbers::Point(point(48)?)),
            ("RSA", _) => {
                let algorithm = alg.or(wanted).filter(|a| *a == Algorithm::Ps256).unwrap_or(Algorithm::Rs256);
                (algorithm, Numbers::Rsa { n: number("n", None)?, e: number("e", None)? })
            }
            _ => return Err(JwkError::Unsupported),
        };
        if alg.is_some_and(|alg| alg != algorithm) {
            return Err(JwkError::WrongUse);
        }
        Self::new(algorithm, numbers)
    }

    fn new(algorithm: Algorithm, numbers: Numbers) -> Result<Self, JwkError> {
        let parsed = match &numbers {
            Numbers::Ed25519(raw) if ringfence_keys::is_of_small_order(raw) => {
                return Err(JwkError::Weak("its point is of small order"));
            }
            Numbers::Ed25519(raw) => ParsedPublicKey::new(&ED25519, raw),
            Numbers::Point(raw) => {
                let library: &'static dyn VerificationAlgorithm = match algorithm {
                    Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
                    _ => &ECDSA_P256_SHA256_FIXED,
                };
                ParsedPublicKey::new(library, raw)
            }
            Numbers::Rsa { n, e } => {
                if let Some(weakness) = rsa::weakness(n, e) {
                    return Err(JwkError::Weak(weakness));
                }
                RsaPublicKeyComponents { n, e }.to_parsed_public_key(match algorithm {
                    Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                })
            }
        };
        let parsed = parsed.map_err(|_| JwkError::Malformed)?;
        Ok(Self(Arc::new(Inner { algorithm, parsed, numbers })))
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Checks a signature in the form of JOSE.
    ///
    /// # Errors
    /// [`TokenError::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let length = match self.0.algorithm {
            Algorithm::EdDsa | Algorithm::Es256 => Some(64),
            Algorithm::Es384 => Some(96),
            // The library compares it with the modulus.
            Algorithm::Rs256 | Algorithm::Ps256 => None,
        };
        if length.is_some_and(|length| signature.len() != length) {
            return Err(TokenError::Signature);
        }
        self.0.parsed.verify_sig(message, signature).map_err(|_| TokenError::Signature)
    }

    /// The members that are the key and nothing else, in the order of RFC 7638.
    fn members(&self) -> Vec<(&'static str, String)> {
        match &self.0.numbers {
            Numbers::Ed25519(raw) => {
                vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", encode(raw))]
            }
            Numbers::Point(raw) => {
                let (x, y) = raw[1..].split_at((raw.len() - 1) / 2);
                let curve = if x.len() == 48 { "P-384" } else { "P-256" };
                vec![("crv", curve.into()), ("kty", "EC".into()), ("x", encode(x)), ("y", encode(y))]
            }
            Numbers::Rsa { n, e } => vec![("e", encode(e)), ("kty", "RSA".into()), ("n", encode(n))],
        }
    }

    /// The SHA-256 thumbprint (RFC 7638), which `cnf.jkt` names a key by.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        // None of the values needs an escape.
        let members: Vec<_> =
            self.members().iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        sha256(format!("{{{}}}", members.join(",")).as_bytes())
    }

    /// The key as a JWK.
    #[must_use]
    pub fn to_jwk(&self, key_id: Option<&str>, key_use: Option<&str>) -> Map<String, Value> {
        let mut jwk: Map<_, _> =
            self.members().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        jwk.insert("alg".into(), json!(self.algorithm().name()));
        jwk.extend(key_id.map(|id| ("kid".to_owned(), id.into())));
        jwk.extend(key_use.map(|key_use| ("use".to_owned(), key_use.into())));
        jwk
    }
}

impl From<&VerifyingKey> for PublicKey {
    fn from(key: &VerifyingKey) -> Self {
        let raw = key.raw().to_vec();
        let numbers = match key.algorithm() {
            ringfence_keys::Algorithm::P256 => Numbers::Point(raw),
            _ => Numbers::Ed25519(raw),
        };
        Self::new(key.algorithm().into(), numbers).expect("invariant: the key was checked when it was made")
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.algorithm == other.0.algorithm && self.0.numbers == other.0.numbers
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm(), encode(&self.thumbprint()))
    }
}

/// Whether `use` and `key_ops`, where they are there, both allow verifying.
fn is_for_verifying(jwk: &Map<String, Value>) -> Result<bool, JwkError> {
    let by_use = match jwk.get("use") {
        None => true,
        Some(Value::String(key_use)) => matches!(key_use.as_str(), "sig" | "jwt-svid"),
        Some(_) => return Err(JwkError::Malformed),
    };
    let by_ops = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(ops)) => {
            let twice = ops.iter().enumerate().any(|(i, op)| !op.is_string() || ops[..i].contains(op));
            if ops.len() > 8 || twice {
                return Err(JwkError::Malformed);
            }
            ops.iter().any(|op| op == "verify")
        }
        Some(_) => return Err(JwkError::Malformed),
    };
    Ok(by_use && by_ops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwk(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_thumbprint_is_that_of_the_standards() {
        // RFC 7638, section 3.1.
        let key = PublicKey::from_jwk(&jwk(
            r#"{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}"#,
        ))
        .unwrap();
        assert_eq!(encode(&key.thumbprint()), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        // RFC 8037, appendix A.3.
        let key = PublicKey::from_jwk(&jwk(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        ))
        .unwrap();
        assert_eq!(encode(&key.thumbprint()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(PublicKey::from_jwk(&key.to_jwk(Some("a"), Some("sig"))).unwrap(), key);
    }

    #[test]
    fn a_key_that_is_for_something_else_or_says_a_secret_is_refused() {
        let good = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let with = |member: &str| PublicKey::from_jwk(&jwk(&good.replace("{", &format!("{{{member},"))));
        assert!(with(r#""use":"sig","key_ops":["verify"],"alg":"Ed25519""#).is_ok());
        for (member, error) in [
            (r#""use":"enc""#, JwkError::WrongUse),
            (r#""use":1"#, JwkError::Malformed),
            (r#""key_ops":["sign"]"#, JwkError::WrongUse),
            (r#""key_ops":"verify""#, JwkError::Malformed),
            (r#""key_ops":["verify","verify"]"#, JwkError::Malformed),
            (r#""alg":"ES256""#, JwkError::WrongUse),
            (r#""alg":"HS256""#, JwkError::Unsupported),
            (r#""alg":7"#, JwkError::Malformed),
            (r#""d":"AA""#, JwkError::Secret),
            (r#""k":"AA""#, JwkError::Secret),
        ] {
            assert_eq!(with(member).unwrap_err(), error, "{member}");
        }
        assert_eq!(PublicKey::from_jwk(&jwk(r#"{"kty":"oct","k":"AA"}"#)).unwrap_err(), JwkError::Secret);
        let zero = good.replace("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", &"A".repeat(43));
        assert!(matches!(PublicKey::from_jwk(&jwk(&zero)), Err(JwkError::Weak(_))));
    }
}
