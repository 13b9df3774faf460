//! How long a decision takes, and how much memory keys take: `cargo run --release -p ringfence-limit --example decide`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints figures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_limit::{Ask, Full, Key, Keys, Limit, Local, Rate, Seed, Standing, Store, Time};

const MILLION: u64 = 1_000_000;

struct Asker {
    store: Arc<Local>,
    keys: Keys,
    seed: Seed,
    limit: Limit,
    begun: Instant,
}

impl Asker {
    fn new(bytes: usize) -> Self {
        let keys = Keys::default();
        Self {
            store: Arc::new(Local::new(bytes)),
            seed: keys.seed("measured"),
            keys,
            limit: Limit::Rate(Rate::new(100, Duration::from_secs(60), 20).unwrap()),
            begun: Instant::now(),
        }
    }

    fn key(&self, n: u64) -> Key {
        // As long as the name of a user.
        self.keys.key(self.seed, (n, "provider", 7_u64))
    }

    /// All that a decision costs: the clock, the hash, the table.
    fn ask(&self, n: u64) -> bool {
        let now = Time::after(self.begun.elapsed());
        let ask = Ask { limit: self.limit, key: self.key(n), cost: 1, observed: false, full: Full::Closed };
        let mut standing = [Standing::default()];
        self.store.take(&[ask], now, &mut standing)
    }
}

/// Numbers without order.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn run(asker: &Asker, keys: u64, asks: u64, seed: u64) -> f64 {
    let mut state = seed;
    let begun = Instant::now();
    let mut passed = 0_u64;
    for _ in 0..asks {
        passed += u64::from(asker.ask(next(&mut state) % keys));
    }
    assert!(std::hint::black_box(passed) <= asks);
    begun.elapsed().as_nanos() as f64 / asks as f64
}

fn main() {
    for keys in [1, 10_000, MILLION] {
        let asker = Asker::new(64 << 20);
        for n in 0..keys {
            asker.ask(n);
        }
        let mut best = f64::MAX;
        for round in 1..=5 {
            best = best.min(run(&asker, keys, 2 * MILLION, round * 0x9e37_79b9));
        }
        println!("{keys:>8} keys, one thread: {best:.0} ns per decision");
        let slowest = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..=2)
                .map(|n| {
                    scope.spawn({
                        let asker = &asker;
                        move || run(asker, keys, 2 * MILLION, n * 77)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
        });
        println!("{keys:>8} keys, two threads: {slowest:.0} ns per decision of each");
    }
    let before = resident();
    let bytes = 64 << 20;
    let asker = Asker::new(bytes);
    let mut begun = Instant::now();
    for n in 0..10 * MILLION {
        asker.ask(n);
        if n == 5 * MILLION {
            begun = Instant::now();
        }
    }
    let each = begun.elapsed().as_nanos() as f64 / (5 * MILLION) as f64;
    let grown = resident().saturating_sub(before);
    println!(
        "10 million keys that come once, table of {bytes} bytes: {grown} bytes resident, {each:.0} ns per decision when full"
    );
}
