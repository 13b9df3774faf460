//! Counters per edge. Each thread writes its own and nobody else's; once a second they are added up.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_snapshot::node::{BreakerStats, EdgeStats, LATENCY_BUCKETS, STATUS_CLASSES, latency_bucket};

use crate::table::{EdgeId, Interner};

/// Most rules whose refusals one thread counts apart; those of all others are counted together.
const MAX_RULES: usize = 256;
/// What stands for all others.
const OTHER: &str = "other";

/// Counters of one edge on one thread.
#[derive(Debug)]
pub(crate) struct EdgeCounters {
    requests: AtomicU64,
    errors: AtomicU64,
    denied: AtomicU64,
    retries: AtomicU64,
    faults: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
    latency_us: AtomicU64,
    statuses: [AtomicU64; STATUS_CLASSES],
}

/// A stage and a rule of it.
type Rule = (&'static str, Cow<'static, str>);

/// What one thread counted so far, readable by others.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    edges: Mutex<Vec<(EdgeId, Arc<EdgeCounters>)>>,
    refusals: Mutex<Vec<(Rule, Arc<AtomicU64>)>>,
    connections: AtomicU64,
}

/// A thread's handle to its shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    shard: Arc<Shard>,
    edges: RefCell<Vec<Option<Arc<EdgeCounters>>>>,
    refusals: RefCell<Vec<(Rule, Arc<AtomicU64>)>>,
}

/// How a request or a connection ended, for counting. A connection that carries bytes has the status 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Served { duration_us: u64, status: u16 },
    Failed { duration_us: u64, status: u16 },
    Denied { status: u16 },
}

impl Counters {
    pub(crate) fn shard(&self) -> Arc<Shard> {
        self.shard.clone()
    }

    pub(crate) fn connections(&self, open: usize) {
        self.shard.connections.store(open as u64, Ordering::Relaxed);
    }

    /// A request is tried once more.
    pub(crate) fn retry(&self, edge: EdgeId) {
        self.with(edge, |counters| bump(&counters.retries));
    }

    /// Something goes wrong on purpose.
    pub(crate) fn fault(&self, edge: EdgeId) {
        self.with(edge, |counters| bump(&counters.faults));
    }

    fn with(&self, edge: EdgeId, work: impl FnOnce(&EdgeCounters)) {
        let mut edges = self.edges.borrow_mut();
        let at = edge as usize;
        if edges.len() <= at {
            edges.resize(at + 1, None);
        }
        work(edges[at].get_or_insert_with(|| self.shard.add(edge)));
    }

    pub(crate) fn count(&self, edge: EdgeId, ended: Ended) {
        self.with(edge, |counters| count(counters, ended));
    }

    /// Counts a refusal. Rules are few: a list that is looked through costs less than a table, and copies a name once.
    #[expect(clippy::ptr_arg, reason = "a name that is static is kept without a copy")]
    pub(crate) fn refused(&self, stage: &'static str, rule: &Cow<'static, str>) {
        let mut refusals = self.refusals.borrow_mut();
        let find = |of: &'static str, name: &str| {
            refusals.iter().position(|((stage, rule), _)| *stage == of && rule == name)
        };
        let full = refusals.len() >= MAX_RULES;
        let at = find(stage, rule).or_else(|| find(OTHER, OTHER).filter(|_| full));
        if let Some(at) = at {
            return bump(&refusals[at].1);
        }
        let rule = if full { (OTHER, Cow::Borrowed(OTHER)) } else { (stage, rule.clone()) };
        let counter = Arc::new(AtomicU64::new(1));
        let mut shared = self.shard.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        shared.push((rule.clone(), counter.clone()));
        refusals.push((rule, counter));
    }
}

fn count(counters: &EdgeCounters, ended: Ended) {
    let status = match ended {
        Ended::Denied { status } => {
            bump(&counters.denied);
            status
        }
        Ended::Served { duration_us, status } | Ended::Failed { duration_us, status } => {
            bump(&counters.requests);
            bump(&counters.latency[latency_bucket(duration_us)]);
            add(&counters.latency_us, duration_us);
            if let Ended::Failed { .. } = ended {
                bump(&counters.errors);
            }
            status
        }
    };
    if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|at| counters.statuses.get(at)) {
        bump(class);
    }
}

/// Only one thread writes, so a load and a store do what a locked addition would.
fn bump(counter: &AtomicU64) {
    add(counter, 1);
}

fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Shard {
    fn add(&self, edge: EdgeId) -> Arc<EdgeCounters> {
        let counters = Arc::new(EdgeCounters {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
            latency_us: AtomicU64::new(0),
            statuses: [const { AtomicU64::new(0) }; STATUS_CLASSES],
        });
        self.edges.lock().unwrap_or_else(PoisonError::into_inner).push((edge, counters.clone()));
        counters
    }

    pub(crate) fn open_connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Adds up what all threads counted, beside how breakers stand and where faults are injected.
pub(crate) fn sum(
    shards: &[Arc<Shard>],
    interner: &Interner,
    breakers: &HashMap<EdgeId, BreakerStats>,
    faulty: &[EdgeId],
) -> Vec<EdgeStats> {
    let none = || EdgeStats { latency: vec![0; LATENCY_BUCKETS], ..EdgeStats::default() };
    // What waits may be the first along its edge.
    let mut sums: HashMap<EdgeId, EdgeStats> = breakers.keys().map(|edge| (*edge, none())).collect();
    for edge in faulty {
        sums.entry(*edge).or_insert_with(none).faults = Some(0);
    }
    for shard in shards {
        for (edge, counters) in &*shard.edges.lock().unwrap_or_else(PoisonError::into_inner) {
            let sum = sums.entry(*edge).or_insert_with(none);
            sum.requests += counters.requests.load(Ordering::Relaxed);
            sum.errors += counters.errors.load(Ordering::Relaxed);
            sum.denied += counters.denied.load(Ordering::Relaxed);
            sum.retries += counters.retries.load(Ordering::Relaxed);
            if let Some(faults) = &mut sum.faults {
                *faults += counters.faults.load(Ordering::Relaxed);
            }
            sum.latency_us = sum.latency_us.wrapping_add(counters.latency_us.load(Ordering::Relaxed));
            for (total, class) in sum.statuses.iter_mut().zip(&counters.statuses) {
                *total += class.load(Ordering::Relaxed);
            }
            for (total, bucket) in sum.latency.iter_mut().zip(&counters.latency) {
                *total += bucket.load(Ordering::Relaxed);
            }
        }
    }
    let named = |(id, (caller, callee)): (EdgeId, &(Arc<str>, Arc<str>))| {
        let stats = sums.remove(&id)?;
        let breaker = breakers.get(&id).copied();
        Some(EdgeStats { caller: caller.to_string(), callee: callee.to_string(), breaker, ..stats })
    };
    interner.edges().filter_map(named).collect()
}

/// Adds up what all threads refused, by stage and rule.
pub(crate) fn refusals(shards: &[Arc<Shard>]) -> Vec<(String, String, u64)> {
    let mut sums: BTreeMap<Rule, u64> = BTreeMap::new();
    for shard in shards {
        for (rule, counter) in &*shard.refusals.lock().unwrap_or_else(PoisonError::into_inner) {
            *sums.entry(rule.clone()).or_default() += counter.load(Ordering::Relaxed);
        }
    }
    sums.into_iter().map(|((stage, rule), count)| (stage.to_owned(), rule.into_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_rule_over_all_threads_and_rules_without_end_together() {
        let threads = [Counters::default(), Counters::default()];
        let count = |at: usize, stage, rule: String| threads[at].refused(stage, &Cow::Owned(rule));
        (0..3).for_each(|n| count(n % 2, "authorize", "edge.undeclared".into()));
        (0..2 * MAX_RULES).for_each(|n| count(0, "inspect", format!("waf.{n}")));
        count(0, "authorize", "edge.undeclared".into());
        let shards: Vec<_> = threads.iter().map(Counters::shard).collect();
        let sums = refusals(&shards);
        assert_eq!(sums.len(), MAX_RULES + 1);
        assert_eq!(sums.iter().map(|(.., count)| *count).sum::<u64>(), 4 + 2 * MAX_RULES as u64);
        assert_eq!(sums[0], ("authorize".into(), "edge.undeclared".into(), 4));
        assert_eq!(sums.last(), Some(&(OTHER.into(), OTHER.into(), MAX_RULES as u64 + 1)));
    }

    #[test]
    fn an_answer_is_counted_by_its_class_and_bytes_have_none() {
        let (counters, mut interner) = (Counters::default(), Interner::default());
        let edge = interner.id(&"a".into(), &"b".into());
        let duration_us = 1_000;
        for status in [200, 204, 0, 999] {
            counters.count(edge, Ended::Served { duration_us, status });
        }
        counters.count(edge, Ended::Failed { duration_us, status: 502 });
        counters.count(edge, Ended::Denied { status: 403 });
        let [sum] = sum(&[counters.shard()], &interner, &HashMap::new(), &[]).try_into().unwrap();
        assert_eq!(sum.statuses, [0, 2, 0, 1, 1]);
        assert_eq!((sum.requests, sum.errors, sum.denied, sum.latency_us), (5, 1, 1, 5_000));
        assert_eq!(sum.latency.iter().sum::<u64>(), 5);
    }
}
