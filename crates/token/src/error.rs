//! Why a token is not believed: for the operator, not for whoever sent it.

use ringfence_keys::KeyError;

use crate::jws::MAX_TOKEN;

/// Why a token is not believed.
///
/// For logs and `ringfence why`. Whoever sent the token learns nothing of it: the answer is the same `invalid_token`
/// for each, but where a fresh nonce has to be handed out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A claim that must be there is missing or of the wrong type, or one that must not be there is there.
    #[error("token claim `{0}` is missing, malformed or contradicts another")]
    Claim(&'static str),
    /// Past its end, or not yet valid.
    #[error("token is not valid at this time: compare the clocks, or fetch a fresh one")]
    Expired,
    /// From another issuer.
    #[error(
        "token is from another issuer than the one configured: compare `iss` with `issuer`, to the last slash"
    )]
    Issuer,
    /// The signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not three parts of base64url with strict JSON in the first two.
    #[error("not a compact JWS of at most {MAX_TOKEN} bytes with strict JSON inside")]
    Malformed,
    /// Its holder did not show the key or the certificate that it is bound to.
    #[error("token is bound to {0}, which the caller did not show")]
    NotHolder(&'static str),
    /// It must be bound to a key or certificate, and is not.
    #[error("token is not bound to {0}, which is demanded here")]
    NotBound(&'static str),
    /// The proof that its holder has the key is not believed.
    #[error(transparent)]
    Proof(Box<crate::ProofError>),
    /// A header member that could make the token mean something else.
    #[error("token header member `{0}` is not accepted")]
    Refused(&'static str),
    /// Revoked before its end.
    #[error("token was revoked: {0}")]
    Revoked(&'static str),
    /// The signature does not fit.
    #[error("token signature is wrong")]
    Signature,
    /// The subject is no SPIFFE ID, or of another trust domain.
    #[error("token subject is not a SPIFFE ID of this trust domain")]
    Subject,
    /// It would not fit where it has to travel.
    #[error(
        "token would be too long to travel: who it is about has too many groups or scopes, so have the provider send fewer, or name the scopes that are needed"
    )]
    TooLong,
    /// It was made too long ago, whatever it says about its end.
    #[error("token is older than is accepted here: fetch a fresh one")]
    TooOld,
    /// A token of another kind.
    #[error("token is of another kind: its `typ` is not the one of {0}")]
    Type(&'static str),
    /// No key that is trusted has this `kid`.
    #[error("token names no key that is trusted: fetch the bundle again, or the key was rotated out")]
    UnknownKey,
    /// The key that it names is for another algorithm.
    #[error("token says another algorithm than the key that it names")]
    WrongAlgorithm,
    /// It was made for somebody else.
    #[error("token is for another audience")]
    WrongAudience,
}

impl TokenError {
    /// A stable word for events and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Claim(_) => "claim",
            Self::Expired => "expired",
            Self::Issuer => "issuer",
            Self::Key(_) => "key",
            Self::Malformed => "malformed",
            Self::NotHolder(_) => "not-holder",
            Self::NotBound(_) => "not-bound",
            Self::Proof(_) => "proof",
            Self::Refused(_) => "header",
            Self::Revoked(_) => "revoked",
            Self::Signature => "signature",
            Self::Subject => "subject",
            Self::TooLong => "too-long",
            Self::TooOld => "too-old",
            Self::Type(_) => "type",
            Self::UnknownKey => "unknown-key",
            Self::WrongAlgorithm => "algorithm",
            Self::WrongAudience => "audience",
        }
    }
}
