//! Keys of leaf certificates: made where they are used, proved to whoever signs the certificate.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Keeps a signature over a challenge from meaning anything else.
const POSSESSION_CONTEXT: &[u8] = b"ringfence proof of possession v1\0";
/// Longest challenge.
const MAX_CHALLENGE_BYTES: usize = 1024;
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED25519_SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Kinds of leaf keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyAlgorithm {
    /// Ed25519
    Ed25519,
    /// ECDSA on P-256
    #[default]
    P256,
}

/// Why a key is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system gave no randomness, or the library failed.
    #[error("a key could not be made or used: the system's random generator or the crypto library failed")]
    Crypto,
    /// Not PKCS #8 of a P-256 or Ed25519 key.
    #[error("this is not a PKCS #8 private key for P-256 or Ed25519")]
    NotPrivateKey,
    /// Not SubjectPublicKeyInfo of a P-256 or Ed25519 key.
    #[error("this is not a P-256 or Ed25519 public key")]
    NotPublicKey,
    /// The signature over the challenge is wrong.
    #[error("the proof of possession does not verify: whoever asked does not hold the private key")]
    NoPossession,
    /// The challenge is too long.
    #[error("a challenge has at most {MAX_CHALLENGE_BYTES} bytes")]
    Challenge,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// A private key of a leaf certificate. It is wiped when dropped and never printed.
pub struct LeafKey {
    pair: Pair,
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
}

impl LeafKey {
    /// Makes a new key.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        let crypto = |_| KeyError::Crypto;
        match algorithm {
            KeyAlgorithm::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(crypto)?;
                let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().map_err(crypto)?.as_ref().to_vec());
                Ok(Self::new(Pair::Ed25519(pair), pkcs8))
            }
            KeyAlgorithm::P256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(crypto)?;
                let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().map_err(crypto)?.as_ref().to_vec());
                Ok(Self::new(Pair::P256(pair), pkcs8))
            }
        }
    }

    /// Reads a key from PKCS #8 DER.
    pub fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8) {
            return Ok(Self::new(Pair::P256(pair), pkcs8));
        }
        match Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8) {
            Ok(pair) => Ok(Self::new(Pair::Ed25519(pair), pkcs8)),
            Err(_) => Err(KeyError::NotPrivateKey),
        }
    }

    fn new(pair: Pair, pkcs8: Zeroizing<Vec<u8>>) -> Self {
        let (prefix, key) = match &pair {
            Pair::Ed25519(pair) => (ED25519_SPKI_PREFIX, pair.public_key().as_ref()),
            Pair::P256(pair) => (P256_SPKI_PREFIX, pair.public_key().as_ref()),
        };
        let spki = [prefix, key].concat();
        Self { pair, pkcs8, spki }
    }

    /// Which kind of key it is.
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self.pair {
            Pair::Ed25519(_) => KeyAlgorithm::Ed25519,
            Pair::P256(_) => KeyAlgorithm::P256,
        }
    }

    /// The public key as SubjectPublicKeyInfo.
    pub fn public_key_spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The private key as PKCS #8 DER, for the Workload API and for TLS.
    pub fn pkcs8_der(&self) -> &Zeroizing<Vec<u8>> {
        &self.pkcs8
    }

    /// Proves possession of the private key to whoever chose the challenge.
    pub fn prove_possession(&self, challenge: &[u8]) -> Result<Vec<u8>, KeyError> {
        let message = possession_message(challenge)?;
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(&message).as_ref().to_vec()),
            Pair::P256(pair) => match pair.sign(&SystemRandom::new(), &message) {
                Ok(signature) => Ok(signature.as_ref().to_vec()),
                Err(_) => Err(KeyError::Crypto),
            },
        }
    }
}

/// Checks what [`LeafKey::prove_possession`] made against a public key and the challenge that was given.
pub fn verify_possession(spki: &[u8], challenge: &[u8], proof: &[u8]) -> Result<KeyAlgorithm, KeyError> {
    let message = possession_message(challenge)?;
    let (algorithm, verification, key): (_, &'static dyn signature::VerificationAlgorithm, _) =
        match (spki.strip_prefix(P256_SPKI_PREFIX), spki.strip_prefix(ED25519_SPKI_PREFIX)) {
            (Some(key), _) if key.len() == 65 => (KeyAlgorithm::P256, &ECDSA_P256_SHA256_ASN1, key),
            (_, Some(key)) if key.len() == 32 && !ringfence_keys::is_of_small_order(key) => {
                (KeyAlgorithm::Ed25519, &signature::ED25519, key)
            }
            _ => return Err(KeyError::NotPublicKey),
        };
    match UnparsedPublicKey::new(verification, key).verify(&message, proof) {
        Ok(()) => Ok(algorithm),
        Err(_) => Err(KeyError::NoPossession),
    }
}

fn possession_message(challenge: &[u8]) -> Result<Vec<u8>, KeyError> {
    if challenge.len() > MAX_CHALLENGE_BYTES {
        return Err(KeyError::Challenge);
    }
    Ok([POSSESSION_CONTEXT, challenge].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [KeyAlgorithm; 2] = [KeyAlgorithm::P256, KeyAlgorithm::Ed25519];

    #[test]
    fn possession_is_proved_for_the_challenge_given_and_no_other() {
        for algorithm in BOTH {
            let key = LeafKey::generate(algorithm).unwrap();
            let proof = key.prove_possession(b"nonce").unwrap();
            let spki = key.public_key_spki_der();
            assert_eq!(verify_possession(spki, b"nonce", &proof), Ok(algorithm));
            assert_eq!(verify_possession(spki, b"other", &proof), Err(KeyError::NoPossession));
            let other = LeafKey::generate(algorithm).unwrap();
            assert_eq!(
                verify_possession(other.public_key_spki_der(), b"nonce", &proof),
                Err(KeyError::NoPossession)
            );
            assert_eq!(verify_possession(&spki[1..], b"nonce", &proof), Err(KeyError::NotPublicKey));
            assert_eq!(key.prove_possession(&[0; 1025]), Err(KeyError::Challenge));
        }
    }

    #[test]
    fn nobody_possesses_a_key_that_everybody_can_sign_for() {
        // The neutral element as key and as the signature's point, and 0 as its scalar: they verify for every message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let forged = [neutral, [0; 32]].concat();
        let spki = [ED25519_SPKI_PREFIX, &neutral].concat();
        let believed = UnparsedPublicKey::new(&signature::ED25519, &neutral).verify(b"anything", &forged);
        assert!(believed.is_ok(), "the library alone believes it");
        assert_eq!(verify_possession(&spki, b"nonce", &forged), Err(KeyError::NotPublicKey));
    }

    #[test]
    fn a_key_survives_its_pkcs8_form() {
        for algorithm in BOTH {
            let key = LeafKey::generate(algorithm).unwrap();
            let again = LeafKey::from_pkcs8(key.pkcs8_der().clone()).unwrap();
            assert_eq!(again.algorithm(), algorithm);
            assert_eq!(again.public_key_spki_der(), key.public_key_spki_der());
        }
        assert!(LeafKey::from_pkcs8(Zeroizing::new(vec![0x30, 0x00])).is_err());
    }

    #[test]
    fn public_keys_are_those_that_the_certificate_library_reads() {
        for algorithm in BOTH {
            let key = LeafKey::generate(algorithm).unwrap();
            let other = rcgen::KeyPair::try_from(key.pkcs8_der().as_slice()).unwrap();
            assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&other), key.public_key_spki_der());
        }
    }
}
