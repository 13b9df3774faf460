//! Where it is remembered how much each key has used: several limits judged at once, all or none.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::key::Key;
use crate::limit::{Judged, Limit};
use crate::table::{CELL_BYTES, MIN_CELLS, OWN_BITS, Shard};
use crate::time::Time;

/// Most limits that are judged at once.
pub const MAX_ASKS: usize = 64;
/// Least memory of a table.
pub const MIN_BYTES: usize = MIN_CELLS * CELL_BYTES;

/// Shards at most: as many as the bits that they are chosen by.
const MAX_SHARDS: usize = 1 << OWN_BITS;
/// Cells that a shard should have.
const SHARD_CELLS: usize = 1024;

/// One limit that is asked about one key.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// What it says.
    pub limit: Limit,
    /// Whom it is about. No two of a batch are the same.
    pub key: Key,
    /// How many units it takes.
    pub cost: u32,
    /// It only watches: what it refuses passes.
    pub observed: bool,
    /// What becomes of a key for which there is no room.
    pub full: Full,
}

/// What becomes of a key for which there is no room, because all that is there has reached its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Full {
    /// It is refused.
    #[default]
    Closed,
    /// It passes, uncounted.
    Open,
}

/// How a key stands with a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the limit lets it pass.
    pub passes: bool,
    /// Whether it was counted. What passes uncounted does so for want of room, or because another limit refused it.
    pub counted: bool,
    /// There was no room for it.
    pub full: bool,
    /// Units that are left.
    pub remaining: u64,
    /// How long until all of them are back; nothing for concurrency, of which nobody knows.
    pub reset: Time,
    /// How long until it would pass; nothing if it does.
    pub retry: Time,
}

/// Remembers how much each key has used. All of it is exact, whoever else asks at the same time.
///
/// Nothing here waits: what shares its state with others over a network answers from what it was granted before.
pub trait Store: fmt::Debug + Send + Sync {
    /// Judges all of `asks`, at most [`MAX_ASKS`], and says of each how it stands. If all that do not only watch let it pass, each
    /// that does is counted, and it is `true`; otherwise nothing is counted.
    fn take(&self, asks: &[Ask], now: Time, standings: &mut [Standing]) -> bool;

    /// How a key stands, which changes nothing.
    fn look(&self, ask: &Ask, now: Time) -> Standing;

    /// Takes what was counted as running from a key.
    fn release(&self, key: Key);
}

/// Runs under limits on concurrency; ends with its drop.
#[derive(Debug)]
pub struct Held {
    store: Arc<dyn Store>,
    keys: Vec<Key>,
}

impl Held {
    /// What `take` counted as running; none if nothing was.
    pub fn of(store: &Arc<dyn Store>, asks: &[Ask], standings: &[Standing]) -> Option<Self> {
        let counted = asks.iter().zip(standings);
        let counted = counted.filter(|(ask, at)| at.counted && matches!(ask.limit, Limit::Concurrent(_)));
        let keys: Vec<Key> = counted.map(|(ask, _)| ask.key).collect();
        (!keys.is_empty()).then(|| Self { store: store.clone(), keys })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for key in &self.keys {
            self.store.release(*key);
        }
    }
}

/// A table in this process, of a size that it never passes.
///
/// It is cut into shards, each behind a lock that is held for one or two cache lines. Where limits are asked together, the locks
/// are taken in the order of shards, so two threads never wait for each other in a circle.
pub struct Local {
    shards: Box<[Aligned]>,
}

/// Locks of two shards share no cache line.
#[repr(align(64))]
struct Aligned(Mutex<Shard>);

