//! The signature algorithms that certificates may be signed with.

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs as algs;

/// ECDSA with P-256, P-384, P-521, Ed25519, and RSA of 2048 bits and more with SHA-2. No SHA-1.
pub fn signature_algorithms() -> &'static [&'static dyn SignatureVerificationAlgorithm] {
    ALGORITHMS
}

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algs::ECDSA_P256_SHA256,
    algs::ECDSA_P384_SHA384,
    algs::ED25519,
    algs::ECDSA_P256_SHA384,
    algs::ECDSA_P384_SHA256,
    algs::ECDSA_P521_SHA256,
    algs::ECDSA_P521_SHA384,
    algs::ECDSA_P521_SHA512,
    algs::RSA_PKCS1_2048_8192_SHA256,
    algs::RSA_PKCS1_2048_8192_SHA384,
    algs::RSA_PKCS1_2048_8192_SHA512,
    algs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];
