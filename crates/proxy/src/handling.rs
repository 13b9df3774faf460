//! How a request that may pass is handled on its way: how long it may take, and what of it is tried again.
//!
//! Both are said per route and per edge, and kept where the caller's side is: at the gateway, and where a call leaves its service. A
//! deadline goes on with the request, shortened by what has passed, so that nobody works for a caller who has given up.

mod budget;
mod deadline;
mod retry;

pub(crate) use self::budget::Budgets;
pub(crate) use self::deadline::{Deadline, GRPC_TIMEOUT, TIMEOUT};
pub(crate) use self::retry::{Again, Retrying, pause};
