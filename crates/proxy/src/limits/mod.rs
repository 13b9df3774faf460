//! How much may come in: rates, quotas and concurrency, what sign-ins and failed credentials are held to, and what gives way
//! under overload.
//!
//! Addresses are counted before anybody is authenticated, everybody else after it. What comes from outside is counted at the
//! gateway, the first side of ours that it meets, for the gateway, the service and the route at once: what one of them refuses no
//! other counts. What comes from a service is counted where the callee is, which sees all instances of all callers and whose
//! limit it is; where the callee has no side of its own, at the caller's. All threads of a node count in one table
//! ([`Limiter`]), and a rule that is the same in the next snapshot goes on where it was.

mod fields;
mod guard;
mod plan;
mod shed;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ringfence_limit::{Ask, Full, Held, Keys, Local, Standing, Store, Time};
use ringfence_model::By;
use ringfence_snapshot::{Identity, IdentityKind};

pub(crate) use self::guard::{Failures, failed, sign_in, spent};
pub(crate) use self::plan::{LimitTable, Plan};
use self::plan::{Rule, Rules};
pub(crate) use self::shed::{Busy, Shed, overload};
use crate::deny::{Deny, Told};
use crate::front::Front;
use crate::handle::{Ctx, Report};
use crate::note::{Note, Notes};
use crate::peer::{Authorized, Way};

/// Where all threads count.
#[derive(Debug)]
pub(crate) struct Limiter {
    keys: Keys,
    begun: Instant,
    /// The table of the snapshot in force, and its size: as long as that stays the same, so does what was counted.
    store: Mutex<Option<(u64, Arc<dyn Store>)>>,
    failures: Failures,
}

/// What limits have to do with one request: nothing, for most.
#[derive(Debug, Default)]
pub(crate) struct Limited(Option<Box<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    /// Whoever judges again has counted already.
    done: [bool; 3],
    /// For the client: the policies, and how it stands with each.
    policies: Vec<Arc<str>>,
    standings: Vec<(Arc<str>, Standing)>,
    /// Under which limits on concurrency it runs.
    running: Vec<Held>,
    busy: Option<Busy>,
}

/// Parts of the stage.
#[derive(Clone, Copy)]
enum Part {
    Gateway = 0,
    Address = 1,
    Others = 2,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self {
            keys: Keys::default(),
            begun: Instant::now(),
            store: Mutex::default(),
            failures: Failures::default(),
        }
    }

    /// The table of this size.
    fn store(&self, bytes: u64) -> Arc<dyn Store> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        match &*store {
            Some((same, store)) if *same == bytes => store.clone(),
            _ => {
                let local: Arc<dyn Store> =
                    Arc::new(Local::new(usize::try_from(bytes).unwrap_or(usize::MAX)));
                *store = Some((bytes, local.clone()));
                local
            }
        }
    }

    fn now(&self) -> Time {
        Time::after(self.begun.elapsed())
    }
}

/// Counts the address of a client of the gateway, wherever it wants to go.
pub(crate) fn gateway(ctx: &Ctx<'_>, limited: &mut Limited, notes: &Notes) -> Result<(), Deny> {
    if !matches!(ctx.peer.way, Way::Gateway) {
        return Ok(());
    }
    let Some(table) = ctx.worker.table() else { return Ok(()) };
    let Some(rules) = &table.limit.gateway else { return Ok(()) };
    let address = |_: &Rule| Some(Who::address(ctx.peer.source.ip()));
    limited.count(ctx, notes, rules, (Part::Gateway, 1), address)
}

/// Counts what is known before it is known who asks.
pub(crate) fn address(report: &mut Report<'_>, authorized: &Authorized) -> Result<(), Deny> {
    let Some(plan) = &authorized.limit else { return Ok(()) };
    plan.address.as_ref().map_or(Ok(()), |rules| count(report, rules, Part::Address, plan.cost))
}

/// Counts who asks, and for what.
pub(crate) fn others(report: &mut Report<'_>, authorized: &Authorized) -> Result<(), Deny> {
    let Some(plan) = &authorized.limit else { return Ok(()) };
    plan.others.as_ref().map_or(Ok(()), |rules| count(report, rules, Part::Others, plan.cost))
}

/// Lets something give way, if this thread has more to do than it can.
pub(crate) fn shed(report: &mut Report<'_>, authorized: &Authorized) -> Result<(), Deny> {
    if !authorized.edge.table().limit.sheds || report.limited.is_busy() {
        return Ok(());
    }
    let priority = authorized.limit.as_ref().map_or_else(Default::default, |plan| plan.priority);
    let position = authorized.limit.as_ref().and_then(|plan| plan.position.as_deref());
    let busy = report.ctx.worker.shed.admit(priority, position)?;
    report.limited.0.get_or_insert_default().busy = Some(busy);
    Ok(())
}

fn count(report: &mut Report<'_>, rules: &Rules, part: Part, cost: u32) -> Result<(), Deny> {
    let mut limited = std::mem::take(&mut report.limited);
    let outcome = limited.count(report.ctx, &report.notes, rules, (part, cost), |rule| who(report, rule));
    report.limited = limited;
    outcome
}

