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

/// The longest that a round of a [`Stopwatch`] counts for: a little more than it takes where nothing else runs.
const ROUND: Duration = Duration::from_micros(1_250);

/// Time as this machine has it: again and again a byte goes to another thread and back, then a millisecond passes, and each such round
/// counts for as long as it took, but never for more than [`ROUND`]. What is promised within a time is promised on a machine that has time
/// for it: on a quiet one this is a clock, and where processors are shared, or calls take long, it goes as much slower. It never
/// goes faster than a clock. Rounds are counted as long as this lives.
pub struct Stopwatch(Arc<AtomicU64>);

impl Stopwatch {
    pub fn start() -> Self {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let micros = Arc::<AtomicU64>::default();
        let counted = Arc::downgrade(&micros);
        std::thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).is_ok() {}
        });
        std::thread::spawn(move || {
            let (mut byte, mut begun) = ([0], Instant::now());
            while near.write_all(&byte).and_then(|()| near.read_exact(&mut byte)).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
                let Some(micros) = counted.upgrade() else { return };
                let took = std::mem::replace(&mut begun, Instant::now()).elapsed().min(ROUND);
                micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
            }
        });
        Self(micros)
    }

    /// How long ago that was.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}
