//! Whether a request may pass: its route, who stands behind it, what policies say, on whose behalf it goes on.

use std::rc::Rc;
use std::sync::Arc;

use super::Report;
use crate::access::{Lookup, Principal, authenticate, demand};
use crate::delegate;
use crate::deny::Deny;
use crate::front::Front;
use crate::limits;
use crate::overriding;
use crate::peer::{Authorized, Way};
use crate::policy::{self, Question, Watched, Who};
use crate::protect;
use crate::table::{Sidecars, Via};

/// Route, limit, authenticate, validate, inspect, authorize, delegate: the edge that the request may take, or whom it wanted and why it may not.
pub(super) async fn judge(
    report: &mut Report<'_>,
    front: &mut Front<'_>,
) -> Result<Authorized, (Arc<str>, Deny)> {
    let ctx = report.ctx;
    limits::gateway(ctx, &mut report.limited, &report.notes)
        .map_err(|deny| (ctx.peer.callee_name(ctx.worker), deny))?;
    loop {
        let authorized = ctx
            .peer
            .authorize(ctx.worker, report.asked)
            .map_err(|deny| (ctx.peer.callee_name(ctx.worker), deny))?;
        let table = authorized.edge.table();
        let callee = |deny| (authorized.edge.callee.clone(), deny);
        // Whoever waits may find another fence in force: that one decides.
        let is_over = || ctx.worker.table().is_some_and(|now| !Rc::ptr_eq(&now, table));
        let trace = report.trace.trace;
        limits::shed(report, &authorized).map_err(callee)?;
        limits::address(report, &authorized).map_err(callee)?;
        if let Some(dress) = &authorized.dress {
            dress.preflight(report.view).map_err(callee)?;
            overriding::check(report.view).map_err(callee)?;
        }
        report.on_behalf = delegate::taken(ctx, report.view, &authorized.edge, trace).map_err(callee)?;
        if let Some(access) = &authorized.access {
            ctx.live.set_edge(authorized.edge.id);
            let taken = report.on_behalf.as_ref().map(|on| access.takes(table, &on.behalf));
            if !matches!(taken, Some(Ok(()))) {
                let spent = limits::spent(ctx, &table.limit);
                let principal = match report.principal.take() {
                    // It was let in by the fence before. What it showed may count once only, and did.
                    Some(before) => before.again(ctx.worker, table, access),
                    None => {
                        let lookup = if spent.is_some() { Lookup::Here } else { Lookup::Anywhere };
                        authenticate(ctx, report.view, table, access, lookup).await
                    }
                };
                if is_over() {
                    continue;
                }
                if let Err(deny) = &principal {
                    limits::failed(ctx, &table.limit, deny);
                }
                let principal = principal.map_err(|deny| match &spent {
                    Some(spent) => spent.instead_of(deny),
                    None => deny,
                });
                let principal = principal.map_err(|deny| match taken {
                    Some(Err(other)) if matches!(&*deny.rule, "credential.none" | "session.none") => other,
                    _ => deny,
                });
                let principal = report.principal.insert(principal.map_err(callee)?);
                demand(report.view, principal, access).map_err(callee)?;
                // What let it in is whom it is for: a token beside it, of somebody who is not accepted here, says nothing.
                if report.on_behalf.take().is_some() {
                    delegate::required(&authorized.edge, false).map_err(callee)?;
                }
            }
        }
        limits::others(report, &authorized).map_err(callee)?;
        if let Some(protection) = &authorized.protection {
            // In a box: what streams past it must not pay for its size.
            let judged = Box::pin(protect::request(report, front, &authorized, protection)).await;
            if is_over() {
                continue;
            }
            judged.map_err(callee)?;
        }
        permit(report, &authorized).map_err(callee)?;
        if let (Way::Gateway, Some(principal), Some(access)) =
            (&ctx.peer.way, &report.principal, &authorized.access)
            && let Via::Mesh { own, at: Sidecars::Ours(_), .. } = &authorized.next.via
        {
            let edge = authorized.edge.id;
            let exchanged = delegate::exchange(ctx, report.view, table, access, principal, own, edge).await;
            if is_over() {
                continue;
            }
            report.on_behalf = Some(exchanged.map_err(callee)?);
        }
        if let Some(on) = &report.on_behalf {
            delegate::deliver(ctx, on, trace);
        }
        return Ok(authorized);
    }
}

/// Asks policies, and notes what they say besides.
fn permit(report: &mut Report<'_>, authorized: &Authorized) -> Result<(), Deny> {
    let (outcome, watched) = decide(report, report.principal.as_ref(), authorized);
    report.watched = watched;
    outcome
}

/// Asks policies, if there are any and it is for this side to ask them.
pub(crate) fn decide(
    report: &Report<'_>,
    principal: Option<&Principal>,
    authorized: &Authorized,
) -> (Result<(), Deny>, Option<Watched>) {
    let (ctx, asked) = (report.ctx, report.asked);
    let edge = &authorized.edge;
    let Some(policies) = &edge.table().policy else { return (Ok(()), None) };
    if !policy::is_asked(ctx.peer, authorized) {
        return (Ok(()), None);
    }
    let actors = &ctx.worker.actors;
    let on_behalf = report.on_behalf.as_ref();
    let (who, source) = match (&ctx.peer.way, principal, on_behalf) {
        (Way::Gateway, principal, _) => {
            let who = principal.map(|principal| actors.shown(policies, principal.identity()));
            (who.map_or(Who::Anyone, Who::Prepared), Some(ctx.peer.source.ip()))
        }
        (_, _, Some(on)) => (Who::Prepared(actors.behalf(policies, &on.behalf)), on.behalf.source()),
        (Way::Inbound { .. }, principal, None) if ctx.forwarding.is_from_gateway() => {
            let address = report.view.field("x-forwarded-for");
            let who = principal.map(|principal| actors.shown(policies, principal.identity()));
            let address = address.and_then(|address| std::str::from_utf8(address).ok()?.parse().ok());
            (who.map_or(Who::Anyone, Who::Prepared), address)
        }
        (_, Some(principal), None) => (Who::Prepared(actors.shown(policies, principal.identity())), None),
        (Way::Inbound { .. } | Way::Outbound { .. }, ..) => (Who::Service(&ctx.peer.caller), None),
    };
    let chain = on_behalf.map(|on| &on.chain);
    let question = Question { method: asked.method, path: asked.path, host: asked.host, source, chain };
    actors.judge(policies, &who, edge, question)
}
