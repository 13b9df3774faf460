//! Who gains and who loses between two engines, over the requests that fence, policies and entity data make thinkable.
//!
//! A comparison by asking, not by proof: every way of the fence (an edge, a route) with its methods and paths, by everybody
//! whom data or policies name and one member of each group, with and without the scopes and levels that policies mention. What
//! depends on time or address is compared as of now and without address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use cedar_policy_core::ast::{EntityUID, Expr, ExprKind, Literal, PartialValue, ValueKind, Var};
use cedar_policy_core::entities::Dereference;
use ringfence_model::{Fence, OUTSIDE, Protocol};
use serde::Serialize;

use crate::actor::{Actor, Principal, PrincipalKind};
use crate::decision::Decision;
use crate::engine::Engine;
use crate::names::{CLIENT, GROUP, READS, USER, WRITES};
use crate::question::Question;

/// Questions that are asked of each engine.
const MAX_QUESTIONS: usize = 200_000;
/// Changes that are told.
const MAX_CHANGES: usize = 1_000;
/// Users, clients and groups that ask.
const MAX_PRINCIPALS: usize = 1_000;
/// Values of one principal that are put into a path.
const MAX_VALUES: usize = 4;
/// What stands for a value that nobody named.
const EXAMPLE: &str = "example";

/// How two engines differ.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diff {
    /// How many questions were asked.
    pub asked: usize,
    /// Whether all thinkable ones were.
    pub complete: bool,
    /// Where the answers differ.
    pub changes: Vec<Change>,
    /// How many more changes there are.
    pub omitted: usize,
}

/// A question that gets another answer.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Whether it becomes allowed; else it is no longer.
    pub gains: bool,
    /// The question.
    pub question: Question,
    /// The old answer.
    pub before: Decision,
    /// The new one.
    pub after: Decision,
}

/// A way through the fence: an edge or a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    caller: String,
    service: String,
    method: String,
    path: String,
}

/// All ways of a fence.
pub(crate) fn ways(fence: &Fence) -> BTreeSet<Way> {
    let mut ways = BTreeSet::new();
    let mut add = |caller: &str, service: &ringfence_model::Service, methods: &[String], paths: &[&str]| {
        let default: Vec<&str> = match service.protocol {
            Protocol::Http => READS.into_iter().take(1).chain(WRITES).collect(),
            Protocol::Grpc => vec!["POST"],
            Protocol::Tcp => vec![""],
        };
        let methods: Vec<&str> =
            if methods.is_empty() { default } else { methods.iter().map(String::as_str).collect() };
        for method in methods {
            for path in if paths.is_empty() { &["/**"][..] } else { paths } {
                ways.insert(Way {
                    caller: caller.to_owned(),
                    service: service.name.clone(),
                    method: method.to_owned(),
                    path: (*path).to_owned(),
                });
            }
        }
    };
    for edge in fence.edges() {
        if edge.call.allow.is_empty() {
            add(&edge.caller.name, edge.callee, &[], &[]);
        }
        for allow in &edge.call.allow {
            let paths: Vec<&str> = allow.paths.iter().map(|path| path.as_str()).collect();
            add(&edge.caller.name, edge.callee, &allow.methods, &paths);
        }
    }
    for service in &fence.services {
        for route in &service.routes {
            let rest = format!("{}/**", route.path.trim_end_matches('/'));
            add(OUTSIDE, service, &[], &[&route.path, &rest]);
        }
    }
    ways
}

impl Engine {
    /// What a newer engine answers otherwise; `table` is asked besides.
    #[must_use]
    pub fn diff(&self, new: &Self, table: &[Question], now: SystemTime) -> Diff {
        let mut asking = Asking { old: self, new, now, diff: Diff { complete: true, ..Diff::default() } };
        for question in table {
            let actors = (self.actor(&question.principal), new.actor(&question.principal));
            asking.ask(question, &actors);
        }
        let ways: BTreeSet<&Way> = self.ways.iter().chain(&new.ways).collect();
        let mut every = paths_of(self);
        for (service, paths) in paths_of(new) {
            every.entry(service).or_default().extend(paths);
        }
        let (people, all_named) = principals(self, new);
        asking.diff.complete &= all_named;
        for principal in people {
            let actors = (self.actor(&principal), new.actor(&principal));
            let values = values(&actors);
            for way in &ways {
                let whoever = principal.kind == PrincipalKind::Service;
                // A service acts for itself only where it is the caller.
                if whoever && principal.id != way.caller {
                    continue;
                }
                asking.walk(way, &principal, &actors, &values, &every);
            }
        }
        asking.diff
    }
}

