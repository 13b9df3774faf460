//! Collections that outlive a transaction (`initcol`): in memory, bounded, gone with the process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use super::{Transaction, state::Entry, subjects::view};
use crate::lang::Variable;

/// Collections that are kept; the oldest goes first.
const KEPT: usize = 10_000;
/// Bytes of a key and of a value.
const BYTES: usize = 1024;

type Key = (Variable, Box<[u8]>);
type Members = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What is kept, shared by all transactions of a rule set.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    collections: HashMap<Key, Members>,
    order: VecDeque<Key>,
}

impl Transaction {
    /// Opens a collection under a key: what earlier transactions left in it is there.
    pub(super) fn open_collection(&mut self, collection: Variable, key: &[u8]) {
        let Some(view) = view(collection) else { return };
        let state = &mut self.state;
        if state.collections.iter().any(|(open, _)| *open == collection) {
            return;
        }
        let key = &key[..key.len().min(BYTES)];
        let id = state.values.add(key);
        state.collections.push((collection, id));
        let inner = self.rules.plan.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = inner.collections.get(&(collection, key.into()));
        for (name, value) in known.into_iter().flatten() {
            let entry = Entry { name: state.values.add(name), value: state.values.add(value), second: false };
            state.bags[view.bag as usize].push(entry);
        }
    }

    pub(super) fn keep_collections(&mut self) {
        let state = &mut self.state;
        for (collection, key) in std::mem::take(&mut state.collections) {
            let Some(view) = view(collection) else { continue };
            let members: Members = state
                .bag(view.bag)
                .iter()
                .map(|entry| (state.values.get(entry.name), state.values.get(entry.value)))
                .filter(|(name, value)| name.len() <= BYTES && value.len() <= BYTES)
                .map(|(name, value)| (name.into(), value.into()))
                .collect();
            let key: Key = (collection, state.values.get(key).into());
            let mut inner = self.rules.plan.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
            if members.is_empty() && !inner.collections.contains_key(&key) {
                continue;
            }
            if inner.collections.insert(key.clone(), members).is_none() {
                inner.order.push_back(key);
            }
            while inner.order.len() > KEPT {
                if let Some(oldest) = inner.order.pop_front() {
                    inner.collections.remove(&oldest);
                }
            }
        }
    }
}
