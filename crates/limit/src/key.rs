//! Keys: whatever is counted, hashed under a key of this process.
//!
//! Nobody outside can find two names that fall together, or many that fall into one place, without that key; and the table
//! holds no name of anybody.

use std::hash::{BuildHasher, Hash, RandomState};

/// What is counted, of one rule: a keyed hash (SipHash).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub(crate) u64);

/// What a rule's keys are told apart from those of all others by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u64);

/// Makes keys: one per process, since only keys of the same one are alike.
#[derive(Clone, Debug, Default)]
pub struct Keys(RandomState);

impl Keys {
    /// The seed of a rule. Two rules that are told apart by `what` share nothing; one that is the same in the next
    /// configuration goes on where it was.
    pub fn seed(&self, what: impl Hash) -> Seed {
        Seed(self.0.hash_one(("seed", what)))
    }

    /// The key of somebody or something, for the rule of that seed.
    pub fn key(&self, seed: Seed, of: impl Hash) -> Key {
        Key(self.0.hash_one((seed.0, of)))
    }
}
