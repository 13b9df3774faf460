//! What differs from a description again and again is told once in a while, not at each request.
//!
//! Clients choose many of the names that differ. So what is remembered, and told, is bounded: of each kind a few in an hour, whoever sends
//! them, and a few more of each group of clients. What is not told is counted, and the count told with the next that is. One table that is
//! simply full would let anybody who sends enough names keep a real change of the service from being seen.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use ringfence_openapi::Violation;

use super::crowd::{Crowd, Shares};

/// How long one thing is not told again.
const QUIET_MS: u64 = 3_600_000;
/// Differences of one kind (an operation, a place, a rule) that are told in an hour, whoever sends them.
const FIRST: u32 = 4;
/// What else is told in an hour of one group of clients.
const EACH: u16 = 16;
/// Kinds that are told apart; further ones are one.
const KINDS: usize = 1_024;

/// What was told of late.
#[derive(Debug, Default)]
pub(super) struct Drift {
    crowd: Crowd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when each is not told again. As many as quotas allow for two hours.
    told: HashMap<u64, u64>,
    kinds: HashMap<u64, Kind>,
    shares: Shares,
}

#[derive(Debug, Default)]
struct Kind {
    told: u32,
    untold: u64,
}

/// Who differs from what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whence<'a> {
    /// `GET /a/{b}`: an operation, or the shape of a path that is none.
    pub(super) operation: &'a str,
    /// Whether the description has it: others are as many as clients like.
    pub(super) described: bool,
    /// Whether it is the service's answer that differs: what clients send mutes nothing of it.
    pub(super) response: bool,
    pub(super) client: IpAddr,
}

impl Drift {
    /// Whether this is to be told now; then how many of its kind were not told before it.
    pub(super) fn news(&self, whence: Whence<'_>, violation: &Violation, now_ms: u64) -> Option<u64> {
        let (place, rule) = (violation.place as u8, &*violation.rule);
        let side = whence.response;
        let kind = self.crowd.key((side, whence.described.then_some(whence.operation), place, rule));
        let which = (&*violation.name, without_indexes(violation));
        let key = self.crowd.key((side, whence.operation, place, which, rule));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.get(&key).is_some_and(|until| *until > now_ms) {
            return None;
        }
        if state.shares.turn(now_ms) {
            state.told.retain(|_, until| *until > now_ms);
            state.kinds.retain(|_, kind| kind.untold > 0);
            state.kinds.values_mut().for_each(|kind| kind.told = 0);
        }
        let State { told, kinds, shares } = &mut *state;
        let kind = if kinds.len() < KINDS || kinds.contains_key(&kind) { kind } else { 0 };
        let kind = kinds.entry(kind).or_default();
        if kind.told >= FIRST && !shares.take(self.crowd.group(whence.client), EACH) {
            kind.untold = kind.untold.saturating_add(1);
            return None;
        }
        kind.told += 1;
        told.insert(key, now_ms.saturating_add(QUIET_MS));
        Some(std::mem::take(&mut kind.untold))
    }
}

/// Where in a body, whichever item of a list it is.
fn without_indexes(violation: &Violation) -> String {
    let pointer = violation.tame_pointer();
    let index = |step: &str| !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
    let steps = pointer.split('/').map(|step| if index(step) { "*" } else { step });
    steps.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use ringfence_openapi::{Api, Length, Report};

    use super::*;

    const API: &str = "{openapi: 3.1.0, paths: {/a: {get: {responses: {}}}}}";
    const HOUR: u64 = QUIET_MS;

    fn unknown(name: &str) -> Violation {
        thread_local!(static LOADED: Api = Api::load(API).unwrap());
        LOADED.with(|api| unknown_to(api, name))
    }

    fn unknown_to(api: &Api, name: &str) -> Violation {
        let ringfence_openapi::Found::Operation(found) = api.find("GET", "/a") else { panic!() };
        let mut report = Report::default();
        found.head(Some(&format!("{name}=1")), &[][..], Length::Empty, &mut report);
        report.violations.remove(0)
    }

    fn whence(operation: &str, described: bool, client: usize) -> Whence<'_> {
        let [.., b, c] = u32::try_from(client).unwrap().to_be_bytes();
        Whence { operation, described, response: false, client: [10, 0, b, c].into() }
    }

    #[test]
    fn one_thing_is_told_once_an_hour() {
        let drift = Drift::default();
        let news =
            |operation, violation: &Violation, at| drift.news(whence(operation, true, 1), violation, at);
        let (a, b) = (unknown("a"), unknown("b"));
        assert!(news("GET /a", &a, 0).is_some() && news("GET /b", &a, 0).is_some());
        assert!(news("GET /a", &b, 0).is_some());
        assert_eq!(news("GET /a", &a, HOUR - 1), None);
        assert_eq!(news("GET /a", &a, HOUR), Some(0));
    }

    #[test]
    fn one_client_with_many_names_mutes_nobody_else_and_what_it_hides_is_counted() {
        let drift = Drift::default();
        let flood = |from: usize, at| {
            let names = (from..from + 20_000).map(|n| unknown(&format!("x{n:x}")));
            names.filter(|name| drift.news(whence("GET /a", true, 7), name, at).is_some()).count()
        };
        assert_eq!(flood(0, 0), FIRST as usize + usize::from(EACH));
        // Another operation, and another rule, have their own part, even for the same client.
        assert_eq!(drift.news(whence("GET /b", true, 7), &unknown("real"), 1), Some(0));
        // So has what the service answers: the very thing that clients sent is news there.
        let answer = Whence { response: true, ..whence("GET /a", true, 7) };
        assert_eq!(drift.news(answer, &unknown("x0"), 1), Some(0));
        // Whoever is in another group tells of the same operation.
        let other = (8..).find(|n| {
            let group = |n| drift.crowd.group(whence("", true, n).client);
            group(*n) != group(7)
        });
        let untold = 20_000 - u64::from(FIRST) - u64::from(EACH);
        assert_eq!(drift.news(whence("GET /a", true, other.unwrap()), &unknown("real"), 1), Some(untold));
        assert_eq!(drift.news(whence("GET /a", true, other.unwrap()), &unknown("really"), 1), Some(0));
        // Paths that are none, and methods, are as many as a client likes.
        let paths: Vec<String> = (0..20_000).map(|n| format!("GET /x{n}")).collect();
        let nothing = Api::load(API).unwrap().find("GET", "/x").violation().unwrap();
        let told = paths.iter().filter(|path| drift.news(whence(path, false, 7), &nothing, 2).is_some());
        assert_eq!(told.count(), FIRST as usize);
        assert!(drift.news(whence("GET /new", false, other.unwrap()), &nothing, 3).is_some());
        assert!(flood(20_000, HOUR) > 0 && flood(40_000, 2 * HOUR) > 0);
        let state = drift.state.lock().unwrap();
        assert!(
            state.told.len() < 200 && state.kinds.len() < 10,
            "{} {}",
            state.told.len(),
            state.kinds.len()
        );
    }

    #[test]
    fn all_clients_together_make_it_grow_no_further_than_its_bounds() {
        let drift = Drift::default();
        let name = unknown("a");
        let operations: Vec<String> = (0..20_000).map(|n| format!("GET /{n}")).collect();
        for (n, operation) in operations.iter().enumerate() {
            drift.news(whence(operation, true, n), &name, 0);
        }
        let state = drift.state.lock().unwrap();
        assert!(state.kinds.len() <= KINDS + 1);
        assert!(state.told.len() <= KINDS * FIRST as usize + super::super::crowd::GROUPS * usize::from(EACH));
    }
}
