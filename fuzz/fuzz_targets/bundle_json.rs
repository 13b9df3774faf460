//! Reading a bundle document never panics, and what was read is written and read again unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_spiffe::{TrustBundle, TrustDomain};

fuzz_target!(|document: &[u8]| {
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let Ok(bundle) = TrustBundle::from_json(trust_domain.clone(), document) else { return };
    let again = TrustBundle::from_json(trust_domain, bundle.to_json().as_bytes()).unwrap();
    assert_eq!(again.x509_authorities(), bundle.x509_authorities());
    assert_eq!(again.jwt_authorities(), bundle.jwt_authorities());
    assert_eq!(again.sequence(), bundle.sequence());
    assert_eq!(again.refresh_hint(), bundle.refresh_hint());
});
