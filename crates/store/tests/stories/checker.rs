//! A small checker of histories: whether what clients were told can be explained by one order of all writes, the one that the revisions
//! name, that agrees with the time at which each of them happened.

use std::collections::{BTreeMap, HashMap};

/// When something was asked and when it was answered, by one clock of all clients that only counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u64,
    /// `u64::MAX` when there was no answer.
    pub(crate) end: u64,
}

/// What a client was told about a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Written(u64),
    Conflict,
    Nothing,
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: String,
    pub(crate) expects: Vec<(String, Option<u64>)>,
    /// A name with its new value, or without one when it goes.
    pub(crate) sets: Vec<(String, Option<u64>)>,
    pub(crate) span: Span,
    pub(crate) told: Told,
}

#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) name: String,
    pub(crate) span: Span,
    /// Revision and value.
    pub(crate) found: Option<(u64, u64)>,
}

/// What a server said its newest revision was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) server: usize,
    pub(crate) at: u64,
    pub(crate) revision: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) seen: Vec<Seen>,
    /// In the end: the key of each revision, from the first on.
    pub(crate) trail: Vec<String>,
    /// In the end: all documents.
    pub(crate) documents: BTreeMap<String, (u64, u64)>,
}

/// Each revision of a name, and what it had then.
type Versions = BTreeMap<u64, Option<u64>>;

struct Checker<'a> {
    history: &'a History,
    revision_of: HashMap<&'a str, u64>,
    versions: HashMap<&'a str, Versions>,
}

impl History {
    /// Explains all of it, or says what cannot be explained.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut checker = Checker { history: self, revision_of: HashMap::new(), versions: HashMap::new() };
        checker.trail()?;
        checker.replay()?;
        checker.real_time()?;
        checker.answers()
    }
}

impl<'a> Checker<'a> {
    /// Each acknowledged write is there once, at its revision; nothing that was refused is there at all.
    fn trail(&mut self) -> Result<(), String> {
        for (revision, key) in (1..).zip(&self.history.trail) {
            if self.revision_of.insert(key, revision).is_some() {
                return Err(format!("{key} was written twice, again at {revision}"));
            }
        }
        for write in &self.history.writes {
            let found = self.revision_of.get(write.key.as_str()).copied();
            match (&write.told, found) {
                (Told::Written(revision), Some(found)) if *revision == found => {}
                (Told::Written(revision), _) => {
                    return Err(format!("{} was acknowledged at {revision}, it is at {found:?}", write.key));
                }
                (Told::Conflict | Told::Nothing, Some(found)) => {
                    return Err(format!("{} was not to be written, it is at {found}", write.key));
                }
                (Told::Conflict | Told::Nothing | Told::Unknown, _) => {}
            }
        }
        Ok(())
    }

    /// One after another, each write found what it expected, and together they made what is there.
    fn replay(&mut self) -> Result<(), String> {
        let writes: HashMap<&str, &Write> = self.history.writes.iter().map(|w| (w.key.as_str(), w)).collect();
        let mut documents: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (revision, key) in (1..).zip(&self.history.trail) {
            let Some(write) = writes.get(key.as_str()) else { return Err(format!("nobody wrote {key}")) };
            for (name, expected) in &write.expects {
                let found = documents.get(name).map(|(revision, _)| *revision);
                if found != *expected {
                    return Err(format!(
                        "{key} expected {name} at {expected:?}, at {revision} it was at {found:?}"
                    ));
                }
            }
            for (name, value) in &write.sets {
                match value {
                    Some(value) => documents.insert(name.clone(), (revision, *value)),
                    None => documents.remove(name),
                };
                self.versions.entry(name).or_default().insert(revision, *value);
            }
        }
        if documents != self.history.documents {
            return Err(format!("in the end there is {:?} instead of {documents:?}", self.history.documents));
        }
        Ok(())
    }

    /// What was answered before something else was asked, comes before it.
    fn real_time(&self) -> Result<(), String> {
        for write in &self.history.writes {
            let Some(revision) = self.revision_of.get(write.key.as_str()) else { continue };
            if *revision <= self.least(write.span.start) {
                return Err(format!("{} has revision {revision}, which was over before it began", write.key));
            }
        }
        let mut last: HashMap<usize, u64> = HashMap::new();
        let mut seen = self.history.seen.clone();
        seen.sort_by_key(|seen| seen.at);
        for seen in seen {
            let before = last.insert(seen.server, seen.revision).unwrap_or(0);
            if seen.revision < before {
                return Err(format!("server {} went back from {before} to {}", seen.server, seen.revision));
            }
            if seen.revision > self.most(seen.at) {
                return Err(format!("server {} saw {} before it was written", seen.server, seen.revision));
            }
        }
        Ok(())
    }

