//! Limits compiled with the table: which rules count a request along a way, in the order in which they are told.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use ringfence_limit::{Concurrent, Full, Limit, Priority, Quota, Rate, Seed, Store};
use ringfence_model::{Amount, By, LimitRule, Mode, Route};
use ringfence_snapshot::{Service, Snapshot};

use super::guard::Guard;
use super::{Limiter, fields, full};

/// Limits of a table.
#[derive(Debug, Default)]
pub(crate) struct LimitTable {
    /// Addresses, for the gateway as a whole.
    pub(super) gateway: Option<Arc<Rules>>,
    /// Whether any route has a priority: otherwise nothing gives way.
    pub(crate) sheds: bool,
    pub(super) guard: Option<Guard>,
}

/// How a request along one way is counted.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) address: Option<Rules>,
    pub(super) others: Option<Rules>,
    /// How much it counts.
    pub(super) cost: u32,
    pub(super) priority: Priority,
    /// Where the way is declared.
    pub(super) position: Option<String>,
}

/// Rules that are asked together.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) list: Vec<Rule>,
    /// How many cells they have.
    pub(super) cells: usize,
    pub(super) store: Arc<dyn Store>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) by: By,
    pub(super) cells: Vec<Cell>,
    /// What tells ways apart, where all along one are counted together.
    pub(super) way: u64,
    pub(super) cost: u32,
    pub(super) observed: bool,
    pub(super) full: Full,
    /// As events name it.
    pub(super) name: Arc<str>,
    pub(super) position: Arc<str>,
}

/// One limit of a rule.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) limit: Limit,
    pub(super) seed: Seed,
    /// As clients know it.
    pub(super) name: Arc<str>,
    /// What it says, for clients and for the operator.
    pub(super) policy: Arc<str>,
    pub(super) says: Arc<str>,
}

/// Compiles the limits of one snapshot.
pub(crate) struct Plans<'a> {
    limiter: &'a Limiter,
    store: Arc<dyn Store>,
    gateway: Vec<Rule>,
    services: HashMap<String, Vec<Rule>>,
}

/// Where rules stand.
struct Place<'a> {
    /// In the names of policies.
    kind: &'static str,
    /// For the operator.
    name: &'a str,
    /// What the rules of no other place are told apart by.
    key: &'a [&'a str],
}

impl LimitTable {
    /// The limits of a snapshot, and how those of its ways are made.
    pub(crate) fn compile<'a>(snapshot: &Snapshot, limiter: &'a Limiter) -> (Self, Plans<'a>) {
        // Where nothing is counted there is no table.
        let counts = Guard::holds(snapshot) || snapshot.limits().next().is_some();
        let store = limiter.store(if counts { snapshot.limits.limit_memory } else { 0 });
        let declared = snapshot.gateway.as_ref().map_or(&[][..], |gateway| &gateway.limit);
        let place = Place { kind: "gateway", name: "gateway", key: &["gateway"] };
        let gateway = rules(limiter, declared, &place);
        let named = |service: &Service| {
            let place = Place { kind: "service", name: &service.name, key: &["service", &service.name] };
            (service.name.clone(), rules(limiter, &service.limit, &place))
        };
        let services =
            snapshot.services.iter().filter(|service| !service.limit.is_empty()).map(named).collect();
        let addresses = gateway.iter().filter(|rule| rule.by == By::Address).cloned().collect();
        let routes = || snapshot.services.iter().flat_map(|service| &service.routes);
        let table = Self {
            gateway: Rules::of(addresses, &store).map(Arc::new),
            sheds: routes().any(|route| route.priority.is_some()),
            guard: Guard::of(snapshot, limiter, &store),
        };
        (table, Plans { limiter, store, gateway, services })
    }
}

