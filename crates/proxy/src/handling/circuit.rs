//! What is known of a callee along one way: how much is under way, who waits, and whether it is left alone. No clock and no waiting in here:
//! whoever asks says what time it is, so that every order of events can be tried.
//!
//! Nobody who waits is forgotten: whenever something ends, and whenever the state changes, those who may go on are named. What was sent
//! before the state changed says nothing about the time after it.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use ringfence_model::{Bound, Trip};

/// Requests of ten seconds below which a rate says nothing.
const FEWEST: u32 = 20;
/// Seconds that a rate looks back.
const SECONDS: u64 = 10;
/// Doublings of the open time; no longest one is further away.
const MOST_LEVELS: u32 = 24;

/// Numbers of those who wait, ascending.
pub(super) type Ticket = u64;

/// How a request ended, for its callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was answered.
    Well,
    /// It was not, or by a fault.
    Failed,
    /// It says nothing of how the callee is: the caller gave up, or was told to come later.
    Neither,
}

/// What becomes of a request that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Pass(Pass),
    Wait(Ticket),
    Refused(Refused),
}

/// A request that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    generation: u64,
}

/// Why a request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nothing is sent for so long.
    Open(Duration),
    /// One is being tried.
    Probing,
    /// As many as may wait.
    Full,
    /// Nobody who waits got on in time.
    Late,
}

/// What a request's end changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing is sent for so long.
    Opened { time: Duration, cause: Cause },
    /// The callee is well again.
    Closed,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// So many failures in a row.
    Row(u32),
    /// The failures among all.
    Rate,
    /// The request that was tried.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Duration },
    Probing { under_way: bool },
}

/// The state of one way.
#[derive(Debug)]
pub(super) struct Circuit {
    bound: Option<Bound>,
    trip: Option<Trip>,
    running: u32,
    waiting: VecDeque<(Ticket, Option<Waker>)>,
    /// Who waited and goes on, or, without a pass, is refused; until it has looked.
    called: Vec<(Ticket, Option<Pass>)>,
    next: Ticket,
    /// Somebody waited for too long, and nothing has ended since.
    late: bool,
    phase: Phase,
    /// One more at each change of phase.
    generation: u64,
    row: u32,
    window: [(u64, u32, u32); SECONDS as usize],
    /// How often it opened without a calm time in between, and when the last such time began.
    level: u32,
    closed_at: Option<Duration>,
    last: Duration,
    pub(super) opened: u64,
}

/// Who is to be woken.
pub(super) type Wakers = Vec<Waker>;

impl Circuit {
    pub(super) fn new(bound: Option<Bound>, trip: Option<Trip>) -> Self {
        Self {
            bound,
            trip,
            running: 0,
            waiting: VecDeque::new(),
            called: Vec::new(),
            next: 0,
            late: false,
            phase: Phase::Closed,
            generation: 0,
            row: 0,
            window: [(0, 0, 0); SECONDS as usize],
            level: 0,
            closed_at: None,
            last: Duration::ZERO,
            opened: 0,
        }
    }

    /// A request comes.
    pub(super) fn enter(&mut self, now: Duration) -> Entry {
        match self.phase {
            Phase::Open { until } if now < until => return Entry::Refused(Refused::Open(until - now)),
            Phase::Open { .. } => self.turn(Phase::Probing { under_way: false }),
            Phase::Probing { .. } | Phase::Closed => {}
        }
        let free = self.bound.is_none_or(|bound| self.running < bound.requests);
        match (self.phase, self.bound) {
            (Phase::Probing { under_way: true }, _) => Entry::Refused(Refused::Probing),
            (Phase::Probing { .. }, _) if free => {
                self.phase = Phase::Probing { under_way: true };
                Entry::Pass(self.pass())
            }
            (Phase::Probing { .. }, _) => Entry::Refused(Refused::Full),
            (_, Some(bound)) if !free || !self.waiting.is_empty() => {
                if self.waiting.len() >= bound.pending as usize {
                    return Entry::Refused(Refused::Full);
                }
                if self.late {
                    return Entry::Refused(Refused::Late);
                }
                let ticket = self.next;
                self.next += 1;
                self.waiting.push_back((ticket, None));
                Entry::Wait(ticket)
            }
            _ => Entry::Pass(self.pass()),
        }
    }

    /// Whether somebody who waits goes on; none as long as it waits. `waker` is woken when that changes.
    pub(super) fn look(
        &mut self,
        ticket: Ticket,
        now: Duration,
        waker: &Waker,
    ) -> Option<Result<Pass, Refused>> {
        if let Some(at) = self.called.iter().position(|(called, _)| *called == ticket) {
            let left = match self.phase {
                Phase::Open { until } => until.saturating_sub(now),
                _ => Duration::ZERO,
            };
            return Some(match self.called.swap_remove(at).1 {
                Some(pass) if pass.generation == self.generation => Ok(pass),
                Some(_) => {
                    self.running -= 1;
                    Err(Refused::Open(left))
                }
                None => Err(Refused::Open(left)),
            });
        }
        if let Some(at) = self.place(ticket) {
            match &mut self.waiting[at].1 {
                Some(same) if same.will_wake(waker) => {}
                other => *other = Some(waker.clone()),
            }
        }
        None
    }

