//! Waiting for what happens in its own time, on a machine that may be busy.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for what has to come at all: no promise, but an end.
pub const HELP: Duration = Duration::from_secs(60);

/// Asks until there is an answer, a minute at most: longer than a busy machine takes for anything here.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(HELP, what, ask)
}

/// The same with another bound.
pub fn within<T>(time: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + time;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Time as this machine has it: a byte goes to another thread and back, then a millisecond passes, and each such round counts for one.
/// What is promised within a time is promised on a machine that has time for it: where processors are shared, or calls take long, rounds
/// take as much longer. Rounds are counted as long as this lives.
pub struct Stopwatch(Arc<AtomicU64>);

impl Stopwatch {
    pub fn start() -> Self {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let rounds = Arc::<AtomicU64>::default();
        let counted = Arc::downgrade(&rounds);
        std::thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).is_ok() {}
        });
        std::thread::spawn(move || {
            let mut byte = [0];
            while near.write_all(&byte).and_then(|()| near.read_exact(&mut byte)).is_ok() {
                let Some(rounds) = counted.upgrade() else { return };
                rounds.fetch_add(1, Ordering::Relaxed);
                drop(rounds);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self(rounds)
    }

    /// How many milliseconds' rounds that was ago.
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
