//! Which requests are looked at for `ringfence openapi learn`: the first few of each kind, then few.
//!
//! Only where a description is in observe mode. What is kept is the shape of a request and its answer, never a value.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Of each operation, the first so many, and then every so many.
const FIRST: u32 = 20;
const THEN: u32 = 500;
/// Operations that are told apart.
const MOST: usize = 2_048;
/// The longest body that is looked at.
pub(super) const BODY: usize = 64 << 10;

/// What was looked at so far.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    hasher: RandomState,
    seen: Mutex<HashMap<u64, u32>>,
}

impl Sampler {
    /// Whether this request is to be looked at.
    pub(super) fn wants(&self, operation: &str) -> bool {
        let key = self.hasher.hash_one(operation);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST && !seen.contains_key(&key) {
            return false;
        }
        let count = seen.entry(key).or_default();
        *count = count.saturating_add(1);
        *count <= FIRST || (*count - FIRST).is_multiple_of(THEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_then_few_and_not_of_everything() {
        let sampler = Sampler::default();
        let looked = |operation: &str, times: u32| (0..times).filter(|_| sampler.wants(operation)).count();
        assert_eq!(looked("GET /a", 20), 20);
        assert_eq!(looked("GET /a", 1_000), 2);
        assert_eq!(looked("GET /b", 1), 1);
        assert!((0..10_000).filter(|n| sampler.wants(&format!("GET /{n}"))).count() < MOST);
    }
}
