//! Limits per service: a workload that asks without end harms nobody but itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of one service's use of the Workload API.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Open streams at once.
    pub streams: usize,
    /// Calls per second.
    pub rate: u32,
    /// Calls at once after a pause.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, streams: 128, rate: 50, burst: 200 }
    }
}

#[derive(Debug)]
pub(crate) struct Limiter {
    limits: Limits,
    streams: Arc<Semaphore>,
    bucket: Mutex<(f64, Instant)>,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            streams: Arc::new(Semaphore::new(limits.streams)),
            bucket: Mutex::new((f64::from(limits.burst), Instant::now())),
        }
    }

    /// Takes one call from the bucket at `now`.
    pub(crate) fn call(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, last) = *bucket;
        let refilled =
            tokens + now.saturating_duration_since(last).as_secs_f64() * f64::from(self.limits.rate);
        let tokens = refilled.min(f64::from(self.limits.burst));
        let allowed = tokens >= 1.0;
        *bucket = (if allowed { tokens - 1.0 } else { tokens }, now);
        allowed
    }

    /// Takes a stream, for as long as the permit is held.
    pub(crate) fn stream(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let limiter = Limiter::new(Limits { rate: 10, burst: 5, streams: 1, connections: 1 });
        let start = Instant::now();
        assert_eq!((0..20).filter(|_| limiter.call(start)).count(), 5);
        assert_eq!((0..20).filter(|_| limiter.call(start + Duration::from_millis(250))).count(), 2);
        let permit = limiter.stream();
        assert!(permit.is_some() && limiter.stream().is_none());
        drop(permit);
        assert!(limiter.stream().is_some());
    }
}
