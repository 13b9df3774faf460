//! The keys of a provider over time: when to ask for them again, and how long to believe those there are.
//!
//! Only decisions, no I/O: whoever owns the source fetches when [`KeySource::poll`] says so and hands in what came. Times are
//! seconds of a clock that does not jump.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::jwks::{JwksError, KeySet};
use crate::key::PublicKey;

/// Fetches that may come without the interval between them.
const BURST: u64 = 3;
/// Shortest time between two fetches, in seconds.
const SPACING: u64 = 1;

/// How a source behaves. All in seconds.
#[derive(Clone, Copy, Debug)]
pub struct SourceConfig {
    /// Age at which keys are asked for again.
    pub fresh: u64,
    /// Age beyond which they are no longer believed, however unreachable their provider is.
    pub believed: u64,
    /// Time between two fetches on average, whatever unknown keys tokens name; [`BURST`] may come one right after the other, so that one
    /// which turned out to be needless does not keep the provider's next key waiting.
    pub interval: u64,
    /// Longest time between two fetches while they fail.
    pub backoff: u64,
    /// When a fetch that did not report back is given up.
    pub timeout: u64,
    /// How long a key that is no longer published is believed. 0: not at all, since it may have been withdrawn for a reason.
    pub overlap: u64,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self { fresh: 300, believed: 24 * 3600, interval: 30, backoff: 300, timeout: 15, overlap: 0 }
    }
}

/// One fetch; its outcome is handed in with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What came of a fetch.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fetched {
    /// Other keys than before: tokens are verified anew.
    Changed,
    /// The keys that were there.
    Unchanged,
    /// Nothing came; earlier keys stay.
    Failed,
    /// What came is no set of keys; earlier keys stay.
    Refused(JwksError),
    /// A fetch that was given up already; ignored.
    Late,
}

/// The keys of one provider.
#[derive(Debug)]
pub struct KeySource {
    config: SourceConfig,
    /// What is believed: what was published last, and keys that are leaving.
    keys: Option<Arc<KeySet>>,
    published: BTreeMap<String, PublicKey>,
    leaving: BTreeMap<String, (PublicKey, u64)>,
    confirmed_at: u64,
    flight: Option<u64>,
    started_at: Option<u64>,
    /// When as many fetches as there were would have been an interval apart (as a GCRA counts).
    paid_until: u64,
    tickets: u64,
    failures: u32,
    wanted: bool,
}

impl KeySource {
    /// A source without keys yet.
    #[must_use]
    pub const fn new(config: SourceConfig) -> Self {
        Self {
            config,
            keys: None,
            published: BTreeMap::new(),
            leaving: BTreeMap::new(),
            confirmed_at: 0,
            flight: None,
            started_at: None,
            paid_until: 0,
            tickets: 0,
            failures: 0,
            wanted: false,
        }
    }

    /// The keys, unless they are too old to be believed.
    #[must_use]
    pub fn keys(&self, now: u64) -> Option<&Arc<KeySet>> {
        self.keys.as_ref().filter(|_| now.saturating_sub(self.confirmed_at) < self.config.believed)
    }

    /// How old the keys are: since when the provider has not confirmed them.
    #[must_use]
    pub fn age(&self, now: u64) -> Option<u64> {
        self.keys.as_ref().map(|_| now.saturating_sub(self.confirmed_at))
    }

    /// A token named a key that is not there. The keys are asked for again as soon as [`Self::poll`] allows.
    pub const fn miss(&mut self) {
        self.wanted = true;
    }

