//! An issuer with three kinds of keys, and a forger who writes headers and payloads as he likes.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_token::{Algorithms, KeySet, Profile, TokenError, VerifiedToken};
use serde_json::{Map, Value, json};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://id.clinic.example/tenant-a";
pub(crate) const AUDIENCE: &str = "clinic";

/// The keys of an issuer.
pub(crate) struct Keys {
    pub(crate) ed: SigningKey,
    pub(crate) ec: SigningKey,
    pub(crate) rsa: RsaKeyPair,
    pub(crate) set: KeySet,
}

pub(crate) static HONEST: LazyLock<Keys> = LazyLock::new(Keys::new);
pub(crate) static ATTACKER: LazyLock<Keys> = LazyLock::new(Keys::new);

impl Keys {
    fn new() -> Self {
        let ed = SigningKey::generate(Algorithm::Ed25519).unwrap();
        let ec = SigningKey::generate(Algorithm::P256).unwrap();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let list = json!({ "keys": [jwk(&ed, "ed"), jwk(&ec, "ec"), rsa_jwk(&rsa, "rsa", "RS256"), rsa_jwk(&rsa, "ps", "PS256")] });
        let set = KeySet::from_json(list.to_string().as_bytes()).unwrap();
        assert_eq!(set.len(), 4);
        Self { ed, ec, rsa, set }
    }

    /// A signature by the key that `kid` names.
    pub(crate) fn sign(&self, kid: &str, input: &[u8]) -> Vec<u8> {
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &SystemRandom::new(), input, &mut signature).unwrap();
            signature
        };
        match kid {
            "ed" => self.ed.sign(input).unwrap(),
            "ec" => self.ec.sign(input).unwrap(),
            "rsa" => rsa(&RSA_PKCS1_SHA256),
            "ps" => rsa(&RSA_PSS_SHA256),
            _ => panic!("no key {kid}"),
        }
    }

    /// A token with this header and payload, signed.
    pub(crate) fn token(&self, kid: &str, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", b64(header), b64(payload));
        let signature = self.sign(kid, input.as_bytes());
        format!("{input}.{}", b64(signature))
    }

    /// The RSA public key as DER.
    pub(crate) fn rsa_der(&self) -> Vec<u8> {
        self.rsa.public_key().as_der().unwrap().as_ref().to_vec()
    }
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The public half as a JWK.
pub(crate) fn jwk(key: &SigningKey, kid: &str) -> Value {
    let set = KeySet::from_keys([(kid.to_owned(), key.verifying_key().clone())]).to_json("sig");
    serde_json::from_str::<Value>(&set).unwrap()["keys"][0].clone()
}

pub(crate) fn rsa_jwk(key: &RsaKeyPair, kid: &str, alg: &str) -> Value {
    // `RSAPublicKey` in DER: nine bytes before the 256 of the modulus, two before the three of the exponent.
    let public = key.public_key().as_ref();
    assert_eq!(public.len(), 270);
    json!({
        "kty": "RSA", "kid": kid, "alg": alg, "use": "sig",
        "n": b64(&public[9..265]),
        "e": b64(&public[267..]),
    })
}

pub(crate) fn alg(kid: &str) -> &'static str {
    match kid {
        "ed" => "EdDSA",
        "ec" => "ES256",
        "rsa" => "RS256",
        _ => "PS256",
    }
}

/// The header of an access token.
pub(crate) fn header(kid: &str) -> Value {
    json!({ "alg": alg(kid), "kid": kid, "typ": "at+jwt" })
}

/// The claims of an honest access token.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "ann", "aud": AUDIENCE, "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 300, "jti": "t1",
        "client_id": "app", "scope": "read write",
    })
}

/// `claims` with some changed; `null` takes one out.
pub(crate) fn changed(claims: &Value, change: Value) -> Value {
    let mut claims: Map<_, _> = claims.as_object().unwrap().clone();
    claims.extend(change.as_object().unwrap().clone());
    claims.retain(|_, value| !value.is_null());
    claims.into()
}

pub(crate) fn profile() -> Profile {
    Profile::access_token(ISSUER, &[AUDIENCE.to_owned()]).with_algorithms(Algorithms::ALL)
}

/// What the door for access tokens says.
pub(crate) fn door(token: &str) -> Result<VerifiedToken, TokenError> {
    profile().verify(token, &HONEST.set, NOW)
}

/// The honest twin of everything here is accepted.
#[test]
fn honest_tokens_of_each_key_are_accepted() {
    for kid in ["ed", "ec", "rsa", "ps"] {
        let token = HONEST.token(kid, &header(kid).to_string(), &claims().to_string());
        let token = door(&token).unwrap();
        assert_eq!(token.subject(), Some("ann"));
        assert_eq!(token.scopes().collect::<Vec<_>>(), ["read", "write"]);
        assert_eq!((token.client(), token.token_id(), token.key_id()), (Some("app"), Some("t1"), Some(kid)));
    }
}
