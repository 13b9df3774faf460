//! A snapshot compiled into what a request asks: which route, which edge, which way on.
//!
//! Built once per snapshot on the control thread; data-plane threads only read it. Edges get numbers that stay the same
//! from one snapshot to the next, so that pools, counters and live connections can be indexed by them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use ringfence_model::{Access, Allow, Binding, ExternalTls, HostPort, Limits, Protocol};
pub(crate) use ringfence_snapshot::Place;
use ringfence_snapshot::{Target, VerifiedSnapshot};
use ringfence_spiffe::{SpiffeId, TrustDomain};

use crate::access::{Authority, RouteAccess, TableProvider};
use crate::delegate::TxnKeys;
use crate::h1;
use crate::policy::Policy;
use crate::shims::{Shim, Shims};

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

/// Gives (caller, callee) pairs their numbers, and what they are reached by its stamp.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: HashMap<(Arc<str>, Arc<str>), EdgeId>,
    names: Vec<(Arc<str>, Arc<str>)>,
    stamps: HashMap<EdgeId, (Via, u64, u64)>,
    last_stamp: u64,
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
    /// What decides on top of the edges.
    pub(crate) policy: Option<Arc<Policy>>,
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
    pub(crate) via: Via,
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
        /// The sidecar's address; none for this node's own mesh listener.
        address: Option<HostPort>,
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

/// Routes of the gateway, the more specific before the less.
#[derive(Debug, Default)]
struct GatewayTable {
    hosts: HashMap<String, Vec<RouteEntry>>,
    any: Vec<RouteEntry>,
    tcp: HashMap<String, EdgeAt>,
}

#[derive(Debug)]
struct RouteEntry {
    route: ringfence_model::Route,
    edge: EdgeAt,
    access: Option<Arc<RouteAccess>>,
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
    /// The sidecar itself.
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

impl Interner {
    pub(crate) fn id(&mut self, caller: &Arc<str>, callee: &Arc<str>) -> EdgeId {
        let key = (caller.clone(), callee.clone());
        *self.ids.entry(key).or_insert_with_key(|key| {
            self.names.push(key.clone());
            // As many as there are pairs of names; a snapshot is bounded.
            (self.names.len() - 1) as EdgeId
        })
    }

    /// Caller and callee of each edge, by number; deliveries are not among them.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (EdgeId, &(Arc<str>, Arc<str>))> {
        self.names
            .iter()
            .enumerate()
            .map(|(id, names)| (id as EdgeId, names))
            .filter(|(_, names)| &*names.0 != DELIVERY)
    }

    /// The callee of an edge.
    pub(crate) fn callee(&self, id: EdgeId) -> Option<Arc<str>> {
        self.names.get(id as usize).map(|(_, callee)| callee.clone())
    }

    fn len(&self) -> usize {
        self.names.len()
    }

    fn stamp(&mut self, id: EdgeId, via: &Via, bundle: u64) -> u64 {
        match self.stamps.get(&id) {
            Some((known, generation, stamp)) if known == via && *generation == bundle => *stamp,
            _ => {
                self.last_stamp += 1;
                self.stamps.insert(id, (via.clone(), bundle, self.last_stamp));
                self.last_stamp
            }
        }
    }
}

