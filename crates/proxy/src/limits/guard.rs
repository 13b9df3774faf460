//! What sign-ins and failed credentials are held to where nothing is declared.
//!
//! Whoever begins or ends sign-ins again and again, or shows one wrong credential after the other, is slowed down by address.
//! The last costs nothing while nobody fails: it is only looked for within the time that the last failure takes to be forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence_limit::{Ask, Full, Limit, Seed, Standing, Store};
use ringfence_model::{Amount, Guards};
use ringfence_snapshot::Snapshot;

use super::{Limiter, Who, plan};
use crate::deny::{Deny, Told};
use crate::handle::Ctx;
use crate::peer::Way;

/// Providers tell of many sessions at once that have ended.
const BACKCHANNEL: u64 = 10;

/// Until when a failure may still count, in milliseconds of the limiter's clock.
#[derive(Debug, Default)]
pub(crate) struct Failures(AtomicU64);

/// The guards of a table.
#[derive(Debug)]
pub(super) struct Guard {
    sign_in: Vec<Each>,
    backchannel: Vec<Each>,
    failures: Option<Each>,
    /// How long it takes until all failures of an address are forgotten.
    window: Duration,
    store: Arc<dyn Store>,
    position: Arc<str>,
}

#[derive(Debug)]
struct Each {
    limit: Limit,
    seed: Seed,
    by_address: bool,
    says: String,
}

impl Guard {
    /// Whether there is anything to guard: not where nothing can be signed in to and no credential counts.
    pub(super) fn holds(snapshot: &Snapshot) -> bool {
        snapshot.gateway.is_some() && !snapshot.access().all(ringfence_model::Access::is_open)
    }

    /// None where there is nothing to guard.
    pub(super) fn of(snapshot: &Snapshot, limiter: &Limiter, store: &Arc<dyn Store>) -> Option<Self> {
        let gateway = snapshot.gateway.as_ref().filter(|_| Self::holds(snapshot))?;
        let Guards { sign_in, sign_in_all, failures } = gateway.guards;
        let each = |what: &str, amount: Option<Amount>, by_address: bool| {
            let amount = amount?;
            let seed = limiter.keys.seed(("guard", what, amount.to_string()));
            let from = if by_address { "from one address" } else { "in all" };
            Some(Each { limit: plan::rate(amount)?, seed, by_address, says: format!("{amount} {from}") })
        };
        let more = |amount: Option<Amount>| {
            amount.map(|a| Amount { units: a.units.saturating_mul(BACKCHANNEL), ..a })
        };
        Some(Self {
            sign_in: [each("sign-in", sign_in, true), each("sign-in-all", sign_in_all, false)]
                .into_iter()
                .flatten()
                .collect(),
            backchannel: [
                each("backchannel", more(sign_in), true),
                each("backchannel-all", more(sign_in_all), false),
            ]
            .into_iter()
            .flatten()
            .collect(),
            failures: each("failures", failures, true),
            window: failures.map_or(Duration::ZERO, |failures| failures.window),
            store: store.clone(),
            position: gateway.position.to_string().into(),
        })
    }

    fn ask(&self, ctx: &Ctx<'_>, each: &Each) -> Ask {
        let keys = &ctx.worker.shared.limiter.keys;
        let who = if each.by_address { Who::address(ctx.peer.source.ip()) } else { Who::Way(0) };
        // What is new to a full table is let pass: whoever fills it must not keep others from signing in.
        Ask { limit: each.limit, key: keys.key(each.seed, who), cost: 1, observed: false, full: Full::Open }
    }

    fn deny(&self, rule: &'static str, standing: &Standing, says: &str) -> Deny {
        let fields = vec![("retry-after", standing.retry.as_secs_up().max(1).to_string())];
        let deny = Deny::new(429, "limit", rule, format!("more than {says}"));
        deny.position(Some(self.position.to_string())).told(Told { fields, ..Told::default() })
    }
}

