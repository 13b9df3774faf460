//! Tokens and key sets: whatever they say, nothing that no trusted key signed is believed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{KeySet, peek_key_id, verify, verify_svid};

static TRUSTED: LazyLock<KeySet> = LazyLock::new(|| {
    let key = SigningKey::generate(Algorithm::P256).unwrap();
    KeySet::from_keys([("k".to_owned(), key.verifying_key().clone())])
});
static DOMAIN: LazyLock<TrustDomain> = LazyLock::new(|| TrustDomain::new("clinic.example").unwrap());

fuzz_target!(|data: &[u8]| {
    if let Ok(set) = KeySet::from_json(data) {
        assert_eq!(KeySet::from_json(set.to_json("sig").as_bytes()).unwrap(), set);
    }
    if let Ok(token) = std::str::from_utf8(data) {
        let _ = peek_key_id(token);
        assert!(verify(token, &TRUSTED).is_err());
        assert!(verify_svid(token, &DOMAIN, &TRUSTED, "billing", 1_800_000_000).is_err());
    }
});
