//! A snapshot compiled into what a request asks: which route, which edge, which way on.
//!
//! Built once per snapshot on the control thread; data-plane threads only read it. Edges get numbers that stay the same
//! from one snapshot to the next, so that pools, counters and live connections can be indexed by them.

mod compile;
mod gateway;
mod interner;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use ringfence_model::{Allow, HostPort, Limits, Protocol};
pub(crate) use ringfence_snapshot::Place;
use ringfence_snapshot::{REGISTRY_PORT, VerifiedSnapshot};
use ringfence_spiffe::{SpiffeId, TrustDomain};

use self::gateway::GatewayTable;
pub(crate) use self::gateway::{Routed, route, route_tcp, route_to};
pub(crate) use self::interner::Interner;
use crate::access::{Authority, RouteAccess, TableProvider};
use crate::delegate::TxnKeys;
use crate::h1;
use crate::handling::Handled;
use crate::inspect::Engine;
use crate::limits::{LimitTable, Plan};
use crate::policy::Policy;
use crate::responses::Dress;
use crate::shims::Shim;
use crate::validate::Apis;

/// Caller's name for whoever comes through the gateway.
pub(crate) const OUTSIDE: &str = "outside";
/// Caller's name of the last step to a service inside this node: not an edge, but something with connections of its own.
const DELIVERY: &str = "\u{2192}";

/// Number of a (caller, callee) pair, stable for the life of the process.
pub(crate) type EdgeId = u32;
/// Place of an edge in one table.
type EdgeAt = usize;

/// A thread's hold on the table: counted without atomics, since every request takes one.
pub(crate) type TableRef = Rc<Arc<Table>>;

/// An edge together with the table that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct EdgeRef {
    table: TableRef,
    at: EdgeAt,
}

/// Everything that requests are judged by.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) snapshot: VerifiedSnapshot,
    pub(crate) limits: Limits,
    /// The same as the HTTP/1 parser takes them.
    pub(crate) http1: h1::Limits,
    pub(crate) trust_domain: TrustDomain,
    /// Unix time in seconds up to which the snapshot may be used.
    pub(crate) fresh_until: u64,
    edges: Vec<Edge>,
    callees: Vec<Arc<Callee>>,
    by_address: HashMap<u16, usize>,
    callers: HashMap<Arc<str>, Caller>,
    gateway: GatewayTable,
    providers: Vec<TableProvider>,
    authorities: Vec<Arc<Authority>>,
    /// Whether the gateway asks clients for a certificate.
    pub(crate) asks_certificates: bool,
    /// What answers of the gateway's own look like.
    pub(crate) dress: Arc<Dress>,
    /// Whether browsers are told to report what policies of pages stopped.
    pub(crate) csp_reports: bool,
    /// What decides on top of the edges.
    pub(crate) policy: Option<Arc<Policy>>,
    /// What attacks are looked for by.
    pub(crate) engine: Option<Arc<Engine>>,
    /// What services are held to.
    pub(crate) apis: Apis,
    /// How much may come in.
    pub(crate) limit: LimitTable,
    /// What transaction tokens are verified by.
    pub(crate) txn: TxnKeys,
    declared: Vec<bool>,
}

/// A service as the target of calls.
#[derive(Debug)]
pub(crate) struct Callee {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: Option<u16>,
    /// How a request that arrived here goes on to the service; none if it is not this node that delivers.
    delivery: Option<EdgeAt>,
    /// Who may pass at its own side, if not everybody who comes along an edge.
    pub(crate) access: Option<Arc<RouteAccess>>,
    /// By caller: who may call it, for the inbound side.
    inbound: HashMap<Arc<str>, EdgeAt>,
}

/// A service as a caller.
#[derive(Debug)]
struct Caller {
    /// `file:line:column` of its declaration.
    position: Arc<str>,
    edges: HashMap<usize, EdgeAt>,
    egress: HashMap<u16, Vec<Arc<Egress>>>,
}

