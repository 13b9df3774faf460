//! Which of several addresses of a service gets a request: of two at random the one that is less busy, by how long it took lately times how
//! much it has under way (power of two choices with peak EWMA).
//!
//! What takes longer than it used to counts at once, what takes less is believed slowly; with time everything is forgotten, so that one that
//! was slow gets a request now and then. One that answers 429 or fails counts as slow, one that fails again and again gets nothing for a while,
//! and a new one gets its share over ten seconds. Each thread knows what it saw itself: nothing is shared or locked.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::rc::Rc;

use ringfence_event::{Kind, Lifecycle, LifecycleActivity, Severity};

use crate::handling::{Answered, Ended};
use crate::table::{EdgeId, EdgeRef, Sidecars, Via};
use crate::worker::Worker;

/// How long it takes to forget, in microseconds.
const DECAY_US: f64 = 10_000_000.0;
/// As how slow one counts that fails or has enough, in microseconds.
const PENALTY_US: f64 = 1_000_000.0;
/// How long a new one gets less than its share, in microseconds, and the least that it gets.
const RAMP_US: f64 = 10_000_000.0;
const LEAST: f64 = 0.1;
/// Failures in a row after which one gets nothing, for how long at first, and how often that is doubled.
const ROW: u32 = 5;
const OUT_US: u64 = 10_000_000;
const MOST_LEVELS: u32 = 5;

/// What a thread knows of addresses, by the number of the edge to each.
#[derive(Debug)]
pub(crate) struct Balance {
    loads: RefCell<Vec<Option<Rc<Load>>>>,
    random: Cell<u64>,
}

#[derive(Debug, Default)]
struct Load {
    /// Microseconds, and when that was so.
    ewma: Cell<f64>,
    at_us: Cell<u64>,
    running: Cell<u32>,
    first_us: u64,
    row: Cell<u32>,
    level: Cell<u32>,
    out_until: Cell<u64>,
}

/// The address that a request goes to, which is busy with it as long as this lives.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) edge: EdgeRef,
    load: Rc<Load>,
    begun_us: u64,
}

impl Default for Balance {
    fn default() -> Self {
        let seed = std::hash::RandomState::new().hash_one(std::thread::current().id());
        Self { loads: RefCell::default(), random: Cell::new(seed) }
    }
}

impl Balance {
    /// One of the addresses behind `edge`, and rather not `avoid`; none if there is only one.
    pub(crate) fn pick(&self, worker: &Worker, edge: &EdgeRef, avoid: Option<EdgeId>) -> Option<Picked> {
        let replicas = edge.replicas();
        if replicas.is_empty() {
            return None;
        }
        let now_us = worker.touch();
        let ids: Vec<EdgeId> = replicas.iter().map(|at| edge.replica_id(*at)).collect();
        let (at, load) = self.choose(&ids, avoid, now_us)?;
        Some(Picked { edge: edge.replica(replicas[at]), load, begun_us: now_us })
    }

    fn choose(&self, ids: &[EdgeId], avoid: Option<EdgeId>, now_us: u64) -> Option<(usize, Rc<Load>)> {
        let loads: Vec<Rc<Load>> = ids.iter().map(|id| self.load(*id, now_us)).collect();
        let all = || 0..ids.len();
        let mut fit: Vec<usize> =
            all().filter(|at| avoid != Some(ids[*at]) && loads[*at].out_until.get() <= now_us).collect();
        if fit.is_empty() {
            // Better one that may fail than none at all.
            fit = all().filter(|at| avoid != Some(ids[*at])).collect();
        }
        if fit.is_empty() {
            fit = all().collect();
        }
        let first = *fit.get(self.below(fit.len()))?;
        fit.retain(|at| *at != first);
        let best = match fit.get(self.below(fit.len())) {
            Some(second) if loads[*second].cost(now_us) < loads[first].cost(now_us) => *second,
            _ => first,
        };
        let load = loads[best].clone();
        load.running.set(load.running.get() + 1);
        Some((best, load))
    }

    fn load(&self, id: EdgeId, now_us: u64) -> Rc<Load> {
        let mut loads = self.loads.borrow_mut();
        let at = id as usize;
        if loads.len() <= at {
            loads.resize(at + 1, None);
        }
        let new = || Rc::new(Load { first_us: now_us, at_us: Cell::new(now_us), ..Load::default() });
        loads[at].get_or_insert_with(new).clone()
    }

    /// SplitMix64.
    fn below(&self, bound: usize) -> usize {
        let next = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % (bound.max(1) as u64)) as usize
    }
}

impl Load {
    fn weight(&self, now_us: u64) -> f64 {
        (-(now_us.saturating_sub(self.at_us.get()) as f64) / DECAY_US).exp()
    }

    fn cost(&self, now_us: u64) -> f64 {
        let ramp = (now_us.saturating_sub(self.first_us) as f64 / RAMP_US).clamp(LEAST, 1.0);
        (self.ewma.get() * self.weight(now_us) + 1.0) * f64::from(self.running.get() + 1) / ramp
    }

    fn took(&self, us: f64, now_us: u64) {
        let weight = self.weight(now_us);
        let now = self.ewma.get() * weight;
        self.ewma.set(if us > now { us } else { us * (1.0 - weight) + now });
        self.at_us.set(now_us);
    }

    /// A failure; for how long it gets nothing from now on, if that is so.
    fn failed(&self, now_us: u64) -> Option<u64> {
        self.took(PENALTY_US, now_us);
        self.row.set(self.row.get() + 1);
        if self.row.get() < ROW {
            return None;
        }
        let time_us = OUT_US << self.level.get();
        self.level.set((self.level.get() + 1).min(MOST_LEVELS));
        self.row.set(0);
        self.out_until.set(now_us + time_us);
        Some(time_us)
    }

