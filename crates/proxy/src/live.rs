//! Connections and streams that are open on a thread: what ends them from outside.
//!
//! Deadlines, removed edges, expired identities and drains all reach a connection the same way: a flag in its entry and a
//! wake. One ticker per thread looks through the entries a few times a second, so a request arms a deadline by writing
//! a number: a timer of the runtime per request would cost more than the parsing of its head.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use ringfence_spiffe::{RevokedSvids, VerifiedPeer};
use ringfence_tls::Identity;

use crate::deny::Deny;
use crate::door::{Door, Full, Pace, Ticket};
use crate::table::{EdgeId, Table};
use crate::yielding::Yielding;

/// How often the ticker looks.
pub(crate) const TICK: std::time::Duration = std::time::Duration::from_millis(100);
const NEVER: u64 = u64::MAX;
const NO_EDGE: EdgeId = EdgeId::MAX;
/// How long an idle connection may stay after its drain began, in milliseconds.
const DRAIN_IDLE: u64 = 3_000;
/// Connections that are woken at once because their time is over, so that whoever else has something to do waits for no more.
const WOKEN: usize = 16;
/// How long those wait whose time is over as well.
pub(crate) const BREATH: std::time::Duration = std::time::Duration::from_millis(2);

/// Why a connection was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The edge that it runs along is not declared any more.
    EdgeRemoved,
    /// An SVID that it was opened with was revoked.
    SvidRevoked,
    /// The drain's time is over, or the process stops.
    Stopped,
    /// It made room for others.
    Crowded,
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
    /// Whether something runs that was let pass and may be judged again; whether it is to be.
    watched: Cell<bool>,
    to_judge: Cell<bool>,
    /// When it is judged again in any case, Unix time in seconds.
    judge_at: Cell<u64>,
    /// Bytes of a body that wait for the rest of it, since when, and whether they had to give way.
    held: Cell<usize>,
    held_since: Cell<u64>,
    gave_way: Cell<bool>,
    /// How a listener counts it, and how fast it moves.
    ticket: RefCell<Option<Rc<Ticket>>>,
    pace: RefCell<Rc<Pace>>,
    /// Who the peer proved to be.
    peer: RefCell<Option<VerifiedPeer>>,
    /// Who is at both ends of the connection that it goes on with.
    onward: RefCell<Option<Rc<Ends>>>,
    waker: RefCell<Option<Waker>>,
}

/// Both ends of a connection over the mesh that was opened here.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) own: Identity,
    pub(crate) peer: VerifiedPeer,
}

impl Ends {
    /// Whether the SVID of either end was revoked.
    pub(crate) fn are_revoked(&self, revoked: &RevokedSvids) -> bool {
        self.own.is_revoked(revoked) || is_revoked(&self.peer, revoked)
    }
}

fn is_revoked(peer: &VerifiedPeer, revoked: &RevokedSvids) -> bool {
    revoked.check(peer.id(), peer.serial(), peer.not_before_unix()).is_err()
}

