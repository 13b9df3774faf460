//! A request from its parsed head to the end of its response: the stages in their order.
//!
//! route, authorize ([`Peer::authorize`]) → authenticate or take the delegation → policies → delegate → limit → connect → forward →
//! respond; each may end it with a [`Deny`].

use std::rc::Rc;
use std::task::Poll;

use http::{HeaderName, HeaderValue};
use ringfence_event::{Call, Event, EventId, Kind as EventKind, Observed, TraceContext, User, Verdict};
use ringfence_model::Protocol;

use crate::access::{NONCE_FIELD, Principal, authenticate, cookies, demand};
use crate::again::{Granted, judge_again};
use crate::back::Back;
use crate::body::Send;
use crate::delegate::{self, OnBehalf, Telling};
use crate::deny::{Deny, PROBLEM_TYPE, problem};
use crate::exchange::{Bounds, Exchange, Flow, Outcome};
use crate::front::Front;
use crate::h1::{Asked as AskedH1, Framing, Kind, Limits, Outbound, RequestWriter, Version, forward_to_h2};
use crate::headers::{Forwarding, not_copied, spoofed, trace_of};
use crate::internal;
use crate::live::Live;
use crate::peer::{Asked, Authorized, Peer, Way};
use crate::policy::{self, Question, Watched, Who};
use crate::pool::{self, Upstream};
use crate::signin;
use crate::stats::Ended;
use crate::table::{Edge, Via};
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
    if matches!(ctx.peer.way, Way::Gateway) && signin::is_ours(view.path()) {
        return signin::serve(ctx, view, front).await;
    }
    let (started, since) = (ctx.worker.touch(), ctx.worker.live.judged());
    let trace = trace_of(view);
    ctx.live.set_busy(true);
    let asked = Asked { method: view.method(), host: view.host(), path: view.path() };
    let mut report =
        Report { ctx, view, asked, started, trace, principal: None, on_behalf: None, watched: None };
    let next = match judge(&mut report).await {
        Err((callee, deny)) => report.refuse(front, &callee, deny).await,
        Ok(authorized) => {
            ctx.live.set_edge(authorized.edge.id);
            if let Some(set) = report.principal.as_ref().and_then(Principal::renewal) {
                front.set_cookie(set);
            }
            let strict = authorized.access.as_ref().is_some_and(|access| access.demands_nonces());
            if strict && report.principal.as_ref().is_some_and(Principal::proves_a_key) {
                // With the next one at hand, a client need not be refused to get it.
                front.tell(NONCE_FIELD, ctx.worker.shared.proofs.nonce());
            }
            let forwarded = {
                let work = std::pin::pin!(forward(&report, front, wire, &authorized));
                let still = || judge_again(&report, &authorized);
                ctx.live.while_allowed(&ctx.worker.live, since, still, work).await
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
        let expect = view.expects_continue();
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

/// Tells what became of a request: an event, a count, and an answer if it was refused.
pub(crate) struct Report<'a> {
    pub(crate) ctx: &'a Ctx<'a>,
    view: HeadView<'a>,
    pub(crate) asked: Asked<'a>,
    started: u64,
    trace: TraceContext,
    /// Who stands behind it, once that is known.
    pub(crate) principal: Option<Principal>,
    /// The transaction token that says so to services.
    pub(crate) on_behalf: Option<OnBehalf>,
    /// What policies that only watch say of it.
    watched: Option<Watched>,
}

/// Route, authenticate, authorize, delegate: the edge that the request may take, or whom it wanted and why it may not.
async fn judge(report: &mut Report<'_>) -> Result<Authorized, (std::sync::Arc<str>, Deny)> {
    let ctx = report.ctx;
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
        report.on_behalf = delegate::taken(ctx, report.view, &authorized.edge, trace).map_err(callee)?;
        if let Some(access) = &authorized.access {
            ctx.live.set_edge(authorized.edge.id);
            let taken = report.on_behalf.as_ref().map(|on| access.takes(table, on.behalf.identity()));
            if !matches!(taken, Some(Ok(()))) {
                let principal = match report.principal.take() {
                    // It was let in by the fence before. What it showed may count once only, and did.
                    Some(before) => before.again(ctx.worker, table, access),
                    None => authenticate(ctx, report.view, table, access).await,
                };
                if is_over() {
                    continue;
                }
                let principal = principal.map_err(|deny| match taken {
                    Some(Err(other)) if deny.rule == "credential.none" => other,
                    _ => deny,
                });
                let principal = report.principal.insert(principal.map_err(callee)?);
                demand(report.view, principal, access).map_err(callee)?;
            }
        }
        permit(report, &authorized).map_err(callee)?;
        if let (Way::Gateway, Some(principal), Some(access)) =
            (&ctx.peer.way, &report.principal, &authorized.access)
            && let Via::Mesh { own, address: None, .. } = &authorized.next.via
        {
            let exchanged = delegate::exchange(ctx, report.view, table, access, principal, own).await;
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
    policies.judge(&who, edge, question)
}

impl Report<'_> {
    fn served(&self, authorized: &Authorized, status: u16) {
        let duration_us = self.duration();
        let dropped = self.dropped();
        let verdict = match &dropped {
            None => Verdict::Allowed,
            Some((rule, reason)) => Verdict::Corrected { rule, reason },
        };
        self.emit(&authorized.edge.callee, status, duration_us, verdict);
        if self.ctx.peer.counts() {
            let ended =
                if status >= 500 { Ended::Failed { duration_us } } else { Ended::Served { duration_us } };
            self.ctx.worker.counters.count(authorized.edge.id, ended);
        }
    }

    /// What it brought and must not carry on: the rule, and what.
    fn dropped(&self) -> Option<(&'static str, String)> {
        let peer = self.ctx.peer;
        if !peer.counts() {
            return None;
        }
        let outbound = matches!(peer.way, Way::Outbound { .. });
        let spoofed = spoofed(self.view, outbound);
        if outbound && self.on_behalf.is_none() && delegate::brings(self.view) {
            let unknown = delegate::unknown(&peer.caller);
            return Some((
                "delegate.unknown",
                spoofed.map_or_else(|| unknown.clone(), |more| format!("{unknown}; {more}")),
            ));
        }
        spoofed.map(|reason| ("header.spoofed", reason))
    }

    /// What the next hop is told of whom it is for.
    fn telling(&self, next: &Edge) -> Telling<'_> {
        match (&self.ctx.peer.way, &self.on_behalf, &self.principal) {
            (Way::Inbound { .. }, Some(on), _) => Telling::Delivered(on),
            (_, Some(on), _) if policy::is_told(next) => Telling::Passed(on),
            (_, None, Some(principal)) => Telling::Named(principal.identity()),
            _ => Telling::Nothing,
        }
    }

    /// For whom it is, for the event.
    fn user(&self) -> Option<User<'_>> {
        let on = self.on_behalf.as_ref();
        let identity = match (&self.principal, on) {
            (Some(principal), _) => principal.identity(),
            (None, on) => on?.behalf.identity(),
        };
        Some(User {
            name: &identity.id,
            domain: &identity.provider,
            credential: self.principal.as_ref().and_then(Principal::credential),
            client: identity.client.as_deref(),
            transaction: on.and_then(|on| on.behalf.token().transaction()),
            chain: on.map_or("", |on| on.chain.as_str()),
        })
    }

    fn failed(&self, authorized: &Authorized, status: u16, reason: &str) {
        let duration_us = self.duration();
        self.emit(&authorized.edge.callee, status, duration_us, Verdict::Failed { reason });
        if self.ctx.peer.counts() {
            self.ctx.worker.counters.count(authorized.edge.id, Ended::Failed { duration_us });
        }
    }

    async fn refuse(&self, front: &mut Front<'_>, callee: &std::sync::Arc<str>, deny: Deny) -> Next<'static> {
        let (id, duration_us) = (EventId::new(), self.duration());
        self.tell(callee, deny.status, duration_us, deny.verdict(), (Some(id), deny.cut));
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

    fn emit(&self, callee: &str, status: u16, duration_us: u64, verdict: Verdict<'_>) {
        self.tell(callee, status, duration_us, verdict, (None, false));
    }

    /// Tells under an id that is known already; `cut` for what had been let pass.
    fn tell(
        &self,
        callee: &str,
        status: u16,
        duration_us: u64,
        verdict: Verdict<'_>,
        (id, cut): (Option<EventId>, bool),
    ) {
        let peer = self.ctx.peer;
        let watched = self.watched.as_ref();
        let policies: Vec<&str> =
            watched.iter().flat_map(|w| &w.policies).map(|policy| &*policy.id).collect();
        let observed = watched.map(|w| Observed { policies: &policies, would_pass: w.would_pass });
        let call = Call {
            caller: &peer.caller,
            caller_id: peer.caller_id.as_ref().map(ringfence_spiffe::SpiffeId::as_str),
            user: self.user(),
            source: matches!(peer.way, Way::Gateway).then(|| peer.source.ip()),
            callee,
            point: peer.point(),
            method: self.asked.method.as_bytes(),
            path: self.asked.path.as_bytes(),
            status,
            duration_us,
            cut,
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
) -> Next<'static> {
    if let Front::H1(h1) = front {
        // What is left of the request would be read as the next one.
        h1.keep &= h1.decoder.is_end();
    }
    let put = if let Some(shown) = &deny.shown {
        shown.put(front, id)
    } else if grpc {
        let message = format!("refused, event {id}");
        let fields = [
            ("content-type", "application/grpc"),
            ("grpc-status", deny.grpc_status()),
            ("grpc-message", &message),
        ];
        front.put_own(200, &fields, String::new())
    } else {
        let mut fields = vec![("content-type", PROBLEM_TYPE)];
        if let Some(challenge) = &deny.challenge {
            fields.push(("www-authenticate", &challenge.text));
            fields.extend(challenge.nonce.as_deref().map(|nonce| (NONCE_FIELD, nonce)));
        }
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
