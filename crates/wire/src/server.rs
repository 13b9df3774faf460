//! Control's side: who comes is proven here, and decided about elsewhere.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_keys::{VerifyingKey, possession, random, to_hex};
use ringfence_snapshot::node::{FromProxy, ToProxy};
use ringfence_spiffe::certificate::Certificate;
use ringfence_spiffe::{Kind, SpiffeId};
use ringfence_tls::{Mesh, TlsAcceptor, server::TlsStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Sleep, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request as Call, Response, Status, Streaming};

use crate::generated::hosts_server::{Hosts, HostsServer};
use crate::message::{ComeBackAsk, JoinAsk, Json, MAX_SAID, Trust, Welcome, come_back_subject};

/// Connections of hosts that showed an SVID, and of those that did not.
const MAX_CONNECTIONS: usize = 4096;
const MAX_UNKNOWN: usize = 128;
/// Of the latter, those of one address.
const MAX_OF_ONE: usize = 8;
/// How long a handshake may take, and how long somebody who showed no SVID may stay.
const HANDSHAKE: Duration = Duration::from_secs(10);
const UNKNOWN: Duration = Duration::from_secs(30);
/// How many hosts may join or come back in a second, on average and at once.
const ADMITTED: (f64, f64) = (50.0, 100.0);
/// Messages that wait for a host that does not read.
const WAITING: usize = 4;
/// What a host may say in a second, on average; it is read more slowly beyond that.
const BYTES_PER_SECOND: u64 = 16 << 20;
const FRAMES_PER_SECOND: u64 = 8_000;
/// Whether the other end is still there is asked this often, and waited for as long.
const ALIVE: Duration = Duration::from_secs(10);

/// A host is refused. It is told that and no more; why is for the operator, and said by whoever refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Somebody wants something.
#[derive(Debug)]
pub enum Request {
    /// Whom to believe.
    Trust(oneshot::Sender<Trust>),
    /// To join with a token.
    Join {
        /// What it shows.
        ask: JoinAsk,
        /// From where.
        from: SocketAddr,
        /// What it gets.
        answer: oneshot::Sender<Result<Welcome, Refused>>,
    },
    /// An SVID, for a host that proved on this connection that it has this key.
    ComeBack {
        /// Which host it says it is.
        host: String,
        /// The key.
        key: VerifyingKey,
        /// What it shows.
        ask: ComeBackAsk,
        /// From where.
        from: SocketAddr,
        /// What it gets.
        answer: oneshot::Sender<Result<Welcome, Refused>>,
    },
    /// A session of a host that showed a valid SVID.
    Session {
        /// Who.
        sealed: Sealed,
        /// What it says.
        frames: Frames,
        /// What it is told.
        outgoing: Outgoing,
        /// Whether it is taken.
        answer: oneshot::Sender<Result<(), Refused>>,
    },
}

/// A host whose SVID was verified on its connection.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its name.
    pub host: String,
    /// The key of its SVID.
    pub key: VerifyingKey,
    /// When its SVID ends, Unix time in seconds; so does the session.
    pub ends_at: u64,
}

/// Where requests go.
pub type Visitor = mpsc::Sender<Request>;

/// What a host says, no faster than an honest one would.
#[derive(Debug)]
pub struct Frames {
    stream: Streaming<Json>,
    begun: Instant,
    bytes: u64,
    frames: u64,
}

/// What a host is told. Clones share the way.
#[derive(Clone, Debug)]
pub struct Outgoing(mpsc::Sender<Result<Json, Status>>);

impl Frames {
    /// The next message; `None` when the session has ended.
    ///
    /// # Errors
    /// What came is no message; or the connection broke.
    pub async fn next(&mut self) -> Option<Result<FromProxy, String>> {
        let said = match self.stream.message().await {
            Ok(said) => said?,
            Err(status) => return Some(Err(status.message().to_owned())),
        };
        self.frames += 1;
        self.bytes += said.json.len() as u64;
        let due = (self.bytes / (BYTES_PER_SECOND / 1000)).max(self.frames * 1000 / FRAMES_PER_SECOND);
        let due = Duration::from_millis(due);
        let spent = self.begun.elapsed();
        if spent > due + Duration::from_secs(1) {
            // What was not used up in the last second is not saved for later.
            (self.begun, self.bytes, self.frames) = (Instant::now(), 0, 0);
        } else if due > spent + Duration::from_secs(1) {
            sleep(due - spent).await;
        }
        Some(said.read().map_err(|e| e.to_string()))
    }
}

