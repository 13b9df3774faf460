//! The data plane: the gateway and one sidecar per service, in one process.
//!
//! `pipeline.rs` is the way of a connection from top to bottom; `handle.rs` that of a request. Data-plane threads share
//! nothing that a request touches ([`run`] starts one runtime per thread), and the thread that talks to the supervisor
//! and to control carries no request.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use ringfence_channel::{BlockingChannel, ChannelError};
use ringfence_event::{Writer, WriterOptions};
use ringfence_keys::VerifyingKey;
use tokio::sync::mpsc;

use crate::asks::Asks;
use crate::disk::Disk;
use crate::node::Node;
use crate::protocol::{FromNode, ToNode};
use crate::shared::Shared;

mod access;
mod actors;
mod again;
mod apart;
mod asks;
mod back;
mod balance;
mod body;
mod connect;
mod content;
pub mod delegate;
mod deny;
mod disk;
mod door;
mod exchange;
mod flow;
mod frames;
mod front;
pub mod h1;
mod handle;
pub mod handling;
mod headers;
mod held;
mod http1;
mod http2;
mod identity;
mod inspect;
mod internal;
mod io;
mod limits;
mod live;
mod node;
pub mod normalize;
mod note;
mod overriding;
mod peer;
mod pipeline;
mod policy;
mod pool;
mod protect;
pub mod protocol;
mod responses;
mod revoked;
mod shared;
mod shims;
mod signin;
mod stats;
mod table;
mod tcp;
mod tunnel;
mod upload;
mod validate;
pub mod view;
mod wire;
mod worker;
mod yielding;

/// Most data-plane threads.
const MAX_THREADS: usize = 64;
/// Commands that a data-plane thread may have waiting.
const COMMANDS: usize = 64;

/// Why the node cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The supervisor's channel failed.
    #[error("the channel to the supervisor failed: {0}")]
    Channel(#[from] ChannelError),
    /// The first message was another one.
    #[error("the supervisor did not begin with `start`: are supervisor and node of the same version?")]
    NotStarted,
    /// The key is none.
    #[error("the snapshot key in `start` is not a public key: {0}")]
    Key(#[from] ringfence_keys::KeyError),
    /// A file or thread could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// TLS could not be set up.
    #[error("the gateway's TLS could not be set up: {0}")]
    Tls(#[from] ringfence_tls::GatewayError),
}

/// Runs the node process: `channel` leads to the supervisor; `confine` gives up every right that is not needed any more,
/// is told the data directory, and is called before the first byte from a network is read and before any other thread exists.
///
/// # Errors
/// [`ProxyError`], when the node cannot start or the supervisor's channel breaks. Its clean end is no error.
pub fn run(
    channel: UnixStream,
    confine: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), ProxyError> {
    let io = |what| move |source| ProxyError::Io { what, source };
    let supervisor = BlockingChannel::<FromNode, ToNode>::new(channel);
    let (ToNode::Start(start), _) = supervisor.recv()? else { return Err(ProxyError::NotStarted) };
    let key = VerifyingKey::from_spki(&start.snapshot_key.0)?;
    let disk = Disk::open(&start.data_dir).map_err(io("cannot make the proxy's folder"))?;
    let events = start.data_dir.join("events/node");
    std::fs::create_dir_all(&events).map_err(io("cannot make the folder for events"))?;
    confine(&start.data_dir).map_err(io("cannot confine the node"))?;

    let writer =
        Writer::open(&events, "node", WriterOptions::default()).map_err(io("cannot open the event log"))?;
    let threads = start.threads.clamp(1, MAX_THREADS);
    let (wanting, wanted) = mpsc::channel(COMMANDS);
    let (asks, asked) = Asks::new();
    let shared = Arc::new(Shared::new(start.mesh, writer.emitter(), threads, asks, wanting)?);
    let mut workers = Vec::with_capacity(threads);
    let mut handles = Vec::with_capacity(threads);
    for number in 0..threads {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let shared = shared.clone();
        let thread = std::thread::Builder::new().name(format!("data-{number}"));
        let handle =
            thread.spawn(move || worker::run(shared, receiver)).map_err(io("cannot start a thread"))?;
        workers.push(commands);
        handles.push(handle);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("cannot start the runtime"))?;
    let local = tokio::task::LocalSet::new();
    let served = local.block_on(&runtime, async {
        let (sender, receiver) = supervisor.into_async()?.split();
        let node = Node::new(start.node, key, disk, shared, writer, workers.clone(), sender)
            .map_err(io("cannot read the proxy's folder"))?;
        node.serve(receiver, wanted, asked).await.map_err(ProxyError::from)
    });
    for worker in &workers {
        let _ = worker.blocking_send(worker::Command::Stop);
    }
    for handle in handles {
        // A thread that panicked has nothing left to stop.
        let _ = handle.join();
    }
    served
}
