//! A host's side.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ringfence_snapshot::node::{FromProxy, ToProxy};
use ringfence_spiffe::{
    BundleSet, CertificateDer, IdError, Role, SpiffeId, SvidError, TrustBundle, TrustDomain, UnixTime,
    verify_svid,
};
use ringfence_tls::pki_types::ServerName;
use ringfence_tls::{
    CONTROL_NAME, ClientConfig, Mesh, MeshError, TlsConnector, client::TlsStream, introduction_client_config,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::generated::hosts_client::HostsClient;
use crate::message::{ComeBackAsk, JoinAsk, Json, MAX_FRAME, Trust, Welcome};

/// How long a connection may take, and one question.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(20);
/// Whether control is still there is asked this often, and waited for as long.
const ALIVE: Duration = Duration::from_secs(5);
/// Messages that wait for control to read.
const WAITING: usize = 64;

/// Why control cannot be spoken with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It cannot be reached.
    #[error("control cannot be reached at {0}: {1}")]
    Unreachable(SocketAddr, String),
    /// Whoever answers is not control.
    #[error("whoever answers at {0} is not this fence's control: {1}")]
    Stranger(SocketAddr, String),
    /// It refuses.
    #[error("control refuses this host; the events of the control host say why")]
    Refused,
    /// It is not ready, or has too much to do.
    #[error("control does not answer: {0}")]
    Unavailable(String),
    /// It says what makes no sense.
    #[error("control said what makes no sense: {0}")]
    Nonsense(String),
    /// Ourselves.
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// Where control is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callee(pub SocketAddr);

/// A connection on which nobody is proven yet, and what was shown and said there.
#[derive(Debug)]
pub struct Introduced {
    client: HostsClient<Channel>,
    at: SocketAddr,
    shown: Vec<CertificateDer<'static>>,
    trust: Trust,
}

/// A connection on which whoever answers was found to be control.
#[derive(Debug)]
pub struct Proven {
    client: HostsClient<Channel>,
}

/// A connection on which both ends showed their SVIDs.
#[derive(Debug)]
pub struct Known {
    client: HostsClient<Channel>,
}

impl Known {
    /// Opens a session: control begins to tell.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn session(mut self) -> Result<Session, CallError> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let stream = answered(self.client.session(ReceiverStream::new(receiver))).await?;
        Ok(Session { sender, stream })
    }
}

/// A session.
#[derive(Debug)]
pub struct Session {
    sender: mpsc::Sender<Json>,
    stream: Streaming<Json>,
}

impl Callee {
    /// Connects without being known.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn introduce(self) -> Result<Introduced, CallError> {
        let config = introduction_client_config().map_err(|e| CallError::Unavailable(e.to_string()))?;
        let stream = self.dial(config).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = shown.iter().map(|der| der.clone().into_owned()).collect();
        let mut client = client(self.0, stream).await?;
        let trust = answered(client.trust(Json::default())).await?;
        let trust = trust.read().map_err(|e| CallError::Nonsense(e.to_string()))?;
        Ok(Introduced { client, at: self.0, shown, trust })
    }

    /// Connects as the host `own` of that mesh to its control.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn connect(self, mesh: &Mesh, own: &SpiffeId, control: &SpiffeId) -> Result<Known, CallError> {
        let stream = self.dial(mesh.control_client_config(own, control)?).await?;
        Ok(Known { client: client(self.0, stream).await? })
    }

    async fn dial(self, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, CallError> {
        let unreachable = |why: String| CallError::Unreachable(self.0, why);
        let name = ServerName::try_from(CONTROL_NAME).map_err(|e| unreachable(e.to_string()))?;
        let dialling = async {
            let stream = TcpStream::connect(self.0).await.map_err(|e| unreachable(e.to_string()))?;
            let _ = stream.set_nodelay(true);
            let connected = TlsConnector::from(config).connect(name, stream).await;
            connected.map_err(|e| CallError::Stranger(self.0, e.to_string()))
        };
        timeout(CONNECT, dialling)
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("nothing in {CONNECT:?}"))))
    }
}

impl Introduced {
    /// What whoever answers says is to be believed.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The bundle that whoever answers says is to be believed.
    ///
    /// # Errors
    /// [`CallError::Stranger`]: it makes no bundle.
    pub fn bundle(&self) -> Result<TrustBundle, CallError> {
        let bundle = || {
            let roots = self.trust.roots.iter().map(|der| der.0.clone().into()).collect();
            TrustBundle::new(TrustDomain::new(&self.trust.trust_domain)?, roots, Vec::new(), 1, None)
                .map_err(|e| Failure::Bundle(e.to_string()))
        };
        bundle().map_err(|e: Failure| CallError::Stranger(self.at, e.to_string()))
    }

