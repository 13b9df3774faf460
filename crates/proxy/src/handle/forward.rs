//! An authorized request goes on: to a connection, over it, and, where that is safe and declared, once more.

use std::task::Poll;

use http::{HeaderName, HeaderValue};
use ringfence_model::{Handling, Protocol};

use super::Report;
use crate::access::{Principal, cookies};
use crate::back::Back;
use crate::body::Send;
use crate::deny::Deny;
use crate::exchange::{Bounds, Exchange, Outcome};
use crate::flow::Flow;
use crate::front::Front;
use crate::h1::{Asked as AskedH1, Framing, Outbound, RequestWriter, Version, forward_to_h2};
use crate::handling::{
    Answered, Deadline, Ended, GRPC_TIMEOUT, Retrying, TIMEOUT, by_outcome, inject, pause, write_grpc,
};
use crate::headers::not_copied;
use crate::held::Held;
use crate::note::Note;
use crate::peer::{Authorized, Way};
use crate::pool::{self, Upstream};
use crate::table::{EdgeRef, Via};
use crate::wire::Wire;

/// Sends an authorized request on, once more if it provably was not sent, and again as the fence declares.
pub(super) async fn forward(
    report: &Report<'_>,
    front: &mut Front<'_>,
    wire: &mut Wire,
    authorized: &Authorized,
    held: Option<Held>,
) -> (Outcome, Option<Upstream>) {
    let Report { ctx, view, .. } = *report;
    let worker = ctx.worker;
    let limits = &authorized.edge.table().limits;
    let body = limits.body;
    if let (Framing::Length(length), Some(most)) = (view.framing(), body)
        && length > most
    {
        let reason = format!("a body of {length} bytes is larger than the limit of {most}");
        return (Outcome::Failed(Deny::new(413, "limit", "limit.body", reason)), None);
    }
    let handled = authorized.handling.as_deref();
    let handling = handled.map(|handled| &handled.said);
    let breaker =
        handled.and_then(|handled| Some((handled.breaker.as_ref()?, handled.said.breaker.as_ref()?)));
    let inside = !matches!(ctx.peer.way, Way::Gateway);
    let deadline = Deadline::of(view, handling, inside, report.started / 1000);
    let request_time = limits.request_time.map_or(u64::MAX, |time| worker.now_ms() + time.as_millis() as u64);
    let end_ms = deadline.map_or(u64::MAX, |deadline| deadline.at_ms).min(request_time);
    let late = || late(deadline.as_ref(), request_time, handling);
    let mut retrying = Retrying::of(worker, view, handling, authorized.edge.id, end_ms);
    let mut bounds = Bounds {
        body,
        idle_ms: limits.idle.as_millis() as u64,
        end_ms,
        again: None,
        breaks: breaker.is_some() || !authorized.next.replicas().is_empty(),
    };
    if let Some(handled) = handled
        && let Some(fault) = &handled.said.fault
    {
        let fault = (fault, &handled.faults);
        match inject(report, front, authorized.edge.id, fault, end_ms).await {
            Ok(()) => {}
            Err(Outcome::Late) => return (late(), None),
            Err(outcome) => return (outcome, None),
        }
    }
    if !wire.is_empty() {
        // The rest of a request before, whose callee answered without it or not in time, is no part of this one.
        wire.reset();
    }
    let mut flow = Flow::of(held);
    if retrying.as_ref().is_some_and(Retrying::keeps) {
        flow.keep(worker.budget.share());
    }
    // Whether one more was tried for nothing; whether the next one needs a connection of its own; whether the callee saw anything.
    let (mut tried, mut fresh, mut seen) = (false, false, false);
    let mut avoid = None;
    loop {
        let rest = Rest { last: flow.is_over(front), asked: flow.asked };
        if end_ms != u64::MAX {
            worker.touch();
            ctx.live.arm(end_ms);
        }
        let mut permit = None;
        if let Some((breaker, said)) = breaker {
            let mut entering = std::pin::pin!(breaker.enter());
            let entered = std::future::poll_fn(|cx| match entering.as_mut().poll(cx) {
                Poll::Ready(entered) => Poll::Ready(entered.map_err(Outcome::Failed)),
                Poll::Pending if end_ms != u64::MAX && ctx.live.timed_out() => Poll::Ready(Err(late())),
                Poll::Pending => front.poll_gone(cx).map(|()| Err(Outcome::Gone)),
            });
            permit = match entered.await {
                Ok(permit) => Some(permit),
                Err(Outcome::Failed(deny)) if deny.stage == "breaker" => {
                    return (Outcome::Failed(deny.position(Some(said.position.to_string()))), None);
                }
                Err(outcome) => return (outcome, None),
            };
        }
        let end_permit = |ended: Ended| {
            if let (Some(permit), Some((_, said))) = (permit, breaker) {
                permit.end(worker, &authorized.edge, &said.position, ended);
            }
        };
        let mut picked = worker.balance.pick(worker, &authorized.next, avoid);
        avoid = picked.as_ref().map(|picked| picked.edge.id);
        let other = picked.as_ref().map(|picked| picked.edge.clone());
        let next = other.as_ref().unwrap_or(&authorized.next);
        let opened = {
            let mut opening = std::pin::pin!(open(report, rest, wire, next, fresh, deadline.as_ref()));
            // Nobody waits for a connection on behalf of a client that has gone, or longer than there is time.
            std::future::poll_fn(|cx| match opening.as_mut().poll(cx) {
                Poll::Ready(opened) => Poll::Ready(Ok(opened)),
                Poll::Pending if end_ms != u64::MAX && ctx.live.timed_out() => Poll::Ready(Err(late())),
                Poll::Pending => front.poll_gone(cx).map(|()| Err(Outcome::Gone)),
            })
            .await
        };
        let (outcome, unsent, callee) = match opened {
            Err(outcome) => {
                let answered = Answered { sent: true, ..Answered::default() };
                let ended = by_outcome(&outcome, answered);
                if let Some(picked) = picked.take() {
                    picked.end(worker, ended, answered);
                }
                end_permit(ended);
                return (outcome, None);
            }
            Ok(Err(deny)) if !tried && deny.rule == "connect.failed" => {
                if let Some(picked) = picked.take() {
                    picked.end(worker, Ended::Failed, Answered::default());
                }
                (tried, fresh) = (true, true);
                continue;
            }
            Ok(Err(deny)) => (Outcome::Failed(deny), true, Answered::default()),
            Ok(Ok(back)) => {
                bounds.again = retrying.as_ref().and_then(|retrying| retrying.again(spread(report)));
                let watch = report.watch(authorized);
                let mut exchange = Exchange::new(worker, ctx.live, front, back, &mut flow, bounds, watch);
                let outcome = exchange.run().await;
                let answered = exchange.answered();
                match outcome {
                    Outcome::Unsent if !tried => {
                        (tried, fresh) = (true, true);
                        continue;
                    }
                    Outcome::Done { .. } | Outcome::Again { .. } => {
                        if exchange.request_sent()
                            && let Some(upstream) = exchange.back.into_reusable()
                        {
                            worker.pool.put(next, upstream, worker.now_ms());
                        }
                    }
                    Outcome::Switched => {
                        end_permit(Ended::Well);
                        return (Outcome::Switched, exchange.back.into_upstream());
                    }
                    _ => {}
                }
                let unsent = matches!(outcome, Outcome::Unsent);
                seen |= !unsent;
                (outcome, unsent, answered)
            }
        };
        let outcome = match outcome {
            Outcome::Unsent => {
                let reason = "the callee closed the connection before the request was sent, twice";
                Outcome::Failed(Deny::failure(502, "upstream.closed", reason))
            }
            Outcome::Late => late(),
            outcome => outcome,
        };
        let ended = by_outcome(&outcome, callee);
        if let Some(picked) = picked {
            picked.end(worker, ended, callee);
        }
        end_permit(ended);
        let Some(retrying) = &mut retrying else { return (outcome, None) };
        let (pause_ms, why) = match &outcome {
            Outcome::Again { status, pause_ms } => (Some(*pause_ms), format!("answered with {status}")),
            Outcome::Failed(deny) if !front.begun() && (flow.can_rewind() || (unsent && flow.taken == 0)) => {
                worker.touch();
                let pause_ms = retrying.without_answer(worker, deny, unsent && !seen, spread(report));
                (pause_ms, deny.reason.to_string())
            }
            _ => (None, String::new()),
        };
        let Some(pause_ms) = pause_ms else { return (outcome, None) };
        let tries = retrying.count();
        worker.counters.retry(authorized.edge.id);
        report.notes.add(Note {
            stage: "forward",
            rule: "retry".into(),
            message: format!("{why}: tried again after {pause_ms} ms"),
            target: format!("try {}", tries + 1),
            ..Note::default()
        });
        if !pause(ctx.live, front, pause_ms).await {
            return (Outcome::Gone, None);
        }
        // A connection that is kept may be as broken as the one before.
        fresh = !matches!(outcome, Outcome::Again { .. });
        if flow.can_rewind() {
            flow.rewind();
            wire.reset();
        }
    }
}