    /// Somebody waits no more; `late`: because it was too long.
    pub(super) fn leave(&mut self, ticket: Ticket, late: bool) -> Wakers {
        if let Some(at) = self.place(ticket) {
            self.waiting.remove(at);
            self.late |= late;
            return Wakers::new();
        }
        let Some(at) = self.called.iter().position(|(called, _)| *called == ticket) else {
            return Wakers::new();
        };
        if self.called.swap_remove(at).1.is_some() {
            self.running -= 1;
            return self.call();
        }
        Wakers::new()
    }

    /// A request that was under way is over.
    pub(super) fn end(&mut self, pass: Pass, ended: Ended, now: Duration) -> (Option<Change>, Wakers) {
        self.running -= 1;
        self.late = false;
        let mut change = None;
        if pass.generation == self.generation {
            change = match (self.phase, ended) {
                (Phase::Closed, ended) => self.count(ended, now),
                (_, Ended::Well) => {
                    self.closed_at = Some(now);
                    self.row = 0;
                    self.window = [(0, 0, 0); SECONDS as usize];
                    self.turn(Phase::Closed);
                    Some(Change::Closed)
                }
                (_, Ended::Failed) => self.open(now, self.level + 1, Cause::Probe),
                (_, Ended::Neither) => {
                    self.phase = Phase::Probing { under_way: false };
                    None
                }
            };
        }
        if let Some(Change::Opened { .. }) = change {
            return (change, self.turn_away());
        }
        (change, self.call())
    }

    /// Requests under way, and those that wait.
    pub(super) fn busy(&self) -> (u32, usize) {
        (self.running, self.waiting.len())
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase != Phase::Closed
    }

    fn pass(&mut self) -> Pass {
        self.running += 1;
        Pass { generation: self.generation }
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }

    fn count(&mut self, ended: Ended, now: Duration) -> Option<Change> {
        let trip = self.trip?;
        let failed = match ended {
            Ended::Neither => return None,
            Ended::Well => false,
            Ended::Failed => true,
        };
        self.row = if failed { self.row.saturating_add(1) } else { 0 };
        let by_row = trip.failures.filter(|failures| self.row >= *failures);
        let mut cause = by_row.map(|_| Cause::Row(self.row));
        if let Some(rate) = trip.rate {
            let (all, bad) = self.counted(now, failed);
            let much = failed && all >= FEWEST && u64::from(bad) * 100 >= u64::from(all) * u64::from(rate);
            cause = cause.or_else(|| much.then_some(Cause::Rate));
        }
        let cause = cause?;
        // Calm for longer than it was open is calm.
        let calm = self.closed_at.is_none_or(|at| now.saturating_sub(at) > self.last);
        self.open(now, if calm { 0 } else { self.level + 1 }, cause)
    }

    /// Counts one; all and the failed ones of the last seconds.
    fn counted(&mut self, now: Duration, failed: bool) -> (u32, u32) {
        // Second 0 stands for nothing counted.
        let second = now.as_secs() + 1;
        let slot = &mut self.window[(second % SECONDS) as usize];
        if slot.0 != second {
            *slot = (second, 0, 0);
        }
        (slot.1, slot.2) = (slot.1.saturating_add(1), slot.2.saturating_add(u32::from(failed)));
        let recent = self.window.iter().filter(|slot| slot.0 + SECONDS > second);
        recent.fold((0_u32, 0_u32), |sum, slot| (sum.0.saturating_add(slot.1), sum.1.saturating_add(slot.2)))
    }

    fn open(&mut self, now: Duration, level: u32, cause: Cause) -> Option<Change> {
        let trip = self.trip?;
        self.level = level.min(MOST_LEVELS);
        let time = trip.open.saturating_mul(1 << self.level).min(trip.longest);
        self.last = time;
        self.opened += 1;
        self.turn(Phase::Open { until: now + time });
        Some(Change::Opened { time, cause })
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |(waiting, _)| *waiting).ok()
    }

    /// Lets those go on for whom there is room.
    fn call(&mut self) -> Wakers {
        let mut wakers = Wakers::new();
        while self.phase == Phase::Closed
            && self.bound.is_none_or(|bound| self.running < bound.requests)
            && let Some((ticket, waker)) = self.waiting.pop_front()
        {
            let pass = self.pass();
            self.called.push((ticket, Some(pass)));
            wakers.extend(waker);
        }
        wakers
    }

    /// Nobody waits for what is not asked for a while.
    fn turn_away(&mut self) -> Wakers {
        let mut wakers = Wakers::new();
        for (ticket, waker) in self.waiting.drain(..) {
            self.called.push((ticket, None));
            wakers.extend(waker);
        }
        wakers
    }
}

#[cfg(test)]
mod tests;
