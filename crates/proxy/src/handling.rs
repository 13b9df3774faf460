//! How a request that may pass is handled on its way: how long it may take, what of it is tried again, what its callee is spared,
//! what goes wrong on purpose, and what of it goes to another service.
//!
//! All is said per route and per edge, and kept where the caller's side is: at the gateway, and where a call leaves its service. A
//! deadline goes on with the request, shortened by what has passed, so that nobody works for a caller who has given up.

mod breaker;
mod budget;
mod circuit;
mod deadline;
mod fault;
mod retry;
mod split;
pub mod timeout;

use std::sync::Arc;

use ringfence_model::Handling;

pub(crate) use self::breaker::{Answered, Breaker, Breakers, Ended, by_head, by_outcome};
pub(crate) use self::budget::Budgets;
pub(crate) use self::deadline::{Deadline, GRPC_TIMEOUT, TIMEOUT};
pub(crate) use self::fault::{Share, inject};
pub(crate) use self::retry::{Again, Retrying, pause};
pub(crate) use self::split::choose;
pub(crate) use self::timeout::write_grpc;
use crate::table::EdgeId;

/// What is said of a way, and what is counted of it.
#[derive(Debug)]
pub(crate) struct Handled {
    pub(crate) said: Handling,
    pub(crate) breaker: Option<Arc<Breaker>>,
    pub(crate) faults: Share,
}

impl Handled {
    /// Of the way `name` along `edge`; none where nothing is said.
    pub(crate) fn of(said: &Handling, edge: EdgeId, name: &str, breakers: &Breakers) -> Option<Arc<Self>> {
        if said.is_default() {
            return None;
        }
        let breaker = said.breaker.as_ref().map(|said| breakers.of(edge, format!("{edge} {name}"), said));
        Some(Arc::new(Self { said: said.clone(), breaker, faults: Share::default() }))
    }
}
