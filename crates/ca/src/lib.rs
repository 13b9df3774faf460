//! The certificate authority as control sees it: what is issued, when it is renewed, whom to believe, and the Workload API.
//!
//! No key is here. The keeper signs; this crate asks it in batches, stores what was issued before anybody gets it, and
//! tells everybody who holds an SVID when there is a newer bundle or authority.
#![forbid(unsafe_code)]

mod issuer;
mod renewal;
pub mod workload;

pub use issuer::{Ca, CaError, IssuedSvid, Options};
pub use renewal::renew_at;
