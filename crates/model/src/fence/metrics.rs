//! Where counters are served.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::position::Position;

/// The endpoint that a Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Where it listens: a loopback address, since nobody is asked who he is there.
    pub listen: SocketAddr,
    /// Where `metrics:` stands.
    pub position: Position,
}
