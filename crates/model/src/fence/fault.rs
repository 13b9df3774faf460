//! `fault` of a way: what goes wrong along it on purpose.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Mode;
use crate::position::Position;

/// What goes wrong along a way on purpose, to see how those who use it take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// How long a request is held up before it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// What it is answered with in place of being sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<u16>,
    /// How many of a hundred requests it happens to.
    pub percent: u32,
    /// Whether it happens, or is only told.
    pub mode: Mode,
    /// Where it is declared.
    pub position: Position,
}

impl Fault {
    /// In a few words: what happens, and to how many.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!("{}% of requests are", self.percent);
        if let Some(delay) = self.delay {
            let _ = write!(text, " held up for {delay:?}");
        }
        if let Some(abort) = self.abort {
            let and = if self.delay.is_some() { ", and" } else { "" };
            let _ = write!(text, "{and} answered with {abort}");
        }
        text
    }
}