    fn well(&self) {
        self.row.set(0);
        self.level.set(0);
    }
}

impl Picked {
    /// The request is over, and ended so.
    pub(crate) fn end(self, worker: &Worker, ended: Ended, answered: Answered) {
        let now_us = worker.touch();
        let until = answered.at_us.unwrap_or(now_us);
        let took = until.saturating_sub(self.begun_us) as f64;
        match (ended, answered.head) {
            (Ended::Failed, _) => {
                if let Some(time_us) = self.load.failed(now_us) {
                    self.tell(worker, time_us);
                }
            }
            // It has enough.
            (Ended::Neither, Some(Ended::Neither)) => self.load.took(took.max(PENALTY_US), now_us),
            (Ended::Neither, None) => {
                // Nobody waited for the end, but it took so long at least.
                if took > self.load.ewma.get() {
                    self.load.took(took, now_us);
                }
            }
            _ => {
                self.load.took(took, now_us);
                self.load.well();
            }
        }
    }

    fn tell(&self, worker: &Worker, time_us: u64) {
        let address = match &self.edge.via {
            Via::Plain(address) | Via::Mesh { at: Sidecars::Theirs(address), .. } => address.to_string(),
            Via::Mesh { .. } | Via::Shim { .. } => String::new(),
        };
        let message = format!(
            "{address} gets no request of {} for {} s: {ROW} failures in a row",
            self.edge.caller,
            time_us / 1_000_000
        );
        let (name, activity, severity) = (&self.edge.callee, LifecycleActivity::Disable, Severity::Medium);
        worker.emit(Kind::Lifecycle(Lifecycle { name, activity, message: &message, severity }));
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.load.running.set(self.load.running.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MS: u64 = 1_000;

    /// Requests come evenly, each replica serves one after the other at these times; 99th of a hundred, in microseconds, and the share of
    /// the last replica, once all is settled.
    fn simulate(times: [u64; 3], every_us: u64) -> (u64, f64) {
        let balance = Balance { random: Cell::new(7), ..Balance::default() };
        let ids = [10, 11, 12];
        let mut free_at = [0_u64; 3];
        let mut ends: BTreeMap<(u64, u64), (Rc<Load>, u64)> = BTreeMap::new();
        let (mut took, mut of_last, mut noise) = (Vec::new(), 0_u32, 1_u64);
        for number in 0..60_000_u64 {
            let now = number * every_us;
            while let Some(entry) = ends.first_entry().filter(|entry| entry.key().0 <= now) {
                let ((end, _), (load, begun)) = entry.remove_entry();
                load.running.set(load.running.get() - 1);
                load.took((end - begun) as f64, end);
                load.well();
            }
            let (at, load) = balance.choose(&ids, None, now).unwrap();
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Half to one and a half times as long.
            let time = times[at] / 2 + times[at] * (noise >> 33) / (1 << 31);
            free_at[at] = free_at[at].max(now) + time;
            ends.insert((free_at[at], number), (load, now));
            if number >= 10_000 {
                took.push(free_at[at] - now);
                of_last += u32::from(at == 2);
            }
        }
        took.sort_unstable();
        (took[took.len() * 99 / 100], f64::from(of_last) / took.len() as f64)
    }

    #[test]
    fn one_slow_replica_of_three_is_hardly_felt() {
        let (calm, share) = simulate([10 * MS, 10 * MS, 10 * MS], 10 * MS);
        assert!((0.25..0.42).contains(&share), "as much as the others: {share}");
        let (slowed, share) = simulate([10 * MS, 10 * MS, 100 * MS], 10 * MS);
        assert!(share < 0.01, "{share}");
        assert!(slowed * 2 <= calm * 3, "99 % within {slowed} µs, {calm} µs in calm");
    }

    #[test]
    fn who_fails_gets_nothing_for_a_while_and_then_again() {
        let balance = Balance::default();
        let ids = [1, 2];
        let (mut now, mut out) = (0, 0);
        while out == 0 {
            now += MS;
            let (at, load) = balance.choose(&ids, None, now).unwrap();
            load.running.set(0);
            if at == 0 {
                out = load.failed(now).unwrap_or_default();
            } else {
                // Slower than what failed counts for, so that it is asked too.
                load.took(2.0 * PENALTY_US, now);
            }
        }
        assert_eq!(out, OUT_US);
        let of_first = |now: u64| {
            let (at, load) = balance.choose(&ids, None, now).unwrap();
            load.running.set(0);
            at == 0
        };
        assert!((0..1_000).all(|n| !of_first(now + n * out / 1_000)));
        assert!((0..1_000).any(|_| of_first(now + out + 60_000_000)));
        assert!(
            !(0..100).any(|_| balance.choose(&ids, Some(1), now + 10 * out).unwrap().0 == 0),
            "rather not the one before"
        );
        assert_eq!(balance.choose(&[1], Some(1), now).unwrap().0, 0, "unless there is no other");
    }

    #[test]
    fn a_new_one_gets_its_share_over_time() {
        let balance = Balance::default();
        let old = balance.load(1, 0);
        old.took(10_000.0, 60_000_000);
        let new = balance.load(2, 60_000_000);
        new.took(10_000.0, 60_000_000);
        assert!(new.cost(60_000_000) > 9.0 * old.cost(60_000_000));
        assert!(new.cost(75_000_000) < 1.1 * old.cost(75_000_000));
    }
}