impl Local {
    /// A table of at most so many bytes, but no less than [`MIN_BYTES`]. It begins with next to none of them, and takes more as keys come.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let cells = bytes.max(MIN_BYTES) / CELL_BYTES;
        let shards = (cells / SHARD_CELLS).clamp(1, MAX_SHARDS);
        // The largest power of two that is not more.
        let shards = 1 << shards.ilog2();
        Self { shards: (0..shards).map(|_| Aligned(Mutex::new(Shard::new(cells / shards)))).collect() }
    }

    /// Bytes that it takes now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (0..self.shards.len()).map(|number| self.shard(number).bytes()).sum()
    }

    fn number(&self, key: Key) -> usize {
        key.0 as usize & (self.shards.len() - 1)
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        // A panic between two words of a cell is impossible: nothing there can.
        self.shards[number].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All locks for a batch, each once, in the order of shards, and which of them each ask needs.
    fn several(&self, asks: &[Ask]) -> (Vec<MutexGuard<'_, Shard>>, [u8; MAX_ASKS]) {
        let mut numbers = [0; MAX_ASKS];
        for (number, ask) in numbers.iter_mut().zip(asks) {
            *number = self.number(ask.key);
        }
        let mut sorted = numbers;
        let sorted = &mut sorted[..asks.len()];
        sorted.sort_unstable();
        let mut guards = Vec::with_capacity(asks.len());
        let mut needs = [0; MAX_ASKS];
        for (at, number) in sorted.iter().enumerate() {
            if at > 0 && sorted[at - 1] == *number {
                continue;
            }
            for (need, wanted) in needs.iter_mut().zip(&numbers[..asks.len()]) {
                if wanted == number {
                    *need = guards.len() as u8;
                }
            }
            guards.push(self.shard(*number));
        }
        (guards, needs)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Judges without counting; the word that would be put.
fn judge(shard: &mut Shard, ask: &Ask, now: u64) -> (Standing, Option<u64>) {
    let word = shard.word(ask.key);
    let judged = ask.limit.judge(word, ask.cost, now);
    if word.is_none() && judged.next.is_some() && !shard.make_room(ask.key, now) {
        let retry = if ask.full == Full::Open { 0 } else { 1 };
        let passes = ask.full == Full::Open;
        return (Standing { passes, full: true, retry: Time(retry), ..Standing::default() }, None);
    }
    (standing(&judged), judged.next)
}

fn standing(judged: &Judged) -> Standing {
    Standing {
        passes: judged.next.is_some(),
        counted: false,
        full: false,
        remaining: judged.remaining,
        reset: Time(judged.reset),
        retry: Time(judged.retry),
    }
}

/// Counts what was judged to pass.
fn count(shard: &mut Shard, ask: &Ask, next: Option<u64>, standing: &mut Standing) {
    match next {
        Some(next) => {
            shard.put(ask.key, &ask.limit, next);
            standing.counted = true;
        }
        None => shard.touch(ask.key),
    }
}

impl Store for Local {
    fn take(&self, asks: &[Ask], now: Time, standings: &mut [Standing]) -> bool {
        debug_assert!(asks.len() <= MAX_ASKS && asks.len() == standings.len());
        if let ([ask], [standing]) = (asks, &mut *standings) {
            let mut shard = self.shard(self.number(ask.key));
            let (at, next) = judge(&mut shard, ask, now.0);
            *standing = at;
            count(&mut shard, ask, next, standing);
            return standing.passes || ask.observed;
        }
        let (mut guards, needs) = self.several(asks);
        let mut nexts = [None; MAX_ASKS];
        let mut passes = true;
        for (at, ask) in asks.iter().enumerate() {
            let (standing, next) = judge(&mut guards[usize::from(needs[at])], ask, now.0);
            passes &= standing.passes || ask.observed;
            (standings[at], nexts[at]) = (standing, next);
        }
        for (at, ask) in asks.iter().enumerate() {
            let shard = &mut guards[usize::from(needs[at])];
            if passes {
                count(shard, ask, nexts[at], &mut standings[at]);
            } else {
                shard.touch(ask.key);
            }
        }
        passes
    }

    fn look(&self, ask: &Ask, now: Time) -> Standing {
        let shard = self.shard(self.number(ask.key));
        standing(&ask.limit.judge(shard.word(ask.key), ask.cost, now.0))
    }

    fn release(&self, key: Key) {
        self.shard(self.number(key)).release(key);
    }
}
