//! What binds a login to the TLS connection that it happens on (RFC 5929, `tls-server-end-point`).

use ringfence_keys::digest::{sha256, sha384, sha512};
use rustls::pki_types::CertificateDer;

type Hash = fn(&[u8]) -> Vec<u8>;

/// How a certificate is signed: the DER of its object identifier, and the hash that RFC 5929 derives from it.
const ALGORITHMS: [(&[u8], Hash); 6] = [
    // ecdsa-with-SHA256, -SHA384, -SHA512
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], |der| sha256(der).to_vec()),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], |der| sha384(der).to_vec()),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04], |der| sha512(der).to_vec()),
    // sha256WithRSAEncryption, sha384…, sha512…
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], |der| sha256(der).to_vec()),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], |der| sha384(der).to_vec()),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], |der| sha512(der).to_vec()),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The hash of a server's certificate that both ends put into a login, so that nobody between them can pass it on. `None` when the
/// certificate is signed by an algorithm for which that is not defined, such as Ed25519.
#[must_use]
pub fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (certificate_body, _) = element(certificate, SEQUENCE)?;
    let (_signed, rest) = element(certificate_body, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let (_, hash) = ALGORITHMS.iter().find(|(known, _)| *known == identifier)?;
    Some(hash(certificate))
}

/// The content of the first element, which must be of that tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_hash_is_the_one_that_the_certificate_is_signed_with() {
        let p256 = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(server_end_point(&p256), Some(sha256(&p256).to_vec()));
        let p384 = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(server_end_point(&p384), Some(sha384(&p384).to_vec()));
        let ed25519 = certificate(&rcgen::PKCS_ED25519);
        assert_eq!(server_end_point(&ed25519), None);
    }

    #[test]
    fn a_cut_certificate_binds_nothing() {
        let whole = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for length in 0..whole.len() {
            assert_eq!(server_end_point(&CertificateDer::from(&whole[..length])), None, "{length}");
        }
    }
}