impl Outgoing {
    /// Says it; waits while the host does not read.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn send(&self, message: &ToProxy) -> Result<(), Refused> {
        let json = Json::of(message).map_err(|_| Refused)?;
        self.0.send(Ok(json)).await.map_err(|_| Refused)
    }
}

/// Serves hosts that come to `listener`, as `own`, until the receiver of requests is gone.
pub async fn serve(listener: TcpListener, mesh: Mesh, own: SpiffeId, visitor: Visitor) {
    let (connections, incoming) = mpsc::channel::<io::Result<Connection>>(16);
    let desk = Desk {
        own: own.clone(),
        visitor: visitor.clone(),
        admitted: Arc::new(Mutex::new((Instant::now(), ADMITTED.1))),
    };
    let server = HostsServer::new(desk)
        .max_decoding_message_size(MAX_SAID)
        .max_encoding_message_size(crate::MAX_FRAME);
    let serving = Server::builder()
        .max_concurrent_streams(8)
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(ALIVE))
        .http2_keepalive_timeout(Some(ALIVE))
        .add_service(server)
        .serve_with_incoming(ReceiverStream::new(incoming));
    let accepting = accept(listener, mesh, own, connections);
    tokio::select! {
        _ = serving => {}
        () = accepting => {}
        () = visitor.closed() => {}
    }
}

async fn accept(
    listener: TcpListener,
    mesh: Mesh,
    own: SpiffeId,
    connections: mpsc::Sender<io::Result<Connection>>,
) {
    let all = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let unknown = Arc::new(Semaphore::new(MAX_UNKNOWN));
    let acceptor = TlsAcceptor::from(mesh.control_server_config(&own));
    let crowd = Crowd::default();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            // Out of descriptors, most likely: others must close some first.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Nobody is known before the handshake, so it takes one of the few places for the unknown.
        let (Ok(place), Ok(stranger), Some(one)) =
            (all.clone().try_acquire_owned(), unknown.clone().try_acquire_owned(), crowd.enter(from.ip()))
        else {
            continue;
        };
        let (acceptor, mesh, connections) = (acceptor.clone(), mesh.clone(), connections.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(Ok(tls)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
            let Ok(member) = member(&mesh, &tls) else { return };
            let peer = Peer { from, member, challenge: to_hex(&random::<32>()).into() };
            let known = peer.member.is_some();
            let connection = Connection {
                tls,
                peer,
                leaves: (!known).then(|| Box::pin(sleep(UNKNOWN))),
                _places: (place, (!known).then_some((stranger, one))),
            };
            let _ = connections.send(Ok(connection)).await;
        });
    }
}

