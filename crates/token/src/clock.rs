//! A bounded map that forgets what was not asked for since its hand came by (CLOCK).
//!
//! One entry goes at a time, so that no request pays for emptying a generation.

use std::collections::HashMap;
use std::hash::Hash;

pub(crate) struct Clock<K, V> {
    /// Keys are chosen by whoever sends tokens, so the default hasher stays: it is keyed.
    index: HashMap<K, usize>,
    slots: Vec<Slot<K, V>>,
    hand: usize,
    capacity: usize,
}

struct Slot<K, V> {
    key: K,
    value: V,
    used: bool,
}

impl<K: Copy + Eq + Hash, V> Clock<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { index: HashMap::new(), slots: Vec::new(), hand: 0, capacity: capacity.max(1) }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots.get_mut(*self.index.get(key)?)?;
        slot.used = true;
        Some(&mut slot.value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if let Some(at) = self.index.get(&key) {
            self.slots[*at].value = value;
            return;
        }
        if self.slots.len() < self.capacity {
            self.index.insert(key, self.slots.len());
            self.slots.push(Slot { key, value, used: false });
            return;
        }
        while std::mem::take(&mut self.slots[self.hand].used) {
            self.hand = (self.hand + 1) % self.capacity;
        }
        self.index.remove(&self.slots[self.hand].key);
        self.index.insert(key, self.hand);
        self.slots[self.hand] = Slot { key, value, used: false };
        self.hand = (self.hand + 1) % self.capacity;
    }

    pub(crate) fn remove(&mut self, key: &K) {
        let Some(at) = self.index.remove(key) else { return };
        self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.key, at);
        }
        if self.hand >= self.slots.len() {
            self.hand = 0;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.hand = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut clock = Clock::new(3);
        for key in 0..3 {
            clock.insert(key, key);
        }
        clock.get(&0);
        clock.get(&2);
        clock.insert(3, 3);
        assert_eq!((0..4).filter(|key| clock.get(key).is_some()).collect::<Vec<_>>(), [0, 2, 3]);
    }

    proptest! {
        #[test]
        fn it_never_outgrows_its_bound_and_never_confuses_keys(
            capacity in 1_usize..8, steps in prop::collection::vec((0_u8..3, 0_u8..12), 0..200)
        ) {
            let mut clock = Clock::new(capacity);
            let mut latest = HashMap::new();
            for (i, (what, key)) in steps.into_iter().enumerate() {
                match what {
                    0 => {
                        clock.insert(key, i);
                        latest.insert(key, i);
                        prop_assert_eq!(clock.get(&key).copied(), Some(i));
                    }
                    1 => {
                        clock.remove(&key);
                        latest.remove(&key);
                    }
                    _ => if let Some(value) = clock.get(&key) {
                        prop_assert_eq!(Some(&*value), latest.get(&key));
                    }
                }
                prop_assert!(clock.len() <= capacity);
                prop_assert_eq!(clock.index.len(), clock.slots.len());
            }
        }
    }
}
