//! How long callers wait: what is read of it is what is told on, and never more.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_proxy::handling::timeout::{grpc_timeout, millis, write_grpc};

fuzz_target!(|value: &[u8]| {
    if let Some(ms) = millis(value) {
        assert_eq!(ms, std::str::from_utf8(value).unwrap().parse::<u64>().unwrap());
        assert!(ms <= 999_999_999);
    }
    let Some(ms) = grpc_timeout(value) else { return };
    assert!((2..=9).contains(&value.len()) && value[..value.len() - 1].iter().all(u8::is_ascii_digit));
    let told = grpc_timeout(write_grpc(ms).as_bytes()).expect("what is told is a timeout");
    assert!(told <= ms && (ms - told < 1_000 || told == 99_999_999_000));
});
