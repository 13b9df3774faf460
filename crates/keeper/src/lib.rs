//! The keeper: the process that holds every signing key and little else.
//!
//! It answers, over channels it was handed and nowhere else, requests to sign; it signs only what the current snapshot
//! allows, and nothing leaves before it is in its log. Two things follow: whoever takes over control or a proxy gets no
//! key, and whatever they made the keeper sign meanwhile is on record. A library inside control was rejected: control
//! parses what proxies, workloads and people send, and one memory bug there would be every identity.
#![forbid(unsafe_code)]

mod authority;
mod believed;
mod certificate;
mod client;
mod clock;
mod credential;
mod folder;
mod issue;
mod log;
mod mint;
mod oracle;
mod policy;
mod process;
pub mod protocol;
mod rotation;
mod session;
mod supervised;

pub use client::{Client, ClientError};
pub use log::{LogError, Tail, verify_log};
pub use oracle::{OpenError, Oracle};
pub use policy::{control_id, gateway_id};
pub use process::{ProcessError, main_loop};
pub use supervised::{Supervised, SupervisedError};
