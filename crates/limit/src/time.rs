//! Time as limits count it.

use std::time::Duration;

/// Ticks of a nanosecond: fine enough that a million per second has an interval of five digits, and that they last for nine years.
const PER_NANO: u64 = 64;

/// A moment, or a span: ticks of 1/64 ns since something that all who ask share, such as the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub(crate) u64);

impl Time {
    /// So long after the beginning.
    #[must_use]
    pub fn after(begin: Duration) -> Self {
        Self(ticks(begin))
    }

    /// The span as a duration.
    #[must_use]
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0 / PER_NANO)
    }

    /// Whole seconds, rounded up.
    #[must_use]
    pub const fn as_secs_up(self) -> u64 {
        self.0.div_ceil(PER_NANO * 1_000_000_000)
    }
}

/// A duration in ticks; one that is too long is the longest.
pub(crate) fn ticks(span: Duration) -> u64 {
    u64::try_from(span.as_nanos().saturating_mul(u128::from(PER_NANO))).unwrap_or(u64::MAX)
}
