//! What a limit says of one key, given what is remembered of it: arithmetic on one word, and nothing else.
//!
//! A rate is judged by GCRA: the word is the time at which the key has used nothing any more. A quota is a window that begins with
//! a key's first request and not with a day of the calendar: the word is its end and what was used. Concurrency is a count.

use std::time::Duration;

use crate::time::ticks;

/// Highest rate, per second: above it the ticks of the clock would show.
pub const MAX_RATE: u64 = 10_000_000;
/// Largest quota.
pub const MAX_QUOTA: u64 = (1 << USED_BITS) - 1;

/// Bits of a quota's word that say how much was used; the others say when its window ends.
const USED_BITS: u32 = 28;
/// Ticks of the times in a quota's word: 1/64 s.
const QUOTA_TICK: u64 = 1_000_000_000;

/// A limit on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many per time, evenly, and some at once.
    Rate(Rate),
    /// So many in a window that begins with the first.
    Quota(Quota),
    /// So many at the same time.
    Concurrent(Concurrent),
}

/// So many per time: what is unused is saved up to a bound, the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks that one unit takes to come back.
    interval: u64,
    /// Ticks that all of the burst takes.
    capacity: u64,
}

/// So many in a window that begins with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    units: u64,
    /// In ticks of [`QUOTA_TICK`].
    window: u64,
}

/// So many at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrent(u32);

/// What a limit says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    /// The word if it passes; none if it does not.
    pub(crate) next: Option<u64>,
    /// Units that are left: after it if it passes.
    pub(crate) remaining: u64,
    /// Ticks until all of them are back.
    pub(crate) reset: u64,
    /// Ticks until it would pass.
    pub(crate) retry: u64,
}

impl Rate {
    /// `units` per `window`, of which `burst` may come at once. None for nothing at all, or for more than [`MAX_RATE`].
    #[must_use]
    pub fn new(units: u64, window: Duration, burst: u64) -> Option<Self> {
        let window = ticks(window);
        if units == 0 || burst == 0 || window == 0 || window == u64::MAX {
            return None;
        }
        let second = u128::from(ticks(Duration::from_secs(1)));
        if u128::from(units) * second > u128::from(MAX_RATE) * u128::from(window) {
            return None;
        }
        // Rounded up: never more than was said.
        let interval = window.div_ceil(units);
        let capacity = interval.checked_mul(burst).filter(|capacity| *capacity < 1 << 62)?;
        Some(Self { interval, capacity })
    }

    fn judge(self, word: Option<u64>, cost: u64, now: u64) -> Judged {
        let before = word.unwrap_or(0).max(now);
        let used = before - now;
        let needed = self.interval.saturating_mul(cost);
        let after = used.saturating_add(needed);
        let left = |used: u64| self.capacity.saturating_sub(used) / self.interval;
        if after <= self.capacity {
            Judged { next: Some(now + after), remaining: left(after), reset: after, retry: 0 }
        } else {
            // What costs more than the burst never passes; it is told to come back when all is there.
            let retry = if needed > self.capacity { used.max(1) } else { after - self.capacity };
            Judged { next: None, remaining: left(used), reset: used, retry }
        }
    }
}

impl Quota {
    /// `units` per `window`. None for nothing at all, for more than [`MAX_QUOTA`], or for a window of less than a second.
    #[must_use]
    pub fn new(units: u64, window: Duration) -> Option<Self> {
        let window = ticks(window);
        if units == 0 || units > MAX_QUOTA || window < ticks(Duration::from_secs(1)) || window >= 1 << 62 {
            return None;
        }
        Some(Self { units, window: window.div_ceil(QUOTA_TICK) })
    }

    fn judge(self, word: Option<u64>, cost: u64, now: u64) -> Judged {
        let moment = now / QUOTA_TICK;
        let (end, used) = match word.map(|word| (word >> USED_BITS, word & MAX_QUOTA)) {
            Some((end, used)) if moment < end => (end, used),
            // The current tick has begun already: it is not counted.
            _ => (moment + self.window + 1, 0),
        };
        let reset = (end * QUOTA_TICK).saturating_sub(now);
        match used.checked_add(cost).filter(|after| *after <= self.units) {
            Some(after) => {
                let next = Some(end << USED_BITS | after);
                Judged { next, remaining: self.units - after, reset, retry: 0 }
            }
            None => Judged { next: None, remaining: self.units.saturating_sub(used), reset, retry: reset },
        }
    }
}

impl Concurrent {
    /// So many at the same time. None for none at all.
    #[must_use]
    pub const fn new(most: u32) -> Option<Self> {
        if most == 0 { None } else { Some(Self(most)) }
    }

    /// How many.
    #[must_use]
    pub const fn most(self) -> u32 {
        self.0
    }

    fn judge(self, word: Option<u64>) -> Judged {
        let (now, most) = (word.unwrap_or(0), u64::from(self.0));
        if now < most {
            Judged { next: Some(now + 1), remaining: most - now - 1, reset: 0, retry: 0 }
        } else {
            // When one will end, nobody knows.
            Judged { next: None, remaining: 0, reset: 0, retry: 1 }
        }
    }
}

impl Limit {
    /// Whether something passes that costs so much, by what is remembered.
    pub(crate) fn judge(&self, word: Option<u64>, cost: u32, now: u64) -> Judged {
        match self {
            Self::Rate(rate) => rate.judge(word, u64::from(cost), now),
            Self::Quota(quota) => quota.judge(word, u64::from(cost), now),
            Self::Concurrent(most) => most.judge(word),
        }
    }

    /// What a cell says of itself: its kind, and how large its limit is, as a power of two.
    pub(crate) fn kind(&self) -> (Kind, u32) {
        let bits = |most: u64| u64::BITS - most.leading_zeros();
        match self {
            Self::Rate(rate) => (Kind::Rate, bits(rate.capacity)),
            Self::Quota(quota) => (Kind::Quota, bits(quota.units)),
            Self::Concurrent(_) => (Kind::Concurrent, 0),
        }
    }
}

/// The kind of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rate = 0,
    Quota = 1,
    Concurrent = 2,
}

/// How much of its limit a cell has used, in eighths: all of it is at least four, half of it at most four. None if to forget it
/// would change nothing.
pub(crate) fn used_eighths(kind: Kind, scale: u32, word: u64, now: u64) -> Option<u64> {
    let eighths = |used: u64| ((u128::from(used) << 3) >> scale) as u64;
    match kind {
        Kind::Rate => word.checked_sub(now).filter(|used| *used > 0).map(eighths),
        Kind::Quota => (now / QUOTA_TICK < word >> USED_BITS).then(|| eighths(word & MAX_QUOTA)),
        Kind::Concurrent => (word > 0).then_some(8),
    }
}
