//! A request from its parsed head to the end of its response: the stages in their order.
//!
//! route, authorize ([`Peer::authorize`]) → limit addresses → authenticate or take the delegation → limit ([`crate::limits`]) → validate, inspect ([`crate::protect`]) → policies →
//! delegate → connect → forward → respond; each may end it with a [`Deny`].

mod judge;
mod report;

use std::task::Poll;

use http::{HeaderName, HeaderValue};
use ringfence_model::Protocol;

pub(crate) use self::judge::decide;
use self::judge::judge;
pub(crate) use self::report::{Report, answer, count_refusal, finish};
use crate::access::{NONCE_FIELD, Principal, cookies};
use crate::again::{Granted, judge_again};
use crate::back::Back;
use crate::body::Send;
use crate::deny::Deny;
use crate::exchange::{Bounds, Exchange, Flow, Outcome};
use crate::front::Front;
use crate::h1::{Asked as AskedH1, Framing, Limits, Outbound, RequestWriter, Version, forward_to_h2};
use crate::headers::{Forwarding, not_copied, trace_of};
use crate::held::Held;
use crate::internal;
use crate::live::Live;
use crate::peer::{Asked, Authorized, Peer, Way};
use crate::pool::{self, Upstream};
use crate::responses;
use crate::signin;
use crate::table::Via;
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
    let asked = Asked { method: view.method(), host: view.host(), path: view.path() };
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
                (Outcome::Unsent, _) => {
                    let reason = "the callee closed the connection before the request was sent, twice";
                    report
                        .refuse(front, &authorized.edge.callee, Deny::failure(502, "upstream.closed", reason))
                        .await
                }
                (Outcome::Gone, _) => {
                    report.failed(&authorized, 499, "the client closed the connection");
                    Next::Close
                }
            }
        }
    };
    if !matches!(next, Next::Tunnel(..)) {
        ctx.live.set_onward(None);
        // Between requests a client of the gateway runs along no edge; whoever has a fixed callee always does.
        if matches!(ctx.peer.way, Way::Gateway) {
            ctx.live.clear_edge();
        }
        ctx.live.set_busy(false);
    }
    next
}

/// Sends an authorized request on, once more if it provably was not sent.
async fn forward(
    report: &Report<'_>,
    front: &mut Front<'_>,
    wire: &mut Wire,
    authorized: &Authorized,
    held: Option<Held>,
) -> (Outcome, Option<Upstream>) {
    let Report { ctx, view, .. } = *report;
    let limits = &authorized.edge.table().limits;
    let body = limits.body;
    if let (Framing::Length(length), Some(most)) = (view.framing(), body)
        && length > most
    {
        let reason = format!("a body of {length} bytes is larger than the limit of {most}");
        return (Outcome::Failed(Deny::new(413, "limit", "limit.body", reason)), None);
    }
    let now = ctx.worker.now_ms();
    let bounds = Bounds {
        body,
        idle_ms: limits.idle.as_millis() as u64,
        end_ms: limits.request_time.map_or(u64::MAX, |time| now + time.as_millis() as u64),
    };
    let mut flow = Flow::of(held);
    let mut tried = false;
    loop {
        let rest = Rest { last: flow.is_over(front), asked: flow.asked };
        let opened = {
            let mut opening = std::pin::pin!(open(report, rest, wire, authorized, tried));
            // Nobody waits for a connection on behalf of a client that has gone.
            std::future::poll_fn(|cx| match opening.as_mut().poll(cx) {
                Poll::Ready(opened) => Poll::Ready(Some(opened)),
                Poll::Pending => front.poll_gone(cx).map(|()| None),
            })
            .await
        };
        let Some(opened) = opened else { return (Outcome::Gone, None) };
        let back = match opened {
            Ok(back) => back,
            Err(deny) if !tried && deny.rule == "connect.failed" => {
                tried = true;
                continue;
            }
            Err(deny) => return (Outcome::Failed(deny), None),
        };
        let mut exchange =
            Exchange::new(ctx.worker, ctx.live, front, back, &mut flow, bounds, report.watch(authorized));
        match exchange.run().await {
            Outcome::Unsent if !tried => tried = true,
            Outcome::Done { status } => {
                if exchange.request_sent()
                    && let Some(upstream) = exchange.back.into_reusable()
                {
                    ctx.worker.pool.put(&authorized.next, upstream, ctx.worker.now_ms());
                }
                return (Outcome::Done { status }, None);
            }
            Outcome::Switched => return (Outcome::Switched, exchange.back.into_upstream()),
            other => return (other, None),
        }
    }
}

