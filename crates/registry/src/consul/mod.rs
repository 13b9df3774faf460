//! The part of Consul's HTTP API that discovery clients use, over one view.
//!
//! Reads are pure functions of the view. What changes something is read and judged here, and carried out by whoever can prove it: the
//! proxy, which knows whose network a request came from.

mod change;
mod query;
mod read;
mod shape;

pub use change::{Change, change};
pub use query::{Blocking, MAX_WAIT_MS, Query};
pub use read::read;

use crate::registration::Claim;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// JSON, or plain text of an error.
    pub body: String,
    /// `X-Consul-Index`, for what can be followed.
    pub index: Option<u64>,
}

impl Reply {
    fn json(body: &serde_json::Value) -> Self {
        Self { status: 200, body: body.to_string(), index: None }
    }

    /// An error as Consul words them: plain text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), index: None }
    }
}

/// The methods of what lies at a path; none if nothing does.
pub fn methods(path: &str) -> Option<&'static str> {
    if change::is_change(path) {
        return Some("PUT");
    }
    read::is_read(path).then_some("GET, HEAD")
}

/// Whether the claim of `caller`, which listens at `listen`, is about itself: its own name, and an address that is its own from where it
/// is. Whether anything listens there is still to be seen.
pub fn is_own(caller: &str, listen: Option<u16>, claim: &Claim) -> bool {
    const OWN: [&str; 5] = ["", "127.0.0.1", "::1", "localhost", "198.18.0.2"];
    let address = OWN.contains(&&*claim.address) || claim.address == caller;
    claim.name == caller && address && listen.is_some_and(|listen| claim.port == 0 || claim.port == listen)
}
