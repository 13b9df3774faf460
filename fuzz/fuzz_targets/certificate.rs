//! The certificate view and SVID verification never panic; what is accepted has exactly one URI and is no CA.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringfence_spiffe::certificate::Certificate;
use ringfence_spiffe::path::RevocationList;
use ringfence_spiffe::{BundleSet, CertificateDer, Role, TrustBundle, TrustDomain, UnixTime, verify_svid};

/// Splits the input into certificates: each with a length of two octets in front.
fn split(mut input: &[u8]) -> Vec<CertificateDer<'_>> {
    let mut chain = Vec::new();
    while let [high, low, rest @ ..] = input {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        chain.push(CertificateDer::from(&rest[..length]));
        input = &rest[length..];
    }
    chain
}

fuzz_target!(|input: &[u8]| {
    let _ = RevocationList::from_der(input);
    if let Ok(cert) = Certificate::parse(input) {
        let _ = (cert.common_names(), cert.serial_hex(), cert.is_ca());
    }
    let chain = split(input);
    let trust_domain = TrustDomain::new("example.org").unwrap();
    // The last certificate plays the root, so that the whole way can be walked.
    let Some((root, presented)) = chain.split_last() else { return };
    let Ok(bundle) = TrustBundle::new(trust_domain, vec![root.clone().into_owned()], vec![], 1, None) else { return };
    let bundles = BundleSet::new(1, [Arc::new(bundle)]);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000));
    if let Ok(peer) = verify_svid(presented, &bundles, Role::Client, now) {
        let leaf = Certificate::parse(&presented[0]).unwrap();
        assert_eq!(leaf.extensions.subject_alt_name.unwrap().value.uris().collect::<Vec<_>>(), [peer.id().as_str()]);
        assert!(!leaf.is_ca() && !peer.id().path().is_empty());
        assert!(peer.not_after_unix() >= now.as_secs());
    }
});
