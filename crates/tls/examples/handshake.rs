//! Mesh handshakes in memory, for counting instructions: `handshake COUNT known|new`.
//!
//! `known` shows the same two SVIDs each time, `new` a caller that was never seen. The difference of two counts under
//! `valgrind --tool=callgrind` is the cost of a handshake, both sides together.
#![allow(clippy::allow_attributes, clippy::unwrap_used, reason = "a tool for measurements")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use ringfence_tls::Alpn;
use support::{Authority, shake};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let count: usize = arguments.get(1).map_or(100, |count| count.parse().unwrap());
    let new = arguments.get(2).is_some_and(|kind| kind == "new");
    let authority = Authority::new("clinic.example");
    let node = authority.mesh(&["patients"]);
    let caller = authority.mesh(&["billing"]);
    let callers: Vec<_> = (0..if new { count } else { 0 }).map(|_| authority.identity("billing")).collect();
    let listener = node.server_config(&[Alpn::H2]);
    let start = Instant::now();
    for i in 0..count {
        if let Some(identity) = callers.get(i) {
            caller.put_identity(identity.clone());
        }
        let config =
            caller.client_config(&authority.id("billing"), &authority.id("patients"), &[Alpn::H2]).unwrap();
        let (client, server) = shake(config, listener.clone(), "patients.clinic.example");
        caller.callee_of(&client.unwrap()).unwrap();
        node.caller_of(&server.unwrap()).unwrap();
    }
    let each = start.elapsed().as_secs_f64() * 1e6 / count.max(1) as f64;
    println!("{count} handshakes, {each:.1} us each, both sides");
}