    /// Whoever answers is control, if by `believed` it is. Say nothing secret before.
    ///
    /// # Errors
    /// [`CallError::Stranger`].
    pub fn prove(self, believed: &Arc<TrustBundle>) -> Result<Proven, CallError> {
        let proven = || {
            let control = SpiffeId::control(believed.trust_domain(), &self.trust.fence)?;
            let bundles = BundleSet::new(1, [believed.clone()]);
            let peer = verify_svid(&self.shown, &bundles, Role::Server, UnixTime::now())?;
            if *peer.id() == control { Ok(()) } else { Err(Failure::Other(peer.id().clone())) }
        };
        proven().map_err(|e: Failure| CallError::Stranger(self.at, e.to_string()))?;
        Ok(Proven { client: self.client })
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("what it says is to be believed makes no bundle: {0}")]
    Bundle(String),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Svid(#[from] SvidError),
    #[error("it proved to be {0}")]
    Other(SpiffeId),
}

impl Proven {
    /// Joins.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn join(&mut self, ask: &JoinAsk) -> Result<Welcome, CallError> {
        let json = Json::of(ask).map_err(|e| CallError::Nonsense(e.to_string()))?;
        let answer = answered(self.client.join(json)).await?;
        answer.read().map_err(|e| CallError::Nonsense(e.to_string()))
    }

    /// Comes back.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn come_back(&mut self, ask: &ComeBackAsk) -> Result<Welcome, CallError> {
        let json = Json::of(ask).map_err(|e| CallError::Nonsense(e.to_string()))?;
        let answer = answered(self.client.come_back(json)).await?;
        answer.read().map_err(|e| CallError::Nonsense(e.to_string()))
    }
}

impl Session {
    /// Says it; waits while control does not read. Usable beside [`Session::next`] through a clone of the way.
    #[must_use]
    pub fn way(&self) -> Way {
        Way(self.sender.clone())
    }

    /// The next message; `None` when the session has ended.
    ///
    /// # Errors
    /// [`CallError::Nonsense`], or why the session broke.
    pub async fn next(&mut self) -> Option<Result<ToProxy, CallError>> {
        match self.stream.message().await {
            Ok(said) => Some(said?.read().map_err(|e| CallError::Nonsense(e.to_string()))),
            Err(status) => Some(Err(failure(&status))),
        }
    }
}

/// What is said to control.
#[derive(Clone, Debug)]
pub struct Way(mpsc::Sender<Json>);

impl Way {
    /// Says it.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn send(&self, message: &FromProxy) -> Result<(), CallError> {
        let json = Json::of(message).map_err(|e| CallError::Nonsense(e.to_string()))?;
        self.0.send(json).await.map_err(|_| CallError::Unavailable("the session has ended".into()))
    }
}

async fn client(at: SocketAddr, stream: TlsStream<TcpStream>) -> Result<HostsClient<Channel>, CallError> {
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    // One connection is all that the endpoint gets: whoever lost it begins anew.
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| std::io::Error::other("the connection is over")) }
    });
    let endpoint = Endpoint::from_static("http://control.ringfence.internal")
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE)
        .keep_alive_while_idle(true);
    let channel = timeout(CONNECT, endpoint.connect_with_connector(connector)).await;
    let channel = channel.map_err(|_| CallError::Unreachable(at, "it speaks no HTTP/2".into()))?;
    let channel = channel.map_err(|e| CallError::Unreachable(at, e.to_string()))?;
    Ok(HostsClient::new(channel).max_decoding_message_size(MAX_FRAME).max_encoding_message_size(MAX_FRAME))
}

async fn answered<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, CallError> {
    let answer = timeout(ANSWER, call).await.map_err(|_| CallError::Unavailable("nothing comes".into()))?;
    answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
}

fn failure(status: &Status) -> CallError {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => CallError::Refused,
        Code::InvalidArgument => CallError::Nonsense(status.message().to_owned()),
        _ => CallError::Unavailable(status.message().to_owned()),
    }
}

/// A client of the service that shows no SVID and judges nobody.
#[cfg(test)]
pub(crate) async fn stranger(at: SocketAddr, config: Arc<ClientConfig>) -> HostsClient<Channel> {
    let stream = Callee(at).dial(config).await.expect("it answers");
    client(at, stream).await.expect("it speaks HTTP/2")
}
