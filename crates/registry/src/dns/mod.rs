//! DNS over one view: a strict reader of questions and a writer of answers (RFC 1035, 2782, 6891, 7766).
//!
//! A library was left out: what is needed is one question in and a few records out, and what is not there (compression pointers on the
//! way in, recursion, zone files, DNSSEC) cannot be attacked. Nothing is ever forwarded, so no name leaves this machine.

mod answer;
mod message;

pub use answer::{Answer, Outcome, answer};
pub use message::{Question, Transport};
