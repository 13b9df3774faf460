//! A node to be measured: `profile FENCE [THREADS]` serves it with a played control until standard input ends.
//!
//! For instruction counts (`valgrind --tool=callgrind`) and for comparing against other proxies by hand; `bench/` does it
//! with the whole program.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "shares the tests' rig, of which it uses a part"
)]

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../tests/stories/keeper.rs"]
mod keeper;
#[path = "../tests/stories/net.rs"]
mod net;
#[path = "../tests/stories/patience.rs"]
mod patience;
#[path = "../tests/stories/rig.rs"]
mod rig;

fn main() {
    let fence =
        std::fs::read_to_string(std::env::args().nth(1).expect("usage: profile FENCE [THREADS]")).unwrap();
    if let Some(threads) = std::env::args().nth(2) {
        rig::THREADS.store(threads.parse().unwrap(), std::sync::atomic::Ordering::Relaxed);
    }
    let rig = rig::Rig::start(&fence);
    println!("{}", rig.gateway);
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
