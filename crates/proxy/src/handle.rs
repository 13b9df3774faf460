//! A request from its parsed head to the end of its response: the stages in their order.
//!
//! route, authorize ([`Peer::authorize`]) → limit addresses → authenticate or take the delegation → limit ([`crate::limits`]) → validate, inspect ([`crate::protect`]) → policies →
//! delegate → connect → forward → respond; each may end it with a [`Deny`].

mod forward;
mod judge;
mod report;

use self::forward::forward;
pub(crate) use self::judge::decide;
use self::judge::judge;
pub(crate) use self::report::{Report, answer, count_refusal, finish};
use crate::access::{NONCE_FIELD, Principal};
use crate::again::{Granted, judge_again};
use crate::exchange::Outcome;
use crate::front::Front;
use crate::h1::Limits;
use crate::headers::{Forwarding, trace_of};
use crate::internal;
use crate::live::Live;
use crate::peer::{Asked, Peer, Way};
use crate::pool::Upstream;
use crate::responses;
use crate::signin;
use crate::view::HeadView;
use crate::wire::Wire;
use crate::worker::Worker;

/// Where a request is handled.
#[derive(Clone, Copy)]
pub(crate) struct Ctx<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) live: &'a Live,
    pub(crate) peer: &'a Peer,
    pub(crate) forwarding: &'a Forwarding,
    pub(crate) limits: &'a Limits,
}

/// What comes after a request.
pub(crate) enum Next<'a> {
    /// The next one, if the connection is kept.
    Request,
    /// Bytes both ways with this connection, as long as they may.
    Tunnel(Box<Upstream>, Box<Granted<'a>>),
    /// Nothing: the connection is no longer in step.
    Close,
}

/// Handles one request. `wire` is where an HTTP/1 request is written.
pub(crate) async fn handle<'a>(
    ctx: &'a Ctx<'a>,
    view: HeadView<'a>,
    front: &mut Front<'_>,
    wire: &mut Wire,
) -> Next<'a> {
    if ctx.peer.is_internal() {
        return internal::serve(ctx, view, front).await;
    }
    if matches!(ctx.peer.way, Way::Gateway) {
        let table = ctx.worker.table();
        if let Some(table) = &table {
            front.set_dress(table.dress.clone());
        }
        if responses::is_report(view.path()) && table.is_some_and(|table| table.csp_reports) {
            return responses::serve_report(ctx, view, front).await;
        }
        if signin::is_ours(view.path()) {
            return signin::serve(ctx, view, front).await;
        }
    }
    let (started, since) = (ctx.worker.touch(), ctx.worker.live.judged());
    let trace = trace_of(view);
    ctx.live.set_busy(true);
    let along = ctx.live.edge();
    let draw = (u64::from_le_bytes(trace.parent) % 100) as u32;
    let (method, host, path) = (view.method(), view.host(), view.path());
    let asked = Asked { method, host, path, view, draw, stay: None };
    let mut report = Report::new(ctx, view, asked, started, trace);
    let next = match judge(&mut report, front).await {
        Err((callee, deny)) => report.refuse(front, &callee, deny).await,
        Ok(authorized) => {
            ctx.live.set_edge(authorized.edge.id);
            if let Some(set) = report.principal.as_ref().and_then(Principal::renewal) {
                front.set_cookie(set);
            }
            if let Some(dress) = &authorized.dress {
                responses::dress(dress, view, front);
            }
            let strict = authorized.access.as_ref().is_some_and(|access| access.demands_nonces());
            if strict && report.principal.as_ref().is_some_and(Principal::proves_a_key) {
                // With the next one at hand, a client need not be refused to get it.
                front.tell(NONCE_FIELD, ctx.worker.shared.proofs.nonce());
            }
            report.limited.tell(front);
            let held = report.held.take();
            let forwarded = {
                let work = std::pin::pin!(forward(&report, front, wire, &authorized, held));
                let still = || judge_again(&report, &authorized);
                ctx.live.while_allowed(&ctx.worker.live, since, report.ends_at(), still, work).await
            };
            match forwarded.unwrap_or_else(|deny| (Outcome::Failed(deny), None)) {
                (Outcome::Done { status }, _) => {
                    report.served(&authorized, status);
                    Next::Request
                }
                (Outcome::Switched, upstream) => {
                    report.served(&authorized, 101);
                    upstream.map_or(Next::Close, |upstream| {
                        Next::Tunnel(Box::new(upstream), Box::new(Granted { report, authorized, since }))
                    })
                }
                (Outcome::Failed(deny), _) => report.refuse(front, &authorized.edge.callee, deny).await,
                (Outcome::Broken { status, reason, reset }, _) => {
                    front.abort(reset);
                    report.failed(&authorized, status, &reason);
                    Next::Close
                }
                // What is tried again, or over, `forward` has answered.
                (Outcome::Unsent | Outcome::Late | Outcome::Again { .. }, _) => Next::Close,
                (Outcome::Gone, _) => {
                    report.failed(&authorized, 499, "the client closed the connection");
                    Next::Close
                }
            }
        }
    };
    if !matches!(next, Next::Tunnel(..)) {
        ctx.live.set_onward(None);
        // Between requests a client of the gateway runs along no edge; whoever has a fixed callee always does, also after a request that a
        // split led elsewhere.
        match along {
            Some(edge) => ctx.live.set_edge(edge),
            None => ctx.live.clear_edge(),
        }
        ctx.live.set_busy(false);
    }
    next
}
