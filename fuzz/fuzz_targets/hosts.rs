//! What a stranger can say to control: a join token has one spelling and shows its secret to nobody, and messages never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_join::JoinToken;
use ringfence_snapshot::node::FromProxy;
use ringfence_wire::{ComeBackAsk, JoinAsk};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = JoinToken::parse(text)
    {
        assert_eq!(token.to_text().expose(), text);
        assert!(!format!("{token:?}").contains(text));
    }
    let _ = serde_json::from_slice::<JoinAsk>(bytes);
    let _ = serde_json::from_slice::<ComeBackAsk>(bytes);
    let _ = serde_json::from_slice::<FromProxy>(bytes);
});