    /// Whether to fetch now. Call it often; it hands out one ticket at a time.
    pub fn poll(&mut self, now: u64) -> Option<Ticket> {
        if self.leaving.values().any(|(_, until)| *until <= now) {
            self.leaving.retain(|_, (_, until)| *until > now);
            self.merge();
        }
        let since = |at: u64| now.saturating_sub(at);
        if self.flight.is_some() {
            if since(self.started_at.unwrap_or(0)) < self.config.timeout {
                return None;
            }
            self.flight = None;
            self.failures = self.failures.saturating_add(1);
        }
        let due = self.wanted || self.keys.is_none() || since(self.confirmed_at) >= self.config.fresh;
        // One failure is no reason to wait longer: it doubles from the second on.
        let doubled = self.config.interval.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let wait = match self.failures {
            0 => SPACING.min(self.config.interval),
            _ => doubled.min(self.config.backoff).max(self.config.interval),
        };
        let ahead = self.paid_until.saturating_sub(now) > (BURST - 1).saturating_mul(self.config.interval);
        if !due || ahead || self.started_at.is_some_and(|at| since(at) < wait) {
            return None;
        }
        self.paid_until = self.paid_until.max(now).saturating_add(self.config.interval);
        self.tickets += 1;
        self.flight = Some(self.tickets);
        self.started_at = Some(now);
        Some(Ticket(self.tickets))
    }

    /// Takes what a fetch brought: the document, or `None`.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket counts once")]
    pub fn fetched(&mut self, ticket: Ticket, document: Option<&[u8]>, now: u64) -> Fetched {
        if self.flight != Some(ticket.0) {
            return Fetched::Late;
        }
        self.flight = None;
        let set = match document.map(KeySet::from_json) {
            // A provider without keys has lost them; those that it had are better than none.
            Some(Ok(set)) if set.is_empty() => Err(Fetched::Refused(JwksError::Empty)),
            Some(Ok(set)) => Ok(set),
            Some(Err(error)) => Err(Fetched::Refused(error)),
            None => Err(Fetched::Failed),
        };
        match set {
            Ok(set) => {
                self.failures = 0;
                self.wanted = false;
                self.confirmed_at = now;
                self.publish(set, now)
            }
            Err(outcome) => {
                self.failures = self.failures.saturating_add(1);
                outcome
            }
        }
    }

    fn publish(&mut self, set: KeySet, now: u64) -> Fetched {
        for (id, key) in &self.published {
            if self.config.overlap > 0 && !set.keys().contains_key(id) {
                self.leaving
                    .entry(id.clone())
                    .or_insert_with(|| (key.clone(), now.saturating_add(self.config.overlap)));
            }
        }
        // What is published under an id counts alone.
        self.leaving.retain(|id, _| !set.keys().contains_key(id));
        self.published = set.into_keys();
        if self.merge() { Fetched::Changed } else { Fetched::Unchanged }
    }

