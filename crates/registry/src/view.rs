//! What one service is told: itself and whom it may call.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::check::{Check, Status};

/// Everything that is answered to one caller is answered from this.
#[derive(Clone, Debug)]
pub struct View {
    /// Grows by one with each change of this view, and with nothing else.
    pub index: u64,
    /// Whose view it is.
    pub caller: Arc<str>,
    /// The node that answers.
    pub node: Arc<str>,
    /// SPIFFE trust domain, in lower case.
    pub trust_domain: Arc<str>,
    /// By name, the caller itself among them.
    pub entries: BTreeMap<Arc<str>, Entry>,
    /// Hosts outside that the caller declares, and their addresses in its network.
    pub egress: BTreeMap<Arc<str>, Ipv4Addr>,
}

/// A service that the caller may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// Where it runs.
    pub instances: Vec<Instance>,
}

/// One running copy of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The node on which it runs.
    pub host: Arc<str>,
    /// Where it is reached from the caller's network.
    pub address: Ipv4Addr,
    /// The port at that address.
    pub port: u16,
    /// What it calls itself.
    pub id: String,
    /// What it says of itself.
    pub tags: Vec<String>,
    /// What it says of itself.
    pub meta: BTreeMap<String, String>,
    /// How it does.
    pub checks: Vec<Check>,
}

impl Instance {
    /// The worst of its checks.
    pub fn status(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Passing)
    }
}

impl View {
    /// The service of that name, which is in lower case.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Whether both say the same, whatever their index.
    pub(crate) fn says(&self, other: &Self) -> bool {
        self.node == other.node
            && self.trust_domain == other.trust_domain
            && self.entries == other.entries
            && self.egress == other.egress
    }
}
