//! From a verified snapshot to a table.

use std::collections::HashMap;
use std::sync::Arc;

use ringfence_model::{Access, Binding, ExternalTls, GatewayTls, Limits, Protocol, Responses, Route};
use ringfence_snapshot::{Service, Target, VerifiedSnapshot};
use ringfence_spiffe::{SpiffeId, TrustDomain};

use super::{
    Callee, Caller, DELIVERY, Edge, EdgeAt, Egress, GatewayTable, Interner, Nearby, OUTSIDE, Rules, Sidecars,
    Table, TableError, Via,
};
use crate::access::{Authority, RouteAccess, TableProvider};
use crate::delegate::TxnKeys;
use crate::h1;
use crate::handling::{Breakers, Handled};
use crate::inspect::{Engine, Inspect};
use crate::limits::{LimitTable, Limiter};
use crate::policy::Policy;
use crate::protect;
use crate::responses::Dress;
use crate::shims::Shims;
use crate::validate::{Apis, Validate};

impl Table {
    #[expect(
        clippy::too_many_arguments,
        reason = "what a table is made of: each part is built by its own room, in one place"
    )]
    pub(crate) fn compile(
        snapshot: VerifiedSnapshot,
        policy: Option<Arc<Policy>>,
        engine: Option<Arc<Engine>>,
        apis: Apis,
        txn: TxnKeys,
        interner: &mut Interner,
        shims: &Shims,
        limiter: &Limiter,
        breakers: &Breakers,
        node: &str,
    ) -> Result<Self, TableError> {
        let trust_domain = TrustDomain::new(&snapshot.trust_domain)?;
        let gateway_id = SpiffeId::gateway(&trust_domain, &snapshot.fence)?;
        let names: Vec<Arc<str>> = snapshot.services.iter().map(|s| s.name.as_str().into()).collect();
        let index = |name: &str| snapshot.services.binary_search_by(|s| s.name.as_str().cmp(name)).ok();
        let bundle = snapshot.bundle.generation;
        let authorities: Vec<Arc<Authority>> =
            snapshot.authorities.iter().map(|declared| Arc::new(Authority::new(declared))).collect();
        let access_of = |access: &Access| RouteAccess::of(access, &snapshot.providers, &authorities);
        // The stages of a route, in their order: validate, inspect.
        let protection_of = |service: &Service, route: &Route| {
            let validate = Validate::of(&apis, &service.name, service.protocol);
            protect::of([validate, Inspect::of(engine.as_ref(), service.protocol, route)])
        };
        let (limit, plans) = LimitTable::compile(&snapshot, limiter);
        let limit_of = |service: &Service, route: &Route| plans.route(service, route);
        let (outside, delivery): (Arc<str>, Arc<str>) = (OUTSIDE.into(), DELIVERY.into());

        let via = |at: usize, own: &SpiffeId| -> Result<Via, TableError> {
            let service = &snapshot.services[at];
            let (address, id) = match &service.target {
                Target::External { address, tls: ExternalTls::Off, .. } => {
                    return Ok(Via::Plain(address.clone()));
                }
                Target::External { address, tls: ExternalTls::Spiffe { id }, .. } => {
                    (address.clone(), id.as_deref())
                }
                Target::Fenced => {
                    let at = Sidecars::Ours(sidecars(&snapshot, service, node, shims));
                    let id = SpiffeId::service(&trust_domain, &service.name)?;
                    return Ok(Via::Mesh { at, id, own: own.clone() });
                }
            };
            let id = match id {
                Some(id) => SpiffeId::parse(id)?,
                None => SpiffeId::service(&trust_domain, &service.name)?,
            };
            Ok(Via::Mesh { at: Sidecars::Theirs(address), id, own: own.clone() })
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
                all.replicate(edge, &snapshot.services[callee].target);
                if call.on_behalf {
                    all.list[edge].on_behalf = Some(call.position.to_string().into());
                }
                all.list[edge].limit = plans.call(&names[at], &names[callee], &call.limit);
                all.list[edge].handling = Handled::of(&call.handling, all.list[edge].id, "", breakers);
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

        let said = snapshot.gateway.as_ref().map(|gateway| gateway.responses.clone()).unwrap_or_default();
        let tls = snapshot.gateway.as_ref().is_some_and(|gateway| gateway.tls != GatewayTls::Off);
        let dress_of = |route: &Route| Dress::new(&route.responses.clone().within(&said), tls);
        let takes_reports =
            |said: &Responses| said.headers.as_ref().is_some_and(|h| h.csp_reports == Some(true));
        let csp_reports = takes_reports(&said)
            || snapshot.services.iter().flat_map(|s| &s.routes).any(|route| takes_reports(&route.responses));
        let dress = Arc::new(Dress::new(&said, tls));
        let mut gateway = GatewayTable::default();
        if snapshot.gateway.is_some() {
            for (at, service) in snapshot.services.iter().enumerate().filter(|(_, s)| !s.routes.is_empty()) {
                let rules = Rules::Routes(service.routes.clone());
                let edge = all.add(&outside, &names[at], service.protocol, rules, via(at, &gateway_id)?);
                all.replicate(edge, &service.target);
                inbound[at].insert(outside.clone(), edge);
                let id = all.list[edge].id;
                let handled_of = |route: &Route| {
                    let name = format!("{}{}", route.host.as_deref().unwrap_or_default(), route.path);
                    Handled::of(&route.handling, id, &name, breakers)
                };
                gateway.add(service, edge, access_of, protection_of, limit_of, dress_of, handled_of);
            }
        }
        gateway.sort();

        let mut by_address = HashMap::new();
        let mut callees = Vec::with_capacity(names.len());
        for ((at, service), inbound) in snapshot.services.iter().enumerate().zip(inbound) {
            by_address.insert(service.address, at);
            let delivery_via = match &service.target {
                Target::Fenced if !snapshot.runs_at(service, node) => None,
                Target::Fenced => {
                    service.listen.map(|port| Via::Shim { shim: shims.of(&service.name), port })
                }
                Target::External { address, tls: ExternalTls::Off, .. } => Some(Via::Plain(address.clone())),
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
            dress,
            csp_reports,
            policy,
            engine,
            apis,
            limit,
            txn,
            declared,
            snapshot,
        })
    }
}

