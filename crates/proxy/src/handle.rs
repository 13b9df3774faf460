//! A request from its parsed head to the end of its response: the stages in their order.
//!
//! route, authorize ([`Peer::authorize`]) → limit → connect → forward → respond; each may end it with a [`Deny`].

use std::rc::Rc;
use std::task::Poll;

use http::HeaderValue;
use ringfence_event::{Call, Event, EventId, Kind as EventKind, Observed, TraceContext, User, Verdict};
use ringfence_model::Protocol;

use crate::access::{Principal, authenticate};
use crate::back::Back;
use crate::body::Send;
use crate::deny::{Deny, PROBLEM_TYPE, problem};
use crate::exchange::{Bounds, Exchange, Flow, Outcome};
use crate::front::Front;
use crate::h1::{Asked as AskedH1, Framing, Kind, Limits, Outbound, RequestWriter, Version, forward_to_h2};
use crate::headers::{Forwarding, not_copied, spoofed, trace_of};
use crate::internal;
use crate::live::Live;
use crate::peer::{Asked, Authorized, Peer, Way};
use crate::policy::{self, Prepared, Question, TOLD, Watched, Who};
use crate::pool::{self, Upstream};
use crate::stats::Ended;
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
#[derive(Debug)]
pub(crate) enum Next {
    /// The next one, if the connection is kept.
    Request,
    /// Bytes both ways with this connection.
    Tunnel(Box<Upstream>),
    /// Nothing: the connection is no longer in step.
    Close,
}

