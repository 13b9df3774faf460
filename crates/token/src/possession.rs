//! Whether the caller holds what a token is bound to: asked at each request, never remembered.

use ringfence_keys::digest::sha256;

use crate::dpop::{Proof, ProofError, Replays};
use crate::jws::TokenError;
use crate::profile::Binding;
use crate::verified::VerifiedToken;

/// What the caller of one request shows besides its token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Possession<'a> {
    certificate: Option<[u8; 32]>,
    proof: Option<(&'a Proof, &'a Replays, u64)>,
    elsewhere: bool,
}

impl<'a> Possession<'a> {
    /// Nothing: a bearer.
    pub const NONE: Self = Self { certificate: None, proof: None, elsewhere: false };
    /// Not seen here: who took the token from its holder asked for it. For whoever verifies it once more behind that door, and
    /// never for the door itself.
    pub const ELSEWHERE: Self = Self { elsewhere: true, ..Self::NONE };

    /// Also the client certificate (DER) of the connection.
    #[must_use]
    pub fn with_certificate(self, der: &[u8]) -> Self {
        self.with_thumbprint(sha256(der))
    }

    /// Also a client certificate, by its SHA-256.
    #[must_use]
    pub const fn with_thumbprint(self, sha256: [u8; 32]) -> Self {
        Self { certificate: Some(sha256), ..self }
    }

    /// Also a DPoP proof; it is entered in `replays` when it fits its token, and so counts once.
    #[must_use]
    pub const fn with_proof(self, proof: &'a Proof, replays: &'a Replays, now: u64) -> Self {
        Self { proof: Some((proof, replays, now)), ..self }
    }

    /// Whether this holds what `token` is bound to, and it is bound as `binding` demands.
    ///
    /// # Errors
    /// [`TokenError::NotBound`], [`TokenError::NotHolder`], and [`TokenError::Revoked`] for a proof that was used before.
    pub fn check(&self, token: &VerifiedToken, binding: Binding) -> Result<(), TokenError> {
        const KEY: &str = "a DPoP key";
        const CERTIFICATE: &str = "a client certificate";
        let (key, certificate) = token.confirmation().map_or((None, None), |c| (c.key, c.certificate));
        match binding {
            Binding::Dpop if key.is_none() => return Err(TokenError::NotBound(KEY)),
            Binding::Mtls if certificate.is_none() => return Err(TokenError::NotBound(CERTIFICATE)),
            _ => {}
        }
        if self.elsewhere {
            return Ok(());
        }
        if certificate.is_some() && certificate != self.certificate {
            return Err(TokenError::NotHolder(CERTIFICATE));
        }
        match (key, &self.proof) {
            (None, None) => Ok(()),
            // A proof says that the token is bound; one that is not was swapped for it.
            (None, Some(_)) => Err(TokenError::NotBound(KEY)),
            (Some(key), Some((proof, replays, now)))
                if *proof.thumbprint() == key && proof.token_digest() == Some(token.digest()) =>
            {
                replays.admit(proof, *now).map_err(|error| {
                    TokenError::NotHolder(match error {
                        ProofError::Busy => {
                            "a proof that can be told to be new: raise the bound of the replay store"
                        }
                        _ => "a DPoP proof that was not used before",
                    })
                })
            }
            (Some(_), _) => Err(TokenError::NotHolder(KEY)),
        }
    }
}