/// Where the sidecars of a fenced service are, as the machine `node` sees it.
fn sidecars(snapshot: &VerifiedSnapshot, service: &Service, node: &str, shims: &Shims) -> Nearby {
    let here = snapshot.runs_at(service, node);
    let elsewhere = snapshot.hosts.iter().filter(|host| host.name != node);
    let others = elsewhere.filter(|host| snapshot.runs_at(service, &host.name)).map(|host| host.mesh);
    Nearby { here: here.then(|| shims.of(&service.name)), others: others.collect() }
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
            limit: None,
            handling: None,
            via,
            replicas: Vec::new(),
            stamp,
        });
        self.list.len() - 1
    }

    /// Gives an edge whose callee has several addresses one for each, with connections of its own.
    fn replicate(&mut self, edge: EdgeAt, target: &Target) {
        let Target::External { address, more, .. } = target else { return };
        if more.is_empty() {
            return;
        }
        for address in [address].into_iter().chain(more) {
            let Edge { caller, callee, protocol, via, .. } = &self.list[edge];
            let (caller, callee, protocol) = (caller.clone(), callee.clone(), *protocol);
            let via = match via {
                Via::Mesh { id, own, .. } => {
                    Via::Mesh { at: Sidecars::Theirs(address.clone()), id: id.clone(), own: own.clone() }
                }
                Via::Plain(_) | Via::Shim { .. } => Via::Plain(address.clone()),
            };
            let name: Arc<str> = format!("{callee}{DELIVERY}{address}").into();
            let at = self.add(&caller, &name, protocol, Rules::Allow(Vec::new()), via);
            // What is told of it is told of the service.
            self.list[at].callee = callee;
            self.list[edge].replicas.push(at);
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