/// What follows the head of a request.
#[derive(Clone, Copy)]
struct Rest {
    /// Nothing.
    last: bool,
    /// What the client was told already to send, if that is what it waits for.
    asked: bool,
}

/// A connection to the callee, with the head of the request on it.
async fn open<'b>(
    report: &Report<'b>,
    Rest { last, asked }: Rest,
    wire: &'b mut Wire,
    authorized: &Authorized,
    again: bool,
) -> Result<Back<'b>, Deny> {
    let Report { ctx, view, trace, .. } = *report;
    let principal = report.principal.as_ref();
    let drop = principal.map_or_else(not_copied, Principal::not_copied);
    // Our cookies are for nobody but the gateway, on whatever route they come.
    let gateway = matches!(ctx.peer.way, Way::Gateway);
    let rest = if gateway { ringfence_oidc::session::stripped(cookies(view)) } else { None };
    let with_cookies = rest.is_some().then(|| drop.and("cookie"));
    let drop = with_cookies.as_ref().unwrap_or(drop);
    let rest = rest.filter(|rest| !rest.is_empty());
    let edge = &authorized.next;
    let telling = report.telling(edge);
    let mesh = matches!(edge.via, Via::Mesh { .. });
    // The mesh keeps the caller's version; a service gets the one that it speaks.
    let h2 = if mesh { view.version() == Version::Http2 } else { edge.protocol == Protocol::Grpc };
    let head_request = view.method() == "HEAD";
    if h2 {
        let hold = pool::open_h2(ctx.worker, edge).await?;
        ctx.live.set_onward(hold.0.ends.clone());
        let malformed = |e: crate::h1::Refusal| Deny::new(400, "parse", "framing", e.to_string());
        let scheme = if mesh { "https" } else { "http" };
        let mut request = forward_to_h2(view, scheme, view.authority(), drop).map_err(malformed)?;
        ctx.forwarding.insert(view, edge, &trace, request.headers_mut());
        if let Some(rest) = rest.as_ref().and_then(|rest| HeaderValue::from_bytes(rest).ok()) {
            request.headers_mut().insert(http::header::COOKIE, rest);
        }
        telling.fields(|name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        });
        let refused = |e: h2::Error| {
            Deny::failure(502, "connect.failed", format!("{} takes no stream: {e}", edge.callee))
        };
        let mut send = hold.0.send.clone().ready().await.map_err(|e| {
            hold.0.retire();
            refused(e)
        })?;
        let (response, stream) = send.send_request(request, last).map_err(refused)?;
        return Ok(Back::h2(hold, response, Send::new(stream, last), head_request));
    }
    let upgrade = view.websocket_upgrade();
    let upstream = match ctx.worker.pool.take(edge, ctx.worker.now_ms()) {
        Some(upstream) if !again => upstream,
        _ => pool::open(ctx.worker, edge).await?,
    };
    ctx.live.set_onward(upstream.ends.clone());
    // At a second try the bytes of the first are still there: none has left.
    if wire.is_empty() {
        wire.begin(view.framing());
        let expect = view.expects_continue() && !asked;
        let how = Outbound { framing: view.framing(), host: None, upgrade, expect, drop };
        let mut writer = RequestWriter::new(&mut wire.out, view, &how);
        if let Some(rest) = &rest {
            writer.field("cookie", rest);
        }
        telling.fields(|name, value| writer.field(name, value));
        ctx.forwarding.write(view, edge, &trace, &mut writer);
        writer.finish();
    }
    Ok(Back::h1(upstream, wire, AskedH1 { head: head_request, upgrade }, ctx.limits))
}