impl Limited {
    fn count<'a>(
        &mut self,
        ctx: &Ctx<'_>,
        notes: &Notes,
        rules: &'a Rules,
        (part, cost): (Part, u32),
        who: impl Fn(&'a Rule) -> Option<Who<'a>>,
    ) -> Result<(), Deny> {
        let counted = self.0.get_or_insert_default();
        if std::mem::replace(&mut counted.done[part as usize], true) {
            return Ok(());
        }
        let limiter = &ctx.worker.shared.limiter;
        let (mut asks, mut of) = (Vec::with_capacity(rules.cells), Vec::with_capacity(rules.cells));
        for rule in &rules.list {
            let Some(who) = who(rule) else { continue };
            for cell in &rule.cells {
                asks.push(Ask {
                    limit: cell.limit,
                    key: limiter.keys.key(cell.seed, &who),
                    cost: rule.cost.saturating_mul(cost),
                    observed: rule.observed,
                    full: rule.full,
                });
                of.push((rule, cell));
            }
        }
        if asks.is_empty() {
            return Ok(());
        }
        let mut standings = vec![Standing::default(); asks.len()];
        let passes = rules.store.take(&asks, limiter.now(), &mut standings);
        counted.running.extend(Held::of(&rules.store, &asks, &standings));
        let mut worst: Option<(&Rule, &plan::Cell, &Standing)> = None;
        for ((rule, cell), standing) in of.into_iter().zip(&standings) {
            if !rule.observed {
                counted.policies.push(cell.policy.clone());
                counted.standings.push((cell.name.clone(), *standing));
            }
            if standing.passes {
                continue;
            }
            if rule.observed {
                notes.would_deny(rule.name.to_string());
                notes.add(Note {
                    stage: "limit",
                    rule: rule.name.to_string(),
                    message: format!("{} ({})", cell.says, rule.position),
                    observed: true,
                    ..Note::default()
                });
            } else if worst.is_none_or(|(_, _, other)| other.retry < standing.retry) {
                worst = Some((rule, cell, standing));
            }
        }
        match worst {
            Some((rule, cell, standing)) if !passes => {
                let (status, reason) = if standing.full {
                    let why = "there is no room to count another key: raise `limits.limit_memory`";
                    (503, format!("{}: {why}", cell.says))
                } else {
                    (429, format!("more than {}", cell.says))
                };
                let retry = standing.retry.as_secs_up().max(1);
                let mut fields = vec![("retry-after", retry.to_string())];
                self.fields(|name, value| fields.push((name, value)));
                let told = Told { fields, ..Told::default() };
                let deny = Deny::new(status, "limit", rule.name.to_string(), reason).told(told);
                Err(deny.position(Some(rule.position.to_string())))
            }
            _ => Ok(()),
        }
    }
}

/// Who is counted by a rule.
#[derive(Debug, Hash)]
enum Who<'a> {
    V4([u8; 4]),
    /// A network of 64 bits: what one subscriber has.
    V6([u8; 8]),
    Somebody(IdentityKind, &'a str, &'a str),
    Client(&'a str, &'a str),
    Caller(&'a str),
    /// All together; told apart by where the request goes, where the rule does not say that.
    Way(u64),
    /// All whose credential does not have the claim are one.
    Claim(&'a str, Option<&'a str>),
}

impl Who<'_> {
    fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Whom a rule counts; none if there is nobody of that kind.
fn who<'a>(report: &'a Report<'_>, rule: &'a Rule) -> Option<Who<'a>> {
    let peer = report.ctx.peer;
    match &rule.by {
        By::Address => matches!(peer.way, Way::Gateway).then(|| Who::address(peer.source.ip())),
        By::Caller => Some(Who::Caller(&peer.caller)),
        By::Route => Some(Who::Way(rule.way)),
        By::User => identity(report).map(|who| Who::Somebody(who.kind, &who.provider, &who.id)),
        By::Client => {
            let who = identity(report)?;
            match (&who.client, who.kind) {
                (Some(client), _) => Some(Who::Client(&who.provider, client)),
                (None, IdentityKind::Client) => Some(Who::Client(&who.provider, &who.id)),
                (None, _) => None,
            }
        }
        By::ApiKey => {
            let who = identity(report).filter(|who| who.provider == crate::access::API_KEYS)?;
            Some(Who::Client(&who.provider, &who.id))
        }
        By::Claim(claim) => {
            let who = identity(report)?;
            Some(Who::Claim(&who.provider, who.claims.get(claim).map(String::as_str)))
        }
    }
}

/// Who stands behind a request.
fn identity<'a>(report: &'a Report<'_>) -> Option<&'a Identity> {
    match (&report.principal, &report.on_behalf) {
        (Some(principal), _) => Some(principal.identity()),
        (None, on) => Some(on.as_ref()?.behalf.identity()),
    }
}

impl Limited {
    fn is_busy(&self) -> bool {
        self.0.as_ref().is_some_and(|counted| counted.busy.is_some())
    }

    /// Calls `put` with each field for the client.
    fn fields(&self, mut put: impl FnMut(&'static str, String)) {
        let Some(counted) = self.0.as_ref().filter(|counted| !counted.standings.is_empty()) else { return };
        put(fields::POLICY, fields::policies(&counted.policies));
        put(fields::STANDING, fields::standings(&counted.standings));
    }

    /// Has the answer say how the client stands.
    pub(crate) fn tell(&self, front: &mut Front<'_>) {
        self.fields(|name, value| front.tell(name, value));
    }
}

/// What becomes of a key for which there is no room.
fn full(said: ringfence_model::WhenFull) -> Full {
    match said {
        ringfence_model::WhenFull::Deny => Full::Closed,
        ringfence_model::WhenFull::Allow => Full::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_host_or_one_network_of_a_subscriber() {
        let keys = Keys::default();
        let key = |text: &str| keys.key(keys.seed("t"), Who::address(text.parse().unwrap()));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("192.0.2.7"), key("::ffff:192.0.2.7"));
        assert_ne!(key("192.0.2.7"), key("192.0.2.8"));
    }
}
