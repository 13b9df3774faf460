//! What automata work out while they search, so that they need not again: kept by thread, and no more of it than a process may have.
//!
//! A regular expression by itself keeps as much for each thread that ever used it, as long as it lives. Hundreds of them, searched by
//! whoever writes the requests, would in the end fill what they may.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use regex_automata::meta::{Cache, Regex};

/// Bytes that the threads of the process have together, as long as each has its [`LEAST`].
const ALL: usize = 16 << 20;
/// Bytes that a thread has in any case.
const LEAST: usize = 4 << 20;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// An expression among those of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Number(u64);

impl Number {
    pub(super) fn new() -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self(NUMBERS.fetch_add(1, Ordering::Relaxed))
    }
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::new(Kept::new());
}

/// Searches with what this thread knows of the expression.
pub(super) fn with<R>(number: Number, regex: &Regex, search: impl FnOnce(&mut Cache) -> R) -> R {
    let mut search = Some(search);
    let found = KEPT.try_with(|kept| {
        let mut kept = kept.try_borrow_mut().ok()?;
        Some(kept.with(number, regex, share(), search.take()?))
    });
    match (found, search) {
        (Ok(Some(found)), _) => found,
        // A thread that ends keeps nothing.
        (_, Some(search)) => search(&mut regex.create_cache()),
        (_, None) => unreachable!("a search is given up only before it begins"),
    }
}

/// Bytes for each thread.
fn share() -> usize {
    (ALL / THREADS.load(Ordering::Relaxed).max(1)).max(LEAST)
}

/// The caches of a thread.
struct Kept {
    caches: HashMap<Number, Entry, BuildHasherDefault<Spread>>,
    bytes: usize,
    turn: u64,
}

struct Entry {
    cache: Box<Cache>,
    bytes: usize,
    /// When it was used last.
    turn: u64,
}

impl Kept {
    fn new() -> Self {
        THREADS.fetch_add(1, Ordering::Relaxed);
        Self { caches: HashMap::default(), bytes: 0, turn: 0 }
    }

    fn with<R>(
        &mut self,
        number: Number,
        regex: &Regex,
        most: usize,
        search: impl FnOnce(&mut Cache) -> R,
    ) -> R {
        self.turn += 1;
        let new = || Entry { cache: Box::new(regex.create_cache()), bytes: 0, turn: 0 };
        let entry = self.caches.entry(number).or_insert_with(new);
        entry.turn = self.turn;
        let found = search(&mut entry.cache);
        let bytes = entry.cache.memory_usage();
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
        if self.bytes > most {
            self.forget(most / 4 * 3);
        }
        found
    }

    /// Forgets what was not used for longest.
    fn forget(&mut self, most: usize) {
        let mut order: Vec<_> = self.caches.iter().map(|(number, entry)| (entry.turn, *number)).collect();
        order.sort_unstable_by_key(|(turn, _)| *turn);
        for (_, number) in order {
            if self.bytes <= most {
                break;
            }
            self.bytes -= self.caches.remove(&number).map_or(0, |entry| entry.bytes);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Numbers in a row need no more than this.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[cfg(test)]
mod tests {
    use regex_automata::Input;

    use super::*;

    #[test]
    fn what_a_thread_keeps_stays_bounded_and_answers_stay_the_same() {
        let regexes: Vec<_> = (0..20)
            .map(|at| (Number::new(), Regex::new(&format!(r"[a-z]{{3,9}}x{at} [a-z ]{{5,40}}z")).unwrap()))
            .collect();
        let mut kept = Kept::new();
        let most = 8 * regexes[0].1.create_cache().memory_usage();
        let mut forgot = false;
        for round in 0..60 {
            for (at, (number, regex)) in regexes.iter().enumerate() {
                let value = format!("some abcx{at} {} text z", "y".repeat(round));
                let before = kept.caches.len();
                let found = kept.with(*number, regex, most, |cache| {
                    regex.search_half_with(cache, &Input::new(&value).earliest(true)).is_some()
                });
                assert_eq!(found, regex.is_match(&value));
                forgot |= kept.caches.len() < before;
                let held: usize = kept.caches.values().map(|entry| entry.cache.memory_usage()).sum();
                assert_eq!(held, kept.bytes);
                assert!(held <= most);
            }
        }
        assert!(forgot);
    }
}
