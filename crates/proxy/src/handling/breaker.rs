//! Keeps a callee from being asked more than it can take, and from being asked at all while it fails.
//!
//! One per way, for all threads of a node: a callee has one strength, however many threads call it. Only ways that declare one come here,
//! for a lock of less than a microsecond per try. What a client can bring about by itself never opens it: a body that does not come, an answer that is not
//! taken, a time that only the caller finds too long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use ringfence_event::{Kind, Lifecycle, LifecycleActivity, Severity};
use ringfence_model::{Bound, Position, Trip};
use ringfence_snapshot::node::BreakerStats;

pub(crate) use super::circuit::Ended;
use super::circuit::{Cause, Change, Circuit, Entry, Pass, Refused, Ticket};
use crate::deny::{Deny, Told};
use crate::exchange::Outcome;
use crate::table::{Edge, EdgeId};
use crate::view::ResponseView;
use crate::worker::Worker;

/// gRPC statuses that say how a callee is.
const RESOURCE_EXHAUSTED: &[u8] = b"8";
const UNAVAILABLE: &[u8] = b"14";

/// A breaker of one way.
#[derive(Debug)]
pub(crate) struct Breaker {
    edge: EdgeId,
    said: (Option<Bound>, Option<Trip>),
    begun: Instant,
    circuit: Mutex<Circuit>,
}

/// A request that is under way; dropped, it says nothing about the callee.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    pass: Option<Pass>,
}

/// A request that waits for another one to end. Dropped, it leaves its place.
#[derive(Debug)]
struct Waiting<'a> {
    breaker: &'a Arc<Breaker>,
    ticket: Ticket,
    late: bool,
}

/// The breakers of all ways, which outlive a table in which they say the same.
#[derive(Debug, Default)]
pub(crate) struct Breakers(Mutex<HashMap<String, Weak<Breaker>>>);

impl Breakers {
    /// The breaker of a way.
    pub(crate) fn of(&self, edge: EdgeId, way: String, said: &ringfence_model::Breaker) -> Arc<Breaker> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, breaker| breaker.strong_count() > 0);
        let said = (said.bound, said.trip);
        if let Some(same) =
            all.get(&way).and_then(Weak::upgrade).filter(|same| same.said == said && same.edge == edge)
        {
            return same;
        }
        let circuit = Mutex::new(Circuit::new(said.0, said.1));
        let breaker = Arc::new(Breaker { edge, said, begun: Instant::now(), circuit });
        all.insert(way, Arc::downgrade(&breaker));
        breaker
    }

    /// How those of each edge stand.
    pub(crate) fn stats(&self) -> HashMap<EdgeId, BreakerStats> {
        let mut sums: HashMap<EdgeId, BreakerStats> = HashMap::new();
        for breaker in
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade)
        {
            let circuit = breaker.lock();
            let (running, waiting) = circuit.busy();
            let sum = sums.entry(breaker.edge).or_default();
            sum.ways += 1;
            sum.open += u64::from(circuit.is_open());
            sum.running += u64::from(running);
            sum.waiting += waiting as u64;
            sum.opened += circuit.opened;
        }
        sums
    }
}

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Lets a request pass, at once or, boxed because it is rare, when it has waited for its turn; or says why not.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Permit, Deny> {
        let entry = self.lock().enter(self.now());
        match entry {
            Entry::Pass(pass) => Ok(self.permit(pass)),
            Entry::Refused(refused) => Err(self.refuse(refused)),
            Entry::Wait(ticket) => {
                let waiting = Waiting { breaker: self, ticket, late: false };
                Box::pin(waiting.wait()).await.map_err(|refused| self.refuse(refused))
            }
        }
    }

    fn permit(self: &Arc<Self>, pass: Pass) -> Permit {
        Permit { breaker: self.clone(), pass: Some(pass) }
    }

    fn refuse(&self, refused: Refused) -> Deny {
        let bound = self.said.0;
        let (rule, reason, after) = match refused {
            Refused::Open(left) => {
                ("breaker.open", "the callee failed, and nothing is sent for a while".to_owned(), left)
            }
            Refused::Probing => {
                let reason = "the callee failed, and one request is being tried before others are sent";
                ("breaker.open", reason.to_owned(), Duration::ZERO)
            }
            Refused::Full => {
                let (requests, pending) = bound.map_or((0, 0), |bound| (bound.requests, bound.pending));
                let reason = format!("{requests} requests are under way, and {pending} wait");
                ("breaker.full", reason, Duration::ZERO)
            }
            Refused::Late => {
                let queue = bound.map_or(Duration::ZERO, |bound| bound.queue);
                let reason = format!(
                    "no request that was under way ended within the {queue:?} that another one waits"
                );
                ("breaker.late", reason, Duration::ZERO)
            }
        };
        let seconds = u64::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let told = Told { fields: vec![("retry-after", seconds.to_string())], ..Told::default() };
        Deny::new(503, "breaker", rule, reason).told(told)
    }

    fn leave(&self, ticket: Ticket, late: bool) {
        let wakers = self.lock().leave(ticket, late);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

impl Waiting<'_> {
    async fn wait(mut self) -> Result<Permit, Refused> {
        let queue = self.breaker.said.0.map_or(Duration::ZERO, |bound| bound.queue);
        let mut over = std::pin::pin!(tokio::time::sleep(queue));
        std::future::poll_fn(|cx| {
            let looked = self.breaker.lock().look(self.ticket, self.breaker.now(), cx.waker());
            if let Some(outcome) = looked {
                return Poll::Ready(outcome.map(|pass| self.breaker.permit(pass)));
            }
            over.as_mut().poll(cx).map(|()| {
                self.late = true;
                Err(Refused::Late)
            })
        })
        .await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Of one that was told already nothing is left.
        self.breaker.leave(self.ticket, self.late);
    }
}

