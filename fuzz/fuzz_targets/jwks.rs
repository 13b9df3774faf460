//! Key sets: what is read is written and read again unchanged, and no key of it is private or weak.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_token::{Fetched, KeySet, KeySource, SourceConfig};

fuzz_target!(|document: &[u8]| {
    let mut source = KeySource::new(SourceConfig::default());
    let ticket = source.poll(0).unwrap();
    let outcome = source.fetched(ticket, Some(document), 0);
    let Ok(set) = KeySet::from_json(document) else {
        assert!(matches!(outcome, Fetched::Refused(_)) && source.keys(0).is_none());
        return;
    };
    assert_eq!(matches!(outcome, Fetched::Changed), !set.is_empty());
    assert!(set.len() + set.left_out().len() <= 256);
    let written = set.to_json("sig");
    assert!(!written.contains("\"d\"") && !written.contains("\"k\""));
    assert_eq!(KeySet::from_json(written.as_bytes()).unwrap(), set);
});
