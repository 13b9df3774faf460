//! How requests along a way are handled: how long each may take, what of them is tried again, how much a callee is asked at once, and what
//! goes wrong on purpose.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Breaker, Fault, Split};
use crate::position::Position;

/// How requests along a route or an edge are handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// How long one may take from its head to the end of its answer, all its tries together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// What is tried again, and how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// What the callee is spared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What goes wrong on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What of it goes to other services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// How long a request may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout {
    /// From its head to the end of its answer.
    pub time: Duration,
    /// Where it is declared.
    pub position: Position,
}

/// What is tried again. Only what is safe: methods that may be repeated without harm (RFC 9110, section 9.2.2), and what the fence
/// declares to be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// How often one request is tried again at most.
    pub most: u32,
    /// How many tries are added at most, in percent of the requests.
    pub budget: u32,
    /// Whether every request along the way may be repeated without harm, whatever its method.
    pub idempotent: bool,
    /// gRPC statuses (numbers) of calls that did nothing, so that they may be made again.
    pub grpc: Vec<u8>,
    /// Where it is declared.
    pub position: Position,
}

/// gRPC statuses that may be declared to be safe: of the others none would end otherwise the second time.
pub(crate) const GRPC_STATUSES: [(&str, u8); 4] =
    [("DEADLINE_EXCEEDED", 4), ("RESOURCE_EXHAUSTED", 8), ("ABORTED", 10), ("UNAVAILABLE", 14)];

impl Handling {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// In a few words behind what is allowed, such as `, within 2s`; empty where nothing is said.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        if let Some(timeout) = &self.timeout {
            let _ = write!(text, ", within {:?}", timeout.time);
        }
        if let Some(retries) = &self.retries {
            let times = if retries.most == 1 { "once" } else { "times" };
            let _ = match retries.most {
                1 => write!(text, ", tried again {times}"),
                most => write!(text, ", tried again up to {most} {times}"),
            };
            let _ = write!(text, " (budget {}%)", retries.budget);
        }
        if let Some(breaker) = &self.breaker {
            breaker.summarize(&mut text);
        }
        if let Some(split) = &self.split {
            split.summarize(&mut text);
        }
        if let Some(fault) = self.fault.as_ref().filter(|fault| !fault.mode.is_off()) {
            let only = if fault.mode.enforces() { "" } else { ", told and not done" };
            let _ = write!(text, ", FAULT: {}{only}", fault.summary());
        }
        text
    }
}
