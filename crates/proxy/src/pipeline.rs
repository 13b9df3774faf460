//! The way of a connection, from top to bottom.
//!
//! ```text
//! gateway    accept ─ tls ───────────────┐
//! sidecar    accept ─ whose network, ────┤ ─ parse ─ route ─ authorize ─ forward ─ respond
//!                     which callee       │           (peer.rs)  (connect.rs, exchange.rs)
//! mesh       accept ─ mTLS ─ verify ─────┘
//!                     caller, callee,
//!                     edge before a byte
//! ```
//!
//! What speaks HTTP goes on in `http1.rs` and `http2.rs`, what does not in `tcp.rs`.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::BytesMut;
use ringfence_event::{Call, Connection, Event, EventId, Kind, Verdict};
use ringfence_model::{GatewayTls, Protocol};
use ringfence_spiffe::{Kind as IdKind, SpiffeId};
use ringfence_tls::{Alpn, Refusal, TlsAcceptor};
use tokio::net::TcpStream;

use crate::access::ClientCertificate;
use crate::deny::Deny;
use crate::door::{Full, Ticket};
use crate::io::{Io, Socket};
use crate::live::{Cut, Live};
use crate::peer::{self, Peer, Way, in_force, point};
use crate::protocol::ListenerKind;
use crate::table::{self, Dialled, OUTSIDE};
use crate::worker::Worker;
use crate::{http1, http2, tcp};

/// Serves one accepted connection until it ends or is cut.
pub(crate) async fn accepted(
    worker: Rc<Worker>,
    kind: Rc<ListenerKind>,
    stream: TcpStream,
    source: SocketAddr,
    ticket: Rc<Ticket>,
) {
    let entry = worker.live.enter();
    let who = OnceCell::new();
    entry.live().set_ticket(Some(ticket.clone()));
    let serving = async {
        match &*kind {
            ListenerKind::Gateway => gateway(&worker, entry.live(), stream, source, &who, &ticket).await,
            ListenerKind::Mesh => mesh(&worker, entry.live(), stream, source, &who, &ticket).await,
            ListenerKind::Outbound { service, port } => {
                outbound(&worker, entry.live(), stream, source, (service, *port), &who).await;
            }
        }
    };
    if let (Err(cut), Some(peer)) = (entry.run(serving).await, who.get()) {
        tell_cut(&worker, peer, entry.live(), cut);
    }
}

type Who = OnceCell<Rc<Peer>>;

/// A client from outside.
async fn gateway(
    worker: &Rc<Worker>,
    live: &Live,
    stream: TcpStream,
    source: SocketAddr,
    who: &Who,
    ticket: &Ticket,
) {
    let Some(table) = worker.table() else { return };
    let tls = table.snapshot.gateway.as_ref().is_some_and(|g| g.tls != GatewayTls::Off);
    let peer = |tls| {
        Rc::new(Peer {
            certificate: OnceCell::new(),
            caller: OUTSIDE.into(),
            caller_id: None,
            source,
            tls,
            way: Way::Gateway,
        })
    };
    let peer = who.get_or_init(|| peer(tls));
    if !tls {
        return http(worker, live, peer, Io::Plain(stream), None).await;
    }
    live.arm(worker.now_ms() + table.limits.handshake_time.as_millis() as u64);
    let metrics = &worker.shared.gateway_metrics;
    let shared = &worker.shared;
    let config = if table.asks_certificates { &shared.asking_config } else { &shared.gateway_config };
    let acceptor = TlsAcceptor::from(config.clone());
    let Ok(Ok(stream)) = live.within(acceptor.accept(Socket(stream))).await else {
        metrics.record_failure();
        return;
    };
    ticket.shaken();
    let (_, session) = stream.get_ref();
    metrics.record(session);
    if let Some(certificate) = session.peer_certificates().and_then(ClientCertificate::new) {
        let _ = peer.certificate.set(certificate);
    }
    let alpn = Alpn::negotiated(session);
    // By the routes of now: a handshake takes as long as the client likes, and what it began under may be gone.
    let by_name = worker.table().and_then(|table| table::route_tcp(&table, session.server_name()?));
    let io = Io::Server(Box::new(stream));
    match by_name {
        Some(edge) if alpn.is_none() => {
            tcp::serve_edge(worker, live, peer, io, peer::Authorized::direct(edge)).await
        }
        _ => http(worker, live, peer, io, Some(alpn.unwrap_or(Alpn::Http1))).await,
    }
}

