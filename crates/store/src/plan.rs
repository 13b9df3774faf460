//! What a group of batches does to the database, worked out before anything is written.
//!
//! Whoever writes holds the lock on the head, so nothing changes between reading what a plan needs and writing what it says. Working it
//! out here keeps the rules in one place for both engines, and a group costs as many statements as it touches tables.

use std::collections::{BTreeMap, HashMap};

use crate::audit;
use crate::batch::{Batch, Change, Issued};
use crate::error::StoreError;

/// Where the counters stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) revision: u64,
    pub(crate) hash: String,
}

/// What was found under the lock.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) head: Head,
    /// Keys that something was written under, with its revision.
    pub(crate) applied: HashMap<String, u64>,
    /// Revisions of the documents that somebody has expectations of.
    pub(crate) documents: HashMap<(String, String), u64>,
}

/// A document as it is to stand after the group; without a body it is to be gone.
pub(crate) type Written<'a> = Option<(u64, &'a str, Option<&'a [u8]>)>;

/// A row of the audit trail.
#[derive(Debug)]
pub(crate) struct Audited<'a> {
    pub(crate) revision: u64,
    pub(crate) at: u64,
    pub(crate) actor: &'a str,
    pub(crate) action: &'a str,
    pub(crate) detail: String,
    pub(crate) hash: String,
}

/// A row of the outbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told<'a> {
    pub(crate) revision: u64,
    pub(crate) position: u64,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) effect: &'static str,
}

/// What to write.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) head: Head,
    /// What each batch's caller is told once it is committed.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) documents: BTreeMap<(&'a str, &'a str), Written<'a>>,
    pub(crate) audit: Vec<Audited<'a>>,
    pub(crate) outbox: Vec<Told<'a>>,
    pub(crate) issued: Vec<(u64, &'a Issued)>,
    pub(crate) applied: Vec<(&'a str, u64)>,
}

/// What becomes of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has this revision.
    At(u64),
    /// The document of this kind and name is not what was expected.
    Conflict(String, String),
}

impl Outcome {
    pub(crate) fn tell(self) -> Result<u64, StoreError> {
        match self {
            Self::At(revision) => Ok(revision),
            Self::Conflict(kind, name) => Err(StoreError::Conflict { kind, name }),
        }
    }
}

impl<'a> Plan<'a> {
    /// `at` is the time in Unix seconds.
    pub(crate) fn of(found: Found, batches: &'a [Batch], at: u64) -> Self {
        let Found { head, applied, documents } = found;
        let mut plan = Self { head, ..Self::default() };
        for batch in batches {
            let known = batch.key.as_deref().and_then(|key| {
                let now = plan.applied.iter().find(|(other, _)| *other == key).map(|(_, revision)| *revision);
                now.or_else(|| applied.get(key).copied())
            });
            let outcome = match known {
                Some(revision) => Outcome::At(revision),
                None => match plan.unmet(&documents, batch) {
                    Some((kind, name)) => Outcome::Conflict(kind.clone(), name.clone()),
                    None => Outcome::At(plan.add(batch, at)),
                },
            };
            plan.outcomes.push(outcome);
        }
        plan
    }

    /// Whether anything needs a commit. An answer found under a key needs one too: only a commit after it says that it is as durable as
    /// the database promises.
    pub(crate) fn is_needed(&self) -> bool {
        self.outcomes.iter().any(|outcome| matches!(outcome, Outcome::At(_)))
    }

    /// Whether remembered keys are to be looked through for old ones.
    pub(crate) fn forgets(&self) -> Option<u64> {
        let due = self.audit.iter().any(|row| row.revision % 1024 == 0);
        due.then(|| self.head.revision.checked_sub(crate::batch::KEYS)).flatten()
    }

    fn unmet<'b>(
        &self,
        documents: &HashMap<(String, String), u64>,
        batch: &'b Batch,
    ) -> Option<(&'b String, &'b String)> {
        let unmet = batch.expectations.iter().find(|(kind, name, expected)| {
            let found = match self.documents.get(&(kind.as_str(), name.as_str())) {
                Some(written) => written.map(|(revision, ..)| revision),
                None => documents.get(&(kind.clone(), name.clone())).copied(),
            };
            found != *expected
        });
        unmet.map(|(kind, name, _)| (kind, name))
    }

    fn add(&mut self, batch: &'a Batch, at: u64) -> u64 {
        let revision = self.head.revision + 1;
        let mut position = 0;
        let mut tell = |outbox: &mut Vec<Told<'a>>, kind, name, effect| {
            outbox.push(Told { revision, position, kind, name, effect });
            position += 1;
        };
        for change in &batch.changes {
            let (kind, name, written, effect) = match change {
                Change::Put { kind, name, body, sealed } => {
                    (kind, name, Some((revision, body.as_str(), sealed.as_deref())), "put")
                }
                Change::Delete { kind, name } => (kind, name, None, "delete"),
            };
            self.documents.insert((kind, name), written);
            tell(&mut self.outbox, kind, name, effect);
        }
        if !batch.issued.is_empty() {
            // One row for all: who follows the outbox reads the records by revision.
            tell(&mut self.outbox, "issued", &batch.action, "append");
        }
        self.issued.extend(batch.issued.iter().map(|record| (revision, record)));
        self.applied.extend(batch.key.as_deref().map(|key| (key, revision)));
        let detail = batch.detail.to_string();
        let hash = audit::hash(&self.head.hash, revision, at, &batch.actor, &batch.action, &detail);
        self.head = Head { revision, hash: hash.clone() };
        self.audit.push(Audited { revision, at, actor: &batch.actor, action: &batch.action, detail, hash });
        revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(name: &str) -> Batch {
        Batch::new("test", "put").put("thing", name, &1).unwrap()
    }

    #[test]
    fn later_batches_of_a_group_see_what_earlier_ones_write() {
        let batches = [
            put("a").expect("thing", "a", None),
            put("a").expect("thing", "a", None),
            put("a").expect("thing", "a", Some(8)),
        ];
        let found = Found { head: Head { revision: 7, hash: "x".into() }, ..Found::default() };
        let plan = Plan::of(found, &batches, 1);
        assert_eq!(
            plan.outcomes,
            [Outcome::At(8), Outcome::Conflict("thing".into(), "a".into()), Outcome::At(9)]
        );
        assert_eq!(plan.documents.len(), 1);
        assert_eq!((plan.audit.len(), plan.outbox.len(), plan.head.revision), (2, 2, 9));
    }

    #[test]
    fn a_key_is_written_once_within_a_group_and_over_groups() {
        let batches = [put("a").key("k"), put("b").key("k"), put("c").key("old")];
        let found = Found { applied: HashMap::from([("old".to_owned(), 3)]), ..Found::default() };
        let plan = Plan::of(found, &batches, 1);
        assert_eq!(plan.outcomes, [Outcome::At(1), Outcome::At(1), Outcome::At(3)]);
        assert_eq!(plan.audit.len(), 1);
    }

    #[test]
    fn a_group_that_writes_nothing_but_answers_from_a_key_is_committed_all_the_same() {
        let found = || Found { applied: HashMap::from([("old".to_owned(), 3)]), ..Found::default() };
        assert!(Plan::of(found(), &[put("a").key("old")], 1).is_needed());
        assert!(!Plan::of(found(), &[put("a").expect("thing", "a", Some(1))], 1).is_needed());
    }
}