impl Table {
    pub(crate) fn compile(
        snapshot: VerifiedSnapshot,
        policy: Option<Arc<Policy>>,
        txn: TxnKeys,
        interner: &mut Interner,
        shims: &Shims,
    ) -> Result<Self, TableError> {
        let trust_domain = TrustDomain::new(&snapshot.trust_domain)?;
        let gateway_id = SpiffeId::gateway(&trust_domain, &snapshot.fence)?;
        let names: Vec<Arc<str>> = snapshot.services.iter().map(|s| s.name.as_str().into()).collect();
        let index = |name: &str| snapshot.services.binary_search_by(|s| s.name.as_str().cmp(name)).ok();
        let bundle = snapshot.bundle.generation;
        let authorities: Vec<Arc<Authority>> =
            snapshot.authorities.iter().map(|declared| Arc::new(Authority::new(declared))).collect();
        let access_of = |access: &Access| RouteAccess::of(access, &snapshot.providers, &authorities);
        let (outside, delivery): (Arc<str>, Arc<str>) = (OUTSIDE.into(), DELIVERY.into());

        let via = |at: usize, own: &SpiffeId| -> Result<Via, TableError> {
            let service = &snapshot.services[at];
            let (address, id) = match &service.target {
                Target::External { address, tls: ExternalTls::Off } => {
                    return Ok(Via::Plain(address.clone()));
                }
                Target::External { address, tls: ExternalTls::Spiffe { id } } => {
                    (Some(address.clone()), id.as_deref())
                }
                Target::Fenced => (None, None),
            };
            let id = match id {
                Some(id) => SpiffeId::parse(id)?,
                None => SpiffeId::service(&trust_domain, &service.name)?,
            };
            Ok(Via::Mesh { address, id, own: own.clone() })
        };

        let mut all = Edges { list: Vec::new(), interner, bundle };
        let mut inbound: Vec<HashMap<Arc<str>, EdgeAt>> = vec![HashMap::new(); names.len()];
        let mut callers = HashMap::new();
        for (at, service) in snapshot.services.iter().enumerate() {
            let own = SpiffeId::service(&trust_domain, &service.name)?;
            let mut edges = HashMap::new();
            for call in &service.calls {
                // `SignedSnapshot::verify` checked that each callee exists.
                let Some(callee) = index(&call.service) else { continue };
                let protocol = snapshot.services[callee].protocol;
                let rules = Rules::Allow(call.allow.clone());
                let edge = all.add(&names[at], &names[callee], protocol, rules, via(callee, &own)?);
                if call.on_behalf {
                    all.list[edge].on_behalf = Some(call.position.to_string().into());
                }
                inbound[callee].insert(names[at].clone(), edge);
                edges.insert(callee, edge);
            }
            let mut egress: HashMap<u16, Vec<Arc<Egress>>> = HashMap::new();
            for host in &service.egress {
                let name: Arc<str> = format!("{}:{}", host.rule.host, host.rule.port).into();
                egress.entry(host.address).or_default().push(Arc::new(Egress {
                    id: all.interner.id(&names[at], &name),
                    host: host.rule.host.as_str().into(),
                    port: host.rule.port,
                    tls: host.rule.tls,
                    allow_private: host.rule.allow_private,
                    position: host.rule.position.to_string().into(),
                }));
            }
            let position = service.position.to_string().into();
            callers.insert(names[at].clone(), Caller { position, edges, egress });
        }

        let mut gateway = GatewayTable::default();
        if snapshot.gateway.is_some() {
            for (at, service) in snapshot.services.iter().enumerate().filter(|(_, s)| !s.routes.is_empty()) {
                let rules = Rules::Routes(service.routes.clone());
                let edge = all.add(&outside, &names[at], service.protocol, rules, via(at, &gateway_id)?);
                inbound[at].insert(outside.clone(), edge);
                gateway.add(service, edge, access_of);
            }
        }
        gateway.sort();

        let mut by_address = HashMap::new();
        let mut callees = Vec::with_capacity(names.len());
        for ((at, service), inbound) in snapshot.services.iter().enumerate().zip(inbound) {
            by_address.insert(service.address, at);
            let delivery_via = match &service.target {
                Target::Fenced => {
                    service.listen.map(|port| Via::Shim { shim: shims.of(&service.name), port })
                }
                Target::External { address, tls: ExternalTls::Off } => Some(Via::Plain(address.clone())),
                Target::External { tls: ExternalTls::Spiffe { .. }, .. } => None,
            };
            let rules = Rules::Allow(Vec::new());
            let delivery =
                delivery_via.map(|via| all.add(&delivery, &names[at], service.protocol, rules, via));
            let callee = Callee {
                name: names[at].clone(),
                protocol: service.protocol,
                port: service.port,
                delivery,
                access: access_of(&service.access),
                inbound,
            };
            callees.push(Arc::new(callee));
        }

        let mut declared = vec![false; all.interner.len()];
        let egress = callers.values().flat_map(|c: &Caller| c.egress.values().flatten()).map(|e| e.id);
        for id in all.list.iter().map(|e| e.id).chain(egress) {
            declared[id as usize] = true;
        }
        let edges = all.list;
        let asks_certificates =
            !authorities.is_empty() || snapshot.providers.iter().any(|p| p.bound == Binding::Mtls);
        Ok(Self {
            http1: http1_limits(&snapshot.limits),
            limits: snapshot.limits.clone(),
            fresh_until: snapshot.issued_at.saturating_add(snapshot.lease).min(snapshot.expires_at),
            trust_domain,
            edges,
            callees,
            by_address,
            callers,
            gateway,
            providers: snapshot.providers.iter().map(TableProvider::new).collect(),
            authorities,
            asks_certificates,
            policy,
            txn,
            declared,
            snapshot,
        })
    }