    /// What was read, and that something was not as expected, was so at some moment between question and answer.
    fn answers(&self) -> Result<(), String> {
        for read in &self.history.reads {
            let fits = |revision| {
                let found = self.at(&read.name, revision);
                found.and_then(|(revision, value)| Some((revision, value?))) == read.found
            };
            if !self.moments(read.span).any(fits) {
                let moments = self.moments(read.span);
                return Err(format!(
                    "{} was read as {:?}, which it was not in {moments:?}",
                    read.name, read.found
                ));
            }
        }
        for write in self.history.writes.iter().filter(|write| write.told == Told::Conflict) {
            let unmet = |revision| {
                write.expects.iter().any(|(name, expected)| {
                    let found = self.at(name, revision).filter(|(_, value)| value.is_some());
                    found.map(|(revision, _)| revision) != *expected
                })
            };
            if !self.moments(write.span).any(unmet) {
                return Err(format!("{} was refused, but all was as it expected", write.key));
            }
        }
        Ok(())
    }

    /// What a name had after a revision, and since when.
    fn at(&self, name: &str, revision: u64) -> Option<(u64, Option<u64>)> {
        let versions = self.versions.get(name)?;
        versions.range(..=revision).next_back().map(|(revision, value)| (*revision, *value))
    }

    /// After which revisions something may have happened.
    fn moments(&self, span: Span) -> std::ops::RangeInclusive<u64> {
        self.least(span.start)..=self.most(span.end)
    }

    /// The newest revision that was acknowledged, or read, before `moment`.
    fn least(&self, moment: u64) -> u64 {
        let history = self.history;
        let written = history.writes.iter().filter_map(|write| match write.told {
            Told::Written(revision) if write.span.end < moment => Some(revision),
            _ => None,
        });
        let read = history.reads.iter().filter(|read| read.span.end < moment);
        let read = read.filter_map(|read| read.found.map(|(revision, _)| revision));
        written.chain(read).max().unwrap_or(0)
    }

    /// The last revision before the first that was not even asked for at `moment`.
    fn most(&self, moment: u64) -> u64 {
        let later = self.history.writes.iter().filter(|write| write.span.start > moment);
        let later = later.filter_map(|write| self.revision_of.get(write.key.as_str()));
        later.min().map_or(self.history.trail.len() as u64, |revision| revision - 1)
    }
}

/// A history that is right: two writes one after the other, a refused one, and what was read in between.
fn right() -> History {
    let span = |start, end| Span { start, end };
    let write = |key: &str, expects: Option<u64>, value, span, told| Write {
        key: key.into(),
        expects: vec![("a".into(), expects)],
        sets: vec![("a".into(), Some(value))],
        span,
        told,
    };
    History {
        writes: vec![
            write("first", None, 10, span(1, 4), Told::Written(1)),
            write("late", None, 11, span(5, 6), Told::Conflict),
            write("second", Some(1), 12, span(7, 9), Told::Written(2)),
        ],
        reads: vec![
            Read { name: "a".into(), span: span(2, 3), found: None },
            Read { name: "a".into(), span: span(8, 10), found: Some((1, 10)) },
            Read { name: "a".into(), span: span(11, 12), found: Some((2, 12)) },
        ],
        seen: vec![Seen { server: 0, at: 5, revision: 1 }, Seen { server: 0, at: 10, revision: 2 }],
        trail: vec!["first".into(), "second".into()],
        documents: BTreeMap::from([("a".into(), (2, 12))]),
    }
}

#[test]
fn a_right_history_is_explained_and_each_wrong_one_is_not() {
    right().check().unwrap();
    type Spoil = fn(&mut History);
    let wrong: [(&str, Spoil); 11] = [
        ("an acknowledged write is lost", |h| {
            h.trail.pop();
            h.documents.insert("a".into(), (1, 10));
            h.reads.pop();
        }),
        ("a write is there twice", |h| h.trail.push("first".into())),
        ("a refused write is there", |h| h.trail.push("late".into())),
        ("somebody else's write is there", |h| h.trail.push("foreign".into())),
        ("a write is acknowledged at another revision", |h| h.writes[0].told = Told::Written(2)),
        ("an expectation did not hold", |h| h.writes[2].expects[0].1 = None),
        ("a write is refused without reason", |h| h.writes[1].expects[0].1 = Some(1)),
        ("what is read was never so", |h| h.reads[2].found = Some((2, 13))),
        ("a read goes back", |h| h.reads[2].found = Some((1, 10))),
        ("a server goes back", |h| h.seen.push(Seen { server: 0, at: 11, revision: 1 })),
        ("the end is not what was written", |h| {
            h.documents.clear();
        }),
    ];
    for (what, spoil) in wrong {
        let mut history = right();
        spoil(&mut history);
        assert!(history.check().is_err(), "{what}, and it is not noticed");
    }
    // The order of revisions is not that of time.
    let mut history = right();
    history.writes[2].span = Span { start: 2, end: 3 };
    history.writes[0].span = Span { start: 5, end: 6 };
    history.reads.clear();
    assert!(history.check().is_err());
}
