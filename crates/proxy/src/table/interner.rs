//! Numbers of (caller, callee) pairs: they outlive tables, so that what is counted and pooled by them does too.

use std::collections::HashMap;
use std::sync::Arc;

use super::{DELIVERY, EdgeId, Via};

/// Gives (caller, callee) pairs their numbers, and what they are reached by its stamp.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    ids: HashMap<(Arc<str>, Arc<str>), EdgeId>,
    names: Vec<(Arc<str>, Arc<str>)>,
    stamps: HashMap<EdgeId, (Via, u64, u64)>,
    last_stamp: u64,
}

impl Interner {
    pub(crate) fn id(&mut self, caller: &Arc<str>, callee: &Arc<str>) -> EdgeId {
        let key = (caller.clone(), callee.clone());
        *self.ids.entry(key).or_insert_with_key(|key| {
            self.names.push(key.clone());
            // As many as there are pairs of names; a snapshot is bounded.
            (self.names.len() - 1) as EdgeId
        })
    }

    /// Caller and callee of each edge, by number; deliveries are not among them.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (EdgeId, &(Arc<str>, Arc<str>))> {
        self.names
            .iter()
            .enumerate()
            .map(|(id, names)| (id as EdgeId, names))
            .filter(|(_, names)| &*names.0 != DELIVERY)
    }

    /// The callee of an edge.
    pub(crate) fn callee(&self, id: EdgeId) -> Option<Arc<str>> {
        self.names.get(id as usize).map(|(_, callee)| callee.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn stamp(&mut self, id: EdgeId, via: &Via, bundle: u64) -> u64 {
        match self.stamps.get(&id) {
            Some((known, generation, stamp)) if known == via && *generation == bundle => *stamp,
            _ => {
                self.last_stamp += 1;
                self.stamps.insert(id, (via.clone(), bundle, self.last_stamp));
                self.last_stamp
            }
        }
    }
}
