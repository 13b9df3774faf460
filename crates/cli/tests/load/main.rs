//! What must hold under constant load: nothing fails while certificates, authorities and snapshots change under way; and
//! whichever process dies, the fence never opens.
//!
//! `cargo xtask soak rotation` and `cargo xtask soak kill` run these for minutes; RINGFENCE_SOAK_SECONDS says how long.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod running;

mod kill;
mod rotation;
mod traffic;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use running::{Clinic, Who, services, spine};

/// How long this run takes, unless it is the short form among the tests.
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever starts it")]
fn length(short: Duration) -> Duration {
    let seconds =
        std::env::var("RINGFENCE_SOAK_SECONDS").ok().map(|text| text.parse().expect("a number of seconds"));
    seconds.map_or(short, Duration::from_secs)
}

/// The clinic with SVIDs of ten seconds.
fn clinic(who: Who) -> Clinic {
    let before = ["sh", "-c", "exec \"$@\" --svid-life 10s", "up"].map(str::to_owned).to_vec();
    Clinic::start_fence(who, &spine(), before, services)
}

fn gateway(clinic: &Clinic) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], clinic.port))
}

fn ca(clinic: &Clinic) -> PathBuf {
    clinic.folder.join(".ringfence/ca.pem")
}
