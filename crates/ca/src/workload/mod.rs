//! The SPIFFE Workload API: one Unix socket per service, whose caller must live in that service's network namespace.
//!
//! A path or a user number identifies nobody when services run rootless; the namespace does, because only the service's
//! processes are in it. gRPC here, and not our own frames, because this is the one socket that other people's software speaks to.

mod attest;
pub mod authority;
mod connection;
mod digest;
mod identity;
mod issuer;
mod limits;
mod service;
pub mod wire;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringfence_spiffe::{IdError, SpiffeId, TrustDomain};
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;

pub use attest::{AttestError, Attested, Attesting, Attestor, Here, Workload, attest};
pub use digest::ProgramDigests;
pub use issuer::{Answering, Issuer};
pub use limits::Limits;

use crate::issuer::now;
use connection::{Accept, incoming};
use identity::Identity;
use service::Api;
use service::generated::spiffe_workload_a_p_i_server::SpiffeWorkloadAPIServer;

/// Events that wait to be taken; more are counted and dropped.
const EVENTS: usize = 1024;
/// Largest request: a token and some audiences.
const REQUEST_BYTES: usize = 32 * 1024;
/// Streams of one connection at once.
const STREAMS: u32 = 32;

/// The socket of one service.
#[derive(Debug)]
pub struct WorkloadListener {
    /// Its name.
    pub service: String,
    /// The listening socket, bound into the service's mount namespace.
    pub listener: UnixListener,
    /// Inode of the service's network namespace.
    pub netns_inode: u64,
}

/// What happened on a Workload API socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorkloadEvent {
    /// A caller was attested.
    Attested {
        /// The service.
        service: Arc<str>,
        /// The caller.
        workload: Workload,
        /// SHA-256 of its program, hexadecimal.
        digest: Option<Arc<str>>,
    },
    /// A caller got nothing.
    Refused {
        /// The service whose socket it is.
        service: Arc<str>,
        /// Process number as the socket tells it, 0 if unknown.
        pid: u32,
        /// User number as the socket tells it.
        uid: u32,
        /// Why.
        reason: String,
    },
    /// The service has a new SVID.
    Issued {
        /// The service.
        service: Arc<str>,
        /// `x509` or `jwt`.
        kind: &'static str,
        /// Serial number; empty for a token.
        serial: String,
        /// When it ends, Unix seconds.
        not_after: u64,
    },
}

/// Serves the Workload API of any number of services.
#[derive(Clone, Debug)]
pub struct WorkloadApi {
    ca: Arc<dyn Issuer>,
    limits: Limits,
    attestor: Arc<dyn Attestor>,
    digests: ProgramDigests,
    events: Events,
}

/// Serves one service for as long as it is held.
#[derive(Debug)]
pub struct Serving {
    _stop: watch::Sender<()>,
}

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The service's name.
    #[error(transparent)]
    Name(#[from] IdError),
    /// The socket.
    #[error("workload api socket: {0}")]
    Io(#[from] std::io::Error),
}

#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: mpsc::Sender<WorkloadEvent>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    fn tell(&self, event: WorkloadEvent) {
        if self.sender.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl WorkloadApi {
    /// An API on top of `ca`, and what happens on it.
    #[must_use]
    pub fn new(ca: impl Issuer + 'static, limits: Limits) -> (Self, mpsc::Receiver<WorkloadEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS);
        let events = Events { sender, dropped: Arc::default() };
        let attestor = Arc::new(Here);
        let ca = Arc::new(ca);
        (Self { ca, limits, attestor, digests: ProgramDigests::default(), events }, receiver)
    }

    /// The same with callers looked at by `attestor`.
    #[must_use]
    pub fn attested_by(self, attestor: Arc<dyn Attestor>) -> Self {
        Self { attestor, ..self }
    }

    /// Events that were dropped because nobody took them in time.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.events.dropped.load(Ordering::Relaxed)
    }

    /// Serves a socket until what this returns is dropped. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn serve(&self, socket: WorkloadListener) -> Result<Serving, ServeError> {
        let trust_domain = TrustDomain::new(self.ca.trust_domain())?;
        let id = SpiffeId::service(&trust_domain, &socket.service)?;
        socket.listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(socket.listener)?;
        let (stop, stopped) = watch::channel(());
        let service: Arc<str> = socket.service.into();
        let identity =
            Identity::start(self.ca.clone(), id, service.clone(), self.events.clone(), stopped.clone());
        let accept = Accept {
            service: service.clone(),
            netns: socket.netns_inode,
            connections: self.limits.connections,
            attestor: self.attestor.clone(),
            digests: self.digests.clone(),
            events: self.events.clone(),
            stopped: stopped.clone(),
        };
        let api = Api::new(self.ca.clone(), identity, self.limits, self.events.clone(), service);
        let server = SpiffeWorkloadAPIServer::new(api).max_decoding_message_size(REQUEST_BYTES);
        let serving = Server::builder()
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(16 * 1024)
            .add_service(server)
            .serve_with_incoming_shutdown(incoming(listener, accept), wait_for_end(stopped));
        tokio::spawn(serving);
        Ok(Serving { _stop: stop })
    }
}

/// Resolves once the sender is gone.
async fn wait_for_end(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