/// How many of those who are not known come from each address: one that floods takes no place of others.
#[derive(Clone, Debug, Default)]
struct Crowd(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them.
struct One(Crowd, IpAddr);

impl Crowd {
    fn enter(&self, address: IpAddr) -> Option<One> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(One(self.clone(), address))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// Which host it is; none if it showed no SVID. Anybody else's SVID is worth nothing here.
fn member(mesh: &Mesh, tls: &TlsStream<TcpStream>) -> Result<Option<Arc<Sealed>>, ()> {
    let (_, session) = tls.get_ref();
    let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    let peer = mesh.caller_of(session).map_err(drop)?;
    let Some(Kind::Node(host)) = peer.id().kind() else { return Err(()) };
    let spki = Certificate::parse(leaf).map_err(drop)?.spki.to_vec();
    let key = VerifyingKey::from_spki(&spki).map_err(drop)?;
    Ok(Some(Arc::new(Sealed { host: host.to_owned(), key, ends_at: peer.not_after_unix() })))
}

/// Who is at the other end.
#[derive(Clone, Debug)]
struct Peer {
    from: SocketAddr,
    member: Option<Arc<Sealed>>,
    challenge: Arc<str>,
}

/// A connection; of somebody unknown only for a while.
struct Connection {
    tls: TlsStream<TcpStream>,
    peer: Peer,
    leaves: Option<Pin<Box<Sleep>>>,
    _places: (OwnedSemaphorePermit, Option<(OwnedSemaphorePermit, One)>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(leaves) = &mut self.leaves
            && leaves.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Answers calls by asking the visitor.
struct Desk {
    own: SpiffeId,
    visitor: Visitor,
    /// When it was last counted, and how many may come at once.
    admitted: Arc<Mutex<(Instant, f64)>>,
}

impl Desk {
    fn admit(&self) -> Result<(), Status> {
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let gained = now.duration_since(admitted.0).as_secs_f64() * ADMITTED.0;
        *admitted = (now, (admitted.1 + gained).min(ADMITTED.1));
        if admitted.1 < 1.0 {
            return Err(Status::resource_exhausted("too many come at once: try again"));
        }
        admitted.1 -= 1.0;
        Ok(())
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Status> {
        let (answer, wait) = oneshot::channel();
        let gone = || Status::unavailable("control is not there yet");
        self.visitor.send(request(answer)).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }
}

fn peer<T>(call: &Call<T>) -> Result<Peer, Status> {
    call.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("nobody is there"))
}

fn said<T: serde::de::DeserializeOwned>(json: &Json) -> Result<T, Status> {
    json.read().map_err(|_| Status::invalid_argument("this is not understood"))
}

fn told(value: &impl serde::Serialize) -> Result<Response<Json>, Status> {
    Json::of(value).map(Response::new).map_err(|_| Status::internal("it cannot be said"))
}

fn refused(_: Refused) -> Status {
    Status::permission_denied("refused: the control host's events say why")
}

#[tonic::async_trait]
impl Hosts for Desk {
    async fn trust(&self, call: Call<Json>) -> Result<Response<Json>, Status> {
        let challenge = peer(&call)?.challenge.as_ref().to_owned();
        let trust = self.ask(Request::Trust).await?;
        told(&Trust { challenge, ..trust })
    }

    async fn join(&self, call: Call<Json>) -> Result<Response<Json>, Status> {
        self.admit()?;
        let from = peer(&call)?.from;
        let ask: JoinAsk = said(call.get_ref())?;
        let outcome = self.ask(|answer| Request::Join { ask, from, answer }).await?;
        told(&outcome.map_err(refused)?)
    }

    async fn come_back(&self, call: Call<Json>) -> Result<Response<Json>, Status> {
        self.admit()?;
        let peer = peer(&call)?;
        let ask: ComeBackAsk = said(call.get_ref())?;
        let malformed = || Status::invalid_argument("this proves nothing");
        let id = SpiffeId::node(self.own.trust_domain(), &ask.host).map_err(|_| malformed())?;
        let key = VerifyingKey::from_spki(&ask.spki.0).map_err(|_| malformed())?;
        possession::check(&key, &come_back_subject(id.as_str(), &peer.challenge), &ask.answer.0)
            .map_err(|_| malformed())?;
        let (host, from) = (ask.host.clone(), peer.from);
        let outcome = self.ask(|answer| Request::ComeBack { host, key, ask, from, answer }).await?;
        told(&outcome.map_err(refused)?)
    }

    type SessionStream = ReceiverStream<Result<Json, Status>>;

    async fn session(&self, call: Call<Streaming<Json>>) -> Result<Response<Self::SessionStream>, Status> {
        let Some(sealed) = peer(&call)?.member else {
            return Err(Status::unauthenticated("show an SVID"));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        if now >= sealed.ends_at {
            return Err(Status::unauthenticated("the SVID has ended"));
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let frames = Frames { stream: call.into_inner(), begun: Instant::now(), bytes: 0, frames: 0 };
        let (sealed, outgoing) = (Sealed::clone(&sealed), Outgoing(sender));
        let taken = self.ask(|answer| Request::Session { sealed, frames, outgoing, answer }).await?;
        taken.map_err(refused)?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
