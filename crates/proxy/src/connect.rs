//! A new connection along an edge: dial, and for the mesh prove who calls and check who answers.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ringfence_model::HostPort;
use ringfence_tls::{Alpn, HandshakeMetrics, MeshError, Refusal, TlsConnector, mesh_server_name};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::deny::Deny;
use crate::io::{Io, Socket};
use crate::live::Ends;
use crate::table::{Edge, Nearby, Sidecars, Via};
use crate::worker::{Worker, unix_now};

/// How long a connection may take to open, its handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a request waits for the first SVID of its caller.
const IDENTITY: Duration = Duration::from_secs(3);
/// How long one machine of several may take to answer.
const NEXT: Duration = Duration::from_secs(1);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// A fresh connection, and the worker's time after which it is not used for anything new.
pub(crate) struct Connected {
    pub(crate) io: Io,
    pub(crate) retire_at: u64,
    /// Who is at both ends, over the mesh.
    pub(crate) ends: Option<Rc<Ends>>,
}

/// Opens a connection to the callee of `edge`.
pub(crate) async fn connect(worker: &Worker, edge: &Edge, alpn: Alpn) -> Result<Connected, Deny> {
    match timeout(CONNECT, open(worker, edge, alpn)).await {
        Ok(result) => result,
        Err(_) => Err(Deny::failure(
            504,
            "connect.timeout",
            format!("connecting to {} took longer than {CONNECT:?}", edge.callee),
        )),
    }
}

async fn open(worker: &Worker, edge: &Edge, alpn: Alpn) -> Result<Connected, Deny> {
    let unreachable = |e: io::Error| {
        let reason = format!("{} cannot be reached: {e}", edge.callee);
        Deny::failure(
            if e.kind() == io::ErrorKind::NotConnected { 503 } else { 502 },
            "connect.failed",
            reason,
        )
    };
    let never = u64::MAX;
    match &edge.via {
        Via::Plain(address) => {
            let io = Io::Plain(dial(address).await.map_err(unreachable)?);
            Ok(Connected { io, retire_at: never, ends: None })
        }
        Via::Shim { shim, port } => {
            let stream = shim.connect(*port).await.map_err(unreachable)?;
            let _ = stream.set_nodelay(true);
            Ok(Connected { io: Io::Plain(stream), retire_at: never, ends: None })
        }
        Via::Mesh { at, id, own } => {
            let mesh = &worker.shared.mesh;
            let config = loop {
                let arrived = worker.shared.identities.notified();
                match mesh.client_config(own, id, &[alpn]) {
                    Ok(config) => break config,
                    Err(e @ MeshError::NoIdentity(_)) => {
                        if timeout(IDENTITY, arrived).await.is_err() {
                            return Err(Deny::failure(503, "identity.missing", e.to_string()));
                        }
                    }
                    Err(e) => return Err(Deny::failure(503, "identity.callee", e.to_string())),
                }
            };
            // What is shown in a moment is this SVID or a newer one.
            let Some(own) = mesh.identity(own) else {
                let reason = format!("{own} lost its SVID while it called {}", edge.callee);
                return Err(Deny::failure(503, "identity.missing", reason));
            };
            let name =
                mesh_server_name(id).map_err(|e| Deny::failure(503, "identity.callee", e.to_string()))?;
            let stream = match at {
                Sidecars::Theirs(address) => dial(address).await,
                Sidecars::Ours(nearby) => reach(worker, nearby).await,
            }
            .map_err(unreachable)?;
            let _ = stream.set_nodelay(true);
            let connected = TlsConnector::from(config).connect(name, Socket(stream)).await;
            let stream = connected.map_err(|e| refused(mesh.metrics(), edge, &e))?;
            let (_, session) = stream.get_ref();
            if Alpn::negotiated(session) != Some(alpn) {
                let reason = format!("{} does not speak {alpn:?} on the mesh", edge.callee);
                return Err(Deny::failure(502, "mesh.protocol", reason));
            }
            // Both identities are renewed at half of their life; a connection retires before either ends, so that the
            // other side never closes it while a request is on its way.
            let peer =
                mesh.callee_of(session).map_err(|e| Deny::failure(502, "mesh.callee", e.to_string()))?;
            let life = own.not_after_unix().min(peer.not_after_unix()).saturating_sub(unix_now());
            worker.touch();
            let retire_at = worker.now_ms().saturating_add(life.saturating_mul(600));
            let ends = Some(Rc::new(Ends { own, peer }));
            Ok(Connected { io: Io::Client(Box::new(stream)), retire_at, ends })
        }
    }
}

fn refused(metrics: &HandshakeMetrics, edge: &Edge, error: &io::Error) -> Deny {
    metrics.record_failure();
    match Refusal::find(error) {
        Some(refusal) => {
            let mut deny = Deny::new(
                502,
                "forward",
                "mesh.callee",
                format!("whoever answers for {} is refused: {refusal}", edge.callee),
            );
            deny.failed = false;
            deny
        }
        None => Deny::failure(502, "mesh.handshake", format!("no mutual TLS with {}: {error}", edge.callee)),
    }
}

/// Connects to a sidecar of ours: this machine's own if the service answers here, else those of the others, each time another first.
async fn reach(worker: &Worker, nearby: &Nearby) -> io::Result<TcpStream> {
    let own = worker.shared.mesh_address;
    if nearby.others.is_empty() {
        return TcpStream::connect(own).await;
    }
    let ready = nearby.here.as_ref().is_some_and(|shim| shim.is_ready());
    let first = worker.shared.next_turn() % nearby.others.len();
    let (after, before) = nearby.others.split_at(first);
    let others = before.iter().chain(after).copied();
    let candidates = ready.then_some(own).into_iter().chain(others);
    let late = nearby.here.is_some() && !ready;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "it runs nowhere");
    for address in candidates.chain(late.then_some(own)) {
        match timeout(NEXT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = e,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Connects to a declared address; a name is resolved, at most a few of its addresses are tried.
async fn dial(address: &HostPort) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((address.host.as_str(), address.port)).await?.take(MAX_ADDRESSES) {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}
