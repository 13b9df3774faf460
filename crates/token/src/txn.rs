//! Transaction tokens (draft-ietf-oauth-transaction-tokens): on whose behalf a request goes from service to service.
//!
//! The names of the draft are constants here, because they have changed before.

use ringfence_spiffe::TrustDomain;
use serde_json::{Map, Value, json};

use crate::algorithm::Algorithm;
use crate::claims::{self, Times};
use crate::jws::{SigningInput, TokenError};
use crate::origin::Origin;
use crate::session::ORIGIN;
use crate::verified::VerifiedToken;

/// `typ` of a transaction token.
pub const TYPE: &str = "txntoken+jwt";
/// The header that carries one.
pub const HEADER: &str = "Txn-Token";
/// Longest life in seconds.
pub const MAX_LIFE: u64 = 600;
/// Longest context (`tctx` and `rctx` together) in bytes of JSON, and longest `scope`: with them the token still fits the field of a header.
const MAX_CONTEXT: usize = 4608;
const MAX_SCOPE: usize = 1024;

const TRANSACTION: &str = "txn";
const WORKLOAD: &str = "req_wl";
pub(crate) const CONTEXT: &str = "tctx";
const REQUEST_CONTEXT: &str = "rctx";

/// What a transaction token shall say. Times are Unix seconds.
#[derive(Clone, Debug)]
pub struct TxnSpec<'a> {
    /// The trust domain, `aud`.
    pub trust_domain: &'a TrustDomain,
    /// Names the transaction in every log along the chain.
    pub transaction: &'a str,
    /// The user or client on whose behalf it is.
    pub subject: &'a str,
    /// What it may be used for, separated by spaces; may be empty.
    pub scope: &'a str,
    /// The service that asked for it.
    pub workload: &'a str,
    /// What stays the same along the chain: who it is ([`crate::IDENTITY`]), parameters of the request.
    pub context: Map<String, Value>,
    /// Where the request came from.
    pub request: Map<String, Value>,
    /// The credential that it stands for.
    pub origin: Option<&'a Origin>,
    /// When it is made.
    pub issued_at: u64,
    /// When it ends, at most [`MAX_LIFE`] later.
    pub expires_at: u64,
}

impl TxnSpec<'_> {
    /// What the keeper signs.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] for a context or scope that no header can carry, [`TokenError::Claim`] for what is missing or wrong,
    /// [`TokenError::TooOld`] for what lives too long.
    pub fn signing_input(&self, algorithm: Algorithm, key_id: &str) -> Result<SigningInput, TokenError> {
        for (name, value) in [("txn", self.transaction), ("sub", self.subject), ("req_wl", self.workload)] {
            if !claims::is_identifier(value) {
                return Err(TokenError::Claim(name));
            }
        }
        if self.scope.len() > MAX_SCOPE {
            return Err(TokenError::TooLong);
        }
        if self.scope.chars().any(char::is_control) {
            return Err(TokenError::Claim("scope"));
        }
        let mut context = self.context.clone();
        if let Some(origin) = self.origin {
            context.insert(ORIGIN.into(), Value::Object(origin.members().clone()));
        } else {
            context.remove(ORIGIN);
        }
        let (context, request) = (Value::Object(context), Value::Object(self.request.clone()));
        if context.to_string().len() + request.to_string().len() > MAX_CONTEXT {
            return Err(TokenError::TooLong);
        }
        let claims = json!({
            "iat": self.issued_at, "exp": self.expires_at, "aud": self.trust_domain.as_str(),
            TRANSACTION: self.transaction, "sub": self.subject, "scope": self.scope, WORKLOAD: self.workload,
            CONTEXT: context, REQUEST_CONTEXT: request,
        });
        let Value::Object(claims) = claims else { return Err(TokenError::Malformed) };
        check(&claims, &Times::read(&claims, false)?)?;
        SigningInput::new(TYPE, algorithm, key_id, &claims)
    }

    /// Makes the token, signed by `sign` in the form of JOSE.
    ///
    /// # Errors
    /// [`TokenError`] as its signer's error type; those of `sign`.
    pub fn sign<E: From<TokenError>>(
        &self,
        algorithm: Algorithm,
        key_id: &str,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let input = self.signing_input(algorithm, key_id)?;
        let signature = sign(input.as_bytes())?;
        Ok(input.seal(&signature)?)
    }
}

/// The claims that only transaction tokens have.
pub(crate) fn check(claims: &Map<String, Value>, times: &Times) -> Result<(), TokenError> {
    for name in ["sub", TRANSACTION, WORKLOAD] {
        claims::required(claims, name)?;
    }
    if !claims.get("scope").is_some_and(Value::is_string) {
        return Err(TokenError::Claim("scope"));
    }
    // One audience: a token for several trust domains is for none.
    if !claims.get("aud").is_some_and(Value::is_string) {
        return Err(TokenError::Claim("aud"));
    }
    for name in [CONTEXT, REQUEST_CONTEXT] {
        if claims.get(name).is_some_and(|context| !context.is_object()) {
            return Err(TokenError::Claim(name));
        }
    }
    let issued_at = times.issued_at.ok_or(TokenError::Claim("iat"))?;
    if times.expires_at - issued_at > MAX_LIFE { Err(TokenError::TooOld) } else { Ok(()) }
}

