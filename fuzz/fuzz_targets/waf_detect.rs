//! SQL and scripts by their structure.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_waf::detect::{sqli, xss};

fuzz_target!(|data: &[u8]| {
    if let Some(fingerprint) = sqli(data) {
        assert!((1..=5).contains(&fingerprint.as_bytes().len()) && data.len() >= 2);
    }
    assert!(!xss(data) || data.iter().any(|byte| matches!(byte, b'<' | b'=')));
});
