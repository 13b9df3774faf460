//! Whether the caller holds what a token is bound to: asked at each request, never remembered.

use ringfence_keys::digest::sha256;

use crate::claims::Confirmation;
use crate::dpop::{Proof, Replays, Request};
use crate::jws::TokenError;
use crate::profile::Binding;
use crate::verified::VerifiedToken;

/// What the caller of one request shows besides its token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Possession<'a> {
    certificate: Option<[u8; 32]>,
    proof: Option<(Shown<'a>, &'a Replays, u64)>,
    elsewhere: bool,
}

/// A DPoP proof.
#[derive(Clone, Copy, Debug)]
enum Shown<'a> {
    Verified(&'a Proof),
    /// The value of the header, and the request that it came with.
    Text(&'a str, &'a Request<'a>),
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
        Self { proof: Some((Shown::Verified(proof), replays, now)), ..self }
    }

    /// The same with a proof as it came with `request`. It is verified when the token was believed: whoever has none has us verify
    /// nothing by a key of its own.
    #[must_use]
    pub const fn with_shown(self, proof: &'a str, request: &'a Request<'a>, replays: &'a Replays) -> Self {
        Self { proof: Some((Shown::Text(proof, request), replays, request.now)), ..self }
    }

    /// Whether this holds what `token` is bound to, and it is bound as `binding` demands.
    ///
    /// # Errors
    /// [`TokenError::NotBound`], [`TokenError::NotHolder`], and [`TokenError::Proof`] for a proof that is not believed.
    pub fn check(&self, token: &VerifiedToken, binding: Binding) -> Result<(), TokenError> {
        self.check_bound(token.confirmation(), token.digest(), binding)
    }

    /// The same for a token that its provider was asked for: what it said of its binding, and the SHA-256 of the token.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_bound(
        &self,
        to: Option<&Confirmation>,
        digest: &[u8; 32],
        binding: Binding,
    ) -> Result<(), TokenError> {
        const KEY: &str = "a DPoP key";
        const CERTIFICATE: &str = "a client certificate";
        let (key, certificate) = to.map_or((None, None), |c| (c.key, c.certificate));
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
        let not_believed = |error| TokenError::Proof(Box::new(error));
        match (key, self.proof) {
            (None, None) => Ok(()),
            // A proof says that the token is bound; one that is not was swapped for it.
            (None, Some(_)) => Err(TokenError::NotBound(KEY)),
            (Some(_), None) => Err(TokenError::NotHolder(KEY)),
            (Some(key), Some((shown, replays, now))) => {
                let verified;
                let proof = match shown {
                    Shown::Verified(proof) => proof,
                    Shown::Text(text, request) => {
                        verified = Proof::verify(text, request).map_err(not_believed)?;
                        &verified
                    }
                };
                if *proof.thumbprint() != key || proof.token_digest() != Some(digest) {
                    return Err(TokenError::NotHolder(KEY));
                }
                replays.admit(proof, now).map_err(not_believed)
            }
        }
    }
}
