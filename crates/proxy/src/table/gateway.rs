//! Routes of the gateway: which of them takes a request from outside.
//!
//! Many services take `/Admin` for `/admin`. A request whose path lies below a route but for the case of its letters, while another
//! route of the same service takes it and lets in other callers, would reach such a service past who guards it: it is refused.

use std::collections::HashMap;
use std::sync::Arc;

use ringfence_model::{Access, Protocol, Route};

use super::{EdgeAt, EdgeRef, TableRef};
use crate::access::RouteAccess;
use crate::handling::Handled;
use crate::limits::Plan;
use crate::protect::Protection;
use crate::responses::Dress;

/// Routes of the gateway.
#[derive(Debug, Default)]
pub(super) struct GatewayTable {
    hosts: HashMap<String, Routes>,
    any: Routes,
    tcp: HashMap<String, EdgeAt>,
    /// All routes of each service, at whatever host, where any way is split.
    of_service: HashMap<EdgeAt, Routes>,
}

/// Routes of one host, or of any, the more specific before the less.
#[derive(Debug, Default)]
struct Routes {
    list: Vec<RouteEntry>,
    /// Whether a service has two that let in different callers, here or at any host: only then does case matter.
    mixed: bool,
}

#[derive(Clone, Debug)]
struct RouteEntry {
    route: Route,
    edge: EdgeAt,
    access: Option<Arc<RouteAccess>>,
    protection: Option<Arc<Protection>>,
    limit: Option<Arc<Plan>>,
    dress: Arc<Dress>,
    handling: Option<Arc<Handled>>,
}

/// Where a request from outside leads.
#[derive(Debug)]
pub(crate) enum Routed {
    /// Along this edge, for those who may take it.
    To {
        edge: EdgeRef,
        access: Option<Arc<RouteAccess>>,
        /// Who judges more than heads.
        protection: Option<Arc<Protection>>,
        /// How it is counted.
        limit: Option<Arc<Plan>>,
        /// What its responses look like.
        dress: Arc<Dress>,
        /// How long requests may take, and what of them is tried again.
        handling: Option<Arc<Handled>>,
    },
    /// Its service may take it for what another route guards.
    Case {
        /// Path of the other route.
        path: String,
        /// Where that stands.
        position: String,
    },
    /// Nowhere.
    Nowhere,
}

impl GatewayTable {
    #[expect(
        clippy::too_many_arguments,
        reason = "what a route is made of: each part is built by its own room"
    )]
    pub(super) fn add(
        &mut self,
        service: &ringfence_snapshot::Service,
        edge: EdgeAt,
        access_of: impl Fn(&Access) -> Option<Arc<RouteAccess>>,
        protection_of: impl Fn(&ringfence_snapshot::Service, &Route) -> Option<Arc<Protection>>,
        limit_of: impl Fn(&ringfence_snapshot::Service, &Route) -> Option<Arc<Plan>>,
        dress_of: impl Fn(&Route) -> Dress,
        handled_of: impl Fn(&Route) -> Option<Arc<Handled>>,
    ) {
        for route in &service.routes {
            let access = access_of(&route.access);
            let protection = protection_of(service, route);
            let limit = limit_of(service, route);
            let dress = Arc::new(dress_of(route));
            let (route, handling) = (route.clone(), handled_of(route));
            let host = route.host.clone();
            let entry = RouteEntry { route, edge, access, protection, limit, dress, handling };
            match (&host, service.protocol) {
                (Some(host), Protocol::Tcp) => drop(self.tcp.insert(host.clone(), edge)),
                (None, Protocol::Tcp) => {}
                (Some(host), _) => self.hosts.entry(host.clone()).or_default().list.push(entry),
                (None, _) => self.any.list.push(entry),
            }
        }
    }

    /// After the last was added.
    pub(super) fn sort(&mut self) {
        for routes in self.hosts.values_mut().chain([&mut self.any]) {
            routes.list.sort_by(|a, b| a.route.specificity(&b.route));
        }
        for routes in self.hosts.values_mut() {
            routes.mixed = are_mixed(routes.list.iter().chain(&self.any.list));
        }
        self.any.mixed = are_mixed(self.any.list.iter());
        if !self.handled().any(|(_, handled)| handled.said.split.is_some()) {
            return;
        }
        for entry in self.hosts.values().chain([&self.any]).flat_map(|routes| &routes.list) {
            self.of_service.entry(entry.edge).or_default().list.push(entry.clone());
        }
        for routes in self.of_service.values_mut() {
            routes.list.sort_by(|a, b| a.route.specificity(&b.route));
            routes.mixed = are_mixed(routes.list.iter());
        }
    }

    /// How requests along each route are handled, where that is said.
    pub(super) fn handled(&self) -> impl Iterator<Item = (EdgeAt, &Handled)> {
        let entries = self.hosts.values().chain([&self.any]).flat_map(|routes| &routes.list);
        entries.filter_map(|entry| Some((entry.edge, entry.handling.as_deref()?)))
    }

    /// Whether any route is for this host.
    pub(super) fn serves(&self, host: &str) -> bool {
        !self.any.list.is_empty() || self.hosts.contains_key(host)
    }

    /// The route that takes a request, and the one that guards what its service may take it for.
    fn choose(&self, host: &str, path: &str) -> Option<(&RouteEntry, Option<&RouteEntry>)> {
        let named = self.hosts.get(host);
        let chosen = named.and_then(|routes| routes.of(path)).or_else(|| self.any.of(path))?;
        if !named.unwrap_or(&self.any).mixed {
            return Some((chosen, None));
        }
        let all = named.into_iter().chain([&self.any]).flat_map(|routes| &routes.list);
        Some((chosen, guard(all, chosen, path)))
    }
}

