//! Clients in groups, so that memory which all share has a part for each of them: whoever sends many names uses up the part of its own
//! group. Which group an address is in, nobody outside knows.

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;

use crate::door::whose;

/// Groups that clients are in.
pub(super) const GROUPS: usize = 256;

/// What tells clients, and names, apart.
#[derive(Debug, Default)]
pub(super) struct Crowd(RandomState);

/// A part for each group in each hour.
#[derive(Debug)]
pub(super) struct Shares {
    hour: u64,
    used: Box<[u16; GROUPS]>,
}

impl Crowd {
    /// The group of an address.
    pub(super) fn group(&self, address: IpAddr) -> usize {
        usize::try_from(self.key(whose(address)) % GROUPS as u64).unwrap_or_default()
    }

    /// A number for a name.
    pub(super) fn key(&self, name: impl Hash) -> u64 {
        self.0.hash_one(name)
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self { hour: 0, used: Box::new([0; GROUPS]) }
    }
}

impl Shares {
    /// Whether another hour has begun, in which each group has its part again.
    pub(super) fn turn(&mut self, now_ms: u64) -> bool {
        let hour = now_ms / 3_600_000;
        let turned = std::mem::replace(&mut self.hour, hour) != hour;
        if turned {
            self.used.fill(0);
        }
        turned
    }

    /// Takes one of the `most` that a group has.
    pub(super) fn take(&mut self, group: usize, most: u16) -> bool {
        let Some(used) = self.used.get_mut(group).filter(|used| **used < most) else { return false };
        *used += 1;
        true
    }
}
