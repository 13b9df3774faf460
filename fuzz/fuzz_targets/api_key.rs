//! API keys: each has one spelling, and none is known that was not put in.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_token::{ApiKey, KeyRecord, KeyTable};

static TABLE: LazyLock<KeyTable> = LazyLock::new(|| {
    let key = ApiKey::generate();
    let mut table = KeyTable::new();
    let record = KeyRecord {
        prefix: key.prefix(),
        secret: key.digest(),
        previous: None,
        client: "lab".to_owned(),
        scopes: Vec::new(),
        not_before: None,
        expires_at: None,
        disabled: false,
        last_used: None,
    };
    table.insert(&record).unwrap();
    table
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(key) = ApiKey::parse(text) {
        assert_eq!(key.to_text().expose(), text);
        assert!(TABLE.authenticate(&key, 1_800_000_000).is_err());
    }
    if let Ok(record) = serde_json::from_str::<KeyRecord>(text) {
        let mut table = KeyTable::new();
        if table.insert(&record).is_ok() {
            let times = |at: Option<u64>| at.map(|at| at.min(u32::MAX.into()));
            let again = table.remove(record.prefix).unwrap();
            assert_eq!((again.client, again.scopes), (record.client, record.scopes));
            assert_eq!(again.disabled, record.disabled);
            assert!(times(record.not_before).unwrap_or(0) == again.not_before.unwrap_or(0));
        }
    }
});
