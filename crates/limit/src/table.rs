//! One shard of the table: open addressing in a slice that doubles up to its bound, and what gives way when that is full.
//!
//! A shard of its full size from the start was rejected: keys fall anywhere in it, so a few thousand of them make all of its pages
//! resident. What doubles takes memory as keys come, moves each key once or twice in all, and never holds more than half as much again.
//!
//! A cell is two words. The first is the hash of the key, its last nine bits replaced by what the cell says of itself: whether its
//! key was asked for again, its kind, and the size of its limit as a power of two. They choose the shard, so nothing of the hash is
//! lost. The second is the word that [`Limit`] judges by.

use crate::key::Key;
use crate::limit::{Kind, Limit, used_eighths};

/// Bits of the first word that are not of the hash.
const OWN: u64 = (1 << OWN_BITS) - 1;
pub(crate) const OWN_BITS: u32 = 9;
/// Whether the key was asked for again after the cell was made.
const AGAIN: u64 = 1;
const KIND_SHIFT: u32 = 1;
const SCALE_SHIFT: u32 = 3;

/// Cells that are looked at for one that gives way.
const LOOKED_AT: usize = 16;
/// Fewest cells that a shard may have, and with how many it begins.
pub(crate) const MIN_CELLS: usize = 64;
const FIRST_CELLS: usize = 16;

type Cell = [u64; 2];
const EMPTY: Cell = [0, 0];
pub(crate) const CELL_BYTES: usize = size_of::<Cell>();

/// Part of the table.
#[derive(Debug)]
pub(crate) struct Shard {
    /// Never empty, and never without an empty cell.
    cells: Box<[Cell]>,
    used: usize,
    /// How many cells there may be.
    bound: usize,
}

/// Where a key is.
#[derive(Clone, Copy, Debug)]
enum Place {
    At(usize),
    /// It is not there; here would be its place.
    Free(usize),
}

impl Shard {
    /// One that grows up to so many cells.
    pub(crate) fn new(cells: usize) -> Self {
        Self { cells: vec![EMPTY; FIRST_CELLS].into(), used: 0, bound: cells.max(MIN_CELLS) }
    }

    /// Of so many cells these are in use at most: the rest keeps searches short, and takes what one batch may add.
    const fn most(cells: usize) -> usize {
        cells / 16 * 13
    }

    /// Takes more memory, if it may.
    fn grow(&mut self) {
        let cells = (self.cells.len() * 2).min(self.bound);
        if cells == self.cells.len() {
            return;
        }
        let before = std::mem::replace(&mut self.cells, vec![EMPTY; cells].into());
        for cell in before.iter().filter(|cell| cell[0] != 0) {
            if let Place::Free(at) = self.place(cell[0] & !OWN) {
                self.cells[at] = *cell;
            }
        }
    }

    /// What is remembered of a key.
    pub(crate) fn word(&self, key: Key) -> Option<u64> {
        match self.place(tag(key)) {
            Place::At(at) => Some(self.cells[at][1]),
            Place::Free(_) => None,
        }
    }

    /// Remembers a word of a key, for which there is room.
    pub(crate) fn put(&mut self, key: Key, limit: &Limit, word: u64) {
        let tag = tag(key);
        let mut place = self.place(tag);
        if matches!(place, Place::Free(_)) && self.used >= Self::most(self.cells.len()) {
            self.grow();
            place = self.place(tag);
        }
        match place {
            Place::At(at) => self.cells[at] = [self.cells[at][0] | AGAIN, word],
            Place::Free(at) => {
                let (kind, scale) = limit.kind();
                let own = (kind as u64) << KIND_SHIFT | u64::from(scale.min(63)) << SCALE_SHIFT;
                self.cells[at] = [tag | own, word];
                self.used += 1;
            }
        }
    }

    /// Its key was asked for, and refused.
    pub(crate) fn touch(&mut self, key: Key) {
        if let Place::At(at) = self.place(tag(key)) {
            self.cells[at][0] |= AGAIN;
        }
    }

    /// One less at the same time.
    pub(crate) fn release(&mut self, key: Key) {
        if let Place::At(at) = self.place(tag(key)) {
            match self.cells[at][1] {
                0 | 1 => self.remove(at),
                count => self.cells[at][1] = count - 1,
            }
        }
    }

    /// Makes room for a key that is not there; whether there is.
    pub(crate) fn make_room(&mut self, key: Key, now: u64) -> bool {
        while self.used >= Self::most(self.bound) {
            let Some(at) = self.victim(self.home(tag(key)), now) else { return false };
            self.remove(at);
        }
        true
    }

