//! What a supervisor and a proxy say to a shim, and what it answers.
//!
//! Each [`Request`] is answered by exactly one [`Reply`], in order; a [`Reply::Update`] may come at any time once
//! [`Request::Watch`] was answered, and answers nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::spec::Isolation;

/// Most listening sockets of one port.
pub const MAX_LISTENERS: u16 = 32;
/// Most sockets that a proxy gets at once.
pub const MAX_SOCKETS: u16 = 32;

/// Most arguments of [`Request::Inside`].
pub const MAX_ARGS: usize = 64;

/// Supervisor to shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who are you? [`Reply::Hello`].
    Hello,
    /// Listening sockets of a port, as descriptors with [`Reply::Listeners`].
    Listeners {
        /// A declared port.
        port: u16,
        /// How many (SO_REUSEPORT), one per proxy thread.
        count: u16,
        /// Without isolation: the callee's address to bind. With it: `None`, the wildcard of a network where only this
        /// service lives.
        address: Option<Ipv4Addr>,
    },
    /// The proxy's end of a new channel of [`ProxyRequest`]s, as the descriptor with [`Reply::ProxyChannel`].
    ProxyChannel,
    /// The listening Unix socket for the Workload API inside the service's mounts, with [`Reply::WorkloadListener`].
    WorkloadListener,
    /// Send [`Reply::Update`]s from now on, the present one first.
    Watch,
    /// Replace the hosts file, live.
    SetHosts(BTreeMap<String, Ipv4Addr>),
    /// Replace the declared ports, live.
    SetPorts(BTreeSet<u16>),
    /// Runs this binary with these arguments for a short while as the service itself would run, with nothing but what the
    /// service has: for drills. [`Reply::Inside`]. The one request that is answered while another supervisor is connected, if
    /// it comes first.
    Inside {
        /// At most [`MAX_ARGS`].
        args: Vec<String>,
    },
    /// Stop the service and start it again, now.
    Restart,
    /// Stop everything; the shim answers, then ends.
    Stop,
}

/// Shim to supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::Listeners`]; the descriptors come with it.
    Listeners {
        /// The port asked for.
        port: u16,
    },
    /// To [`Request::ProxyChannel`]; one descriptor comes with it.
    ProxyChannel,
    /// To [`Request::WorkloadListener`]; one descriptor comes with it.
    WorkloadListener,
    /// To [`Request::Inside`]; a pipe comes with it that ends when the process does. It is empty if the service does not run.
    Inside,
    /// The request was carried out.
    Done,
    /// It was not.
    Refused {
        /// Why.
        reason: String,
    },
    /// The state changed.
    Update(Status),
}

/// Who a shim is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Its service.
    pub service: String,
    /// [`crate::spec::Spec::digest`] of what it was started with.
    pub digest: String,
    /// The shim's process.
    pub pid: u32,
    /// Inode of the service's network namespace: what the Workload API checks a peer against.
    pub netns: u64,
    /// How the service does.
    pub status: Status,
}

/// How a service does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// PID 1 of its PID namespace as the host sees it; 0 while there is none.
    pub init_pid: u32,
    /// Whether it is isolated.
    pub isolation: Isolation,
}

/// What a service is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// It was started and is not ready.
    Starting,
    /// It runs and is ready.
    Ready,
    /// It ended, and is started again after a pause.
    Backoff {
        /// How it ended.
        exit: Exit,
        /// The pause.
        pause_ms: u64,
    },
    /// It ended for good.
    Exited(Exit),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// With its PID 1, which somebody outside killed.
    Init,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Init => write!(f, "ended because its PID 1 was killed from outside"),
        }
    }
}

/// Proxy to shim, over a channel of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProxyRequest {
    /// Unconnected TCP sockets inside the service's network, at most [`MAX_SOCKETS`].
    Sockets {
        /// How many.
        count: u16,
    },
}

/// Shim to proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProxyReply {
    /// The sockets come with it, nonblocking.
    Sockets {
        /// How many.
        count: u16,
    },
    /// None came.
    Refused {
        /// Why.
        reason: String,
    },
}