/// A declared way from a caller to a callee.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) caller: Arc<str>,
    pub(crate) callee: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) rules: Rules,
    /// Where the fence says that only requests on somebody's behalf pass.
    pub(crate) on_behalf: Option<Arc<str>>,
    /// How calls along it are counted; what comes through the gateway is by its route.
    pub(crate) limit: Option<Arc<Plan>>,
    /// How long calls along it may take, and what of them is tried again; what comes through the gateway is by its route.
    pub(crate) handling: Option<Arc<Handled>>,
    pub(crate) via: Via,
    /// The same edge to each of several addresses, if there are several.
    replicas: Vec<EdgeAt>,
    /// Changes when endpoint, identities or trust bundle change: connections of another stamp are not used again.
    pub(crate) stamp: u64,
}

/// What may pass along an edge.
#[derive(Debug)]
pub(crate) enum Rules {
    /// What the caller's declaration allows.
    Allow(Vec<Allow>),
    /// What the gateway routes to it.
    Routes(Vec<ringfence_model::Route>),
}

/// How the callee is reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Via {
    /// Mutual TLS with the caller's SVID.
    Mesh {
        /// Where the callee's sidecar is.
        at: Sidecars,
        /// The identity that the other side must prove.
        id: SpiffeId,
        /// The identity that is shown.
        own: SpiffeId,
    },
    /// Plain text to an address.
    Plain(HostPort),
    /// Plain text over a socket made inside the service's network.
    Shim {
        /// Where the sockets come from.
        shim: Arc<Shim>,
        /// Where it listens there.
        port: u16,
    },
}

/// Where a callee's sidecars are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sidecars {
    /// They are ours, and judge too.
    Ours(Nearby),
    /// It proves its identity itself.
    Theirs(HostPort),
}

/// Sidecars of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Nearby {
    /// The service as it runs on this machine, behind this machine's own mesh listener.
    pub(crate) here: Option<Arc<Shim>>,
    /// The mesh listeners of the other machines that it runs on.
    pub(crate) others: Arc<[SocketAddr]>,
}

/// An egress host of a caller.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) id: EdgeId,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) allow_private: bool,
    pub(crate) position: Arc<str>,
}

/// What a caller reaches at an address and port.
#[derive(Debug)]
pub(crate) enum Dialled {
    /// A service, along a declared edge.
    Edge(EdgeRef),
    /// A host outside.
    Egress(Arc<Egress>),
    /// A service that is not declared for this caller.
    Undeclared { callee: Arc<Callee>, position: Arc<str> },
    /// A service at a port that it does not have.
    WrongPort(Arc<Callee>),
    /// An egress host that is not declared for this caller, or not at this port.
    NoEgress,
    /// The sidecar itself, or its registry.
    Own,
    /// Nothing.
    Nowhere,
}

/// Why a snapshot that verifies cannot be enforced here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("the snapshot's trust domain or a service name makes no SPIFFE ID: {0}")]
    Id(#[from] ringfence_spiffe::IdError),
}

impl Table {
    /// Whether the edge of this number is declared.
    pub(crate) fn declares(&self, id: EdgeId) -> bool {
        self.declared.get(id as usize).copied().unwrap_or(false)
    }

    /// Edges along which faults are injected.
    pub(crate) fn faulty(&self) -> Vec<EdgeId> {
        let routes = self.gateway.handled().map(|(edge, handled)| (&self.edges[edge], handled));
        let edges = self.edges.iter().filter_map(|edge| Some((edge, edge.handling.as_deref()?)));
        let faulty = edges
            .chain(routes)
            .filter(|(_, handled)| handled.said.fault.as_ref().is_some_and(|fault| fault.mode.enforces()));
        faulty.map(|(edge, _)| edge.id).collect()
    }

    /// The service of that name.
    pub(crate) fn callee(&self, name: &str) -> Option<&Arc<Callee>> {
        self.callees.binary_search_by(|c| (*c.name).cmp(name)).ok().map(|at| &self.callees[at])
    }

