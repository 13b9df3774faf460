//! Between hosts and control: gRPC over mutual TLS 1.3.
//!
//! A session carries the very messages that control and a proxy of its own host speak (`ringfence_snapshot::node`), so a proxy does
//! not know how far away control is. Snapshots are signed by the keeper and verified by the proxy: what is in between can
//! withhold them and change nothing. Delta ADS was not taken for these: its resources are what one proxy needs of a
//! whole, while a Ringfence proxy verifies one signed whole; acknowledgement, refusal with a reason and sending only the files
//! that are missing are in the messages.
//!
//! A host without an SVID that holds gets one by its join token, or, once it belongs, by the key that it joined with: so a host that
//! was away for longer than its SVID lives comes back by itself, and one that was removed does not.
#![forbid(unsafe_code)]

mod client;
mod message;
mod server;
#[cfg(test)]
mod tests;

pub use client::{CallError, Callee, Introduced, Known, Proven, Session, Way};
pub use message::{ComeBackAsk, JoinAsk, MAX_FRAME, Trust, Welcome, come_back_subject};
pub use server::{Frames, Outgoing, Refused, Request, Sealed, Visitor, serve};

/// What the build makes of the service's description.
#[allow(
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/ringfence.v1.Hosts.rs"));
}
