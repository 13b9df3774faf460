//! Waiting for what happens in its own time, on a machine that may be busy.

use std::time::{Duration, Instant};

/// Asks until there is an answer, half a minute at most: longer than a busy machine takes for anything here.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(Duration::from_secs(30), what, ask)
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

/// The time in which somebody on this machine waited for a processor or the disk. What is promised within a time is
/// promised on a machine that has time for it: bounds leave this out, and are strict where nothing else runs.
#[derive(Clone, Copy)]
pub struct Stopwatch {
    begun: Instant,
    stalled: u64,
}

impl Stopwatch {
    pub fn start() -> Self {
        let total = |what: &str| -> Option<u64> {
            let text = std::fs::read_to_string(format!("/proc/pressure/{what}")).ok()?;
            text.lines().next()?.rsplit_once("total=")?.1.parse().ok()
        };
        Self { begun: Instant::now(), stalled: ["cpu", "io"].into_iter().filter_map(total).sum() }
    }

    /// How long ago that was, without the time in which somebody waited.
    pub fn elapsed(self) -> Duration {
        let now = Self::start();
        let stalled = Duration::from_micros(now.stalled - self.stalled);
        now.begun.duration_since(self.begun).saturating_sub(stalled)
    }
}
