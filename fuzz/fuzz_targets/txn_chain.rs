//! The services that one sidecar tells another that a request has passed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_proxy::delegate::chain::{Chain, MAX_CHAIN};

fuzz_target!(|value: &[u8]| {
    let Some(chain) = Chain::parse(value) else { return };
    assert_eq!(chain.as_str().as_bytes(), value);
    let passed = chain.names().count();
    assert!((1..=MAX_CHAIN).contains(&passed));
    match chain.with("portal") {
        Some(longer) => assert_eq!(longer.names().last(), Some("portal")),
        None => assert_eq!(passed, MAX_CHAIN),
    }
});
