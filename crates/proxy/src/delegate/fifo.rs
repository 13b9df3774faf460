//! A bounded map whose oldest entry goes first: where all entries live equally long, that is the one that ends first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

#[derive(Debug)]
pub(super) struct Fifo<K, V> {
    entries: HashMap<K, V>,
    /// Every key once, oldest first.
    order: VecDeque<K>,
    most: usize,
}

impl<K: Copy + Eq + Hash, V> Fifo<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), most: most.max(1) }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    /// Puts an entry in, in its place if it is there already. What had to go for it.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(there) = self.entries.get_mut(&key) {
            *there = value;
            return None;
        }
        let gone = if self.entries.len() >= self.most { self.pop() } else { None };
        self.order.push_back(key);
        self.entries.insert(key, value);
        gone
    }

    /// Takes the oldest entry out if it is to go.
    pub(super) fn pop_if(&mut self, goes: impl FnOnce(&V) -> bool) -> Option<V> {
        let oldest = self.entries.get(self.order.front()?)?;
        if goes(oldest) { self.pop() } else { None }
    }

    fn pop(&mut self) -> Option<V> {
        self.entries.remove(&self.order.pop_front()?)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_the_newest_keys_and_the_latest_values(most in 1_usize..6, steps in prop::collection::vec((0_u8..12, any::<bool>()), 0..100)) {
            let mut fifo = Fifo::new(most);
            let mut model: VecDeque<(u8, usize)> = VecDeque::new();
            for (at, (key, pop)) in steps.into_iter().enumerate() {
                if pop {
                    prop_assert_eq!(fifo.pop_if(|_| true), model.pop_front().map(|(_, value)| value));
                } else if let Some(there) = model.iter_mut().find(|(k, _)| *k == key) {
                    there.1 = at;
                    prop_assert_eq!(fifo.insert(key, at), None);
                } else {
                    let gone = if model.len() == most { model.pop_front() } else { None };
                    model.push_back((key, at));
                    prop_assert_eq!(fifo.insert(key, at), gone.map(|(_, value)| value));
                }
                prop_assert_eq!(fifo.len(), model.len());
                for (key, value) in &model {
                    prop_assert_eq!(fifo.get(key), Some(value));
                }
            }
        }
    }
}