    /// Whether the edge of this number is declared.
    pub(crate) fn declares(&self, id: EdgeId) -> bool {
        self.declared.get(id as usize).copied().unwrap_or(false)
    }

    /// The service of that name.
    pub(crate) fn callee(&self, name: &str) -> Option<&Arc<Callee>> {
        self.callees.binary_search_by(|c| (*c.name).cmp(name)).ok().map(|at| &self.callees[at])
    }

    /// The edge that a request through the gateway takes. `host` is lower case and without port.
    fn route(&self, host: &str, path: &str) -> Option<&RouteEntry> {
        let of = |routes: &'_ [RouteEntry]| routes.iter().position(|r| r.route.covers(path));
        let named = self.gateway.hosts.get(host).and_then(|routes| Some(&routes[of(routes)?]));
        named.or_else(|| Some(&self.gateway.any[of(&self.gateway.any)?]))
    }

    /// Whether any route is for this host.
    pub(crate) fn serves(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        !self.gateway.any.is_empty() || self.gateway.hosts.contains_key(&host)
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

/// The edge that a request through the gateway takes, and who may take it. `host` is lower case and without port.
pub(crate) fn route(table: &TableRef, host: &str, path: &str) -> Option<(EdgeRef, Option<Arc<RouteAccess>>)> {
    table.route(host, path).map(|entry| (EdgeRef::new(table, entry.edge), entry.access.clone()))
}

/// The TCP service that a client of the gateway names by SNI.
pub(crate) fn route_tcp(table: &TableRef, server_name: &str) -> Option<EdgeRef> {
    table.gateway.tcp.get(server_name).map(|at| EdgeRef::new(table, *at))
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
        Place::Own if port == 80 => Dialled::Own,
        Place::Own | Place::Unknown => Dialled::Nowhere,
    }
}

impl EdgeRef {
    fn new(table: &TableRef, at: EdgeAt) -> Self {
        Self { table: table.clone(), at }
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

/// The edges of a table while it is built.
struct Edges<'a> {
    list: Vec<Edge>,
    interner: &'a mut Interner,
    bundle: u64,
}

impl Edges<'_> {
    fn add(
        &mut self,
        caller: &Arc<str>,
        callee: &Arc<str>,
        protocol: Protocol,
        rules: Rules,
        via: Via,
    ) -> EdgeAt {
        let id = self.interner.id(caller, callee);
        let stamp = self.interner.stamp(id, &via, self.bundle);
        self.list.push(Edge {
            id,
            caller: caller.clone(),
            callee: callee.clone(),
            protocol,
            rules,
            on_behalf: None,
            via,
            stamp,
        });
        self.list.len() - 1
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

impl GatewayTable {
    fn add(
        &mut self,
        service: &ringfence_snapshot::Service,
        edge: EdgeAt,
        access_of: impl Fn(&Access) -> Option<Arc<RouteAccess>>,
    ) {
        for route in &service.routes {
            let access = access_of(&route.access);
            let entry = RouteEntry { route: route.clone(), edge, access };
            match (&route.host, service.protocol) {
                (Some(host), Protocol::Tcp) => drop(self.tcp.insert(host.clone(), edge)),
                (None, Protocol::Tcp) => {}
                (Some(host), _) => self.hosts.entry(host.clone()).or_default().push(entry),
                (None, _) => self.any.push(entry),
            }
        }
    }

    fn sort(&mut self) {
        for routes in self.hosts.values_mut().chain([&mut self.any]) {
            routes.sort_by(|a, b| a.route.specificity(&b.route));
        }
    }
}

fn http1_limits(limits: &Limits) -> h1::Limits {
    let defaults = h1::Limits::default();
    let head = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    let fields = usize::try_from(limits.headers).unwrap_or(usize::MAX).min(h1::MAX_FIELDS);
    h1::Limits {
        head,
        fields,
        target: defaults.target.min(head),
        trailer: defaults.trailer.min(head),
        ..defaults
    }
}

/// What an address inside a service's network stands for.
pub(crate) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(v4) => ringfence_snapshot::place(v4),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(Place::Unknown, ringfence_snapshot::place),
    }
}
