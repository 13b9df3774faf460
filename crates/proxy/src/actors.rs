//! Whom a thread knows: prepared for policies once per credential, with what they were permitted already.
//!
//! Most requests of a credential ask what another asked before. Policies are pure: the same question, put to the same engine, has
//! the same answer, as long as none of them reads the time. So a plain permit is kept with the whole question as its key; a refusal,
//! and whatever policies that only watch have something to say of, is decided anew each time.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringfence_authz::Actor;
use ringfence_snapshot::Identity;

use crate::access::subject;
use crate::delegate::Behalf;
use crate::deny::Deny;
use crate::policy::{Policy, Question, Watched, Who};
use crate::table::Edge;

/// Credentials that a thread keeps prepared.
const MAX_PREPARED: usize = 4096;
/// Permits that a thread keeps, and bytes of the longest question of one.
const MAX_PERMITS: usize = 8192;
const MAX_QUESTION: usize = 512;

/// Whom a thread has prepared, for the table in force.
#[derive(Debug, Default)]
pub(crate) struct Actors {
    shown: RefCell<HashMap<Arc<Identity>, Rc<Prepared>>>,
    /// The same by where they lie: an identity that is held has its place for itself.
    placed: RefCell<HashMap<usize, Placed>>,
    /// By the digest of the transaction token.
    behalves: RefCell<HashMap<[u8; 32], Rc<Prepared>>>,
    permits: RefCell<Permits>,
}

type Placed = (Arc<Identity>, Rc<Prepared>);

/// Whoever was verified, ready for the engine.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) actor: Actor,
    /// No other of this thread has it, now or later.
    number: u64,
}

/// Questions that were answered by a plain permit.
#[derive(Debug, Default)]
struct Permits {
    known: HashSet<Box<[u8]>>,
    /// The question at hand.
    asked: Vec<u8>,
    /// How many were prepared.
    numbers: u64,
}

impl Actors {
    /// Forgets all: there is another table.
    pub(crate) fn clear(&self) {
        self.shown.borrow_mut().clear();
        self.placed.borrow_mut().clear();
        self.behalves.borrow_mut().clear();
        self.permits.borrow_mut().known.clear();
    }

    /// Whoever was verified here.
    pub(crate) fn shown(&self, policy: &Policy, shown: &Arc<Identity>) -> Rc<Prepared> {
        let place = Arc::as_ptr(shown).addr();
        if let Some((_, prepared)) = self.placed.borrow().get(&place) {
            return prepared.clone();
        }
        let known = self.shown.borrow().get(shown).cloned();
        let prepared = known.unwrap_or_else(|| {
            let prepared = self.prepare(policy, shown);
            keep(&mut self.shown.borrow_mut(), shown.clone(), prepared.clone());
            prepared
        });
        keep(&mut self.placed.borrow_mut(), place, (shown.clone(), prepared.clone()));
        prepared
    }

    /// Whoever a transaction token names.
    pub(crate) fn behalf(&self, policy: &Policy, behalf: &Behalf) -> Rc<Prepared> {
        let digest = behalf.token().digest();
        if let Some(prepared) = self.behalves.borrow().get(digest) {
            return prepared.clone();
        }
        let prepared = self.prepare(policy, behalf.identity());
        keep(&mut self.behalves.borrow_mut(), *digest, prepared.clone());
        prepared
    }

    fn prepare(&self, policy: &Policy, identity: &Identity) -> Rc<Prepared> {
        let number = {
            let mut permits = self.permits.borrow_mut();
            permits.numbers += 1;
            permits.numbers
        };
        Rc::new(Prepared { actor: policy.engine().actor(&subject(identity)), number })
    }

