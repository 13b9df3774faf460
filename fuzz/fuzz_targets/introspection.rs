//! Answers on opaque tokens: active only for us, only now, and not for longer than answers are kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_oidc::{INTROSPECTION_KEEP, read_introspection};

const NOW: u64 = 1_800_000_000;

fuzz_target!(|data: &[u8]| {
    let audiences = ["clinic".to_owned()];
    if let Ok(answer) = read_introspection(data, "https://id.clinic.example", &audiences, NOW) {
        assert!(answer.until > NOW && answer.until <= NOW + INTROSPECTION_KEEP);
        assert_eq!(answer.active, !answer.claims.is_empty());
        if answer.active {
            assert!(answer.claims["aud"].to_string().contains("\"clinic\""));
            assert!(read_introspection(data, "https://id.clinic.example", &["billing2".to_owned()], NOW).is_err()
                || answer.claims["aud"].to_string().contains("billing2"));
        }
    }
});