/// Counts a request to one of the places where people sign in and out; `told_by_provider`: by a provider and not by a browser.
pub(crate) fn sign_in(ctx: &Ctx<'_>, table: &super::LimitTable, told_by_provider: bool) -> Result<(), Deny> {
    let Some(guard) = &table.guard else { return Ok(()) };
    let all = if told_by_provider { &guard.backchannel } else { &guard.sign_in };
    if all.is_empty() {
        return Ok(());
    }
    let asks: Vec<Ask> = all.iter().map(|each| guard.ask(ctx, each)).collect();
    let mut standings = vec![Standing::default(); asks.len()];
    if guard.store.take(&asks, ctx.worker.shared.limiter.now(), &mut standings) {
        return Ok(());
    }
    let refused = all.iter().zip(&standings).filter(|(_, standing)| !standing.passes);
    match refused.max_by_key(|(_, standing)| standing.retry) {
        Some((each, standing)) => {
            Err(guard.deny("limit.sign_in", standing, &format!("{} that sign in or out", each.says)))
        }
        None => Ok(()),
    }
}

/// The failures of an address, where it has spent them.
///
/// Others may have the same address, so a credential that holds lets them in all the same: each that is judged here is a signature, a
/// seal or 256 random bits, and nobody comes upon one of those by trying. What is refused is what was wrong, and what only a provider
/// could tell: nobody else is asked for whoever has spent them. A count per subject was rejected: whom a credential is of is known
/// when it holds, and then it passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent<'t> {
    guard: &'t Guard,
    each: &'t Each,
    standing: Standing,
}

impl Spent<'_> {
    /// The answer to a credential that did not let its holder in, which is another one if it was wrong.
    pub(crate) fn instead_of(&self, deny: Deny) -> Deny {
        if !is_failure(&deny) {
            return deny;
        }
        let says = format!("{} refused credentials", self.each.says);
        self.guard.deny("limit.failures", &self.standing, &says)
    }
}

/// Whether an address has spent its failures.
pub(crate) fn spent<'t>(ctx: &Ctx<'_>, table: &'t super::LimitTable) -> Option<Spent<'t>> {
    let limiter = &ctx.worker.shared.limiter;
    let until = limiter.failures.0.load(Ordering::Relaxed);
    if until == 0 || !matches!(ctx.peer.way, Way::Gateway) || limiter.millis() >= until {
        return None;
    }
    let guard = table.guard.as_ref()?;
    let each = guard.failures.as_ref()?;
    let standing = guard.store.look(&guard.ask(ctx, each), limiter.now());
    (!standing.passes).then_some(Spent { guard, each, standing })
}

/// Counts a credential that was refused.
pub(crate) fn failed(ctx: &Ctx<'_>, table: &super::LimitTable, deny: &Deny) {
    let Some((guard, each)) = table.guard.as_ref().and_then(|guard| Some((guard, guard.failures.as_ref()?)))
    else {
        return;
    };
    // What comes over the mesh has no address of its own.
    if !is_failure(deny) || !matches!(ctx.peer.way, Way::Gateway) {
        return;
    }
    let limiter = &ctx.worker.shared.limiter;
    // All of it may be spent already: that it is not counted then is no less strict.
    guard.store.take(&[guard.ask(ctx, each)], limiter.now(), &mut [Standing::default()]);
    let until = limiter.millis() + guard.window.as_millis() as u64 + 1;
    limiter.failures.0.fetch_max(until, Ordering::Relaxed);
}

/// Whether a credential was wrong. What is only missing, over or not strong enough happens to everybody.
fn is_failure(deny: &Deny) -> bool {
    const HONEST: [&str; 8] = [
        "credential.none",
        "session.none",
        "session.over",
        "session.unready",
        "session.plain",
        "token.expired",
        "proof.nonce",
        "proof.time",
    ];
    deny.stage == "authenticate"
        && deny.status < 500
        && !deny.rule.starts_with("require.")
        && !HONEST.contains(&&*deny.rule)
}

impl Limiter {
    fn millis(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}