struct Asking<'e> {
    old: &'e Engine,
    new: &'e Engine,
    now: SystemTime,
    diff: Diff,
}

impl Asking<'_> {
    fn walk(
        &mut self,
        way: &Way,
        principal: &Principal,
        actors: &(Actor, Actor),
        values: &[String],
        every: &BTreeMap<&str, BTreeSet<&str>>,
    ) {
        let mut templates: BTreeSet<&str> = [way.path.as_str()].into();
        if way.path.ends_with("/**") {
            // Whatever is allowed below may have names of its own.
            let prefix = way.path.trim_end_matches("**");
            let named = every.get(way.service.as_str()).into_iter().flatten();
            templates.extend(named.filter(|path| path.starts_with(prefix)));
        }
        let mut paths = BTreeSet::new();
        for template in templates {
            for value in values {
                paths.insert(fill(template, value));
            }
        }
        for path in paths {
            let mut question =
                Question::new(principal.clone(), &way.method, &way.service, &path).through(&way.caller);
            if self.ask(&question, actors) || way.caller == OUTSIDE {
                continue;
            }
            // The longest chain that this caller may end.
            question.chain = self.before(&way.caller);
            if question.chain.len() > 1 {
                self.ask(&question, actors);
            }
        }
    }

    /// Everybody from whom a call may come through this caller, and the caller.
    fn before(&self, caller: &str) -> Vec<String> {
        let mut chain = vec![caller.to_owned()];
        let mut at = 0;
        while let Some(callee) = chain.get(at).cloned() {
            at += 1;
            for way in self.old.ways.iter().chain(&self.new.ways) {
                if way.service == callee && way.caller != OUTSIDE && !chain.contains(&way.caller) {
                    chain.push(way.caller.clone());
                }
            }
        }
        chain.reverse();
        chain
    }

    /// Asks both; true when the answers differ.
    fn ask(&mut self, question: &Question, (old, new): &(Actor, Actor)) -> bool {
        if self.diff.asked >= MAX_QUESTIONS {
            self.diff.complete = false;
            return false;
        }
        self.diff.asked += 1;
        let chain: Vec<&str> = question.chain.iter().map(String::as_str).collect();
        let request = question.request(&chain, self.now);
        let before = self.old.decide(old, &request);
        let after = self.new.decide(new, &request);
        if before.allowed == after.allowed {
            return false;
        }
        if self.diff.changes.len() >= MAX_CHANGES {
            self.diff.omitted += 1;
            return true;
        }
        let gains = after.allowed;
        self.diff.changes.push(Change { gains, question: question.clone(), before, after });
        true
    }
}

/// A path that matches the template, with this value in each place.
fn fill(template: &str, value: &str) -> String {
    let segments = template.split('/').map(|segment| match segment {
        "*" | "**" => value,
        _ if segment.starts_with('{') => value,
        _ => segment,
    });
    segments.collect::<Vec<_>>().join("/")
}

fn paths_of(engine: &Engine) -> BTreeMap<&str, BTreeSet<&str>> {
    let services = engine.schema.services.iter();
    services
        .map(|(name, paths)| (name.as_str(), paths.templates().iter().map(|t| t.text.as_str()).collect()))
        .collect()
}

/// What may stand in a path for this principal: its own id, what it is related to, and something else.
fn values(actors: &(Actor, Actor)) -> Vec<String> {
    let mut values: BTreeSet<String> = [EXAMPLE.to_owned()].into();
    let good = |text: &str| !text.is_empty() && text.len() <= 64 && !text.contains('/');
    for actor in [&actors.0, &actors.1] {
        if good(&actor.principal().id) && actor.principal().kind != PrincipalKind::Service {
            values.insert(actor.principal().id.clone());
        }
        let Dereference::Data(entity) = actor.entities.entity(&actor.uid) else { continue };
        for (_, value) in entity.attrs() {
            let PartialValue::Value(value) = value else { continue };
            let ValueKind::Set(set) = value.value_kind() else { continue };
            for element in set.iter().take(MAX_VALUES) {
                match element.value_kind() {
                    ValueKind::Lit(Literal::String(text)) if good(text) => values.insert(text.to_string()),
                    ValueKind::Lit(Literal::EntityUID(uid)) if good(uid.eid().as_ref()) => {
                        let id: &str = uid.eid().as_ref();
                        values.insert(id.to_owned())
                    }
                    _ => false,
                };
            }
        }
    }
    values.into_iter().collect()
}

