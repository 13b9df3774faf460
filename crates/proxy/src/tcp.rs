//! Connections that carry bytes: TCP services along an edge, and egress.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use ringfence_event::Verdict;
use ringfence_tls::{Alpn, Hello, Reach, peek_hello, reach};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connect::connect;
use crate::delegate;
use crate::deny::Deny;
use crate::handle::count_refusal;
use crate::io::{Io, READ};
use crate::live::Live;
use crate::peer::{Authorized, Peer, Way, in_force};
use crate::pipeline::tell_connection;
use crate::policy::{self, Question, Who};
use crate::stats::Ended;
use crate::table::{self, EdgeRef, Egress, OUTSIDE as ANYBODY, Via};
use crate::tunnel::{self, End};
use crate::worker::Worker;

/// How long resolving and connecting to a host outside may take.
const OUTSIDE: Duration = Duration::from_secs(10);
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;
/// Most bytes that a ClientHello may have.
const MAX_HELLO: usize = 32 * 1024;

/// A connection whose callee is fixed by where it came in.
pub(crate) async fn serve(worker: &Worker, live: &Live, peer: &Peer, io: Io) {
    match in_force(worker).and_then(|table| peer.edge(&table)) {
        Ok(authorized) => serve_edge(worker, live, peer, io, authorized).await,
        Err(deny) => refuse(worker, peer, &deny),
    }
}

/// A connection along an edge.
pub(crate) async fn serve_edge(worker: &Worker, live: &Live, peer: &Peer, io: Io, authorized: Authorized) {
    if let Err(deny) = in_force(worker) {
        return refuse(worker, peer, &deny);
    }
    let started = worker.touch();
    let edge = &authorized.edge;
    live.set_edge(edge.id);
    live.set_busy(true);
    live.disarm();
    if let Via::Shim { shim, .. } = &authorized.next.via
        && !shim.is_ready()
    {
        return refuse(
            worker,
            peer,
            &Deny::failure(503, "service.not-ready", format!("{} is not ready", edge.callee)),
        );
    }
    // Bytes carry no token, so the fence does not say this; a snapshot might.
    if let Err(deny) = delegate::required(edge, false) {
        return refuse(worker, peer, &deny);
    }
    let since = worker.live.judged();
    if let Err(deny) = permitted(peer, &authorized, edge) {
        return refuse(worker, peer, &deny);
    }
    let callee = match connect(worker, &authorized.next, Alpn::Tcp).await {
        Ok(connected) => {
            live.set_onward(connected.ends);
            connected.io
        }
        Err(deny) => return refuse(worker, peer, &deny),
    };
    tell_connection(worker, peer, &edge.callee, false, Verdict::Allowed);
    let idle = edge.table().limits.idle.as_millis() as u64;
    let (client, callee) = (End { io, read: BytesMut::new() }, End { io: callee, read: BytesMut::new() });
    let ended = {
        let work = std::pin::pin!(tunnel::run(worker, live, idle, client, callee));
        let still = || {
            // An edge that is there no more was cut already.
            let now = worker.table().and_then(|table| table::inbound(&table, &edge.caller, &edge.callee));
            now.map_or(Ok(()), |edge| permitted(peer, &authorized, &edge))
        };
        live.while_allowed(&worker.live, since, None, still, work).await
    };
    if let Err(deny) = ended {
        tell_connection(worker, peer, &edge.callee, true, deny.verdict());
    }
    if peer.counts() {
        worker
            .counters
            .count(edge.id, Ended::Served { duration_us: worker.touch().saturating_sub(started), status: 0 });
    }
}

/// Asks policies, if there are any and it is for this side to ask them.
fn permitted(peer: &Peer, authorized: &Authorized, edge: &EdgeRef) -> Result<(), Deny> {
    let policies = edge.table().policy.as_ref().filter(|_| policy::is_asked(peer, authorized));
    let Some(policies) = policies else { return Ok(()) };
    // Bytes show no credential: through the gateway comes whoever may come without one.
    let who = if &*edge.caller == ANYBODY { Who::Anyone } else { Who::Service(&edge.caller) };
    let source = matches!(peer.way, Way::Gateway).then(|| peer.source.ip());
    let question = Question { method: "", path: "/", host: &edge.callee, source, chain: None };
    delegate::required(edge, false)?;
    policies.judge(&who, edge, question).0
}

