//! What differs from a description again and again is told once in a while, not at each request.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ringfence_openapi::Violation;

/// How long one thing is not told again.
const QUIET: Duration = Duration::from_secs(3_600);
/// Things that are remembered; when they are all recent, new ones are not told.
const MOST: usize = 4_096;

/// What was told of late.
#[derive(Debug, Default)]
pub(super) struct Drift {
    hasher: RandomState,
    told: Mutex<HashMap<u64, u64>>,
}

impl Drift {
    /// Whether this is to be told now. `operation` is what it differs from: an operation, or the shape of a path.
    pub(super) fn is_news(&self, operation: &str, violation: &Violation, now_ms: u64) -> bool {
        let pointer = violation.tame_pointer();
        let of = (operation, violation.place as u8, &*violation.name, pointer, &*violation.rule);
        let key = self.hasher.hash_one(of);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&key).is_some_and(|until| *until > now_ms) {
            return false;
        }
        if told.len() >= MOST {
            told.retain(|_, until| *until > now_ms);
        }
        if told.len() >= MOST {
            return false;
        }
        let quiet = u64::try_from(QUIET.as_millis()).unwrap_or(u64::MAX);
        told.insert(key, now_ms.saturating_add(quiet));
        true
    }
}

#[cfg(test)]
mod tests {
    use ringfence_openapi::{Api, Found};

    use super::*;

    #[test]
    fn one_thing_is_told_once_an_hour_and_no_flood_makes_it_grow() {
        let text = "{openapi: 3.1.0, paths: {}}";
        let violation = Api::load(text).unwrap().find("GET", "/").violation().unwrap();
        let drift = Drift::default();
        assert!(drift.is_news("GET /a", &violation, 0) && drift.is_news("GET /b", &violation, 0));
        assert!(
            !drift.is_news("GET /a", &violation, 3_599_999) && drift.is_news("GET /a", &violation, 3_600_000)
        );
        let told = (0..10_000).filter(|n| drift.is_news(&format!("GET /{n}"), &violation, 3_600_001)).count();
        assert!(told <= MOST && drift.told.lock().unwrap().len() <= MOST);
        assert!(drift.is_news("GET /new", &violation, 10_000_000), "old ones give way");
        assert!(matches!(Api::load(text).unwrap().find("GET", "/"), Found::Nothing));
    }
}
