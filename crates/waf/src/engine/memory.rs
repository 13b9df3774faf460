//! Values that were looked at before, and which rules are left that may match them: field names, header values, tokens, what forms send
//! again and again.
//!
//! A table of fixed size that outlives transactions. An entry holds the whole value, so that no two values are taken for one
//! another. Each place has two entries: one that was asked for again since it was written, and the newest. So what comes with every
//! request stays, however many values come only once.

use crate::plan::{Bit, NO_BIT};

/// Places; each has two entries.
const PLACES: usize = 512;
/// The longest value that is remembered: tokens and cookies are.
const LONGEST: usize = 1024;
/// Entries that are asked to make room for one.
const LOOKS: usize = 8;
/// Bytes of values altogether.
const MOST: usize = 128 << 10;

/// The rules of a profile that may match a value: a few, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left([Bit; 4]);

impl Left {
    pub(crate) const NONE: Self = Self([NO_BIT; 4]);

    /// Takes one more; false if there is no room.
    pub(crate) fn add(&mut self, bit: Bit) -> bool {
        if self.has(bit) {
            return true;
        }
        let free = self.0.iter_mut().find(|left| **left == NO_BIT);
        free.map(|free| *free = bit).is_some()
    }

    /// With the others, if there is room for all.
    pub(crate) fn with(mut self, others: Self) -> Option<Self> {
        others.bits().all(|bit| self.add(bit)).then_some(self)
    }

    pub(crate) fn has(self, bit: Bit) -> bool {
        self.0.contains(&bit)
    }

    pub(crate) fn bits(self) -> impl Iterator<Item = Bit> {
        self.0.into_iter().take_while(|bit| *bit != NO_BIT)
    }
}

#[derive(Debug)]
struct Entry {
    profile: u32,
    hash: u32,
    left: Left,
    bytes: Vec<u8>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The plan that it holds for.
    plan: u64,
    /// The entry that proved itself, and the newest.
    places: Vec<[Entry; 2]>,
    /// Bytes that entries take.
    held: usize,
    /// Whose newest entry makes room next.
    next: usize,
}

/// No profile has this number.
const NOBODY: u32 = u32::MAX;

impl Entry {
    fn nothing() -> Self {
        Self { profile: NOBODY, hash: 0, left: Left::NONE, bytes: Vec::new() }
    }

    fn is(&self, profile: u32, hash: u32, value: &[u8]) -> bool {
        self.hash == hash && self.profile == profile && self.bytes == value
    }
}

impl Memory {
    /// Forgets everything that was found out under another plan.
    pub(crate) fn belongs_to(&mut self, plan: u64) {
        if self.plan != plan {
            *self = Self { plan, ..Self::default() };
        }
    }

    fn place(profile: u32, hash: u32) -> usize {
        (hash ^ profile.wrapping_mul(0x9E37_79B1)) as usize % PLACES
    }

    /// The rules of the profile that may match the value, if it is known.
    pub(crate) fn left(&mut self, profile: u32, hash: u32, value: &[u8]) -> Option<Left> {
        let [proven, newest] = self.places.get_mut(Self::place(profile, hash))?;
        if !proven.is(profile, hash, value) {
            if !newest.is(profile, hash, value) {
                return None;
            }
            std::mem::swap(proven, newest);
        }
        Some(proven.left)
    }

    /// Remembers that no rules of the profile but these may match the value.
    pub(crate) fn add(&mut self, profile: u32, hash: u32, value: &[u8], left: Left) {
        if value.len() > LONGEST {
            return;
        }
        if self.places.is_empty() {
            self.places.resize_with(PLACES, || [Entry::nothing(), Entry::nothing()]);
        }
        let place = Self::place(profile, hash);
        let before = self.places[place][1].bytes.capacity();
        for _ in 0..LOOKS {
            if self.held + value.len().saturating_sub(before) <= MOST {
                break;
            }
            // Long values that came once give their bytes back, wherever they are.
            self.next = (self.next + 1) % PLACES;
            if self.next != place {
                let [_, newest] = &mut self.places[self.next];
                self.held -= newest.bytes.capacity();
                *newest = Entry::nothing();
            }
        }
        if self.held + value.len().saturating_sub(before) > MOST {
            return;
        }
        let [_, entry] = &mut self.places[place];
        (entry.profile, entry.hash, entry.left) = (profile, hash, left);
        entry.bytes.clear();
        entry.bytes.reserve_exact(value.len());
        entry.bytes.extend_from_slice(value);
        self.held += entry.bytes.capacity() - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_value_under_the_same_profile_and_plan_is_known() {
        let mut memory = Memory::default();
        memory.belongs_to(1);
        assert!(memory.left(1, 7, b"").is_none());
        memory.add(1, 7, b"name", Left::NONE);
        assert!(memory.left(1, 7, b"name").is_some());
        for (profile, value) in [(2, &b"name"[..]), (1, b"nam"), (1, b"names"), (1, b"")] {
            assert!(memory.left(profile, 7, value).is_none());
        }
        memory.belongs_to(2);
        assert!(memory.left(1, 7, b"name").is_none());
        memory.add(1, 7, &[b'x'; LONGEST + 1], Left::NONE);
        assert!(memory.places.is_empty());
    }

    #[test]
    fn the_rules_that_are_left_are_told_as_they_were() {
        let (mut memory, mut left) = (Memory::default(), Left::NONE);
        assert!([3, 0, 3, 200, 5].into_iter().all(|bit| left.add(bit)));
        assert!(!left.add(6) && !left.has(6) && left.has(0) && left.has(200));
        memory.add(1, 7, b"name", left);
        let told = memory.left(1, 7, b"name").map(|left| left.bits().collect::<Vec<_>>());
        assert_eq!(told, Some(vec![3, 0, 200, 5]));
    }

    #[test]
    fn what_was_asked_for_again_outlives_what_came_once() {
        let mut memory = Memory::default();
        memory.add(1, 7, b"often", Left::NONE);
        assert!(memory.left(1, 7, b"often").is_some());
        for value in [b"a", b"b", b"c"] {
            memory.add(1, 7, value, Left::NONE);
        }
        assert!(memory.left(1, 7, b"often").is_some());
        assert!(memory.left(1, 7, b"b").is_none());
        assert!(memory.left(1, 7, b"c").is_some());
        // Now another one is asked for again, and takes its place.
        memory.add(1, 7, b"d", Left::NONE);
        assert!(memory.left(1, 7, b"often").is_none());
    }

    #[test]
    fn long_values_do_not_add_up_beyond_the_bound() {
        let mut memory = Memory::default();
        for hash in 0..4 * PLACES as u32 {
            memory.add(1, hash, &[b'x'; LONGEST], Left::NONE);
        }
        let held: usize = memory.places.iter().flatten().map(|entry| entry.bytes.capacity()).sum();
        assert_eq!(held, memory.held);
        assert!(held <= MOST);
        // A place that has room is still used, and one without any gets it after a while.
        memory.add(1, 0, b"short", Left::NONE);
        assert!(memory.left(1, 0, b"short").is_some());
        for hash in 0..PLACES as u32 {
            let tries = (0..PLACES).find(|_| {
                memory.add(1, hash, b"a name", Left::NONE);
                memory.left(1, hash, b"a name").is_some()
            });
            assert!(tries.is_some(), "{hash}");
        }
        let held: usize = memory.places.iter().flatten().map(|entry| entry.bytes.capacity()).sum();
        assert!(held == memory.held && held <= MOST);
    }
}
