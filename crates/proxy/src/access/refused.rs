//! Why a token does not let its holder in.

use std::sync::Arc;

use ringfence_snapshot::IdentityError;
use ringfence_token::TokenError;

use super::RouteAccess;
use super::again::unknown;
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
    pub(super) fn deny(self, realm: &str, access: &RouteAccess) -> Deny {
        let invalid = |reason: String, rule| {
            Deny::new(401, "authenticate", rule, reason)
                .challenge(access.challenge(realm, ", error=\"invalid_token\""))
        };
        let deny = match self {
            Self::Token(error) => invalid(error.to_string(), rule_of(&error)),
            Self::RevocationsUnknown => unknown().position(access.position()),
            Self::Identity(error) => invalid(format!("the token names nobody: {error}"), "token.user"),
            Self::NoKeys(provider) => {
                let reason =
                    format!("provider {provider} has given no keys yet, or none that are still believed");
                Deny::new(503, "authenticate", "provider.keys", reason)
            }
        };
        deny.position(access.position())
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
