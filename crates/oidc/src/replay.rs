//! Each logout token counts once.

use std::collections::HashMap;

use ringfence_keys::digest::sha256;

/// Most tokens that are remembered; each is for minutes only.
const MAX: usize = 10_000;

/// The ids of tokens that were seen, until they have ended.
#[derive(Default)]
pub(crate) struct Replays(HashMap<[u8; 32], u64>);

impl Replays {
    /// Whether `id` is new; it is remembered until `until`. When no more can be remembered, nothing is new.
    pub(crate) fn is_new(&mut self, id: &str, until: u64, now: u64) -> bool {
        if self.0.len() >= MAX {
            self.0.retain(|_, until| now <= *until);
        }
        let digest = sha256(id.as_bytes());
        if self.0.get(&digest).is_some_and(|until| now <= *until) || self.0.len() >= MAX {
            return false;
        }
        self.0.insert(digest, until);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_and_the_store_fails_closed() {
        let mut replays = Replays::default();
        assert!(replays.is_new("a", 100, 50));
        assert!(!replays.is_new("a", 100, 100));
        assert!(replays.is_new("a", 200, 101));
        for n in 0..MAX {
            replays.is_new(&format!("n{n}"), 200, 101);
        }
        assert!(!replays.is_new("b", 300, 150));
        assert!(replays.is_new("b", 300, 201));
    }
}
