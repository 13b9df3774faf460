//! Control: the process that knows what should be, and tells those that enforce it.
//!
//! It compiles the fence, has it signed, distributes it, decides who may have a certificate, serves the Workload API and
//! answers the command line. It holds no signing key: what it gets wrong the keeper refuses, and what it sends the
//! enforcement points verify. A database server in its place was rejected as the default: one machine needs none.
#![forbid(unsafe_code)]

mod api;
mod asker;
mod attest;
mod beside;
mod calendar;
mod content;
mod core;
mod entities;
mod federation;
pub mod home;
mod hosts;
pub mod inspect;
mod keys;
mod logs;
pub mod member;
mod metrics;
mod mint;
mod nodes;
mod pem;
mod policies;
mod refusal;
pub mod restored;
mod revocations;
mod sessions;
mod signin;
mod state;
pub mod supervisor;

pub use crate::pem::pem;
pub use api::{Mint, Rotate, RotateWhat};
pub use attest::look;
pub use hosts::HostToken;
pub use keys::{CreateKey, RotateKey};
pub use revocations::{Revoke, RevokeWhat};

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use ringfence_ca::Options;
use ringfence_channel::{BlockingChannel, ChannelError};
use ringfence_event::{Writer, WriterOptions};
use ringfence_store::Place;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::calendar::MAINTAIN;
use crate::core::{Core, Inboxes, REFRESH, Ways};
use crate::federation::Federation;
use crate::home::Chosen;
use crate::metrics::Endpoint;
use crate::supervisor::{FromControl, ToControl};

/// Why control ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// A channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The supervisor said something that makes no sense here.
    #[error("the supervisor broke the protocol: {0}")]
    Protocol(&'static str),
    /// A file or socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Confinement.
    #[error("cannot confine control: {0}")]
    Confine(io::Error),
    /// The keeper was not introduced yet.
    #[error("the keeper is not there yet; try again in a moment")]
    NoKeeper,
    /// Where the state is, or is not.
    #[error("{0}")]
    Home(String),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] ringfence_ca::CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] ringfence_store::StoreError),
    /// The fence cannot be compiled.
    #[error(transparent)]
    Compile(#[from] ringfence_snapshot::CompileError),
    /// A snapshot cannot be written.
    #[error("cannot encode the snapshot: {0}")]
    Encode(serde_json::Error),
}

/// Runs control until its supervisor is gone. `confine` is called with control's own folder before anything else is opened
/// and before a second thread exists.
///
/// # Errors
/// [`ControlError`]: the supervisor starts it again.
pub fn run(
    channel: UnixStream,
    confine: impl FnOnce(&Path, Option<&Place>) -> io::Result<()>,
) -> Result<(), ControlError> {
    let channel = BlockingChannel::<FromControl, ToControl>::new(channel);
    let (ToControl::Start { data, svid_life, store }, mut fds) = channel.recv()? else {
        return Err(ControlError::Protocol("the first message is not Start"));
    };
    let socket = fds.pop().ok_or(ControlError::Protocol("Start came without the control socket"))?;
    let folder = data.join("control");
    std::fs::create_dir_all(&folder)?;
    std::fs::create_dir_all(data.join("events/control"))?;
    confine(&folder, store.as_ref().map(|chosen| &chosen.place)).map_err(ControlError::Confine)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let lives = Options { svid_life, ..Options::default() };
    runtime.block_on(work(channel, socket.into(), &data, store.as_ref(), lives))
}

async fn work(
    channel: BlockingChannel<FromControl, ToControl>,
    socket: std::os::unix::net::UnixListener,
    data: &Path,
    store: Option<&Chosen>,
    lives: Options,
) -> Result<(), ControlError> {
    let (supervisor, mut inbox) = channel.into_async()?.split();
    let writer = Writer::open(&data.join("events/control"), "control", WriterOptions::default())?;
    socket.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(socket)?;
    let (news, proxies) = mpsc::channel(256);
    let (asking, mut questions) = mpsc::channel(64);
    let (happening, workloads) = mpsc::channel(256);
    let endpoint = asking.clone();
    tokio::spawn(api::serve(listener, asking));
    let folder = data.join("control");
    let opened = home::open(&folder, store, &mut inbox, &mut questions, &supervisor).await?;
    let Some((state, meanwhile)) = opened else { return Ok(()) };
    let (found, federation) = mpsc::channel(64);
    let federated = Federation::new(found);
    let (admit, admitted) = mpsc::channel(64);
    let ways = Ways { workloads: happening, proxies: news, admitted: admit };
    let mut core = Core::new(state, supervisor.clone(), writer.emitter(), lives, ways, federated);
    // A database that is in trouble is asked again at the next start.
    let _ = restored::tell(core.store(), |what| core.entity("state", "restored", 3, false, what)).await;
    supervisor.send(&FromControl::Ready, &[]).await?;
    core.endpoint = Endpoint::new(endpoint);
    for (message, fds) in meanwhile {
        core.supervisor(message, fds).await?;
    }
    let mut inboxes = Inboxes { proxies, questions, workloads, federation, admitted };
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refresh.reset_after(REFRESH);
    let mut maintain = interval(MAINTAIN);
    maintain.set_missed_tick_behavior(MissedTickBehavior::Delay);
    maintain.reset_after(MAINTAIN);
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Ok((message, fds)) => core.supervisor(message, fds).await?,
                // The supervisor is gone: the next one starts its own control.
                Err(ChannelError::Closed) => return Ok(()),
                Err(e) => return Err(e.into()),
            },
            Some(news) = inboxes.proxies.recv() => core.proxy(news).await?,
            Some(question) = inboxes.questions.recv() => core.question(question).await,
            Some(event) = inboxes.workloads.recv() => core.workload_event(&event),
            Some(admitted) = inboxes.admitted.recv() => core.admitted(admitted),
            Some(found) = inboxes.federation.recv() => core.federated(found).await?,
            _ = refresh.tick() => core.refresh().await,
            _ = maintain.tick() => {
                core.maintain().await;
                core.maintain_sessions().await;
            }
        }
    }
}
