//! What became of a request: an event, a count, and an answer if it was refused.

use ringfence_event::{Call, Event, EventId, Kind as EventKind, Observed, TraceContext, User, Verdict};

use super::{Ctx, Next};
use crate::access::{NONCE_FIELD, Principal};
use crate::body::Broken;
use crate::delegate::{self, OnBehalf, Telling};
use crate::deny::{Deny, PROBLEM_TYPE};
use crate::front::Front;
use crate::h1::Kind;
use crate::headers::spoofed;
use crate::held::Held;
use crate::limits::Limited;
use crate::note::Notes;
use crate::peer::{Asked, Authorized, Peer, Way};
use crate::policy::{self, Watched};
use crate::protect::{Judges, Watch};
use crate::stats::Ended;
use crate::table::Edge;
use crate::view::HeadView;
use crate::worker::Worker;

/// How long a client may take to take its answer, in milliseconds.
const FLUSH_MS: u64 = 5_000;

/// Tells what became of a request: an event, a count, and an answer if it was refused.
pub(crate) struct Report<'a> {
    pub(crate) ctx: &'a Ctx<'a>,
    pub(crate) view: HeadView<'a>,
    pub(crate) asked: Asked<'a>,
    pub(super) started: u64,
    pub(super) trace: TraceContext,
    /// Who stands behind it, once that is known.
    pub(crate) principal: Option<Principal>,
    /// The transaction token that says so to services.
    pub(crate) on_behalf: Option<OnBehalf>,
    /// What policies that only watch say of it.
    pub(super) watched: Option<Watched>,
    /// What was read of its body before it was let pass.
    pub(crate) held: Option<Held>,
    /// Who judges what is answered.
    pub(crate) judges: Judges,
    /// What was found in it, or in the answer.
    pub(crate) notes: Notes,
    /// How it was counted.
    pub(crate) limited: Limited,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        ctx: &'a Ctx<'a>,
        view: HeadView<'a>,
        asked: Asked<'a>,
        started: u64,
        trace: TraceContext,
    ) -> Self {
        Self {
            ctx,
            view,
            asked,
            started,
            trace,
            principal: None,
            on_behalf: None,
            watched: None,
            held: None,
            judges: Judges::default(),
            notes: Notes::default(),
            limited: Limited::default(),
        }
    }

    /// Who judges what is answered, if anybody does.
    pub(super) fn watch<'w>(&'w self, authorized: &'w Authorized) -> Option<Watch<'w>> {
        let hygiene = authorized.dress.as_ref().and_then(|dress| dress.hygiene());
        self.judges.watch(&self.notes, hygiene.copied())
    }
}