/// Everybody who asks, and whether that is everybody.
fn principals(old: &Engine, new: &Engine) -> (Vec<Principal>, bool) {
    let mut named: BTreeSet<EntityUID> = BTreeSet::new();
    let mut granted = Granted::default();
    let mut services = BTreeSet::new();
    for engine in [old, new] {
        named.extend(engine.all.iter().map(|entity| entity.uid().clone()));
        services.extend(engine.schema.services.keys().cloned());
        for policy in engine.policies.index.policies() {
            let condition = policy.condition();
            granted.collect(&condition);
            for part in condition.subexpressions() {
                if let ExprKind::Lit(Literal::EntityUID(uid)) = part.expr_kind() {
                    named.insert(uid.as_ref().clone());
                }
            }
        }
    }
    let mut people = vec![Principal::default()];
    people.extend(services.iter().map(|name| Principal::service(name)));
    let mut complete = true;
    for uid in named {
        let id: &str = uid.eid().as_ref();
        let Some((provider, id)) = id.split_once('/') else { continue };
        let bare = match uid.entity_type().to_string().as_str() {
            USER => Principal::user(provider, id),
            CLIENT => Principal { kind: PrincipalKind::Client, ..Principal::user(provider, id) },
            GROUP => {
                let member = Principal::user(provider, &format!("any-{id}"));
                Principal { groups: vec![id.to_owned()], ..member }
            }
            _ => continue,
        };
        if people.len() >= MAX_PRINCIPALS {
            complete = false;
            break;
        }
        people.extend(granted.variants(&bare));
        people.push(bare);
    }
    (people, complete)
}

/// The scopes and levels of authentication that policies mention.
#[derive(Default)]
struct Granted {
    scopes: BTreeSet<String>,
    acr: BTreeSet<String>,
}

impl Granted {
    fn collect(&mut self, condition: &Expr) {
        let reads = |expr: &Expr, name: &str| match expr.expr_kind() {
            ExprKind::GetAttr { expr, attr } => {
                attr == name && matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
            }
            _ => false,
        };
        for part in condition.subexpressions() {
            let ExprKind::BinaryApp { arg1, arg2, .. } = part.expr_kind() else { continue };
            for (one, other) in [(arg1, arg2), (arg2, arg1)] {
                let into = if reads(one, "scopes") {
                    &mut self.scopes
                } else if reads(one, "acr") {
                    &mut self.acr
                } else {
                    continue;
                };
                into.extend(other.subexpressions().filter_map(|part| match part.expr_kind() {
                    ExprKind::Lit(Literal::String(text)) => Some(text.to_string()),
                    _ => None,
                }));
            }
        }
    }

    /// The same principal with everything that a credential might bring.
    fn variants(&self, bare: &Principal) -> Vec<Principal> {
        let scopes: Vec<String> = self.scopes.iter().cloned().collect();
        let with = |acr: Option<String>| Principal { scopes: scopes.clone(), acr, ..bare.clone() };
        let mut variants: Vec<Principal> =
            self.acr.iter().take(MAX_VALUES).map(|acr| with(Some(acr.clone()))).collect();
        if !scopes.is_empty() {
            variants.push(with(None));
        }
        variants
    }
}

impl std::fmt::Display for Diff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for change in &self.changes {
            let (word, policies) = match change.gains {
                true => ("gains", &change.after.determining),
                false if change.after.determining.is_empty() => ("loses", &change.before.determining),
                false => ("loses", &change.after.determining),
            };
            let by: Vec<&str> = policies.iter().map(|policy| policy.id.as_ref()).collect();
            writeln!(f, "{word}  {}  ({})", change.question, by.join(", "))?;
        }
        if self.omitted > 0 {
            writeln!(f, "and {} more changes", self.omitted)?;
        }
        let part = if self.complete { "" } else { ", not all that are thinkable" };
        writeln!(f, "{} changes in {} requests{part}", self.changes.len() + self.omitted, self.asked)
    }
}
