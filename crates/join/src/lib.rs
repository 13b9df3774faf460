//! Which hosts belong: one-time tokens to join with, and what a removed host gets no more.
//!
//! A join token names its host, says whom to believe and where to go, and is good once. What counts is decided by the store and not by
//! anybody's view of it: every step expects the revision of the document that it read, so of two hosts that come with one token one
//! joins, and of an issuance and a removal at once the later one loses. A list of members in memory was rejected: it is old by as much
//! as an attacker can delay it.
#![forbid(unsafe_code)]

mod hosts;
mod token;

pub use hosts::{HostState, Hosts, JoinError, MAX_HOSTS, MAX_TTL, Request, Seat};
pub use token::{BadToken, JoinToken, MAX_CONTROLS, MAX_TOKEN, fingerprint};
