//! What comes in from outside, end to end: real processes, and the tools that attackers use.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;
mod sqlmap;