    /// As [`Policy::judge`], which is asked only what was not permitted before.
    pub(crate) fn judge(
        &self,
        policy: &Policy,
        who: &Who<'_>,
        edge: &Edge,
        question: Question<'_>,
    ) -> (Result<(), Deny>, Option<Watched>) {
        if !policy.engine().is_timeless() {
            return policy.judge(who, edge, question);
        }
        {
            let permits = &mut *self.permits.borrow_mut();
            permits.ask(policy.engine().generation(), who, (&edge.caller, &edge.callee), question);
            if permits.known.contains(&*permits.asked) {
                return (Ok(()), None);
            }
        }
        let judged = policy.judge(who, edge, question);
        if matches!(judged, (Ok(()), None)) {
            self.permits.borrow_mut().keep();
        }
        judged
    }
}

impl Permits {
    /// Writes the question down: whatever a decision may depend on, each part by its length or with a fixed one.
    fn ask(&mut self, engine: u64, who: &Who<'_>, (caller, callee): (&str, &str), question: Question<'_>) {
        let Question { method, path, host, source, chain } = question;
        self.asked.clear();
        self.asked.extend_from_slice(&engine.to_le_bytes());
        match who {
            Who::Anyone => self.asked.push(0),
            Who::Service(name) => {
                self.asked.push(1);
                self.part(name);
            }
            Who::Prepared(prepared) => {
                self.asked.push(2);
                self.asked.extend_from_slice(&prepared.number.to_le_bytes());
            }
        }
        match source.map(|source| source.to_canonical()) {
            None => self.asked.push(0),
            Some(IpAddr::V4(address)) => {
                self.asked.push(4);
                self.asked.extend_from_slice(&address.octets());
            }
            Some(IpAddr::V6(address)) => {
                self.asked.push(6);
                self.asked.extend_from_slice(&address.octets());
            }
        }
        for part in [caller, callee, method, path, host] {
            self.part(part);
        }
        match chain {
            None => self.asked.push(0),
            Some(chain) => {
                self.asked.push(1);
                self.part(chain.as_str());
            }
        }
    }

    fn part(&mut self, text: &str) {
        self.asked.extend_from_slice(&text.len().to_le_bytes());
        self.asked.extend_from_slice(text.as_bytes());
    }

    /// Keeps the question as one that was permitted.
    fn keep(&mut self) {
        if self.asked.len() > MAX_QUESTION {
            return;
        }
        if self.known.len() >= MAX_PERMITS {
            self.known.clear();
        }
        self.known.insert(self.asked.as_slice().into());
    }
}

fn keep<K: std::hash::Hash + Eq, V>(all: &mut HashMap<K, V>, key: K, value: V) {
    if all.len() >= MAX_PREPARED {
        all.clear();
    }
    all.insert(key, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Asked = (u64, Option<String>, [String; 5], Option<IpAddr>);

    fn key(permits: &mut Permits, (engine, service, parts, source): &Asked) -> Vec<u8> {
        let [caller, callee, method, path, host] = parts;
        let who = service.as_ref().map_or(Who::Anyone, |name| Who::Service(name));
        let question = Question { method, path, host, source: *source, chain: None };
        permits.ask(*engine, &who, (caller, callee), question);
        permits.asked.clone()
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let text = || prop::sample::select(vec!["", "a", "b", "ab", "a/", "\0"]).prop_map(str::to_owned);
        let address = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "::1", "::ffff:10.0.0.1"]);
        let address = prop::option::of(address.prop_map(|address| address.parse().unwrap()));
        (0_u64..2, prop::option::of(text()), [text(), text(), text(), text(), text()], address)
    }

    proptest! {
        #[test]
        fn questions_that_differ_in_anything_are_kept_apart(one in asked(), other in asked()) {
            let mut permits = Permits::default();
            let (first, second) = (key(&mut permits, &one), key(&mut permits, &other));
            let plain = |asked: &Asked| (asked.0, asked.1.clone(), asked.2.clone(), asked.3.map(|a| a.to_canonical()));
            prop_assert_eq!(first == second, plain(&one) == plain(&other));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut permits = Permits::default();
        for n in 0..=MAX_PERMITS {
            permits.asked = n.to_le_bytes().to_vec();
            permits.keep();
        }
        assert_eq!(permits.known.len(), 1);
        permits.asked = vec![0; MAX_QUESTION + 1];
        permits.keep();
        assert_eq!(permits.known.len(), 1);
    }
}