impl Plans<'_> {
    /// How requests along a route are counted: by the gateway's rules, the service's and its own.
    pub(crate) fn route(&self, service: &Service, route: &Route) -> Option<Arc<Plan>> {
        let host = route.host.as_deref().unwrap_or("*");
        let name = format!("{host}{} of {}", route.path, service.name);
        let place = Place { kind: "route", name: &name, key: &["route", &service.name, host, &route.path] };
        // Those about addresses were asked before there was a route.
        let gateway = self.gateway.iter().filter(|rule| rule.by != By::Address).cloned();
        let mut all: Vec<Rule> = gateway.collect();
        all.extend(self.services.get(&service.name).into_iter().flatten().cloned());
        all.extend(rules(self.limiter, &route.limit, &place));
        let way = place.hash();
        all.iter_mut().for_each(|rule| rule.way = way);
        let priority = match route.priority {
            Some(ringfence_model::Priority::Critical) => Priority::Critical,
            Some(ringfence_model::Priority::Sheddable) => Priority::Sheddable,
            Some(ringfence_model::Priority::Normal) | None => Priority::Normal,
        };
        let plan = self.plan(all, route.cost, priority);
        // A priority alone is something too.
        let plan = plan.or_else(|| route.priority.map(|_| Plan::empty(priority)));
        plan.map(|plan| Arc::new(Plan { position: Some(route.position.to_string()), ..plan }))
    }

    /// How calls of one service to another are counted: by the callee's rules and those of the edge.
    pub(crate) fn call(&self, caller: &str, callee: &str, declared: &[LimitRule]) -> Option<Arc<Plan>> {
        let name = format!("{caller} \u{2192} {callee}");
        let place = Place { kind: "edge", name: &name, key: &["call", caller, callee] };
        let mut all: Vec<Rule> = self.services.get(callee).cloned().unwrap_or_default();
        all.retain(|rule| rule.by != By::Address);
        all.extend(rules(self.limiter, declared, &place));
        let way = place.hash();
        all.iter_mut().for_each(|rule| rule.way = way);
        self.plan(all, 1, Priority::Normal).map(Arc::new)
    }

    fn plan(&self, all: Vec<Rule>, cost: u32, priority: Priority) -> Option<Plan> {
        if all.is_empty() {
            return None;
        }
        let (address, others) = all.into_iter().partition(|rule| rule.by == By::Address);
        let (address, others) = (Rules::of(address, &self.store), Rules::of(others, &self.store));
        Some(Plan { address, others, cost, ..Plan::empty(priority) })
    }
}

impl Plan {
    const fn empty(priority: Priority) -> Self {
        Self { address: None, others: None, cost: 1, priority, position: None }
    }
}

impl Rules {
    fn of(list: Vec<Rule>, store: &Arc<dyn Store>) -> Option<Self> {
        let cells = list.iter().map(|rule| rule.cells.len()).sum();
        (cells > 0).then(|| Self { list, cells, store: store.clone() })
    }
}

impl Place<'_> {
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.key.hash(&mut hasher);
        hasher.finish()
    }
}

/// The rules of one place.
fn rules(limiter: &Limiter, declared: &[LimitRule], place: &Place<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::with_capacity(declared.len());
    for rule in declared.iter().filter(|rule| rule.mode != Mode::Off) {
        let before = rules.iter().filter(|other| other.by == rule.by).count();
        let number = if before > 0 { format!("-{}", before + 1) } else { String::new() };
        let name = format!("{}-{}{number}", place.kind, rule.by.as_str());
        let (mut cells, position) = (Vec::new(), rule.position.to_string().into());
        let mut cell = |kind: &str, limit: Option<Limit>, policy: String, name: String, what: String| {
            let Some(limit) = limit else { return };
            // Where it stands and whether it only watches is not part of it.
            let same = (place.key, &rule.by, kind, before, &what, rule.burst, rule.cost);
            let seed = limiter.keys.seed(same);
            let says = fields::says(rule, &what, place.kind, place.name).into();
            cells.push(Cell { limit, seed, name: name.into(), policy: policy.into(), says });
        };
        if let Some((amount, burst)) = rule.rate.zip(rule.at_once()) {
            let limit = Rate::new(amount.units, amount.window, burst).map(Limit::Rate);
            cell("rate", limit, fields::policy(&name, amount), name.clone(), amount.to_string());
        }
        if let Some(amount) = rule.quota {
            let name = format!("{name}-quota");
            let limit = Quota::new(amount.units, amount.window).map(Limit::Quota);
            cell("quota", limit, fields::policy(&name, amount), name.clone(), amount.to_string());
        }
        if let Some(most) = rule.concurrent {
            let name = format!("{name}-concurrent");
            let limit = Concurrent::new(most).map(Limit::Concurrent);
            let what = format!("{most} at the same time");
            cell("concurrent", limit, fields::concurrency(&name, most), name.clone(), what);
        }
        rules.push(Rule {
            by: rule.by.clone(),
            cells,
            way: 0,
            cost: rule.cost,
            observed: rule.mode == Mode::Observe,
            full: full(rule.full),
            name: format!("limit.{}", rule.by.as_str()).into(),
            position,
        });
    }
    rules
}

/// A rate of which all units may come at once.
pub(super) fn rate(amount: Amount) -> Option<Limit> {
    Rate::new(amount.units, amount.window, amount.units).map(Limit::Rate)
}
