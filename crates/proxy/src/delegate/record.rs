//! Which transaction tokens were delivered to which service, so that only those count when it sends one on.
//!
//! A service that got hold of a token by another way, from a log or another service, cannot act by it. The record is shared by all
//! threads, since a service calls on over any of them, and has bounds for each service: one that is flooded loses the
//! oldest token, and what is not in it does not count.
//!
//! One token may come over several ways. Which of them a call goes on is told by its trace alone, and where that tells nothing, the record
//! says so: a guess would be the caller's choice. Traces are never forgotten before their token for that reason; those beyond the bound are
//! not taken in, and tell nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ringfence_event::TraceId;

use super::chain::Chain;
use super::fifo::Fifo;

/// Tokens of one service.
const MAX_TOKENS: usize = 16_384;
/// Traces of one token, and of all tokens of one service.
const MAX_OF_TOKEN: usize = 8192;
const MAX_TRACES: usize = 131_072;

type Digest = [u8; 32];

/// Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Record {
    services: RwLock<HashMap<Arc<str>, Arc<Mutex<Delivered>>>>,
}

/// What one service was given.
#[derive(Debug)]
struct Delivered {
    tokens: Fifo<Digest, Token>,
    /// Traces of all tokens.
    traces: usize,
}

#[derive(Debug)]
struct Token {
    /// Unix time in seconds.
    ends: u64,
    newest: Chain,
    /// It came along more than one way, so that the trace decides which.
    several: bool,
    /// By the trace it came with; nothing if it came along more than one way with that, too.
    traces: HashMap<TraceId, Option<Chain>>,
}

/// How a token came to a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Came {
    /// The services on the way.
    pub(crate) chain: Chain,
    /// Whether it can have been no other way. Otherwise it is the newest.
    pub(crate) is_sure: bool,
}

impl Record {
    /// Remembers that `service` gets this token now. `chain` holds the services on the way, without itself.
    pub(crate) fn deliver(
        &self,
        service: &Arc<str>,
        token: &Digest,
        ends: u64,
        trace: TraceId,
        chain: &Chain,
        now: u64,
    ) {
        let delivered = self.of(service).unwrap_or_else(|| {
            let mut services = self.services.write().unwrap_or_else(PoisonError::into_inner);
            services.entry(service.clone()).or_default().clone()
        });
        delivered.lock().unwrap_or_else(PoisonError::into_inner).put(token, ends, trace, chain, now);
    }

    /// How `service` was given this token, if it was and the token has not ended.
    pub(crate) fn find(&self, service: &str, token: &Digest, trace: TraceId, now: u64) -> Option<Came> {
        let delivered = self.of(service)?;
        let delivered = delivered.lock().unwrap_or_else(PoisonError::into_inner);
        delivered.tokens.get(token).filter(|token| now < token.ends).map(|token| token.came(trace))
    }

    /// Forgets what services were given that are not there any more.
    pub(crate) fn follow(&self, exists: impl Fn(&str) -> bool) {
        self.services.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| exists(name));
    }

    fn of(&self, service: &str) -> Option<Arc<Mutex<Delivered>>> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }
}

impl Default for Delivered {
    fn default() -> Self {
        Self { tokens: Fifo::new(MAX_TOKENS), traces: 0 }
    }
}

impl Delivered {
    fn put(&mut self, digest: &Digest, ends: u64, trace: TraceId, chain: &Chain, now: u64) {
        while let Some(ended) = self.tokens.pop_if(|token| token.ends <= now) {
            self.traces -= ended.traces.len();
        }
        if self.tokens.get(digest).is_none() {
            let token = Token { ends, newest: chain.clone(), several: false, traces: HashMap::new() };
            if let Some(gone) = self.tokens.insert(*digest, token) {
                self.traces -= gone.traces.len();
            }
        }
        let Some(token) = self.tokens.get_mut(digest) else { return };
        if token.newest != *chain {
            token.several = true;
            token.newest = chain.clone();
        }
        let has_room = token.traces.len() < MAX_OF_TOKEN && self.traces < MAX_TRACES;
        match token.traces.entry(trace) {
            Entry::Occupied(known) if known.get().as_ref() == Some(chain) => {}
            Entry::Occupied(mut known) => *known.get_mut() = None,
            Entry::Vacant(place) if has_room => {
                place.insert(Some(token.newest.clone()));
                self.traces += 1;
            }
            Entry::Vacant(_) => {}
        }
    }
}