/// Any number, so that those who fail together do not come again together.
fn spread(report: &Report<'_>) -> u64 {
    u64::from_le_bytes(report.trace.parent)
}

/// Why there is no time left.
fn late(deadline: Option<&Deadline>, request_time: u64, handling: Option<&Handling>) -> Outcome {
    Outcome::Failed(match deadline.filter(|deadline| deadline.at_ms <= request_time) {
        Some(deadline) => deadline.passed(handling),
        None => Deny::failure(504, "limit.request-time", "the request took longer than the limit allows"),
    })
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
    edge: &EdgeRef,
    fresh: bool,
    deadline: Option<&Deadline>,
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
    let left = match deadline.map(|deadline| deadline.left(ctx.worker.now_ms())) {
        Some(None) => return Err(Deny::failure(504, "timeout", "there is no time left to connect")),
        left => left.flatten(),
    };
    let in_grpc = deadline.filter(|deadline| deadline.is_grpc());
    let without_timeout = in_grpc.map(|_| drop.and(GRPC_TIMEOUT));
    let drop = without_timeout.as_ref().unwrap_or(drop);
    // What is left of the time: fields that both versions are told.
    let timed = |put: &mut dyn FnMut(&'static str, &[u8])| {
        let Some(left) = left else { return };
        put(TIMEOUT, left.to_string().as_bytes());
        if in_grpc.is_some() {
            put(GRPC_TIMEOUT, write_grpc(left).as_bytes());
        }
    };
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
        let mut put = |name, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        };
        telling.fields(&mut put);
        timed(&mut put);
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
        Some(upstream) if !fresh => upstream,
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
        timed(&mut |name, value| writer.field(name, value));
        ctx.forwarding.write(view, edge, &trace, &mut writer);
        writer.finish();
    }
    Ok(Back::h1(upstream, wire, AskedH1 { head: head_request, upgrade }, ctx.limits))
}
