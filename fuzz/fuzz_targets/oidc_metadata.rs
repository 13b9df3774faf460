//! What a provider says of itself: only the declared issuer is believed, and only addresses with TLS.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_oidc::Metadata;

fuzz_target!(|data: &[u8]| {
    if let Ok(metadata) = Metadata::parse(data, "https://id.clinic.example", false) {
        assert!(metadata.is_https());
        let text = std::str::from_utf8(data).unwrap();
        assert!(text.contains("issuer") || text.contains("\\u"));
        assert!(Metadata::parse(data, "https://other.clinic.example", false).is_err());
    }
    let _ = Metadata::parse(data, "http://127.0.0.1:1", true);
});