/// Handles one request. `wire` is where an HTTP/1 request is written.
pub(crate) async fn handle(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
    wire: &mut Wire,
) -> Next {
    if ctx.peer.is_internal() {
        return internal::serve(ctx, view, front).await;
    }
    let started = ctx.worker.touch();
    let trace = trace_of(view);
    ctx.live.set_busy(true);
    let asked = Asked { method: view.method(), host: view.host(), path: view.path() };
    let mut report =
        Report { ctx, view, asked, started, trace, principal: None, prepared: None, watched: None };
    let next = match judge(&mut report).await {
        Err((callee, deny)) => report.refuse(front, &callee, deny).await,
        Ok(authorized) => {
            ctx.live.set_edge(authorized.edge.id);
            match forward(&report, front, wire, &authorized).await {
                (Outcome::Done { status }, _) => {
                    report.served(&authorized, status);
                    Next::Request
                }
                (Outcome::Switched, upstream) => {
                    report.served(&authorized, 101);
                    upstream.map_or(Next::Close, |upstream| Next::Tunnel(Box::new(upstream)))
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
    if !matches!(next, Next::Tunnel(_)) {
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
    let mut flow = Flow::default();
    let mut tried = false;
    loop {
        let last = front.request_is_end();
        let opened = {
            let mut opening = std::pin::pin!(open(report, last, wire, authorized, tried));
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
        let mut exchange = Exchange::new(ctx.worker, ctx.live, front, back, &mut flow, bounds);
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

/// A connection to the callee, with the head of the request on it.
async fn open<'b>(
    report: &Report<'b>,
    last: bool,
    wire: &'b mut Wire,
    authorized: &Authorized,
    again: bool,
) -> Result<Back<'b>, Deny> {
    let Report { ctx, view, trace, .. } = *report;
    let principal = report.principal.as_ref();
    let drop = principal.map_or_else(not_copied, Principal::not_copied);
    let edge = &authorized.next;
    // The callee's side judges whom the gateway verified.
    let told = report.prepared.as_ref().filter(|_| policy::is_told(edge)).map(|prepared| &*prepared.told);
    let mesh = matches!(edge.via, Via::Mesh { .. });
    // The mesh keeps the caller's version; a service gets the one that it speaks.
    let h2 = if mesh { view.version() == Version::Http2 } else { edge.protocol == Protocol::Grpc };
    let head_request = view.method() == "HEAD";
    if h2 {
        let hold = pool::open_h2(ctx.worker, edge).await?;
        let malformed = |e: crate::h1::Refusal| Deny::new(400, "parse", "framing", e.to_string());
        let scheme = if mesh { "https" } else { "http" };
        let mut request = forward_to_h2(view, scheme, view.authority(), drop).map_err(malformed)?;
        ctx.forwarding.insert(view, edge, &trace, principal, request.headers_mut());
        if let Some(value) = told.and_then(|told| HeaderValue::from_str(told).ok()) {
            request.headers_mut().insert(TOLD, value);
        }
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
    // At a second try the bytes of the first are still there: none has left.
    if wire.is_empty() {
        wire.begin(view.framing());
        let expect = view.expects_continue();
        let how = Outbound { framing: view.framing(), host: None, upgrade, expect, drop };
        let mut writer = RequestWriter::new(&mut wire.out, view, &how);
        ctx.forwarding.write(view, edge, &trace, principal, &mut writer);
        if let Some(told) = told {
            writer.field(TOLD, told.as_bytes());
        }
        writer.finish();
    }
    Ok(Back::h1(upstream, wire, AskedH1 { head: head_request, upgrade }, ctx.limits))
}

/// Tells what became of a request: an event, a count, and an answer if it was refused.
struct Report<'a> {
    ctx: &'a Ctx<'a>,
    view: HeadView<'a>,
    asked: Asked<'a>,
    started: u64,
    trace: TraceContext,
    /// Who stands behind it, once that is known.
    principal: Option<Principal>,
    /// The same for policies, at the gateway.
    prepared: Option<Rc<Prepared>>,
    /// What policies that only watch say of it.
    watched: Option<Watched>,
}

/// Route, authenticate, authorize: the edge that the request may take, or whom it wanted and why it may not.
async fn judge(report: &mut Report<'_>) -> Result<Authorized, (std::sync::Arc<str>, Deny)> {
    let ctx = report.ctx;
    let authorized = loop {
        let authorized = ctx
            .peer
            .authorize(ctx.worker, report.asked)
            .map_err(|deny| (ctx.peer.callee_name(ctx.worker), deny))?;
        let Some(access) = &authorized.access else { break authorized };
        ctx.live.set_edge(authorized.edge.id);
        let callee = || authorized.edge.callee.clone();
        let table = authorized.edge.table();
        let principal = authenticate(ctx, report.view, table, access).await;
        // It may have waited for keys, and meanwhile another fence came into force: that one decides.
        if ctx.worker.table().is_some_and(|now| !Rc::ptr_eq(&now, table)) {
            continue;
        }
        let principal = report.principal.insert(principal.map_err(|deny| (callee(), deny))?);
        principal.meets(access).map_err(|deny| (callee(), deny))?;
        break authorized;
    };
    permit(report, &authorized).map_err(|deny| (authorized.edge.callee.clone(), deny))?;
    Ok(authorized)
}

/// Asks policies, if there are any and it is for this side to ask them.
fn permit(report: &mut Report<'_>, authorized: &Authorized) -> Result<(), Deny> {
    let (ctx, asked) = (report.ctx, report.asked);
    let edge = &authorized.edge;
    let Some(policies) = &edge.table().policy else { return Ok(()) };
    if !policy::is_asked(ctx.peer, authorized) {
        return Ok(());
    }
    let actors = &ctx.worker.actors;
    let (who, source) = match ctx.peer.way {
        Way::Gateway => {
            if let Some(principal) = &report.principal {
                report.prepared = Some(actors.shown(policies, principal.identity())?);
            }
            (report.prepared.clone().map_or(Who::Anyone, Who::Prepared), Some(ctx.peer.source.ip()))
        }
        Way::Inbound { .. } if ctx.forwarding.is_from_gateway() => {
            let told = report.view.field(TOLD).map(|value| actors.told(policies, value)).transpose()?;
            let source = report
                .view
                .field("x-forwarded-for")
                .and_then(|address| std::str::from_utf8(address).ok()?.parse().ok());
            (told.map_or(Who::Anyone, Who::Prepared), source)
        }
        Way::Inbound { .. } | Way::Outbound { .. } => (Who::Service(&ctx.peer.caller), None),
    };
    let question = Question { method: asked.method, path: asked.path, host: asked.host, source };
    let (outcome, watched) = policies.judge(&who, edge, question);
    report.watched = watched;
    outcome
}

impl Report<'_> {
    fn served(&self, authorized: &Authorized, status: u16) {
        let duration_us = self.duration();
        let spoofed = if self.ctx.peer.counts() { spoofed(self.view) } else { None };
        let verdict = match &spoofed {
            None => Verdict::Allowed,
            Some(reason) => Verdict::Corrected { rule: "header.spoofed", reason },
        };
        self.emit(&authorized.edge.callee, status, duration_us, verdict, None);
        if self.ctx.peer.counts() {
            let ended =
                if status >= 500 { Ended::Failed { duration_us } } else { Ended::Served { duration_us } };
            self.ctx.worker.counters.count(authorized.edge.id, ended);
        }
    }

    fn failed(&self, authorized: &Authorized, status: u16, reason: &str) {
        let duration_us = self.duration();
        self.emit(&authorized.edge.callee, status, duration_us, Verdict::Failed { reason }, None);
        if self.ctx.peer.counts() {
            self.ctx.worker.counters.count(authorized.edge.id, Ended::Failed { duration_us });
        }
    }

    async fn refuse(&self, front: &mut Front<'_>, callee: &std::sync::Arc<str>, deny: Deny) -> Next {
        let (id, duration_us) = (EventId::new(), self.duration());
        self.emit(callee, deny.status, duration_us, deny.verdict(), Some(id));
        let (peer, worker) = (self.ctx.peer, self.ctx.worker);
        count_refusal(worker, peer, callee, &deny, duration_us);
        if front.begun() {
            front.abort(h2::Reason::CANCEL);
            return Next::Close;
        }
        answer(self.ctx, front, self.is_grpc(), &deny, id).await
    }

    fn is_grpc(&self) -> bool {
        self.view.known(Kind::ContentType).is_some_and(|value| value.starts_with(b"application/grpc"))
    }

    fn duration(&self) -> u64 {
        self.ctx.worker.touch().saturating_sub(self.started)
    }

    fn emit(&self, callee: &str, status: u16, duration_us: u64, verdict: Verdict<'_>, id: Option<EventId>) {
        let peer = self.ctx.peer;
        let principal = self.principal.as_ref();
        let watched = self.watched.as_ref();
        let policies: Vec<&str> =
            watched.iter().flat_map(|w| &w.policies).map(|policy| &*policy.id).collect();
        let observed = watched.map(|w| Observed { policies: &policies, would_pass: w.would_pass });
        let call = Call {
            caller: &peer.caller,
            caller_id: peer.caller_id.as_ref().map(ringfence_spiffe::SpiffeId::as_str),
            user: principal.map(|principal| User {
                name: &principal.identity().id,
                domain: &principal.identity().provider,
                credential: principal.credential(),
            }),
            source: matches!(peer.way, Way::Gateway).then(|| peer.source.ip()),
            callee,
            point: peer.point(),
            method: self.asked.method.as_bytes(),
            path: self.asked.path.as_bytes(),
            status,
            duration_us,
            observed,
            verdict,
        };
        self.ctx.worker.emit_traced(EventKind::Call(call), self.trace.trace, id);
    }
}

/// Counts what was not served. A refused delivery is counted where it is refused, a failed one where it was sent from.
pub(crate) fn count_refusal(
    worker: &Worker,
    peer: &Peer,
    callee: &std::sync::Arc<str>,
    deny: &Deny,
    duration_us: u64,
) {
    if !peer.counts() && deny.failed {
        return;
    }
    // Names that the fence does not know are counted together: a caller must not make the counters grow.
    let known = worker.table().is_some_and(|table| table.callee(callee).is_some());
    let nobody = "-".into();
    let edge = worker.shared.edge_id(&peer.caller, if known { callee } else { &nobody });
    worker.counters.count(edge, if deny.failed { Ended::Failed { duration_us } } else { Ended::Denied });
}

/// Sends the answer to what is refused, in the form that the client's protocol has for it.
pub(crate) async fn answer(
    ctx: &Ctx<'_>,
    front: &mut Front<'_>,
    grpc: bool,
    deny: &Deny,
    id: EventId,
) -> Next {
    if let Front::H1(h1) = front {
        // What is left of the request would be read as the next one.
        h1.keep &= h1.decoder.is_end();
    }
    let put = if grpc {
        let message = format!("refused, event {id}");
        let fields = [
            ("content-type", "application/grpc"),
            ("grpc-status", deny.grpc_status()),
            ("grpc-message", &message),
        ];
        front.put_own(200, &fields, String::new())
    } else {
        let challenge = deny.challenge.as_deref().map(|challenge| ("www-authenticate", challenge));
        let fields: Vec<_> = challenge.into_iter().chain([("content-type", PROBLEM_TYPE)]).collect();
        front.put_own(deny.status, &fields, problem(deny.status, id))
    };
    ctx.live.arm(ctx.worker.now_ms() + 5_000);
    let flushed = match put {
        Ok(()) => ctx.live.within(std::future::poll_fn(|cx| front.poll_flush(cx))).await,
        Err(broken) => Ok(Err(broken)),
    };
    if matches!(flushed, Ok(Ok(()))) { Next::Request } else { Next::Close }
}

impl Worker {
    fn emit_traced(&self, kind: EventKind<'_>, trace: ringfence_event::TraceId, id: Option<EventId>) {
        let event = Event::new(kind).trace(trace).revision(self.revision());
        self.events.emit(&match id {
            Some(id) => event.with_id(id),
            None => event,
        });
    }
}
