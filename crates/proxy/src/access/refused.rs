//! Why a token does not let its holder in.

use std::sync::Arc;

use ringfence_snapshot::IdentityError;
use ringfence_token::{ProofError, TokenError};

use super::RouteAccess;
use super::again::unknown;
use super::credential::Scheme;
use crate::deny::Deny;

pub(super) enum Refused {
    Token(TokenError),
    /// A provider has given no keys, or none that are still believed.
    NoKeys(Arc<str>),
    /// It is not known what was revoked.
    RevocationsUnknown,
    /// The token does not say who it is about in a way that can be passed on.
    Identity(IdentityError),
}

impl Refused {
    pub(super) fn deny(self, realm: &str, access: &RouteAccess, scheme: Scheme) -> Deny {
        let refuse =
            |rule, reason: String, error: &str| access.refuse_token(realm, rule, reason, error, scheme);
        let invalid = |reason, rule| refuse(rule, reason, ", error=\"invalid_token\"");
        match self {
            Self::Token(TokenError::Proof(error)) => {
                let (rule, code) = match *error {
                    ProofError::Busy => {
                        let deny = Deny::new(503, "authenticate", "proof.full", error.to_string());
                        return deny.position(access.position());
                    }
                    ProofError::Nonce => ("proof.nonce", "use_dpop_nonce"),
                    ProofError::Replayed => ("proof.replayed", "invalid_dpop_proof"),
                    ProofError::Elsewhere(_) => ("proof.elsewhere", "invalid_dpop_proof"),
                    ProofError::Time => ("proof.time", "invalid_dpop_proof"),
                    _ => ("proof.invalid", "invalid_dpop_proof"),
                };
                refuse(rule, error.to_string(), &format!(", error=\"{code}\""))
            }
            Self::Token(error) => invalid(error.to_string(), rule_of(&error)),
            Self::RevocationsUnknown => unknown().position(access.position()),
            Self::Identity(error) => invalid(format!("the token names nobody: {error}"), "token.user"),
            Self::NoKeys(provider) => {
                let reason =
                    format!("provider {provider} has given no keys yet, or none that are still believed");
                Deny::new(503, "authenticate", "provider.keys", reason).position(access.position())
            }
        }
    }
}

/// One rule per way in which a token can be wrong.
fn rule_of(error: &TokenError) -> &'static str {
    match error {
        TokenError::Expired | TokenError::TooOld => "token.expired",
        TokenError::WrongAudience => "token.audience",
        TokenError::Issuer => "token.issuer",
        TokenError::Signature | TokenError::UnknownKey | TokenError::WrongAlgorithm => "token.signature",
        TokenError::Revoked(_) => "token.revoked",
        TokenError::NotHolder(_) | TokenError::NotBound(_) => "token.bound",
        TokenError::Type(_) => "token.type",
        _ => "token.invalid",
    }
}
