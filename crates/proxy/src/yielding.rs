//! Who makes room at a full door, found without a look at all connections for each that comes.
//!
//! A look ranks all of them and remembers the first few hundred, who then yield one by one as others come. So a flood of connections
//! costs a look for every few hundred of them, and where nobody has to yield one for every few milliseconds. A queue that is always in
//! order was rejected: every request would move its connection in it, in times without any flood too.

use std::collections::HashMap;
use std::rc::{Rc, Weak};

use slab::Slab;

use crate::door::{Door, Full};
use crate::live::Live;

/// Connections that a look remembers.
const REMEMBERED: usize = 256;
/// How long what was found holds, in milliseconds; who may have to yield by then is not in it.
const HOLDS_MS: u64 = 10;
/// Looks within that time for addresses that have too many connections of their own.
const LOOKS: usize = 2;

/// What was found last.
#[derive(Debug, Default)]
pub(crate) struct Yielding {
    at: u64,
    /// Looks for single addresses.
    looks: usize,
    /// By the place of the door in memory: it is looked at again before anybody yields.
    found: HashMap<(usize, Full), Found>,
}

#[derive(Debug)]
struct Found {
    /// Who yields next is last.
    next: Vec<Weak<Live>>,
    /// Whether these were all.
    all: bool,
}

impl Yielding {
    /// Has one of `entries` make room; whether one did.
    pub(crate) fn make_room(
        &mut self,
        entries: &Slab<Rc<Live>>,
        door: &Rc<Door>,
        full: Full,
        now_ms: u64,
    ) -> bool {
        if now_ms >= self.at + HOLDS_MS {
            *self = Self { at: now_ms, ..Self::default() };
        }
        let key = (Rc::as_ptr(door) as usize, full);
        if let Some(found) = self.found.get_mut(&key) {
            if found.make_room(door, full, now_ms) {
                return true;
            }
            if found.all {
                return false;
            }
        }
        if full.address.is_some() {
            if self.looks == LOOKS {
                return false;
            }
            self.looks += 1;
        }
        let mut found = Found::look(entries, door, full, now_ms);
        let made = found.make_room(door, full, now_ms);
        self.found.insert(key, found);
        made
    }
}

impl Found {
    fn look(entries: &Slab<Rc<Live>>, door: &Rc<Door>, full: Full, now_ms: u64) -> Self {
        let ranked = entries.iter().filter_map(|(_, live)| Some((live.rank(door, full, now_ms)?, live)));
        let mut ranked: Vec<_> = ranked.collect();
        let all = ranked.len() <= REMEMBERED;
        if !all {
            ranked.select_nth_unstable_by_key(REMEMBERED, |ranked| ranked.0);
            ranked.truncate(REMEMBERED);
        }
        ranked.sort_unstable_by_key(|ranked| std::cmp::Reverse(ranked.0));
        Self { next: ranked.into_iter().map(|(_, live)| Rc::downgrade(live)).collect(), all }
    }

    /// Who was found may have become quick since, or have gone.
    fn make_room(&mut self, door: &Rc<Door>, full: Full, now_ms: u64) -> bool {
        while let Some(live) = self.next.pop() {
            if let Some(live) = live.upgrade().filter(|live| live.rank(door, full, now_ms).is_some()) {
                live.yields();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::live::{Entry, Registry};

    const NOW: u64 = 100_000;

    /// Connections of an address that are `age` milliseconds old and have said nothing.
    fn silent(
        registry: &Rc<Registry>,
        door: &Rc<Door>,
        last: u8,
        ages: impl Iterator<Item = u64>,
    ) -> Vec<Entry> {
        let enter = |age| {
            let entry = registry.enter();
            entry.live().set_ticket(Some(door.enter(IpAddr::from([192, 0, 2, last]), false, NOW - age)));
            entry
        };
        ages.map(enter).collect()
    }

    #[test]
    fn one_yields_for_each_that_comes_the_oldest_first_and_none_twice() {
        let (registry, door) = (Rc::<Registry>::default(), Rc::<Door>::default());
        let full = Full { address: None, shaking: false };
        // More than a look remembers, in no order.
        let entries = silent(&registry, &door, 1, (0..1_000).map(|n| 2_000 + n * 7_919 % 1_000));
        let new = silent(&registry, &door, 1, (0..10).map(|n| n * 10));
        for left in (0..entries.len()).rev() {
            assert!(registry.make_room(&door, full, NOW));
            assert_eq!(door.open(), left + new.len());
            // Whoever is older than the oldest that is left has yielded.
            let yielded = |entry: &&Entry| entry.live().rank(&door, full, NOW).is_none();
            assert_eq!(entries.iter().filter(yielded).count(), entries.len() - left);
            if left % 100 == 0 {
                let left = entries.iter().filter_map(|entry| entry.live().rank(&door, full, NOW));
                assert!(left.map(|(_, since)| NOW - since).all(|age| age < 2_000 + door.open() as u64));
            }
        }
        assert!(!registry.make_room(&door, full, NOW), "who is new is left alone");
        assert!(!registry.make_room(&door, full, NOW + HOLDS_MS));
        assert!(registry.make_room(&door, full, NOW + 1_000), "for a second");
    }

    #[test]
    fn who_went_or_became_quick_does_not_yield_and_an_address_yields_for_itself_alone() {
        let (registry, door) = (Rc::<Registry>::default(), Rc::<Door>::default());
        let mut of_one = silent(&registry, &door, 1, 2_000..2_003);
        let of_other = silent(&registry, &door, 2, 5_000..5_003);
        let full = Full { address: Some(IpAddr::from([192, 0, 2, 1])), shaking: false };
        assert!(registry.make_room(&door, full, NOW));
        of_one[1].live().set_busy(true);
        drop(of_one.remove(0));
        assert!(!registry.make_room(&door, full, NOW));
        assert_eq!(door.open(), 1 + of_other.len());
        let anybody = Full { address: None, shaking: false };
        assert!((0..of_other.len()).all(|_| registry.make_room(&door, anybody, NOW)));
    }

    #[test]
    fn addresses_that_have_too_many_cost_few_looks() {
        let (registry, door) = (Rc::<Registry>::default(), Rc::<Door>::default());
        let entries: Vec<_> = (0..10).flat_map(|last| silent(&registry, &door, last, 2_000..2_001)).collect();
        let made_room = |last: u8, now| {
            let full = Full { address: Some(IpAddr::from([192, 0, 2, last])), shaking: false };
            registry.make_room(&door, full, now)
        };
        assert_eq!((0..10).filter(|last| made_room(*last, NOW)).count(), LOOKS);
        assert_eq!((2..10).filter(|last| made_room(*last, NOW + HOLDS_MS)).count(), LOOKS);
        assert_eq!(door.open(), entries.len() - 2 * LOOKS);
    }
}