impl Permit {
    /// The request is over, and ended so for its callee. Whoever operates it is told when that changes something.
    pub(crate) fn end(mut self, worker: &Worker, edge: &Edge, position: &Position, ended: Ended) {
        let Some(change) = self.pass.take().and_then(|pass| self.breaker.end(pass, ended)) else { return };
        let way = format!("{} → {} ({position})", edge.caller, edge.callee);
        let (activity, severity, message) = match change {
            Change::Opened { time, cause } => {
                let cause = match cause {
                    Cause::Row(failures) => format!("{failures} failures in a row"),
                    Cause::Rate => "too many failed of the last ten seconds".to_owned(),
                    Cause::Probe => "the request that was tried failed".to_owned(),
                };
                let message = format!("nothing is sent along {way} for {time:?}: {cause}");
                (LifecycleActivity::Disable, Severity::Medium, message)
            }
            Change::Closed => {
                let message = format!("requests are sent along {way} again: one was tried and answered");
                (LifecycleActivity::Enable, Severity::Informational, message)
            }
        };
        let name = &edge.callee;
        worker.emit(Kind::Lifecycle(Lifecycle { name, activity, message: &message, severity }));
    }
}

impl Breaker {
    fn end(&self, pass: Pass, ended: Ended) -> Option<Change> {
        let (change, wakers) = self.lock().end(pass, ended, self.now());
        wakers.into_iter().for_each(std::task::Waker::wake);
        change
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.breaker.end(pass, Ended::Neither);
        }
    }
}

/// What a try shows of the callee.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answered {
    /// By the head of its answer, if there was one.
    pub(crate) head: Option<Ended>,
    /// When that came, in microseconds of the worker's clock.
    pub(crate) at_us: Option<u64>,
    /// The request had gone out whole.
    pub(crate) sent: bool,
    /// It broke its answer off.
    pub(crate) broke: bool,
}

/// What the head of an answer says of the callee.
pub(crate) fn by_head(head: ResponseView<'_>, last: bool) -> Ended {
    match head.status() {
        // That it does not know the method is no fault.
        501 => Ended::Well,
        500..=599 => Ended::Failed,
        429 => Ended::Neither,
        200 if last => match head.field("grpc-status") {
            Some(UNAVAILABLE) => Ended::Failed,
            Some(RESOURCE_EXHAUSTED) => Ended::Neither,
            _ => Ended::Well,
        },
        _ => Ended::Well,
    }
}

/// What a try says of the callee.
pub(crate) fn by_outcome(outcome: &Outcome, answered: Answered) -> Ended {
    match outcome {
        Outcome::Done { .. } | Outcome::Again { .. } => answered.head.unwrap_or(Ended::Neither),
        Outcome::Switched => Ended::Well,
        Outcome::Broken { .. } if answered.broke => Ended::Failed,
        Outcome::Failed(deny) => match &*deny.rule {
            "connect.failed" | "connect.timeout" | "mesh.handshake" | "mesh.protocol" | "upstream.broken"
            | "upstream.closed" | "upstream.http2" => Ended::Failed,
            // Of a client that does not send its body the callee knows nothing.
            "timeout" | "limit.request-time" | "limit.idle" if answered.sent && deny.status == 504 => {
                Ended::Failed
            }
            _ => Ended::Neither,
        },
        Outcome::Broken { .. } | Outcome::Unsent | Outcome::Late | Outcome::Gone => Ended::Neither,
    }
}
