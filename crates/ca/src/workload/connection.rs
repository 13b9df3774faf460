//! Connections: accepted, counted, attested; and told when the process behind them ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::attest::{AttestError, Attested, Attestor, Workload};
use super::authority::Filter;
use super::digest::ProgramDigests;
use super::{Events, WorkloadEvent, wait_for_end};

/// What accepting needs to know.
pub(crate) struct Accept {
    pub(crate) service: Arc<str>,
    pub(crate) netns: u64,
    pub(crate) connections: usize,
    pub(crate) attestor: Arc<dyn Attestor>,
    pub(crate) digests: ProgramDigests,
    pub(crate) events: Events,
    pub(crate) stopped: watch::Receiver<()>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) workload: Option<Arc<Workload>>,
    /// True once the process has ended.
    pub(crate) ended: watch::Receiver<bool>,
}

/// A connection with its peer.
pub(crate) struct Connection {
    stream: UnixStream,
    peer: Peer,
    filter: Filter,
    /// Filtered and not yet read, from `read` on.
    filtered: Vec<u8>,
    read: usize,
    _permit: OwnedSemaphorePermit,
}

/// The connections of `listener`, attested.
pub(crate) fn incoming(listener: UnixListener, accept: Accept) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let stopped = wait_for_end(accept.stopped.clone());
        let accept = Arc::new(accept);
        let permits = Arc::new(Semaphore::new(accept.connections));
        let accepting = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, most likely: others must close some first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let Ok(permit) = permits.clone().try_acquire_owned() else {
                    accept.refused(&stream, "too many connections".into());
                    continue;
                };
                let (accept, sender) = (accept.clone(), sender.clone());
                tokio::spawn(async move {
                    let connection = accept.attested(stream, permit).await;
                    let _ = sender.send(Ok(connection)).await;
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stopped => {}
        }
    });
    ReceiverStream::new(receiver)
}

impl Accept {
    async fn attested(&self, stream: UnixStream, permit: OwnedSemaphorePermit) -> Connection {
        let peer = match self.attest(&stream).await {
            Ok(attested) => self.watched(attested),
            Err(e) => {
                self.refused(&stream, e.to_string());
                let (_, ended) = watch::channel(true);
                Peer { workload: None, ended }
            }
        };
        Connection { stream, peer, filter: Filter::new(), filtered: Vec::new(), read: 0, _permit: permit }
    }

    async fn attest(&self, stream: &UnixStream) -> Result<Attested, AttestError> {
        let socket = stream.as_fd().try_clone_to_owned().map_err(|e| AttestError::Io("its socket", e))?;
        self.attestor.attest(socket, &self.service, self.netns).await
    }

    /// Watches the process, and tells who it is once its program is hashed; nobody waits for that.
    fn watched(&self, attested: Attested) -> Peer {
        let Attested { workload, pidfd, program } = attested;
        let (sender, ended) = watch::channel(false);
        tokio::spawn(watch_process(pidfd, sender));
        let (service, digests, events) = (self.service.clone(), self.digests.clone(), self.events.clone());
        let seen = workload.clone();
        tokio::spawn(async move {
            let program = program.and_then(|file| Some((ProgramDigests::key(&file).ok()?, file)));
            let digest = match program {
                Some((key, file)) => digests.digest(key, file).await,
                None => None,
            };
            events.tell(WorkloadEvent::Attested { service, workload: seen, digest });
        });
        Peer { workload: Some(Arc::new(workload)), ended }
    }

    fn refused(&self, stream: &UnixStream, reason: String) {
        let credentials = stream.peer_cred().ok();
        self.events.tell(WorkloadEvent::Refused {
            service: self.service.clone(),
            pid: credentials.and_then(|c| c.pid()).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            uid: credentials.map_or(u32::MAX, |c| c.uid()),
            reason,
        });
    }
}

/// Says so when the process ends; ends itself when nobody listens any more.
async fn watch_process(pidfd: OwnedFd, sender: watch::Sender<bool>) {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe for types that may change descriptors; an OwnedFd does not"
    )]
    let Ok(pidfd) = AsyncFd::with_interest(pidfd, Interest::READABLE) else {
        // Cannot be watched, so cannot be trusted to still be there.
        sender.send_replace(true);
        return;
    };
    tokio::select! {
        _ = pidfd.readable() => { sender.send_replace(true); }
        () = sender.closed() => {}
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read == this.filtered.len() {
            this.filtered.clear();
            this.read = 0;
            let mut bytes = [0; 4096];
            let mut raw = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.filter.push(raw.filled(), &mut this.filtered);
        }
        let waiting = &this.filtered[this.read..];
        let now = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..now]);
        this.read += now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
