//! The keeper's process: one channel in from the supervisor, control's channels over it, two threads that sign.
//!
//! Threads and blocking channels instead of a runtime: what a keeper does is wait, sign and write, and every dependency of
//! this process is one that could read the keys.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ringfence_channel::{BlockingChannel, ChannelError};
use ringfence_snapshot::Der;

use crate::oracle::{OpenError, Oracle};
use crate::protocol::{Answer, Call, FromSupervisor, Refusal, Start, ToSupervisor};

/// Threads that sign. One waits for the disk while the other computes.
const WORKERS: usize = 2;
/// Requests that wait; beyond, control's channel is not read.
const QUEUE: usize = 256;
/// Requests that share one write to the log.
const GROUP: usize = 64;

type ControlChannel = BlockingChannel<Answer, Call>;
type Supervisor = BlockingChannel<ToSupervisor, FromSupervisor>;

/// Why the keeper ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The supervisor's channel.
    #[error("supervisor's channel: {0}")]
    Channel(#[from] ChannelError),
    /// Could not give up its rights.
    #[error("confinement: {0}")]
    Confine(std::io::Error),
    /// The keys.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something else than `Start` came first.
    #[error("the supervisor must start the keeper first")]
    Protocol,
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

type Started = (Arc<Oracle>, SyncSender<Job>, Vec<JoinHandle<()>>);

struct Job {
    call: Call,
    reply: Arc<Mutex<ControlChannel>>,
}

/// Serves until the supervisor closes `channel`.
///
/// `confine` is called once with the keeper's folder, after the master key was read and before any message of anybody but
/// the supervisor: afterwards the process needs to read and write below that folder, to receive descriptors and to
/// start threads, and nothing else.
///
/// # Errors
/// [`ProcessError`]; the supervisor was told the reason.
pub fn main_loop(
    channel: UnixStream,
    confine: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), ProcessError> {
    let supervisor = Supervisor::new(channel);
    let (FromSupervisor::Start(start), _) = supervisor.recv()? else { return Err(ProcessError::Protocol) };
    let started = begin(&start, confine);
    let (oracle, jobs, workers) = match started {
        Ok(started) => started,
        Err(e) => {
            supervisor.send(&ToSupervisor::Failed { reason: e.to_string() }, &[])?;
            return Err(e);
        }
    };
    let ready = ToSupervisor::Ready {
        warnings: start.master.warning().into_iter().collect(),
        snapshot_key: Der(oracle.snapshot_key().to_spki()),
        signed: oracle.signed(),
    };
    drop(start);
    supervisor.send(&ready, &[])?;
    let served = serve(&supervisor, &oracle, jobs);
    // What was asked before the end is still answered and logged.
    for worker in workers {
        let _ = worker.join();
    }
    served
}

fn begin(start: &Start, confine: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<Started, ProcessError> {
    let oracle = Arc::new(Oracle::open(&start.data, &start.master, &start.fence, &start.trust_domain)?);
    confine(oracle.folder()).map_err(ProcessError::Confine)?;
    let (jobs, queue) = sync_channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let mut workers = Vec::with_capacity(WORKERS);
    for _ in 0..WORKERS {
        let (oracle, queue) = (oracle.clone(), queue.clone());
        workers.push(spawn("keeper-sign", move || work(&oracle, &queue))?);
    }
    Ok((oracle, jobs, workers))
}

fn serve(supervisor: &Supervisor, oracle: &Oracle, jobs: SyncSender<Job>) -> Result<(), ProcessError> {
    let mut control = Introduced(None);
    loop {
        let (message, fds) = match supervisor.recv() {
            Ok(received) => received,
            Err(ChannelError::Closed) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let reply = match message {
            FromSupervisor::Control => {
                // Who was introduced before is gone, or no longer trusted.
                drop(std::mem::replace(&mut control, Introduced(None)));
                match introduce(fds, &jobs) {
                    Ok(socket) => {
                        control = Introduced(Some(socket));
                        ToSupervisor::Done
                    }
                    Err(e) => ToSupervisor::Failed { reason: e.to_string() },
                }
            }
            FromSupervisor::ExportRoot { passphrase } => match oracle.export_root(&passphrase) {
                Ok(package) => ToSupervisor::Root { package },
                Err(e) => ToSupervisor::Failed { reason: e.to_string() },
            },
            FromSupervisor::ForgetRoot { package, passphrase } => {
                done(oracle.forget_root(&package, &passphrase))
            }
            FromSupervisor::ImportRoot { package, passphrase, keep } => {
                done(oracle.import_root(&package, &passphrase, keep))
            }
            FromSupervisor::Start(_) => {
                ToSupervisor::Failed { reason: "the keeper is started already".into() }
            }
        };
        supervisor.send(&reply, &[])?;
    }
}

fn done(outcome: Result<(), Refusal>) -> ToSupervisor {
    match outcome {
        Ok(()) => ToSupervisor::Done,
        Err(e) => ToSupervisor::Failed { reason: e.to_string() },
    }
}

/// Control's channel, which ends with this.
struct Introduced(Option<UnixStream>);

impl Drop for Introduced {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Starts to read control's channel.
fn introduce(fds: Vec<OwnedFd>, jobs: &SyncSender<Job>) -> Result<UnixStream, ProcessError> {
    let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| ChannelError::Descriptors)?;
    let socket = UnixStream::from(fd);
    let keep = socket.try_clone().map_err(ChannelError::Io)?;
    let channel = ControlChannel::new(socket);
    let reply = Arc::new(Mutex::new(channel.try_clone()?));
    let jobs = jobs.clone();
    spawn("keeper-control", move || {
        // Whatever ends it, a broken frame too, ends this channel and nothing else.
        while let Ok((call, _)) = channel.recv() {
            if jobs.send(Job { call, reply: reply.clone() }).is_err() {
                break;
            }
        }
        let _ = channel.socket().shutdown(Shutdown::Both);
    })?;
    Ok(keep)
}

/// Answers what waits, in groups that share one write to the log.
fn work(oracle: &Oracle, queue: &Mutex<Receiver<Job>>) {
    loop {
        let mut group = Vec::new();
        {
            let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            let Ok(first) = queue.recv() else { return };
            group.push(first);
            group.extend(queue.try_iter().take(GROUP - 1));
        }
        let (calls, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.call, job.reply)).unzip();
        for (answer, reply) in oracle.answer(calls).into_iter().zip(replies) {
            let channel = reply.lock().unwrap_or_else(PoisonError::into_inner);
            // A peer that is gone has no use for its answer.
            let _ = channel.send(&answer, &[]);
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ProcessError> {
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(ProcessError::Thread)
}
