//! Who runs where, told to each service only as far as it may call.
//!
//! There is no catalogue that everybody filters: each caller has a [`View`] of its own, computed when something changes, and whatever
//! answers (DNS, the Consul API) is given that view and nothing else. So a name that may not be called and a name that does not exist
//! are the same case in the code, not two cases that are made to look alike. The index of blocking queries counts changes of that
//! one view, for the same reason.
//!
//! No sockets, no tasks, no clock: the proxy brings them.

pub mod consul;
pub mod dns;

mod check;
mod registration;
mod registry;
mod view;

pub use check::{Check, CheckKind, Status};
pub use registration::{Claim, MAX_BODY, Registration, RegistrationError};
pub use registry::{Registry, Seat, Waiting};
pub use view::{Entry, Instance, View};

/// The one datacenter that clients of the Consul API are told of.
pub const DATACENTER: &str = "dc1";
