//! Which requests are looked at for `ringfence openapi learn`: the first few of each kind, the first of each group of clients, then few.
//!
//! Only where a description is in observe mode. What is kept is the shape of a request and its answer, never a value. What the description
//! has is counted for itself; of what it does not have, each group of clients may name a few in an hour, so that nobody's many names are in
//! the way of others'.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::crowd::{Crowd, GROUPS, Shares};

/// Of each operation, the first so many, and then every so many.
const FIRST: u32 = 20;
const THEN: u32 = 500;
/// Operations that the description does not have, of one group of clients in an hour.
const EACH: u16 = 8;
/// As many of them as are told apart.
const MOST: usize = 2 * GROUPS * EACH as usize;
/// The longest body that is looked at.
pub(super) const BODY: usize = 64 << 10;

/// What was looked at so far.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    crowd: Crowd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By number.
    described: HashMap<usize, Count>,
    others: HashMap<u64, Count>,
    shares: Shares,
}

#[derive(Debug, Default)]
struct Count {
    seen: u32,
    /// A bit for each group of clients.
    groups: [u64; GROUPS / 64],
}

impl Sampler {
    /// Whether this request is to be looked at: an operation with this number, or one that the description does not have.
    pub(super) fn wants(&self, number: Option<usize>, operation: &str, client: IpAddr, now_ms: u64) -> bool {
        let group = self.crowd.group(client);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { described, others, shares } = &mut *state;
        let count = match number {
            Some(number) => described.entry(number).or_default(),
            None => {
                if shares.turn(now_ms) && others.len() > MOST / 2 {
                    others.clear();
                }
                let key = self.crowd.key(operation);
                if !others.contains_key(&key) && (others.len() >= MOST || !shares.take(group, EACH)) {
                    return false;
                }
                others.entry(key).or_default()
            }
        };
        count.is_looked_at(group)
    }
}

impl Count {
    fn is_looked_at(&mut self, group: usize) -> bool {
        self.seen = self.seen.saturating_add(1);
        let bit = 1 << (group % 64);
        let known = self.groups.get_mut(group / 64).is_some_and(|bits| {
            let before = *bits;
            *bits |= bit;
            before & bit != 0
        });
        !known || self.seen <= FIRST || (self.seen - FIRST).is_multiple_of(THEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> IpAddr {
        let [.., b, c] = u32::try_from(n).unwrap().to_be_bytes();
        [10, 0, b, c].into()
    }

    #[test]
    fn the_first_of_each_then_few_and_not_of_everything() {
        let sampler = Sampler::default();
        let looked = |number: Option<usize>, operation: &str, times: u32| {
            (0..times).filter(|_| sampler.wants(number, operation, address(1), 0)).count()
        };
        assert_eq!(looked(Some(0), "GET /a", 20), 20);
        assert_eq!(looked(Some(0), "GET /a", 1_000), 2);
        assert_eq!(looked(None, "GET /b", 1), 1);
        let names: usize = (0..10_000).map(|n| looked(None, &format!("GET /{n}"), 1)).sum();
        assert_eq!(names, usize::from(EACH) - 1);
        assert_eq!(looked(None, "GET /b", 1), 1, "what is known goes on");
        assert_eq!(looked(Some(1), "GET /c", 1), 1, "what is described is never in the way of anything");
    }

    #[test]
    fn who_comes_first_and_often_is_not_all_that_is_learned_from() {
        let sampler = Sampler::default();
        let group = |n| sampler.crowd.group(address(n));
        let other = (2..).find(|n| group(*n) != group(1)).unwrap();
        for n in 0..10_000 {
            sampler.wants(Some(0), "GET /a", address(1), 0);
            sampler.wants(None, &format!("GET /x{n}"), address(1), 0);
        }
        assert!(sampler.wants(Some(0), "GET /a", address(other), 0));
        assert!(!sampler.wants(Some(0), "GET /a", address(other), 0));
        assert!(sampler.wants(None, "GET /new", address(other), 0));
        for n in 0..60_000 {
            sampler.wants(None, &format!("GET /y{n}"), address(n), u64::try_from(n).unwrap() * 1_000);
        }
        assert!(sampler.state.lock().unwrap().others.len() <= MOST);
        assert!(sampler.wants(None, "GET /newer", address(other), 100 * 3_600_000));
    }
}
