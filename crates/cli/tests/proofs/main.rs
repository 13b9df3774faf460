//! What is claimed about Ringfence's own processes, shown on the real ones: who holds which key, who obeys whom, who can look
//! into whom, and what a wrong master key changes.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod running;

#[path = "../../../keeper/tests/minting/provider.rs"]
mod provider;

mod confined;
mod keeper;
mod keys;
mod master;
mod memory;
mod minting;
mod node;
mod nonsense;
mod offline;
mod rig;

/// Whether this test can be run at all; says so if not, in a line that stands out.
fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED, needs root: {what}");
    }
    root
}