impl Token {
    fn came(&self, trace: TraceId) -> Came {
        if !self.several {
            return Came { chain: self.newest.clone(), is_sure: true };
        }
        let by_trace = self.traces.get(&trace).and_then(Option::as_ref);
        Came { chain: by_trace.unwrap_or(&self.newest).clone(), is_sure: by_trace.is_some() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use ringfence_event::TraceContext;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn digest(number: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        digest
    }

    fn trace(number: u32) -> TraceId {
        let text = format!("00-{:032x}-00000000000000aa-01", u64::from(number) + 1);
        TraceContext::parse(text.as_bytes()).unwrap().trace
    }

    fn chain(text: &str) -> Chain {
        if text.is_empty() { Chain::default() } else { Chain::parse(text.as_bytes()).unwrap() }
    }

    fn sure(text: &str) -> Came {
        Came { chain: chain(text), is_sure: true }
    }

    fn newest(text: &str) -> Came {
        Came { chain: chain(text), is_sure: false }
    }

    fn portal() -> Arc<str> {
        "portal".into()
    }

    #[test]
    fn a_token_counts_for_the_service_that_got_it_until_it_ends() {
        let record = Record::default();
        assert_eq!(record.find("portal", &digest(1), trace(1), NOW), None);
        record.deliver(&portal(), &digest(1), NOW + 120, trace(1), &chain(""), NOW);
        assert_eq!(record.find("portal", &digest(1), trace(9), NOW + 119), Some(sure("")));
        assert_eq!(record.find("portal", &digest(1), trace(1), NOW + 120), None, "it has ended");
        assert_eq!(record.find("patients", &digest(1), trace(1), NOW), None, "another service");
        assert_eq!(record.find("portal", &digest(2), trace(1), NOW), None, "another token");
        record.follow(|name| name != "portal");
        assert_eq!(record.find("portal", &digest(1), trace(1), NOW), None, "the service went and came again");
    }

    #[test]
    fn the_trace_decides_between_two_ways_and_where_it_says_nothing_nothing_is_sure() {
        let record = Record::default();
        let deliver =
            |number, way| record.deliver(&portal(), &digest(1), NOW + 120, trace(number), &chain(way), NOW);
        let way = |number| record.find("portal", &digest(1), trace(number), NOW).unwrap();
        deliver(1, "portal");
        assert_eq!(way(9), sure("portal"), "there is one way only");
        deliver(2, "portal,archive");
        deliver(3, "portal");
        assert_eq!((way(1), way(2), way(3)), (sure("portal"), sure("portal,archive"), sure("portal")));
        assert_eq!(way(4), newest("portal"), "it may have been either");
    }

    #[test]
    fn two_ways_behind_one_service_with_one_trace_are_not_told_apart() {
        let record = Record::default();
        let middle: Arc<str> = "middle".into();
        for way in ["portal,x", "portal", "portal"] {
            record.deliver(&middle, &digest(1), NOW + 120, trace(1), &chain(way), NOW);
        }
        let way = |number| record.find("middle", &digest(1), trace(number), NOW).unwrap();
        assert_eq!(way(1), newest("portal"), "whoever came last must not choose for the other");
        // However many traces follow, none makes it forget that.
        for number in 2..2 * MAX_OF_TOKEN as u32 {
            record.deliver(&middle, &digest(1), NOW + 120, trace(number), &chain("portal"), NOW);
        }
        record.deliver(&middle, &digest(1), NOW + 120, trace(1), &chain("portal"), NOW);
        assert_eq!(way(1), newest("portal"));
        assert_eq!(way(MAX_OF_TOKEN as u32 - 1), sure("portal"));
        assert_eq!(way(2 * MAX_OF_TOKEN as u32 - 1), newest("portal"), "it was not taken in any more");
    }

    #[test]
    fn a_flood_makes_the_oldest_go_and_takes_nothing_of_other_services() {
        let record = Record::default();
        record.deliver(&"patients".into(), &digest(0), NOW + 120, trace(1), &chain("portal"), NOW);
        for number in 0..=MAX_TOKENS as u32 {
            record.deliver(&portal(), &digest(number), NOW + 120, trace(number), &chain(""), NOW);
        }
        let known = |number| record.find("portal", &digest(number), trace(1), NOW).is_some();
        assert!(!known(0), "what is not in the record does not count");
        assert!(known(1) && known(MAX_TOKENS as u32));
        assert!(record.find("patients", &digest(0), trace(1), NOW).is_some());
        // All traces have a bound.
        for number in 0..2 * MAX_TRACES as u32 {
            record.deliver(&portal(), &digest(1 + number / 1024), NOW + 120, trace(number), &chain("a"), NOW);
        }
        let delivered = record.of("portal").unwrap();
        let delivered = delivered.lock().unwrap();
        assert_eq!(delivered.tokens.len(), MAX_TOKENS);
        assert_eq!(delivered.traces, MAX_TRACES);
    }

    proptest! {
        #[test]
        fn it_says_what_a_plain_list_would_say(steps in prop::collection::vec((0_u32..4, 0_u32..6, 0_usize..3, 0_u64..4), 1..80)) {
            let ways = ["", "a", "a,b"].map(chain);
            let record = Record::default();
            let mut list: Vec<(u32, u32, usize)> = Vec::new();
            let mut now = NOW;
            for (token, trace_number, way, later) in steps {
                now += later;
                let ends = NOW + 40 + u64::from(token);
                record.deliver(&portal(), &digest(token), ends, trace(trace_number), &ways[way], now);
                list.push((token, trace_number, way));
                for token in 0..4 {
                    let of_token = || list.iter().filter(move |(t, ..)| *t == token);
                    let all: BTreeSet<usize> = of_token().map(|(.., way)| *way).collect();
                    let of_trace: BTreeSet<usize> =
                        of_token().filter(|(_, t, _)| *t == trace_number).map(|(.., way)| *way).collect();
                    let candidates = if of_trace.is_empty() || all.len() == 1 { &all } else { &of_trace };
                    let last = of_token().next_back().map(|(.., way)| *way);
                    let is_sure = candidates.len() == 1;
                    let chosen = if is_sure { candidates.first().copied() } else { last };
                    let expected = chosen.filter(|_| now < NOW + 40 + u64::from(token));
                    let expected = expected.map(|way| Came { chain: ways[way].clone(), is_sure });
                    prop_assert_eq!(record.find("portal", &digest(token), trace(trace_number), now), expected);
                }
            }
        }
    }
}
