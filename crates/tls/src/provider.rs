//! Which cryptography is spoken. What is not listed here is refused.

use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{SignatureScheme, SupportedCipherSuite};

/// TLS 1.3, hybrid key exchange first, one classical group behind it for peers that know no other.
pub(crate) fn mesh() -> Arc<CryptoProvider> {
    static MESH: LazyLock<Arc<CryptoProvider>> = LazyLock::new(make_mesh);
    MESH.clone()
}

/// TLS 1.2 and 1.3 for peers outside.
pub(crate) fn outside() -> Arc<CryptoProvider> {
    static OUTSIDE: LazyLock<Arc<CryptoProvider>> = LazyLock::new(make_outside);
    OUTSIDE.clone()
}

fn make_mesh() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = tls13_suites();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519];
    provider.signature_verification_algorithms =
        restrict(provider.signature_verification_algorithms, MESH_SCHEMES);
    Arc::new(provider)
}

fn make_outside() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = tls13_suites();
    provider.cipher_suites.extend([
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]);
    provider.kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    provider.signature_verification_algorithms =
        restrict(provider.signature_verification_algorithms, OUTSIDE_SCHEMES);
    Arc::new(provider)
}

/// Handshake signatures accepted inside. RSA only as PSS, for SVIDs of foreign trust domains.
const MESH_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// Handshake signatures accepted from servers outside; PKCS #1 is what TLS 1.2 servers with RSA keys sign with.
const OUTSIDE_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Keeps the listed schemes, in the library's static table, in the library's order.
fn restrict(algorithms: WebPkiSupportedAlgorithms, keep: &[SignatureScheme]) -> WebPkiSupportedAlgorithms {
    let mapping: Vec<_> =
        algorithms.mapping.iter().filter(|(scheme, _)| keep.contains(scheme)).copied().collect();
    // The table is wanted for the life of the process; two are made, once each.
    WebPkiSupportedAlgorithms { all: ringfence_spiffe::signature_algorithms(), mapping: Vec::leak(mapping) }
}

/// AES-128 first where the processor has AES instructions, ChaCha20 first where it has not.
fn tls13_suites() -> Vec<SupportedCipherSuite> {
    let aes = [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384];
    let chacha = [cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    if has_aes_instructions() { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() }
}

#[cfg(target_arch = "x86_64")]
fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes_instructions() -> bool {
    false
}