/// A service, from its own network: the address that it dialled says whom it wants.
///
/// The port is the one that the listener stands for: without isolation it is bound to another, since the callee has that one.
async fn outbound(
    worker: &Rc<Worker>,
    live: &Live,
    stream: TcpStream,
    source: SocketAddr,
    (service, port): (&str, u16),
    who: &Who,
) {
    let Ok(local) = stream.local_addr() else { return };
    let address = local.ip().to_canonical();
    let table = worker.table();
    let caller_id = table.as_ref().and_then(|t| SpiffeId::service(&t.trust_domain, service).ok());
    let way = Way::Outbound { address, port };
    let peer = who.get_or_init(|| {
        Rc::new(Peer {
            caller: service.into(),
            caller_id,
            source,
            tls: false,
            certificate: OnceCell::new(),
            way,
        })
    });
    let io = Io::Plain(stream);
    let table = match in_force(worker) {
        Ok(table) => table,
        Err(deny) if table.is_none() => return tcp::refuse(worker, peer, &deny),
        // An HTTP client is owed an answer, which its first request gets.
        Err(_) => return http(worker, live, peer, io, None).await,
    };
    match table::dialled(&table, service, address, port) {
        Dialled::Edge(edge) if edge.protocol == Protocol::Tcp => tcp::serve(worker, live, peer, io).await,
        Dialled::Undeclared { callee, .. } if callee.protocol == Protocol::Tcp => {
            tcp::serve(worker, live, peer, io).await
        }
        Dialled::Edge(edge) => {
            live.set_edge(edge.id);
            http(worker, live, peer, io, None).await;
        }
        Dialled::Undeclared { .. } | Dialled::WrongPort(_) | Dialled::Own => {
            http(worker, live, peer, io, None).await
        }
        Dialled::Egress(rule) => tcp::serve_egress(worker, live, peer, io, &rule).await,
        Dialled::NoEgress | Dialled::Nowhere => {
            let reason = format!("{service} declares no egress to {address}:{port}");
            let missing = format!("services.{service}.egress");
            let position = table.position_of(service).map(ToString::to_string);
            let deny =
                Deny::new(403, "authorize", "egress.undeclared", reason).position(position).missing(missing);
            tcp::refuse(worker, peer, &deny);
        }
    }
}