impl Routes {
    fn of(&self, path: &str) -> Option<&RouteEntry> {
        self.list.iter().find(|entry| entry.route.covers(path))
    }
}

/// Of those before the route that takes a request, the one that guards what its service may take it for.
fn guard<'a>(
    all: impl Iterator<Item = &'a RouteEntry>,
    chosen: &RouteEntry,
    path: &str,
) -> Option<&'a RouteEntry> {
    all.take_while(|entry| !std::ptr::eq(*entry, chosen)).find(|entry| {
        entry.edge == chosen.edge
            && entry.route.covers_in_any_case(path)
            && !entry.route.access.is_as(&chosen.route.access)
    })
}

fn are_mixed<'a>(routes: impl Iterator<Item = &'a RouteEntry>) -> bool {
    let mut first: HashMap<EdgeAt, &Access> = HashMap::new();
    let mut routes = routes.map(|entry| (entry.edge, &entry.route.access));
    routes.any(|(edge, access)| !first.entry(edge).or_insert(access).is_as(access))
}

/// Where a request through the gateway leads. `host` is lower case and without port.
pub(crate) fn route(table: &TableRef, host: &str, path: &str) -> Routed {
    routed(table, table.gateway.choose(host, path))
}

/// Where a request leads that goes to the service of `edge` whatever its host: by that service's own routes.
pub(crate) fn route_to(table: &TableRef, edge: &EdgeRef, path: &str) -> Routed {
    let Some(routes) = table.gateway.of_service.get(&edge.at) else { return Routed::Nowhere };
    let chosen = routes.of(path);
    let other = chosen.filter(|_| routes.mixed).and_then(|chosen| guard(routes.list.iter(), chosen, path));
    routed(table, chosen.map(|chosen| (chosen, other)))
}

fn routed(table: &TableRef, chosen: Option<(&RouteEntry, Option<&RouteEntry>)>) -> Routed {
    match chosen {
        Some((entry, None)) => Routed::To {
            edge: EdgeRef::new(table, entry.edge),
            access: entry.access.clone(),
            protection: entry.protection.clone(),
            limit: entry.limit.clone(),
            dress: entry.dress.clone(),
            handling: entry.handling.clone(),
        },
        Some((_, Some(other))) => {
            Routed::Case { path: other.route.path.clone(), position: other.route.position.to_string() }
        }
        None => Routed::Nowhere,
    }
}

/// The TCP service that a client of the gateway names by SNI.
pub(crate) fn route_tcp(table: &TableRef, server_name: &str) -> Option<EdgeRef> {
    table.gateway.tcp.get(server_name).map(|at| EdgeRef::new(table, *at))
}