/// A connection to a host outside.
pub(crate) async fn serve_egress(worker: &Worker, live: &Live, peer: &Peer, mut io: Io, rule: &Egress) {
    let started = worker.touch();
    live.set_edge(rule.id);
    live.set_busy(true);
    let mut read = BytesMut::new();
    let allowed = async {
        if rule.tls {
            check_name(worker, live, &mut io, &mut read, rule).await?;
        }
        live.disarm();
        dial(rule).await
    };
    let stream = match allowed.await {
        Ok(stream) => stream,
        Err(deny) => {
            worker.counters.count(
                rule.id,
                if deny.failed {
                    Ended::Failed { duration_us: worker.touch().saturating_sub(started), status: 0 }
                } else {
                    worker.counters.refused(deny.stage, &deny.rule);
                    Ended::Denied { status: 0 }
                },
            );
            return tell_connection(worker, peer, &rule.host, false, deny.verdict());
        }
    };
    tell_connection(worker, peer, &rule.host, false, Verdict::Allowed);
    let idle = worker.table().map_or(60_000, |t| t.limits.idle.as_millis() as u64);
    tunnel::run(worker, live, idle, End { io, read }, End { io: Io::Plain(stream), read: BytesMut::new() })
        .await;
    worker
        .counters
        .count(rule.id, Ended::Served { duration_us: worker.touch().saturating_sub(started), status: 0 });
}

/// Ends a connection that may not be, with an event.
pub(crate) fn refuse(worker: &Worker, peer: &Peer, deny: &Deny) {
    let callee = peer.callee_name(worker);
    tell_connection(worker, peer, &callee, false, deny.verdict());
    count_refusal(worker, peer, &callee, deny, 0);
}

/// The ClientHello must name the declared host: an address may serve many names, the fence allows one.
async fn check_name(
    worker: &Worker,
    live: &Live,
    io: &mut Io,
    read: &mut BytesMut,
    rule: &Egress,
) -> Result<(), Deny> {
    let header_time = worker.table().map_or(10_000, |t| t.limits.header_time.as_millis() as u64);
    live.arm(worker.now_ms() + header_time);
    let refused = |name: &'static str, reason: String| {
        Deny::new(403, "authorize", name, reason).position(Some(rule.position.to_string()))
    };
    loop {
        // A record says how long it is; nothing is parsed again before it has come.
        let wanted = match read.get(..5) {
            Some([22, _, _, high, low]) => 5 + (usize::from(*high) << 8 | usize::from(*low)),
            Some(_) => {
                return Err(refused(
                    "egress.not-tls",
                    format!("{} is declared with TLS, and this is not TLS", rule.host),
                ));
            }
            None => 5,
        };
        if read.len() >= wanted.max(5) {
            match peek_hello(read) {
                Hello::Name(name) if *name == *rule.host => return Ok(()),
                Hello::Name(name) => {
                    return Err(refused(
                        "egress.server-name",
                        format!("asked for {name:?} at the address of {}", rule.host),
                    ));
                }
                Hello::NoName => {
                    return Err(refused(
                        "egress.server-name",
                        format!("no server name was given for {}", rule.host),
                    ));
                }
                Hello::NotTls => {
                    return Err(refused(
                        "egress.not-tls",
                        format!("{} is declared with TLS, and this is not TLS", rule.host),
                    ));
                }
                Hello::More if read.len() > MAX_HELLO => {
                    return Err(refused("egress.not-tls", "a ClientHello beyond any size".into()));
                }
                Hello::More => {}
            }
        }
        read.reserve(READ);
        let n = live.within(std::future::poll_fn(|cx| io.poll_read_more(cx, read))).await;
        match n {
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => {
                return Err(Deny::failure(
                    400,
                    "egress.closed",
                    "the service closed the connection before it said whom it wants",
                ));
            }
            Err(_) => {
                return Err(refused(
                    "limit.header-time",
                    "the ClientHello took longer than the limit allows".into(),
                ));
            }
        }
    }
}

/// Resolves the declared host and connects to an address that was checked: never to a name, which could resolve anew.
async fn dial(rule: &Egress) -> Result<TcpStream, Deny> {
    let unreachable = |e: io::Error| {
        Deny::failure(502, "egress.unreachable", format!("{} cannot be reached: {e}", rule.host))
    };
    let resolving = timeout(OUTSIDE, tokio::net::lookup_host((&*rule.host, rule.port))).await;
    let found = resolving.map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?.map_err(unreachable)?;
    let mut inside = None;
    let mut last = None;
    for address in found.take(16) {
        if let Some(what) = forbidden(address, rule.allow_private) {
            inside = Some((address, what));
            continue;
        }
        match timeout(OUTSIDE / MAX_ADDRESSES as u32, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => last = Some(e),
            Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    match (last, inside) {
        (Some(e), _) => Err(unreachable(e)),
        (None, Some((address, what))) => {
            let reason = format!("{} resolves to {}, which is {what}", rule.host, address.ip());
            let missing = format!("allow_private: true for {}", rule.host);
            Err(Deny::new(403, "authorize", "egress.address", reason)
                .position(Some(rule.position.to_string()))
                .missing(missing))
        }
        (None, None) => Err(unreachable(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
    }
}

fn forbidden(address: SocketAddr, allow_private: bool) -> Option<&'static str> {
    match reach(address.ip()) {
        Reach::Public => None,
        Reach::Inside(_) if allow_private => None,
        Reach::Inside(what) | Reach::Nowhere(what) => Some(what),
    }
}