/// All open connections and streams of a thread.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// How often all were to be judged again.
    judged: Cell<u64>,
    entries: RefCell<slab::Slab<Rc<Live>>>,
    /// Whose time is over and who have not been told yet.
    due: RefCell<Vec<Weak<Live>>>,
    yielding: RefCell<Yielding>,
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
            watched: Cell::new(false),
            to_judge: Cell::new(false),
            judge_at: Cell::new(NEVER),
            held: Cell::new(0),
            held_since: Cell::new(0),
            gave_way: Cell::new(false),
            ticket: RefCell::default(),
            pace: RefCell::default(),
            peer: RefCell::new(None),
            onward: RefCell::new(None),
            waker: RefCell::new(None),
        });
        let key = self.entries.borrow_mut().insert(live.clone());
        Entry { live, key, registry: self.clone() }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Fires deadlines that are over; has what runs by something that ended judged again; begins the drain of connections whose peer's
    /// identity has ended.
    pub(crate) fn tick(&self, now_ms: u64, unix: u64) {
        let mut due = self.due.borrow_mut();
        due.clear();
        for (_, live) in &*self.entries.borrow() {
            let ends = |peer: &VerifiedPeer| peer.not_after_unix() <= unix;
            if !live.draining.get() && live.peer.borrow().as_ref().is_some_and(ends) {
                live.drain(now_ms);
            }
            if live.is_due(now_ms) {
                due.push(Rc::downgrade(live));
            }
            if live.judge_at.get() <= unix {
                live.judge_at.set(NEVER);
                live.to_judge.set(true);
                live.wake();
            }
        }
    }

    /// Tells some of those whose time is over; whether there are more.
    pub(crate) fn wake_due(&self, now_ms: u64) -> bool {
        let mut due = self.due.borrow_mut();
        for _ in 0..WOKEN {
            let Some(live) = due.pop() else { break };
            if let Some(live) = live.upgrade().filter(|live| live.is_due(now_ms)) {
                live.timed_out.set(true);
                live.wake();
            }
        }
        !due.is_empty()
    }

    /// Cuts what runs along edges that `table` does not declare; drains what was verified with another trust bundle.
    pub(crate) fn recheck(&self, table: &Table, now_ms: u64) {
        let bundle = table.snapshot.bundle.generation;
        for (_, live) in &*self.entries.borrow() {
            let edge = live.edge.get();
            let other = |peer: &VerifiedPeer| peer.bundle_generation() != bundle;
            if edge != NO_EDGE && !table.declares(edge) {
                live.cut(Cut::EdgeRemoved);
            } else if !live.draining.get() && live.peer.borrow().as_ref().is_some_and(other) {
                live.drain(now_ms);
            }
        }
    }

    /// Has everything that was let pass judged again, by its own task; cuts what was opened with an SVID that was revoked.
    pub(crate) fn judge_again(&self, revoked: Option<&RevokedSvids>) {
        self.judged.set(self.judged.get() + 1);
        for (_, live) in &*self.entries.borrow() {
            let gone = revoked.is_some_and(|revoked| {
                live.peer.borrow().as_ref().is_some_and(|peer| is_revoked(peer, revoked))
                    || live.onward.borrow().as_ref().is_some_and(|ends| ends.are_revoked(revoked))
            });
            if gone {
                live.cut(Cut::SvidRevoked);
            } else if live.watched.get() {
                live.to_judge.set(true);
                live.wake();
            }
        }
    }

    /// How often all were to be judged again: what began before the last time must ask.
    pub(crate) fn judged(&self) -> u64 {
        self.judged.get()
    }

    /// Has bodies that wait for the rest of theirs give way, the oldest first, until so many bytes have.
    pub(crate) fn give_way(&self, bytes: usize) {
        let entries = self.entries.borrow();
        let mut waiting: Vec<&Live> =
            entries.iter().map(|(_, live)| &**live).filter(|live| live.held.get() > 0).collect();
        waiting.sort_by_key(|live| live.held_since.get());
        // Some may be about to.
        let mut freed: usize =
            waiting.iter().filter(|live| live.gave_way.get()).map(|live| live.held.get()).sum();
        for live in waiting.into_iter().filter(|live| !live.gave_way.get()) {
            if freed >= bytes {
                return;
            }
            freed += live.held.get();
            live.gave_way.set(true);
            live.timed_out.set(true);
            live.wake();
        }
    }

    /// Has a connection make room at a door where there is none; whether one did.
    pub(crate) fn make_room(&self, door: &Rc<Door>, full: Full, now_ms: u64) -> bool {
        self.yielding.borrow_mut().make_room(&self.entries.borrow(), door, full, now_ms)
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

    /// Who the peer proved to be: its end, and that of its bundle, are those of the connection.
    pub(crate) fn set_peer(&self, peer: VerifiedPeer) {
        *self.peer.borrow_mut() = Some(peer);
    }

    /// The connection that it goes on with from now on, if that is over the mesh.
    pub(crate) fn set_onward(&self, ends: Option<Rc<Ends>>) {
        *self.onward.borrow_mut() = ends;
    }

    /// How a listener counts it.
    pub(crate) fn set_ticket(&self, ticket: Option<Rc<Ticket>>) {
        *self.ticket.borrow_mut() = ticket;
    }

    /// How fast bodies move on it.
    pub(crate) fn pace(&self) -> Rc<Pace> {
        self.pace.borrow().clone()
    }

    /// It is a part of a connection that has this pace.
    pub(crate) fn set_pace(&self, pace: Rc<Pace>) {
        *self.pace.borrow_mut() = pace;
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

    /// So many bytes of a body wait for the rest of it; 0: none do any more.
    pub(crate) fn set_held(&self, bytes: usize, now_ms: u64) {
        if self.held.replace(bytes) == 0 {
            self.held_since.set(now_ms);
            self.gave_way.set(false);
        }
    }

    /// Whether what waited here had to give way.
    pub(crate) fn gave_way(&self) -> bool {
        self.gave_way.get()
    }

    pub(crate) fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a request is under way: a drain waits for it.
    pub(crate) fn set_busy(&self, busy: bool) {
        if self.busy.replace(busy)
            && !busy
            && let Some(ticket) = &*self.ticket.borrow()
        {
            ticket.serves();
        }
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

    fn is_due(&self, now_ms: u64) -> bool {
        self.deadline.get() <= now_ms && !self.timed_out.get()
    }

    /// How soon it has to make room, the least first; none if it need not.
    pub(crate) fn rank(&self, door: &Rc<Door>, full: Full, now_ms: u64) -> Option<(u8, u64)> {
        self.ticket.borrow().as_ref()?.rank(door, full, self.busy.get(), &self.pace.borrow(), now_ms)
    }

    /// Makes room.
    pub(crate) fn yields(&self) {
        // Not counted from now on, although it takes until its task runs.
        self.ticket.borrow().as_ref().into_iter().for_each(|ticket| ticket.leave());
        self.cut(Cut::Crowded);
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

    /// Does `work`, and asks `still` again, in between, whenever what let it pass may have changed, and at the time `ends_at`; `since` is
    /// [`Registry::judged`] of the moment in which it was first judged.
    pub(crate) async fn while_allowed<F: Future>(
        &self,
        registry: &Registry,
        since: u64,
        ends_at: Option<u64>,
        still: impl Fn() -> Result<(), Deny>,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Deny> {
        let _watched = Watched::new(self, registry.judged() != since, ends_at);
        std::future::poll_fn(|cx| {
            if self.to_judge.take()
                && let Err(deny) = still()
            {
                return Poll::Ready(Err(deny.cut()));
            }
            work.as_mut().poll(cx).map(Ok)
        })
        .await
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

/// While it is there, what runs may be judged again.
struct Watched<'a>(&'a Live);

impl<'a> Watched<'a> {
    fn new(live: &'a Live, to_judge: bool, ends_at: Option<u64>) -> Self {
        live.watched.set(true);
        live.to_judge.set(to_judge);
        live.judge_at.set(ends_at.unwrap_or(NEVER));
        Self(live)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.watched.set(false);
        self.0.judge_at.set(NEVER);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_whose_time_is_over_at_once_are_told_a_few_at_a_time() {
        let registry = Rc::<Registry>::default();
        let entries: Vec<_> = (0..WOKEN * 3).map(|_| registry.enter()).collect();
        entries.iter().for_each(|entry| entry.live().arm(1_000));
        let told = || entries.iter().filter(|entry| entry.live().timed_out()).count();
        registry.tick(999, 0);
        assert!(!registry.wake_due(999) && told() == 0);
        registry.tick(1_000, 0);
        assert!(registry.wake_due(1_000) && told() == WOKEN);
        // Who is given more time meanwhile has it.
        let more = entries.iter().find(|entry| !entry.live().timed_out()).unwrap();
        more.live().arm(2_000);
        assert!(registry.wake_due(1_000));
        registry.tick(1_100, 0);
        while registry.wake_due(1_100) {}
        assert!(told() == entries.len() - 1 && !more.live().timed_out());
    }
}
