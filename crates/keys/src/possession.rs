//! Proof that whoever asks for a certificate has the private key.
//!
//! A signature over the SPIFFE ID (or the host names) and the public key, with a context of its own so that it can be
//! mistaken for nothing else. It carries no time: replayed, it yields a certificate only for the same key, which the
//! replayer does not have.

use crate::SigningKey;
use crate::sign::KeyError;
use crate::verify::{BadSignature, VerifyingKey};

/// Proves that the caller holds `key` and wants it certified for `subject`.
///
/// # Errors
/// When the crypto library refuses to sign.
pub fn prove(key: &SigningKey, subject: &str) -> Result<Vec<u8>, KeyError> {
    key.sign(&statement(subject, key.verifying_key()))
}

/// Checks a proof of possession of `key` for `subject`.
///
/// # Errors
/// [`BadSignature`].
pub fn check(key: &VerifyingKey, subject: &str, proof: &[u8]) -> Result<(), BadSignature> {
    key.verify(&statement(subject, key), proof)
}

fn statement(subject: &str, key: &VerifyingKey) -> Vec<u8> {
    let mut bytes = b"ringfence proof of possession v1\0".to_vec();
    bytes.extend((subject.len() as u64).to_be_bytes());
    bytes.extend(subject.as_bytes());
    bytes.extend(key.to_spki());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    #[test]
    fn a_proof_holds_for_its_key_and_subject_only() {
        for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
            let (key, other) =
                (SigningKey::generate(algorithm).unwrap(), SigningKey::generate(algorithm).unwrap());
            let proof = prove(&key, "spiffe://clinic.example/service/portal").unwrap();
            check(key.verifying_key(), "spiffe://clinic.example/service/portal", &proof).unwrap();
            assert!(check(key.verifying_key(), "spiffe://clinic.example/service/billing", &proof).is_err());
            assert!(check(other.verifying_key(), "spiffe://clinic.example/service/portal", &proof).is_err());
        }
    }
}