    /// Whether the keys are others now.
    fn merge(&mut self) -> bool {
        let leaving = self.leaving.iter().map(|(id, (key, _))| (id, key));
        let all = leaving.chain(&self.published).map(|(id, key)| (id.clone(), key.clone()));
        let set = KeySet::from_public(all);
        let changed = self.keys.as_deref() != Some(&set);
        if changed {
            self.keys = Some(Arc::new(set));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_keys::{Algorithm, SigningKey, VerifyingKey};

    use super::*;

    fn key() -> VerifyingKey {
        SigningKey::generate(Algorithm::Ed25519).unwrap().verifying_key().clone()
    }

    fn document(keys: &[(&str, &VerifyingKey)]) -> String {
        KeySet::from_keys(keys.iter().map(|(id, key)| ((*id).to_owned(), (*key).clone()))).to_json("sig")
    }

    fn has(source: &KeySource, id: &str, now: u64) -> bool {
        source.keys(now).is_some_and(|keys| keys.find(Some(id), crate::Algorithm::EdDsa).is_ok())
    }

    #[test]
    fn a_provider_that_is_down_is_believed_for_a_while_and_then_no_more() {
        let config = SourceConfig { believed: 1000, ..SourceConfig::default() };
        let mut source = KeySource::new(config);
        assert!(source.keys(0).is_none());
        let ticket = source.poll(0).unwrap();
        let text = document(&[("a", &key())]);
        assert!(matches!(source.fetched(ticket, Some(text.as_bytes()), 1), Fetched::Changed));
        assert!(source.poll(299).is_none());
        let mut fetches = Vec::new();
        for now in 300..1001 {
            assert!(has(&source, "a", now));
            if let Some(ticket) = source.poll(now) {
                assert!(matches!(source.fetched(ticket, None, now), Fetched::Failed));
                fetches.push(now);
            }
        }
        assert!(!has(&source, "a", 1001));
        // 30 s, then twice that, up to 300 s.
        assert_eq!(fetches, [301, 331, 391, 511, 751]);
    }

    #[test]
    fn a_needless_fetch_does_not_keep_the_next_key_waiting() {
        let mut source = KeySource::new(SourceConfig::default());
        let (a, b) = (key(), key());
        for now in [0, 62] {
            // What was asked for too late is asked for all the same.
            source.miss();
            let ticket = source.poll(now).unwrap();
            source.fetched(ticket, Some(document(&[("a", &a)]).as_bytes()), now);
        }
        source.miss();
        let ticket = source.poll(64).expect("the provider has another key now");
        source.fetched(ticket, Some(document(&[("a", &a), ("b", &b)]).as_bytes()), 64);
        assert!(has(&source, "b", 64));
    }

    #[test]
    fn unknown_keys_cause_one_fetch_per_interval_and_a_few_at_once() {
        let mut source = KeySource::new(SourceConfig::default());
        let text = document(&[("a", &key())]);
        let mut fetches = 0;
        for now in 0..300 {
            for _ in 0..50 {
                source.miss();
                if let Some(ticket) = source.poll(now) {
                    fetches += 1;
                    source.fetched(ticket, Some(text.as_bytes()), now);
                }
            }
        }
        // Three at once, then one in 30 s.
        assert_eq!(fetches, 12);
    }

    #[test]
    fn a_new_key_is_a_new_generation_and_the_same_keys_are_not() {
        let mut source = KeySource::new(SourceConfig::default());
        let (a, b) = (key(), key());
        let mut fetch = |now: u64, keys: &[(&str, &VerifyingKey)]| {
            let ticket = source.poll(now).unwrap();
            let outcome = source.fetched(ticket, Some(document(keys).as_bytes()), now);
            (matches!(outcome, Fetched::Changed), source.keys(now).unwrap().generation())
        };
        let (_, first) = fetch(0, &[("a", &a)]);
        assert_eq!(fetch(300, &[("a", &a)]), (false, first));
        let (changed, second) = fetch(600, &[("a", &a), ("b", &b)]);
        assert!(changed && second > first);
        let (changed, third) = fetch(900, &[("a", &b)]);
        assert!(changed && third > second, "swapped keys are other keys");
    }

    #[test]
    fn a_key_that_left_stays_for_the_overlap_and_one_that_was_replaced_does_not() {
        let mut source = KeySource::new(SourceConfig { overlap: 60, ..SourceConfig::default() });
        let (a, b) = (key(), key());
        let fetch = |source: &mut KeySource, now: u64, keys: &[(&str, &VerifyingKey)]| {
            let ticket = source.poll(now).unwrap();
            source.fetched(ticket, Some(document(keys).as_bytes()), now);
        };
        fetch(&mut source, 0, &[("a", &a)]);
        fetch(&mut source, 300, &[("b", &b)]);
        assert!(has(&source, "a", 301) && has(&source, "b", 301));
        let generation = source.keys(301).unwrap().generation();
        assert!(source.poll(360).is_none());
        assert!(!has(&source, "a", 360) && has(&source, "b", 360));
        assert!(source.keys(360).unwrap().generation() > generation);
        fetch(&mut source, 600, &[("b", &a)]);
        assert_eq!(source.keys(600).unwrap().len(), 1);
        assert_eq!(
            source.keys(600).unwrap().find(Some("b"), crate::Algorithm::EdDsa).unwrap(),
            &PublicKey::from(&a)
        );
    }

    #[test]
    fn a_lying_provider_changes_nothing() {
        let mut source = KeySource::new(SourceConfig::default());
        let good = document(&[("a", &key())]);
        let ticket = source.poll(0).unwrap();
        source.fetched(ticket, Some(good.as_bytes()), 0);
        let huge = format!("{{\"keys\":[{}]}}", " ".repeat(300_000));
        let mut now = 0;
        for bad in [
            "",
            "{}",
            "{\"keys\":[]}",
            "<html>",
            "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"k\":\"AA\"}]}",
            &huge,
        ] {
            now += 600;
            let ticket = source.poll(now).unwrap();
            assert!(
                matches!(source.fetched(ticket, Some(bad.as_bytes()), now), Fetched::Refused(_)),
                "{bad:.20}"
            );
            assert!(has(&source, "a", now));
        }
    }

    #[test]
    fn a_fetch_that_never_reports_back_is_given_up_and_ignored_when_late() {
        let mut source = KeySource::new(SourceConfig::default());
        let lost = source.poll(0).unwrap();
        assert!(source.poll(14).is_none());
        assert!(source.poll(29).is_none(), "given up, but too early for another");
        let next = source.poll(30).unwrap();
        let text = document(&[("a", &key())]);
        assert!(matches!(source.fetched(lost, Some(text.as_bytes()), 31), Fetched::Late));
        assert!(source.keys(31).is_none());
        assert!(matches!(source.fetched(next, Some(text.as_bytes()), 31), Fetched::Changed));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Miss,
        Poll,
        Answer(Option<usize>),
        Garbage,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_u64..400).prop_map(Step::Wait),
            Just(Step::Miss),
            Just(Step::Poll),
            prop::option::of(0_usize..4).prop_map(Step::Answer),
            Just(Step::Garbage),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_there_is_no_storm_no_second_flight_and_no_belief_beyond_the_bound(
            steps in prop::collection::vec(step(), 1..120), overlap in 0_u64..200
        ) {
            let config = SourceConfig { believed: 1500, overlap, ..SourceConfig::default() };
            let keys = [key(), key()];
            let documents = [
                document(&[("a", &keys[0])]),
                document(&[("a", &keys[0]), ("b", &keys[1])]),
                document(&[("b", &keys[1])]),
                document(&[("a", &keys[1])]),
            ];
            let mut source = KeySource::new(config);
            let (mut now, mut started, mut ticket) = (0, Vec::<u64>::new(), None);
            let (mut confirmed, mut generation, mut last) = (None::<u64>, 0, None::<KeySet>);
            for step in steps {
                match step {
                    Step::Wait(seconds) => now += seconds,
                    Step::Miss => source.miss(),
                    Step::Poll => if let Some(new) = source.poll(now) {
                        if let Some(at) = started.last() {
                            prop_assert!(now - at >= SPACING);
                            prop_assert!(ticket.is_none() || now - at >= config.timeout);
                        }
                        if let Some(at) = started.iter().rev().nth(BURST as usize - 1) {
                            prop_assert!(now - at >= config.interval);
                        }
                        started.push(now);
                        ticket = Some(new);
                    },
                    Step::Answer(which) => if let Some(ticket) = ticket.take() {
                        let text = which.map(|i| documents[i].as_bytes());
                        let outcome = source.fetched(ticket, text, now);
                        if matches!(outcome, Fetched::Changed | Fetched::Unchanged) {
                            confirmed = Some(now);
                        }
                    },
                    Step::Garbage => if let Some(ticket) = ticket.take() {
                        source.fetched(ticket, Some(b"x"), now);
                    },
                }
                let believed = confirmed.is_some_and(|at| now - at < config.believed);
                prop_assert_eq!(source.keys(now).is_some(), believed);
                // Whether they are believed or not.
                if let Some(keys) = &source.keys {
                    let changed = last.as_ref() != Some(&**keys);
                    prop_assert!(keys.generation() >= generation);
                    prop_assert_eq!(keys.generation() > generation, changed);
                    generation = keys.generation();
                    last = Some((**keys).clone());
                }
            }
        }
    }
}
