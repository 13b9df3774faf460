//! Connections and streams that are open on a thread: what ends them from outside.
//!
//! Deadlines, removed edges, expired identities and drains all reach a connection the same way: a flag in its entry and a
//! wake. One ticker per thread looks through the entries a few times a second, so a request arms a deadline by writing
//! a number: a timer of the runtime per request would cost more than the parsing of its head.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::table::{EdgeId, Table};

/// How often the ticker looks.
pub(crate) const TICK: std::time::Duration = std::time::Duration::from_millis(100);
const NEVER: u64 = u64::MAX;
const NO_EDGE: EdgeId = EdgeId::MAX;
/// How long an idle connection may stay after its drain began, in milliseconds.
const DRAIN_IDLE: u64 = 3_000;

/// Why a connection was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The edge that it runs along is not declared any more.
    EdgeRemoved,
    /// The drain's time is over, or the process stops.
    Stopped,
}

/// One open connection or stream.
#[derive(Debug)]
pub(crate) struct Live {
    edge: Cell<EdgeId>,
    deadline: Cell<u64>,
    timed_out: Cell<bool>,
    cut: Cell<Option<Cut>>,
    draining: Cell<bool>,
    busy: Cell<bool>,
    /// Unix time in seconds at which the peer's identity ends.
    identity_ends: Cell<u64>,
    /// Generation of the bundle that the peer was verified with.
    bundle: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// All open connections and streams of a thread.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: RefCell<slab::Slab<Rc<Live>>>,
}

/// An entry; leaves the registry when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    live: Rc<Live>,
    key: usize,
    registry: Rc<Registry>,
}

impl Registry {
    pub(crate) fn enter(self: &Rc<Self>) -> Entry {
        let live = Rc::new(Live {
            edge: Cell::new(NO_EDGE),
            deadline: Cell::new(NEVER),
            timed_out: Cell::new(false),
            cut: Cell::new(None),
            draining: Cell::new(false),
            busy: Cell::new(false),
            identity_ends: Cell::new(NEVER),
            bundle: Cell::new(NEVER),
            waker: RefCell::new(None),
        });
        let key = self.entries.borrow_mut().insert(live.clone());
        Entry { live, key, registry: self.clone() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Fires deadlines that are over; begins the drain of connections whose peer's identity has ended.
    pub(crate) fn tick(&self, now_ms: u64, unix: u64) {
        for (_, live) in &*self.entries.borrow() {
            if live.identity_ends.get() <= unix && !live.draining.get() {
                live.drain(now_ms);
            }
            if live.deadline.get() <= now_ms && !live.timed_out.get() {
                live.timed_out.set(true);
                live.wake();
            }
        }
    }

    /// Cuts what runs along edges that `table` does not declare; drains what was verified with another trust bundle.
    pub(crate) fn recheck(&self, table: &Table, now_ms: u64) {
        let bundle = table.snapshot.bundle.generation;
        for (_, live) in &*self.entries.borrow() {
            let edge = live.edge.get();
            if edge != NO_EDGE && !table.declares(edge) {
                live.cut(Cut::EdgeRemoved);
            } else if live.bundle.get() != NEVER && live.bundle.get() != bundle && !live.draining.get() {
                live.drain(now_ms);
            }
        }
    }

    /// Lets everything end by itself.
    pub(crate) fn drain(&self, now_ms: u64) {
        for (_, live) in &*self.entries.borrow() {
            live.drain(now_ms);
        }
    }

    /// Ends everything; how many there were.
    pub(crate) fn cut_all(&self) -> usize {
        let entries = self.entries.borrow();
        for (_, live) in &*entries {
            live.cut(Cut::Stopped);
        }
        entries.len()
    }
}

impl Live {
    /// The edge that it runs along from now on.
    pub(crate) fn set_edge(&self, edge: EdgeId) {
        self.edge.set(edge);
    }

    /// The edge that it runs along.
    pub(crate) fn edge(&self) -> Option<EdgeId> {
        Some(self.edge.get()).filter(|edge| *edge != NO_EDGE)
    }

    /// It runs along no edge (between two requests).
    pub(crate) fn clear_edge(&self) {
        self.edge.set(NO_EDGE);
    }

    /// Who the peer is ends then, and holds with this bundle.
    pub(crate) fn set_identity(&self, ends_unix: u64, bundle: u64) {
        self.identity_ends.set(ends_unix);
        self.bundle.set(bundle);
    }

    /// Sets the deadline, a time of the worker's clock.
    pub(crate) fn arm(&self, deadline_ms: u64) {
        self.timed_out.set(false);
        self.deadline.set(deadline_ms);
    }

    /// No deadline.
    pub(crate) fn disarm(&self) {
        self.timed_out.set(false);
        self.deadline.set(NEVER);
    }

    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a request is under way: a drain waits for it.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }

    fn drain(&self, now_ms: u64) {
        self.draining.set(true);
        if !self.busy.get() {
            self.deadline.set(self.deadline.get().min(now_ms + DRAIN_IDLE));
        }
        self.wake();
    }

    fn cut(&self, why: Cut) {
        self.cut.set(Some(why));
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// Waits for `future`, or until the deadline is over.
    pub(crate) async fn within<F: Future>(&self, future: F) -> Result<F::Output, TimedOut> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| self.poll_within(cx, future.as_mut())).await
    }

    fn poll_within<F: Future>(
        &self,
        cx: &mut Context<'_>,
        future: Pin<&mut F>,
    ) -> Poll<Result<F::Output, TimedOut>> {
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if self.timed_out.get() { Poll::Ready(Err(TimedOut)) } else { Poll::Pending }
    }
}

/// The deadline was over first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedOut;

impl Entry {
    pub(crate) fn live(&self) -> &Rc<Live> {
        &self.live
    }

    /// Runs a connection until it ends or is cut. Cutting drops the future, and with it both sockets.
    pub(crate) async fn run<F: Future>(&self, future: F) -> Result<F::Output, Cut> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            self.live.register(cx.waker());
            match self.live.cut.get() {
                Some(why) => Poll::Ready(Err(why)),
                None => future.as_mut().poll(cx).map(Ok),
            }
        })
        .await
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.entries.borrow_mut().remove(self.key);
    }
}
