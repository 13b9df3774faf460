//! Counters per edge. Each thread writes its own and nobody else's; once a second they are added up.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_snapshot::node::{EdgeStats, LATENCY_BUCKETS, latency_bucket};

use crate::table::{EdgeId, Interner};

/// Counters of one edge on one thread.
#[derive(Debug)]
pub(crate) struct EdgeCounters {
    requests: AtomicU64,
    errors: AtomicU64,
    denied: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS],
}

/// What one thread counted so far, readable by others.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    edges: Mutex<Vec<(EdgeId, Arc<EdgeCounters>)>>,
    connections: AtomicU64,
}

/// A thread's handle to its shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    shard: Arc<Shard>,
    edges: RefCell<Vec<Option<Arc<EdgeCounters>>>>,
}

/// How a request ended, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Served { duration_us: u64 },
    Failed { duration_us: u64 },
    Denied,
}

impl Counters {
    pub(crate) fn shard(&self) -> Arc<Shard> {
        self.shard.clone()
    }

    pub(crate) fn connections(&self, open: usize) {
        self.shard.connections.store(open as u64, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, edge: EdgeId, ended: Ended) {
        let mut edges = self.edges.borrow_mut();
        let at = edge as usize;
        if edges.len() <= at {
            edges.resize(at + 1, None);
        }
        let counters = edges[at].get_or_insert_with(|| self.shard.add(edge));
        match ended {
            Ended::Denied => bump(&counters.denied),
            Ended::Served { duration_us } | Ended::Failed { duration_us } => {
                bump(&counters.requests);
                bump(&counters.latency[latency_bucket(duration_us)]);
                if let Ended::Failed { .. } = ended {
                    bump(&counters.errors);
                }
            }
        }
    }
}

/// Only one thread writes, so a load and a store do what a locked addition would.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Shard {
    fn add(&self, edge: EdgeId) -> Arc<EdgeCounters> {
        let counters = Arc::new(EdgeCounters {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; LATENCY_BUCKETS],
        });
        self.edges.lock().unwrap_or_else(PoisonError::into_inner).push((edge, counters.clone()));
        counters
    }

    pub(crate) fn open_connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Adds up what all threads counted.
pub(crate) fn sum(shards: &[Arc<Shard>], interner: &Interner) -> Vec<EdgeStats> {
    let mut sums: HashMap<EdgeId, EdgeStats> = HashMap::new();
    for shard in shards {
        for (edge, counters) in &*shard.edges.lock().unwrap_or_else(PoisonError::into_inner) {
            let sum = sums
                .entry(*edge)
                .or_insert_with(|| EdgeStats { latency: vec![0; LATENCY_BUCKETS], ..EdgeStats::default() });
            sum.requests += counters.requests.load(Ordering::Relaxed);
            sum.errors += counters.errors.load(Ordering::Relaxed);
            sum.denied += counters.denied.load(Ordering::Relaxed);
            for (total, bucket) in sum.latency.iter_mut().zip(&counters.latency) {
                *total += bucket.load(Ordering::Relaxed);
            }
        }
    }
    let named = |(id, (caller, callee)): (EdgeId, &(Arc<str>, Arc<str>))| {
        let stats = sums.remove(&id)?;
        Some(EdgeStats { caller: caller.to_string(), callee: callee.to_string(), ..stats })
    };
    interner.edges().filter_map(named).collect()
}