/// What only transaction tokens say.
impl VerifiedToken {
    /// The transaction's name (`txn`).
    #[must_use]
    pub fn transaction(&self) -> Option<&str> {
        self.text(TRANSACTION)
    }

    /// The service that asked for it (`req_wl`).
    #[must_use]
    pub fn workload(&self) -> Option<&str> {
        self.text(WORKLOAD)
    }

    /// What stays the same along the chain (`tctx`).
    #[must_use]
    pub fn context(&self) -> Option<&Map<String, Value>> {
        self.claims().get(CONTEXT).and_then(Value::as_object)
    }

    /// Where the request came from (`rctx`).
    #[must_use]
    pub fn request_context(&self) -> Option<&Map<String, Value>> {
        self.claims().get(REQUEST_CONTEXT).and_then(Value::as_object)
    }
}

#[cfg(test)]
mod tests {
    use ringfence_keys::SigningKey;

    use super::*;
    use crate::testing::{Issuer, NOW};
    use crate::{KeySet, Profile, Revocations, Revoked};

    fn spec(domain: &TrustDomain) -> TxnSpec<'_> {
        TxnSpec {
            trust_domain: domain,
            transaction: "0192",
            subject: "ann",
            scope: "read write",
            workload: "spiffe://clinic.example/gateway/main",
            context: json!({"user": "ann"}).as_object().unwrap().clone(),
            request: json!({"ip": "192.0.2.7"}).as_object().unwrap().clone(),
            origin: None,
            issued_at: NOW,
            expires_at: NOW + 120,
        }
    }

    #[test]
    fn a_transaction_token_says_who_and_ends_with_the_credential_it_stands_for() {
        let domain = TrustDomain::new("clinic.example").unwrap();
        let issuer = Issuer::new();
        let credential = issuer
            .profile()
            .verify(&issuer.access_token(json!({"sid": "s1", "jti": "t1"})), &issuer.keys, NOW)
            .unwrap();
        for algorithm in [ringfence_keys::Algorithm::Ed25519, ringfence_keys::Algorithm::P256] {
            let key = SigningKey::generate(algorithm).unwrap();
            let keys = KeySet::from_keys([("t".to_owned(), key.verifying_key().clone())]);
            let origin = Origin::of_token(&credential);
            let spec = TxnSpec { origin: Some(&origin), ..spec(&domain) };
            let token =
                spec.sign(algorithm.into(), "t", |input| key.sign(input).map_err(TokenError::from)).unwrap();
            let verified = Profile::txn_token(&domain).verify(&token, &keys, NOW + 1).unwrap();
            assert_eq!(verified.transaction(), Some("0192"));
            assert_eq!(verified.workload(), Some("spiffe://clinic.example/gateway/main"));
            assert_eq!(verified.scopes().collect::<Vec<_>>(), ["read", "write"]);
            assert_eq!(verified.context().unwrap()["user"], "ann");
            assert_eq!(verified.request_context().unwrap()["ip"], "192.0.2.7");
            let mut list = Revocations::new(4);
            list.check(&verified).unwrap();
            list.revoke(Issuer::ISSUER, Revoked::Session("s1"), u64::MAX, NOW + 900).unwrap();
            assert!(list.check(&verified).is_err());
            let other = TrustDomain::new("other.example").unwrap();
            assert!(Profile::txn_token(&other).verify(&token, &keys, NOW).is_err());
        }
    }

    #[test]
    fn what_is_missing_too_long_or_too_lasting_is_not_signed() {
        let domain = TrustDomain::new("clinic.example").unwrap();
        let good = spec(&domain);
        let long = "x".repeat(MAX_CONTEXT);
        assert!(good.signing_input(Algorithm::EdDsa, "k").is_ok());
        let large = json!({ "x": long }).as_object().unwrap().clone();
        for bad in [
            TxnSpec { subject: "", ..good.clone() },
            TxnSpec { transaction: "a\nb", ..good.clone() },
            TxnSpec { workload: "", ..good.clone() },
            TxnSpec { scope: &long, ..good.clone() },
            TxnSpec { context: large, ..good.clone() },
            TxnSpec { expires_at: NOW + MAX_LIFE + 1, ..good.clone() },
            TxnSpec { expires_at: NOW, ..good.clone() },
        ] {
            assert!(bad.signing_input(Algorithm::EdDsa, "k").is_err(), "{bad:?}");
        }
    }
}
