//! What was let pass is judged again, while it runs: when something was revoked, when a key changed, when another fence or other data
//! about entities came into force.
//!
//! Each stream's own task does it, with what it has at hand anyway, so that a request that is judged once pays for a number and a flag.
//! What it judges by is what counts now; how long a credential lives was decided when it was shown.

use crate::access::{Principal, is_unrevoked};
use crate::delegate;
use crate::deny::Deny;
use crate::handle::{Report, decide};
use crate::peer::{Asked, Authorized};
use crate::pipeline::tell_connection;
use crate::tunnel::{self, End};

/// A request that became a tunnel: what it may do is still its request's.
pub(crate) struct Granted<'a> {
    pub(crate) report: Report<'a>,
    pub(crate) authorized: Authorized,
    /// [`crate::live::Registry::judged`] when it was first judged.
    pub(crate) since: u64,
}

impl Granted<'_> {
    /// Moves bytes until both ends have closed, or until it may not any more.
    pub(crate) async fn tunnel(&self, idle_ms: u64, client: End, upstream: End) {
        let ctx = self.report.ctx;
        let ended = {
            let work = std::pin::pin!(tunnel::run(ctx.worker, ctx.live, idle_ms, client, upstream));
            let still = || judge_again(&self.report, &self.authorized);
            ctx.live.while_allowed(&ctx.worker.live, self.since, self.report.ends_at(), still, work).await
        };
        if let Err(deny) = ended {
            let callee = &self.authorized.edge.callee;
            tell_connection(ctx.worker, ctx.peer, callee, true, deny.verdict());
        }
    }
}

/// Whether a request that was let pass would be now.
pub(crate) fn judge_again(report: &Report<'_>, before: &Authorized) -> Result<(), Deny> {
    // First: for this nothing need be known that might be missing.
    report.principal.as_ref().map_or(Ok(()), Principal::goes_on)?;
    match judged(report, before) {
        // That something is missing now is for requests to come: what runs has what it needs.
        Err(deny) if deny.failed || deny.stage == "snapshot" || deny.status == 503 => Ok(()),
        outcome => outcome,
    }
}

fn judged(report: &Report<'_>, before: &Authorized) -> Result<(), Deny> {
    let ctx = report.ctx;
    let asked = Asked { stay: Some(&before.edge.callee), ..report.asked };
    let authorized = ctx.peer.authorize(ctx.worker, asked)?;
    if authorized.edge.callee != before.edge.callee {
        let reason = format!("{} leads to {} now", report.asked.path, authorized.edge.callee);
        return Err(Deny::new(404, "route", "route.changed", reason));
    }
    let principal = match (&authorized.access, &report.principal) {
        (None, None) => None,
        (None, Some(principal)) => {
            principal.is_unrevoked(ctx.worker)?;
            Some(principal.clone())
        }
        (Some(access), None) => {
            let table = authorized.edge.table();
            let Some(on) = &report.on_behalf else {
                let reason = "the route demands a credential now, and none was shown";
                let deny =
                    Deny::new(401, "authenticate", "credential.none", reason).position(access.position());
                return Err(deny.challenge(access.challenge(&table.snapshot.fence, "")));
            };
            access.takes(table, &on.behalf)?;
            None
        }
        (Some(access), Some(principal)) => {
            let principal = principal.again(ctx.worker, authorized.edge.table(), access)?;
            principal.meets(access)?;
            Some(principal)
        }
    };
    match &report.on_behalf {
        Some(on) => is_unrevoked(ctx.worker, on.behalf.token())?,
        None => delegate::required(&authorized.edge, false)?,
    }
    decide(report, principal.as_ref(), &authorized).0
}
