//! The shim: runs a service in its own namespaces behind a sensed sink, and confines Ringfence's own processes. Why this is
//! a crate of its own: it is the only code that needs privileges, and none of it needs the rest of Ringfence.
//!
//! There is no `fork` here: every role is this same binary, executed again with a hidden first argument (see [`dispatch`])
//! and a channel as its standard input. A shim (`shim`) makes two network namespaces inside one user namespace, joined by a
//! veth pair. Its child is PID 1 (`init`) of the service's PID namespace, which arranges the mounts and starts the service
//! through a third role (`exec`) that gives up every privilege before it becomes the service.
//!
//! A namespace for the network alone was rejected: a child of the same uid reads its parent's keys and sockets.
#![forbid(unsafe_code)]

mod capability;
pub mod client;
pub mod confine;
mod error;
mod exec;
mod folder;
mod init;
mod landlock_rules;
mod launch;
mod mounts;
mod netlink;
mod probe;
pub mod protocol;
mod role;
mod seccomp;
mod sense;
mod shim;
pub mod sink;
pub mod spec;

pub use error::SandboxError;
pub use launch::{Launched, launch, run_here};
pub use probe::{Probe, probe};
pub use role::dispatch;