    /// The cell among the next few that is missed least: one that has nothing to say any more or next to nothing, else one whose key
    /// was not asked for again, and of those the one that has used least. A key that was, and has used half of what it may, stays.
    ///
    /// They are those around the place of the newcomer: what goes is as evenly spread as what comes. A hand that swept through the
    /// table would leave an empty part behind and crowd the rest.
    fn victim(&self, home: usize, now: u64) -> Option<usize> {
        let mut best: Option<(u64, usize)> = None;
        let mut looked_at = 0;
        let mut next = home;
        // An empty cell is passed over; there are fewer of them than others.
        for _ in 0..LOOKED_AT * 8 {
            let at = next;
            next = if at + 1 == self.cells.len() { 0 } else { at + 1 };
            let [first, word] = self.cells[at];
            if first == 0 {
                continue;
            }
            let again = first & AGAIN;
            let Some(used) = used_eighths(kind(first), scale(first), word, now) else { return Some(at) };
            let stays = again != 0 && used >= 4 || kind(first) == Kind::Concurrent;
            if again == 0 && used <= 1 {
                return Some(at);
            }
            let rank = again << 8 | used;
            if !stays && best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, at));
            }
            looked_at += 1;
            if looked_at == LOOKED_AT {
                break;
            }
        }
        best.map(|(_, at)| at)
    }

    fn home(&self, tag: u64) -> usize {
        ((u128::from(tag) * self.cells.len() as u128) >> 64) as usize
    }

    fn place(&self, tag: u64) -> Place {
        let mut at = self.home(tag);
        loop {
            match self.cells[at][0] {
                0 => return Place::Free(at),
                first if first & !OWN == tag => return Place::At(at),
                _ => at = if at + 1 == self.cells.len() { 0 } else { at + 1 },
            }
        }
    }

    /// Takes a cell out, and moves those up that it stood in the way of.
    fn remove(&mut self, mut hole: usize) {
        let count = self.cells.len();
        let distance = |from: usize, to: usize| if to >= from { to - from } else { to + count - from };
        let mut at = hole;
        loop {
            at = if at + 1 == count { 0 } else { at + 1 };
            let first = self.cells[at][0];
            if first == 0 {
                break;
            }
            if distance(self.home(first & !OWN), at) >= distance(hole, at) {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
        self.used -= 1;
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.cells.len() * CELL_BYTES
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

/// The hash of a key without its last bits; never zero, which is an empty cell.
fn tag(key: Key) -> u64 {
    match key.0 & !OWN {
        0 => OWN + 1,
        tag => tag,
    }
}

fn kind(first: u64) -> Kind {
    match first >> KIND_SHIFT & 3 {
        0 => Kind::Rate,
        1 => Kind::Quota,
        _ => Kind::Concurrent,
    }
}

fn scale(first: u64) -> u32 {
    (first >> SCALE_SHIFT & 63) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::{Concurrent, Rate};

    fn rate() -> Limit {
        Limit::Rate(Rate::new(10, Duration::from_secs(1), 10).unwrap())
    }

    proptest! {
        /// Whatever is put, released and removed: what is there is found, and nothing else.
        #[test]
        fn a_shard_is_a_map(steps in proptest::collection::vec((0_u8..4, 0_u64..80), 0..400)) {
            let mut shard = Shard::new(MIN_CELLS);
            let mut map: HashMap<u64, u64> = HashMap::new();
            let most = Limit::Concurrent(Concurrent::new(9).unwrap());
            // Close homes, so that clusters form and wrap.
            let key = |n: u64| Key(u64::MAX - n.wrapping_mul(0x40_0000_0000_0000));
            for (what, n) in steps {
                match what {
                    0 | 1 if map.contains_key(&n) || map.len() < 60 => {
                        shard.put(key(n), &most, 1 + u64::from(what));
                        map.insert(n, 1 + u64::from(what));
                    }
                    2 => {
                        shard.release(key(n));
                        match map.get(&n) {
                            Some(2) => drop(map.insert(n, 1)),
                            _ => drop(map.remove(&n)),
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(shard.used(), map.len());
                for n in 0..80 {
                    prop_assert_eq!(shard.word(key(n)), map.get(&n).copied(), "{}", n);
                }
            }
        }
    }

    #[test]
    fn what_has_nothing_to_say_gives_way_first() {
        let mut shard = Shard::new(MIN_CELLS);
        let key = |n: u64| Key(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let full = Shard::most(MIN_CELLS) as u64;
        for n in 0..full {
            // Every third has its time behind it at 500; the others have used more than half.
            shard.put(key(n), &rate(), if n % 3 == 0 { 400 } else { 40_000_000_000 });
        }
        for n in 0..full / 8 {
            assert!(shard.make_room(key(1000 + n), 500));
            assert_eq!(shard.used() as u64, full - 1);
            shard.put(key(1000 + n), &rate(), 40_000_000_000);
        }
        assert!((0..full).filter(|n| n % 3 != 0).all(|n| shard.word(key(n)).is_some()));
    }
}