impl Report<'_> {
    pub(super) fn served(&self, authorized: &Authorized, status: u16) {
        let duration_us = self.duration();
        let dropped = self.dropped();
        let verdict = match &dropped {
            None => Verdict::Allowed,
            Some((rule, reason)) => Verdict::Corrected { rule, reason },
        };
        self.emit(&authorized.edge.callee, status, duration_us, verdict);
        if self.ctx.peer.counts() {
            let ended = if status >= 500 {
                Ended::Failed { duration_us, status }
            } else {
                Ended::Served { duration_us, status }
            };
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
    pub(super) fn telling(&self, next: &Edge) -> Telling<'_> {
        match (&self.ctx.peer.way, &self.on_behalf, &self.principal) {
            (Way::Inbound { .. }, Some(on), _) => Telling::Delivered(on),
            (_, Some(on), _) if policy::is_told(next) => Telling::Passed(on),
            (_, None, Some(principal)) => Telling::Named(principal.identity()),
            _ => Telling::Nothing,
        }
    }

    /// When what runs by it is over, if it was not shown something that leaves that open.
    pub(crate) fn ends_at(&self) -> Option<u64> {
        self.principal.as_ref().and_then(Principal::ends_at)
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

    pub(super) fn failed(&self, authorized: &Authorized, status: u16, reason: &str) {
        let duration_us = self.duration();
        self.emit(&authorized.edge.callee, status, duration_us, Verdict::Failed { reason });
        if self.ctx.peer.counts() {
            self.ctx.worker.counters.count(authorized.edge.id, Ended::Failed { duration_us, status });
        }
    }

    pub(super) async fn refuse(
        &self,
        front: &mut Front<'_>,
        callee: &std::sync::Arc<str>,
        deny: Deny,
    ) -> Next<'static> {
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
        let denying = self.notes.denying();
        let policies = watched.iter().flat_map(|w| &w.policies).map(|policy| &*policy.id);
        let policies: Vec<&str> = policies.chain(denying.iter().map(String::as_str)).collect();
        let would_pass = watched.is_none_or(|w| w.would_pass) && denying.is_empty();
        let observed = (watched.is_some() || !denying.is_empty())
            .then_some(Observed { policies: &policies, would_pass });
        self.notes.with(|findings| {
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
                findings,
                shape: &self.notes.shape(),
                verdict,
            };
            self.ctx.worker.emit_traced(EventKind::Call(call), self.trace, id);
        });
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
    let status = deny.status;
    let ended = match (deny.failed, deny.is_invitation()) {
        (true, _) => Ended::Failed { duration_us, status },
        (false, true) => Ended::Served { duration_us, status },
        (false, false) => {
            worker.counters.refused(deny.stage, &deny.rule);
            Ended::Denied { status }
        }
    };
    worker.counters.count(edge, ended);
}

/// Sends the answer to what is refused, in the form that the client's protocol has for it.
pub(crate) async fn answer(
    ctx: &Ctx<'_>,
    front: &mut Front<'_>,
    grpc: bool,
    deny: &Deny,
    id: EventId,
) -> Next<'static> {
    let put = |front: &mut Front<'_>| {
        let told = deny.told.iter().flat_map(|told| &told.fields);
        let told = told.map(|(name, value)| (*name, value.as_str()));
        if let Some(shown) = &deny.shown {
            shown.put(front, id)
        } else if grpc {
            let message = format!("refused, event {id}");
            let mut fields = vec![
                ("content-type", "application/grpc"),
                ("grpc-status", deny.grpc_status()),
                ("grpc-message", &message),
            ];
            fields.extend(told);
            front.put_own(200, &fields, String::new())
        } else {
            let mut fields = vec![("content-type", PROBLEM_TYPE)];
            if let Some(challenge) = &deny.challenge {
                fields.push(("www-authenticate", &challenge.text));
                fields.extend(challenge.nonce.as_deref().map(|nonce| (NONCE_FIELD, nonce)));
            }
            fields.extend(told);
            front.put_own(deny.status, &fields, deny.problem(id))
        }
    };
    finish(ctx, front, put).await
}

/// Sends an answer of our own, which the client takes in time or not at all.
pub(crate) async fn finish(
    ctx: &Ctx<'_>,
    front: &mut Front<'_>,
    put: impl FnOnce(&mut Front<'_>) -> Result<(), Broken>,
) -> Next<'static> {
    if let Front::H1(h1) = front {
        // What is left of the request would be read as the next one.
        h1.keep &= h1.decoder.is_end();
    }
    let put = put(front);
    ctx.live.arm(ctx.worker.now_ms() + FLUSH_MS);
    let flushed = match put {
        Ok(()) => ctx.live.within(std::future::poll_fn(|cx| front.poll_flush(cx))).await,
        Err(broken) => Ok(Err(broken)),
    };
    if matches!(flushed, Ok(Ok(()))) { Next::Request } else { Next::Close }
}

impl Worker {
    fn emit_traced(&self, kind: EventKind<'_>, trace: TraceContext, id: Option<EventId>) {
        let event = Event::new(kind).in_trace(trace).revision(self.revision());
        self.events.emit(&match id {
            Some(id) => event.with_id(id),
            None => event,
        });
    }
}
