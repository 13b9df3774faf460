//! Parsing a SPIFFE ID never panics, changes no byte, and what it accepts keeps the standard's bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringfence_spiffe::{Kind, SpiffeId};

fuzz_target!(|text: &str| {
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(id.as_str(), text);
    assert!(text.len() <= 2048 && text.is_ascii());
    let domain = id.trust_domain().as_str();
    assert!((1..=255).contains(&domain.len()));
    assert_eq!(format!("spiffe://{domain}{}", id.path()), text);
    assert!(!id.path().split('/').any(|segment| matches!(segment, "." | "..")));
    let again = match id.kind() {
        Some(Kind::Control(name)) => SpiffeId::control(id.trust_domain(), name),
        Some(Kind::Gateway(name)) => SpiffeId::gateway(id.trust_domain(), name),
        Some(Kind::Node(name)) => SpiffeId::node(id.trust_domain(), name),
        Some(Kind::Service(name)) => SpiffeId::service(id.trust_domain(), name),
        None => return,
    };
    assert_eq!(again.as_ref(), Ok(&id));
});