/// Another sidecar, or a gateway: who it is and whom it wants is proved by the handshake.
///
/// Until then it counts against the listener's limit, from then on against the caller's own: one that takes all it may takes
/// nothing of the others'.
async fn mesh(
    worker: &Rc<Worker>,
    live: &Live,
    stream: TcpStream,
    source: SocketAddr,
    who: &Who,
    unknown: &Ticket,
) {
    let Some(table) = worker.table() else { return };
    live.arm(worker.now_ms() + table.limits.handshake_time.as_millis() as u64);
    let mesh = &worker.shared.mesh;
    let acceptor = TlsAcceptor::from(worker.shared.mesh_config.clone());
    let stream = match live.within(acceptor.accept(Socket(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => {
            mesh.metrics().record_failure();
            let rule = Refusal::find(&e).map_or("mesh.handshake", Refusal::reason);
            let reason = Refusal::find(&e).map_or_else(|| e.to_string(), ToString::to_string);
            return tell_handshake(worker, source, "-", rule, &reason);
        }
        Err(_) => return mesh.metrics().record_failure(),
    };
    let (_, session) = stream.get_ref();
    mesh.metrics().record(session);
    let caller = match mesh.caller_of(session) {
        Ok(caller) => caller,
        Err(e) => return tell_handshake(worker, source, "-", "mesh.caller", &e.to_string()),
    };
    let called = mesh.called_service(session);
    let Some(callee) = called
        .as_ref()
        .and_then(|id| if let Some(IdKind::Service(name)) = id.kind() { Some(name) } else { None })
    else {
        return tell_handshake(
            worker,
            source,
            "-",
            "mesh.callee",
            "the server name is not that of a service of this node",
        );
    };
    let ours = caller.id().trust_domain() == &table.trust_domain;
    let name = match caller.id().kind() {
        Some(IdKind::Service(name)) if ours => name,
        Some(IdKind::Gateway(name)) if ours && name == table.snapshot.fence => OUTSIDE,
        _ => {
            return tell_handshake(
                worker,
                source,
                callee,
                "mesh.stranger",
                &format!("{} is no caller of this fence", caller.id()),
            );
        }
    };
    let alpn = Alpn::negotiated(session);
    live.set_peer(caller.clone());
    let peer = who.get_or_init(|| {
        let way = Way::Inbound { callee: callee.into() };
        let caller_id = Some(caller.id().clone());
        Rc::new(Peer { caller: name.into(), caller_id, source, tls: true, certificate: OnceCell::new(), way })
    });
    // The edge is checked before a byte of the request passes, and again for each request.
    let edge = match in_force(worker).and_then(|table| peer.edge(&table)) {
        Ok(authorized) => authorized.edge,
        Err(deny) => return tcp::refuse(worker, peer, &deny),
    };
    let Some(_open) = worker.admit(&peer.caller) else {
        let reason = format!("{} has more connections over the mesh than the limit allows", peer.caller);
        return tcp::refuse(worker, peer, &Deny::new(503, "limit", "limit.connections", reason));
    };
    unknown.leave();
    live.set_ticket(None);
    live.set_edge(edge.id);
    let io = Io::Server(Box::new(stream));
    match (alpn, edge.protocol) {
        (Some(Alpn::Tcp), Protocol::Tcp) => tcp::serve(worker, live, peer, io).await,
        (Some(alpn @ (Alpn::H2 | Alpn::Http1)), Protocol::Http | Protocol::Grpc) => {
            http(worker, live, peer, io, Some(alpn)).await
        }
        _ => tcp::refuse(
            worker,
            peer,
            &Deny::new(400, "parse", "mesh.protocol", "the protocol agreed on is not the callee's"),
        ),
    }
}

/// HTTP of either version. Without ALPN the first bytes tell.
async fn http(worker: &Rc<Worker>, live: &Live, peer: &Rc<Peer>, io: Io, alpn: Option<Alpn>) {
    if alpn == Some(Alpn::H2) {
        return http2::serve(worker, live, peer, BytesMut::new(), io).await;
    }
    if let Some((read, io)) = http1::serve(worker, live, peer, io, BytesMut::new()).await
        && alpn.is_none()
    {
        http2::serve(worker, live, peer, read, io).await;
    }
}

/// An event for a connection that was cut.
pub(crate) fn tell_cut(worker: &Worker, peer: &Peer, live: &Live, cut: Cut) {
    if cut == Cut::Crowded {
        // Told for all of them together.
        return;
    }
    let callee = live
        .edge()
        .and_then(|id| worker.shared.with_interner(|i| i.callee(id)))
        .unwrap_or_else(|| peer.callee_name(worker));
    let (rule, reason) = match cut {
        Cut::EdgeRemoved => ("edge.removed", "the edge was removed from the fence"),
        Cut::SvidRevoked => ("svid.revoked", "an SVID that it was opened with was revoked"),
        Cut::Stopped | Cut::Crowded => ("node.stopped", "the node stopped, or its drain was over"),
    };
    let verdict = Verdict::Denied { stage: "authorize", rule, position: None, reason, missing: None };
    tell_connection(worker, peer, &callee, true, verdict);
}

/// An event for a connection.
pub(crate) fn tell_connection(worker: &Worker, peer: &Peer, callee: &str, cut: bool, verdict: Verdict<'_>) {
    worker.emit(Kind::Connection(Connection {
        caller: &peer.caller,
        caller_id: peer.caller_id.as_ref().map(SpiffeId::as_str),
        source: Some(peer.source),
        callee,
        port: if let Way::Outbound { port, .. } = peer.way { port } else { 0 },
        point: peer.point(),
        cut,
        verdict,
    }));
}

/// An event for a request that was refused before it could be read as one.
pub(crate) fn tell_refused(worker: &Worker, peer: &Peer, deny: &Deny) -> EventId {
    let id = EventId::new();
    let call = Call {
        caller: &peer.caller,
        caller_id: peer.caller_id.as_ref().map(SpiffeId::as_str),
        user: None,
        source: Some(peer.source.ip()),
        callee: &peer.callee_name(worker),
        point: peer.point(),
        method: b"",
        path: b"",
        status: deny.status,
        duration_us: 0,
        cut: false,
        observed: None,
        findings: &[],
        shape: "",
        verdict: deny.verdict(),
    };
    worker.events.emit(&Event::new(Kind::Call(call)).revision(worker.revision()).with_id(id));
    id
}

fn tell_handshake(worker: &Worker, source: SocketAddr, callee: &str, rule: &str, reason: &str) {
    worker.emit(Kind::Connection(Connection {
        caller: "unknown",
        caller_id: None,
        source: Some(source),
        callee,
        port: 0,
        point: point::INBOUND,
        cut: false,
        verdict: Verdict::Denied { stage: "tls", rule, position: None, reason, missing: None },
    }));
}

/// An event for a connection beyond the limit.
pub(crate) fn refuse_connection(worker: &Worker, kind: &ListenerKind, source: SocketAddr, full: Full) {
    let (rule, what) = beyond(full);
    tell_listener(worker, kind, source, rule, &format!("{what}, and none that had to make room"));
}

/// An event for connections that made room for others.
pub(crate) fn tell_crowded(
    worker: &Worker,
    kind: &ListenerKind,
    source: SocketAddr,
    full: Full,
    made: usize,
) {
    let (_, what) = beyond(full);
    let reason = format!("{what}: {made} that were idle or slow for the longest made room");
    tell_listener(worker, kind, source, "limit.crowded", &reason);
}

fn beyond(full: Full) -> (&'static str, &'static str) {
    match (full.address, full.shaking) {
        (None, false) => ("limit.connections", "more connections than the limit allows"),
        (Some(_), false) => {
            ("limit.connections-per-address", "more connections of one address than the limit allows")
        }
        (None, true) => ("limit.handshakes", "more handshakes under way than the limit allows"),
        (Some(_), true) => {
            ("limit.handshakes-per-address", "more handshakes of one address under way than the limit allows")
        }
    }
}

fn tell_listener(worker: &Worker, kind: &ListenerKind, source: SocketAddr, rule: &str, reason: &str) {
    let (caller, point) = match kind {
        ListenerKind::Gateway => (OUTSIDE, point::GATEWAY),
        ListenerKind::Mesh => ("unknown", point::INBOUND),
        ListenerKind::Outbound { service, .. } => (service.as_str(), point::OUTBOUND),
    };
    worker.emit(Kind::Connection(Connection {
        caller,
        caller_id: None,
        source: Some(source),
        callee: "-",
        port: 0,
        point,
        cut: false,
        verdict: Verdict::Denied { stage: "limit", rule, position: None, reason, missing: None },
    }));
}
