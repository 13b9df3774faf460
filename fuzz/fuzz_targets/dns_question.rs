#![no_main]
//! The name in a DNS question that a fenced service sent.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    if let Some(name) = ringfence_sandbox::sink::dns_question(message) {
        assert!(name.len() <= 253);
        assert!(name.bytes().all(|b| b.is_ascii_graphic()));
    }
});
