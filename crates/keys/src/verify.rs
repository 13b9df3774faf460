//! Public keys that verify, without the crypto library in the caller's dependencies.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, UnparsedPublicKey,
    VerificationAlgorithm,
};

use crate::sign::{Algorithm, KeyError};

// The two public keys there are have one encoding each, so a comparison replaces a DER parser.
const SPKI_ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The signature does not fit the message and the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad signature")]
pub struct BadSignature;

/// A public key, checked when made: a point on the curve, in its one encoding.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    raw: Vec<u8>,
}

impl VerifyingKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// Anything but a P-256 key with an uncompressed point, or an Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        if let Some(raw) = spki.strip_prefix(&SPKI_P256[..]) {
            Self::from_raw(Algorithm::P256, raw)
        } else if let Some(raw) = spki.strip_prefix(&SPKI_ED25519[..]) {
            Self::from_raw(Algorithm::Ed25519, raw)
        } else {
            Err(KeyError::Public)
        }
    }

    /// Reads a raw public key: 32 bytes for Ed25519, `04 | x | y` for P-256.
    ///
    /// # Errors
    /// Any other form, or not a point of the curve.
    pub fn from_raw(algorithm: Algorithm, raw: &[u8]) -> Result<Self, KeyError> {
        let library: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::Ed25519 if raw.len() == 32 => &ED25519,
            Algorithm::P256 if raw.len() == 65 && raw[0] == 4 => &ECDSA_P256_SHA256_ASN1,
            _ => return Err(KeyError::Public),
        };
        if algorithm == Algorithm::Ed25519 && is_of_small_order(raw) {
            return Err(KeyError::Public);
        }
        ParsedPublicKey::new(library, raw).map_err(|_| KeyError::Public)?;
        Ok(Self { algorithm, raw: raw.to_vec() })
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The raw public key, as [`Self::from_raw`] takes it.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        let prefix: &[u8] = match self.algorithm {
            Algorithm::Ed25519 => &SPKI_ED25519,
            Algorithm::P256 => &SPKI_P256,
        };
        [prefix, &self.raw].concat()
    }

    /// Verifies a signature of the fixed 64-byte form ([`crate::SigningKey::sign`]).
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.check(&ECDSA_P256_SHA256_FIXED, message, signature)
    }

    /// Verifies a signature in the form of X.509 ([`crate::SigningKey::sign_x509`]).
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify_x509(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.check(&ECDSA_P256_SHA256_ASN1, message, signature)
    }

    fn check(
        &self,
        ecdsa: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let library = match self.algorithm {
            Algorithm::Ed25519 => &ED25519,
            Algorithm::P256 => ecdsa,
        };
        UnparsedPublicKey::new(library, &self.raw).verify(message, signature).map_err(|_| BadSignature)
    }
}

/// Whether an Ed25519 public key is one of the points whose multiples are few, in any of their encodings: for those,
/// signatures can be made without a private key, so that they prove nothing.
#[must_use]
pub fn is_of_small_order(raw: &[u8]) -> bool {
    // The y coordinates of the eight points, and the encodings at or above the prime that stand for the same.
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
            0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let [first, middle @ .., last] = raw else { return false };
    let last = last & 0x7f;
    let near_zero = *first <= 1 && last == 0 && middle.iter().all(|b| *b == 0);
    let near_prime = (0xec..=0xee).contains(first) && last == 0x7f && middle.iter().all(|b| *b == 0xff);
    let order_8 = ORDER_8.iter().any(|y| y[..31] == raw[..31] && y[31] == last);
    near_zero || near_prime || order_8
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?}, {})", self.algorithm, crate::to_hex(&self.raw))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SigningKey;

    #[test]
    fn both_kinds_sign_and_verify_in_both_forms() {
        for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
            let key = SigningKey::generate(algorithm).unwrap();
            let again = SigningKey::from_pkcs8(algorithm, &key.to_pkcs8().unwrap()).unwrap();
            assert_eq!(key.verifying_key(), again.verifying_key());
            let public = VerifyingKey::from_spki(&key.verifying_key().to_spki()).unwrap();
            assert_eq!(&public, key.verifying_key());
            // Enough signatures that some integer starts with a zero byte or a set bit.
            for i in 0..600_u32 {
                let message = i.to_be_bytes();
                public.verify_x509(&message, &again.sign_x509(&message).unwrap()).unwrap();
                public.verify(&message, &again.sign(&message).unwrap()).unwrap();
                assert_eq!(public.verify(b"other", &again.sign(&message).unwrap()), Err(BadSignature));
            }
        }
    }

    #[test]
    fn a_point_of_small_order_proves_nothing_and_is_no_key() {
        let mut points = vec![[0; 32], [0; 32], [0xff; 32], [0xff; 32], [0xff; 32]];
        points[1][0] = 1;
        for (point, first) in points[2..].iter_mut().zip([0xec, 0xed, 0xee]) {
            (point[0], point[31]) = (first, 0x7f);
        }
        // The other four, which have the order 8, by their y coordinates.
        for y in [
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            points.push(crate::from_hex(y).unwrap().try_into().unwrap());
        }
        for mut point in points {
            assert!(VerifyingKey::from_raw(Algorithm::Ed25519, &point).is_err(), "{point:02x?}");
            point[31] |= 0x80;
            assert!(VerifyingKey::from_raw(Algorithm::Ed25519, &point).is_err(), "{point:02x?}");
        }
    }

    #[test]
    fn a_point_off_the_curve_is_no_key() {
        let mut raw = [0; 65];
        raw[0] = 4;
        raw[64] = 1;
        assert!(VerifyingKey::from_raw(Algorithm::P256, &raw).is_err());
    }

    #[test]
    fn a_key_of_one_kind_does_not_read_as_the_other() {
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        assert!(SigningKey::from_pkcs8(Algorithm::Ed25519, &key.to_pkcs8().unwrap()).is_err());
        assert!(!format!("{key:?}").contains("308"), "no key material in debug output");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_only_in_their_one_encoding(bytes: Vec<u8>, tail in prop::collection::vec(any::<u8>(), 30..70)) {
            for prefix in [&[][..], &SPKI_P256, &SPKI_ED25519] {
                for body in [&bytes, &tail] {
                    let spki = [prefix, body].concat();
                    if let Ok(key) = VerifyingKey::from_spki(&spki) {
                        prop_assert_eq!(key.to_spki(), spki);
                    }
                }
            }
        }
    }
}
