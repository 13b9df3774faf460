//! `breaker` of a way: how much of it a callee takes at once, and when it is left alone.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::position::Position;

/// What a callee is spared along a way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// What is under way at once at most, and who waits; all at once when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// When nothing is sent for a while; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip: Option<Trip>,
    /// Where it is declared.
    pub position: Position,
}

/// How much is under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Requests under way.
    pub requests: u32,
    /// Requests that wait for one of them to end; the next one is refused.
    pub pending: u32,
    /// How long one waits.
    pub queue: Duration,
}

/// When nothing is sent, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// So many failures in a row open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// So many percent of failures in the last ten seconds open it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// For how long at first; twice as long each time it opens again.
    pub open: Duration,
    /// For how long at most.
    pub longest: Duration,
}

impl Breaker {
    /// In a few words behind what is allowed.
    pub(super) fn summarize(&self, text: &mut String) {
        if let Some(Bound { requests, pending, queue }) = self.bound {
            let _ = write!(text, ", {requests} at once");
            if pending > 0 {
                let _ = write!(text, " ({pending} wait up to {queue:?})");
            }
        }
        if let Some(trip) = &self.trip {
            let failures = trip.failures.map(|failures| match failures {
                1 => "a failure".to_owned(),
                failures => format!("{failures} failures in a row"),
            });
            let rate = trip.rate.map(|rate| format!("{rate}% failures"));
            let when: Vec<String> = failures.into_iter().chain(rate).collect();
            let _ = write!(text, ", nothing for {:?} after {}", trip.open, when.join(" or "));
        }
    }
}
