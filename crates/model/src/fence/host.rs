//! A machine of the fence, where there are several.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::position::Position;

/// Most hosts of a fence.
pub const MAX_HOSTS: usize = 1024;

/// A machine on which parts of the fence run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, a DNS label.
    pub name: String,
    /// Where other hosts reach its mesh listener, which is also where it listens.
    pub mesh: SocketAddr,
    /// Where other hosts reach control; only on the host that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<SocketAddr>,
    /// Where its name stands.
    pub position: Position,
}