    /// Whether any route is for this host.
    pub(crate) fn serves(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.gateway.serves(&host)
    }

    /// Whose tokens are believed.
    pub(crate) fn providers(&self) -> &[TableProvider] {
        &self.providers
    }

    /// Whose word counts for client certificates.
    pub(crate) fn authorities(&self) -> &[Arc<Authority>] {
        &self.authorities
    }

    /// Where a service is declared.
    pub(crate) fn position_of(&self, service: &str) -> Option<&Arc<str>> {
        self.callers.get(service).map(|c| &c.position)
    }
}

/// The edge along which `caller` may call `callee`, as the callee's side sees it.
pub(crate) fn inbound(table: &TableRef, caller: &str, callee: &str) -> Option<EdgeRef> {
    table.callee(callee)?.inbound.get(caller).map(|at| EdgeRef::new(table, *at))
}

/// How a request that arrived here goes on to the service; none if it is not this node that delivers.
pub(crate) fn delivery(table: &TableRef, callee: &str) -> Option<EdgeRef> {
    table.callee(callee)?.delivery.map(|at| EdgeRef::new(table, at))
}

/// What `caller` reaches at this address of its own network.
pub(crate) fn dialled(table: &TableRef, caller: &str, address: IpAddr, port: u16) -> Dialled {
    let Some(from) = table.callers.get(caller) else { return Dialled::Nowhere };
    match place(address) {
        Place::Service(number) => {
            let Some(at) = table.by_address.get(&number).copied() else { return Dialled::Nowhere };
            let callee = &table.callees[at];
            if port != 80 && callee.port != Some(port) {
                return Dialled::WrongPort(callee.clone());
            }
            match from.edges.get(&at) {
                Some(edge) => Dialled::Edge(EdgeRef::new(table, *edge)),
                None => Dialled::Undeclared { callee: callee.clone(), position: from.position.clone() },
            }
        }
        Place::Egress(number) => {
            let rule = from.egress.get(&number).and_then(|rules| rules.iter().find(|rule| rule.port == port));
            rule.map_or(Dialled::NoEgress, |rule| Dialled::Egress(rule.clone()))
        }
        Place::Own if matches!(port, 80 | REGISTRY_PORT) => Dialled::Own,
        Place::Own | Place::Unknown => Dialled::Nowhere,
    }
}

impl EdgeRef {
    fn new(table: &TableRef, at: EdgeAt) -> Self {
        Self { table: table.clone(), at }
    }

    /// The same edge to each of several addresses; none where there is one.
    pub(crate) fn replicas(&self) -> &[usize] {
        &self.replicas
    }

    /// One of [`Self::replicas`].
    pub(crate) fn replica(&self, at: usize) -> Self {
        Self::new(&self.table, at)
    }

    /// The number of one of [`Self::replicas`].
    pub(crate) fn replica_id(&self, at: usize) -> EdgeId {
        self.table.edges[at].id
    }

    pub(crate) fn table(&self) -> &TableRef {
        &self.table
    }
}

impl Deref for EdgeRef {
    type Target = Edge;

    fn deref(&self) -> &Edge {
        &self.table.edges[self.at]
    }
}

impl Edge {
    /// Whether a request may pass: its method and its normalized path.
    pub(crate) fn allows(&self, method: &str, path: &str) -> bool {
        match &self.rules {
            Rules::Allow(rules) => rules.is_empty() || rules.iter().any(|rule| rule.matches(method, path)),
            Rules::Routes(routes) => routes.iter().any(|route| route.covers(path)),
        }
    }

    /// Where the rules that refused a request stand.
    pub(crate) fn rules_position(&self) -> Option<String> {
        match &self.rules {
            Rules::Allow(rules) => rules.first().map(|rule| rule.position.to_string()),
            Rules::Routes(routes) => routes.first().map(|route| route.position.to_string()),
        }
    }
}

/// What an address inside a service's network stands for.
pub(crate) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(v4) => ringfence_snapshot::place(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(Place::Unknown, ringfence_snapshot::place),
    }
}
