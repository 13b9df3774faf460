//! Private keys that sign: P-256 and Ed25519.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

use crate::verify::VerifyingKey;
use crate::{Secret, SecretBytes};

/// A signature algorithm, which a key never leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519 (RFC 8032), `EdDSA` in JOSE.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, `ES256` in JOSE.
    P256,
}

/// A key could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a private key of this algorithm in PKCS#8.
    #[error("not a PKCS#8 private key for {0:?}")]
    Private(Algorithm),
    /// Not a public key that is supported.
    #[error("not a P-256 or Ed25519 public key (SubjectPublicKeyInfo, DER)")]
    Public,
    /// The crypto library refused.
    #[error("the crypto library could not make a key")]
    Library,
}

/// A private key that signs. It has no way out but [`SigningKey::to_pkcs8`].
pub struct SigningKey {
    pair: Pair,
    public: VerifyingKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    // Signs in the fixed form, which converts to DER more simply than the other way round.
    P256(EcdsaKeyPair),
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// When the crypto library cannot make one.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let pair = match algorithm {
            Algorithm::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
            Algorithm::P256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Pair::P256),
        };
        Self::from_pair(pair.map_err(|_| KeyError::Library)?)
    }

    /// Reads a PKCS#8 private key.
    ///
    /// # Errors
    /// When it is not one of `algorithm`.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &SecretBytes) -> Result<Self, KeyError> {
        let refused = |_| KeyError::Private(algorithm);
        Self::from_pair(match algorithm {
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.expose()).map_err(refused)?),
            Algorithm::P256 => Pair::P256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose())
                    .map_err(refused)?,
            ),
        })
    }

    fn from_pair(pair: Pair) -> Result<Self, KeyError> {
        let public = match &pair {
            Pair::Ed25519(pair) => VerifyingKey::from_raw(Algorithm::Ed25519, pair.public_key().as_ref()),
            Pair::P256(pair) => VerifyingKey::from_raw(Algorithm::P256, pair.public_key().as_ref()),
        }?;
        Ok(Self { pair, public })
    }

    /// The key as PKCS#8 DER (version 1, which every reader takes).
    ///
    /// # Errors
    /// When the crypto library cannot export it.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, KeyError> {
        // The library's documents are zeroized by it.
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1(),
            Pair::P256(pair) => pair.to_pkcs8v1(),
        };
        Ok(Secret::new(document.map_err(|_| KeyError::Library)?.as_ref().to_vec()))
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.public.algorithm()
    }

    /// The public half.
    #[must_use]
    pub const fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs `message`; the signature is in the form of X.509 (DER for P-256).
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn sign_x509(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.sign(message)?;
        Ok(match self.pair {
            Pair::Ed25519(_) => signature,
            Pair::P256(_) => fixed_to_der(&signature),
        })
    }

    /// Signs `message`; the signature has its fixed 64 bytes (the form of JOSE, and of Ed25519 everywhere).
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::Ed25519(pair) => {
                Ok(pair.try_sign(message).map_err(|_| KeyError::Library)?.as_ref().to_vec())
            }
            Pair::P256(pair) => {
                Ok(pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::Library)?.as_ref().to_vec())
            }
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?}, [secret])", self.algorithm())
    }
}

/// `SEQUENCE { r INTEGER, s INTEGER }` of a 64-byte signature.
fn fixed_to_der(fixed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(70);
    for half in fixed.chunks(32) {
        let half = &half[half.iter().take_while(|b| **b == 0).count().min(31)..];
        let pad = half[0] & 0x80 != 0;
        body.extend([0x02, half.len() as u8 + u8::from(pad)]);
        body.extend(pad.then_some(0));
        body.extend(half);
    }
    // Two integers of at most 33 bytes: the short form of the length holds.
    let mut der = vec![0x30, body.len() as u8];
    der.extend(body);
    der
}
