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

/// Nanoseconds that this thread ran so far, whatever else the machine does.
fn on_cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// Nanoseconds of the clock and of this thread per decision.
fn run(asker: &Asker, keys: u64, asks: u64, seed: u64) -> (f64, f64) {
    let mut state = seed;
    let (begun, ran) = (Instant::now(), on_cpu());
    let mut passed = 0_u64;
    for _ in 0..asks {
        passed += u64::from(asker.ask(next(&mut state) % keys));
    }
    assert!(std::hint::black_box(passed) <= asks);
    let each = |nanos: u64| nanos as f64 / asks as f64;
    (each(begun.elapsed().as_nanos() as u64), each(on_cpu() - ran))
}

fn main() {
    let bytes = 64 << 20;
    let before = resident();
    let asker = Asker::new(bytes);
    println!("an empty table of {bytes} bytes: {} bytes resident", resident().saturating_sub(before));
    let (mut begun, mut ran) = (Instant::now(), on_cpu());
    for n in 0..10 * MILLION {
        asker.ask(n);
        if n == 5 * MILLION {
            (begun, ran) = (Instant::now(), on_cpu());
        }
    }
    let each = |nanos: u64| nanos as f64 / (5 * MILLION) as f64;
    println!(
        "10 million keys that come once, table of {bytes} bytes: {} bytes resident; when it is full {:.0} ns per decision, {:.0} on the CPU",
        resident().saturating_sub(before),
        each(begun.elapsed().as_nanos() as u64),
        each(on_cpu() - ran)
    );
    drop(asker);
    for keys in [1, 10_000, MILLION] {
        let asker = Asker::new(bytes);
        for n in 0..keys {
            asker.ask(n);
        }
        let rounds = (1..=5).map(|round| run(&asker, keys, 2 * MILLION, round * 0x9e37_79b9));
        let (wall, cpu) = rounds.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        println!("{keys:>8} keys, one thread: {wall:.0} ns per decision, {cpu:.0} on the CPU");
        let (wall, cpu) = std::thread::scope(|scope| {
            let asker = &asker;
            let threads: Vec<_> =
                (1..=2).map(|n| scope.spawn(move || run(asker, keys, 2 * MILLION, n * 77))).collect();
            let each = threads.into_iter().map(|thread| thread.join().unwrap());
            each.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
        });
        println!("{keys:>8} keys, two threads: {wall:.0} ns per decision of each, {cpu:.0} on the CPU");
    }
}
