//! Which public keys are strong enough to be looked at.

use crate::der::{self, Reader, tag};

const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Whether a SubjectPublicKeyInfo holds a key on a named curve of at least 256 bits, an Ed25519 key that not everybody can
/// sign for, or an RSA key of 2048 to 8192 bits, the length a multiple of eight.
pub(crate) fn is_acceptable(spki: &[u8]) -> bool {
    check(spki).unwrap_or(false)
}

fn check(spki: &[u8]) -> Result<bool, der::DerError> {
    let mut fields = Reader::new(der::single(spki, tag::SEQUENCE)?);
    let mut algorithm = Reader::new(fields.expect(tag::SEQUENCE)?);
    let key = der::octet_aligned_bits(fields.expect(tag::BIT_STRING)?)?;
    fields.end()?;
    let acceptable = match algorithm.expect(tag::OID)? {
        EC => match algorithm.expect(tag::OID)? {
            P256 => key.len() == 65 && key[0] == 4,
            P384 => key.len() == 97 && key[0] == 4,
            P521 => key.len() == 133 && key[0] == 4,
            _ => false,
        },
        ED25519 => key.len() == 32 && !ringfence_keys::is_of_small_order(key),
        RSA => algorithm.expect(tag::NULL)?.is_empty() && is_strong_rsa(key)?,
        _ => false,
    };
    algorithm.end()?;
    Ok(acceptable)
}

fn is_strong_rsa(key: &[u8]) -> Result<bool, der::DerError> {
    let mut fields = Reader::new(der::single(key, tag::SEQUENCE)?);
    let modulus = der::integer(fields.expect(tag::INTEGER)?)?;
    let exponent = der::integer(fields.expect(tag::INTEGER)?)?;
    fields.end()?;
    let Some((0, modulus)) = modulus.split_first() else {
        // Without a sign octet the number is negative or its length is no multiple of eight.
        return Ok(false);
    };
    let odd_exponent = exponent.last().is_some_and(|last| last & 1 == 1) && exponent != [1];
    Ok((256..=1024).contains(&modulus.len()) && exponent[0] & 0x80 == 0 && odd_exponent)
}

/// The public key as JWK parameters (RFC 7518, RFC 8037).
pub(crate) fn to_jwk(spki: &[u8]) -> Result<serde_json::Value, der::DerError> {
    use base64::Engine;
    let encode = |octets: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(octets);
    let mut fields = Reader::new(der::single(spki, tag::SEQUENCE)?);
    let mut algorithm = Reader::new(fields.expect(tag::SEQUENCE)?);
    let key = der::octet_aligned_bits(fields.expect(tag::BIT_STRING)?)?;
    let unknown = der::DerError::Value("public key algorithm");
    match algorithm.expect(tag::OID)? {
        EC => {
            let (curve, size) = match algorithm.expect(tag::OID)? {
                P256 => ("P-256", 32),
                P384 => ("P-384", 48),
                P521 => ("P-521", 66),
                _ => return Err(unknown),
            };
            if key.len() != 1 + 2 * size {
                return Err(der::DerError::Value("point"));
            }
            let (x, y) = key[1..].split_at(size);
            Ok(serde_json::json!({ "kty": "EC", "crv": curve, "x": encode(x), "y": encode(y) }))
        }
        ED25519 => Ok(serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key) })),
        RSA => {
            let mut numbers = Reader::new(der::single(key, tag::SEQUENCE)?);
            let mut number = || -> Result<String, der::DerError> {
                let octets = der::integer(numbers.expect(tag::INTEGER)?)?;
                Ok(encode(octets.strip_prefix(&[0]).unwrap_or(octets)))
            };
            Ok(serde_json::json!({ "kty": "RSA", "n": number()?, "e": number()? }))
        }
        _ => Err(unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ed25519_key_that_everybody_can_sign_for_is_not_acceptable() {
        let acceptable = |key: [u8; 32]| {
            let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
            is_acceptable(&[&prefix[..], &key].concat())
        };
        let with = |first: u8, rest: u8, last: u8| {
            let mut key = [rest; 32];
            (key[0], key[31]) = (first, last);
            key
        };
        for sign in [0, 0x80] {
            for first in [0, 1] {
                assert!(!acceptable(with(first, 0, sign)), "{first}");
            }
            for first in [0xec, 0xed, 0xee] {
                assert!(!acceptable(with(first, 0xff, 0x7f | sign)), "{first}");
            }
        }
        // The generator, whose order is as large as there is.
        assert!(acceptable(with(0x58, 0x66, 0x66)));
        let key = crate::LeafKey::generate(crate::KeyAlgorithm::Ed25519).unwrap();
        assert!(is_acceptable(key.public_key_spki_der()));
    }
}
