//! Any bytes as a fence: never a panic, and what is accepted can be drawn, explained and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_model::{Fence, import};

fuzz_target!(|bytes: &[u8]| {
    // A zero byte divides fragments: it may stand in no file.
    let files: Vec<(String, &[u8])> =
        bytes.split(|b| *b == 0).take(4).enumerate().map(|(at, part)| (format!("{at}.yaml"), part)).collect();
    match Fence::parse(files) {
        Ok(fence) => {
            let _ = (fence.graph_tree(true), fence.graph_json(), fence.graph_mermaid(), fence.graph_dot());
            assert_eq!(fence.start_order().len(), fence.services.len());
            for edge in fence.edges().take(64) {
                assert!(fence.why(&edge.caller.name, &edge.callee.name).expect("both are declared").allowed);
            }
        }
        Err(found) => {
            assert!(!found.is_valid() && found.errors.len() <= 100);
            let shown = found.render(false);
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        // What is written from foreign files passes its own check.
        if let Err(error) = import::from_texts(&[("compose.yaml".to_owned(), text.to_owned())], "fuzz") {
            assert!(!matches!(error, import::ImportError::Invalid(_)), "{error}");
        }
    }
});
