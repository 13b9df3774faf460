//! What was revoked, as control tells it and the disk remembers it: kept by the control thread, given to all others as one thing.
//!
//! A list that has not come is not an empty one. Until the whole of it is known, from control or from a file that is whole, no
//! credential counts and no SVID is believed.

use std::collections::HashMap;
use std::sync::Arc;

use ringfence_snapshot::node::{MAX_REVOCATIONS, MAX_REVOKED, Revocations as Told};
use ringfence_spiffe::{RevokedSvids, SpiffeId};
use ringfence_token::{Full, Revocation, Revocations, SVID, What};

/// What all threads judge by.
#[derive(Debug)]
pub(crate) struct Revoked {
    pub(crate) tokens: Revocations,
    pub(crate) svids: Arc<RevokedSvids>,
}

type Entries = HashMap<(String, What), Revocation>;

/// What the control thread knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// None until the whole list was known once.
    entries: Option<Entries>,
    /// What is being told.
    coming: Option<Entries>,
}

impl Known {
    /// What the disk remembers, of which what is over by `now` is forgotten.
    pub(crate) fn kept(kept: Vec<Revocation>, now: u64) -> Result<Self, String> {
        let mut entries = Entries::new();
        kept.into_iter().filter(|one| one.forget_at > now).try_for_each(|one| add(&mut entries, one))?;
        Ok(Self { entries: Some(entries), coming: None })
    }

    /// Takes what control tells; whether something else counts now.
    pub(crate) fn take(&mut self, told: Told) -> Result<bool, String> {
        match told {
            Told::Part { first, last, entries } => {
                if first {
                    self.coming = Some(Entries::new());
                }
                // Nothing is begun when a part made no sense: the list in force stays.
                let Some(coming) = &mut self.coming else { return Ok(false) };
                let taken = add_all(coming, entries);
                if taken.is_err() {
                    self.coming = None;
                }
                taken?;
                if last {
                    self.entries = self.coming.take();
                }
                Ok(last)
            }
            Told::Added(entries) => {
                if let Some(coming) = &mut self.coming {
                    add_all(coming, entries.clone())?;
                }
                // Before the whole list has come, none is believed anyway, and it will have these.
                let Some(known) = &mut self.entries else { return Ok(false) };
                add_all(known, entries)?;
                Ok(true)
            }
        }
    }

    /// What counts, for all threads; none while it is not known.
    pub(crate) fn compiled(&mut self, now: u64) -> Option<Revoked> {
        let entries = self.entries.as_mut()?;
        entries.retain(|_, one| one.forget_at > now);
        let (mut tokens, mut svids) = (Revocations::new(MAX_REVOKED), RevokedSvids::default());
        for one in entries.values() {
            match (&*one.issuer, &one.what) {
                (SVID, What::Token(serial)) => svids.add_serial(serial.as_str()),
                (SVID, What::Subject(id)) => {
                    // `add` made sure that it is one.
                    if let Ok(id) = SpiffeId::parse(id) {
                        svids.add_id(id, one.issued_until);
                    }
                }
                // `add` made sure that there are not more than fit.
                _ => drop(tokens.add(one)),
            }
        }
        Some(Revoked { tokens, svids: Arc::new(svids) })
    }

    /// All of it, for the disk.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Revocation> {
        self.entries.iter().flat_map(HashMap::values)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.as_ref().map_or(0, HashMap::len)
    }
}

fn add_all(entries: &mut Entries, told: Vec<Revocation>) -> Result<(), String> {
    if told.len() > MAX_REVOCATIONS {
        return Err(format!("more than {MAX_REVOCATIONS} revocations came in one message"));
    }
    told.into_iter().try_for_each(|one| add(entries, one))
}

fn add(entries: &mut Entries, one: Revocation) -> Result<(), String> {
    let is_svid = one.issuer == SVID;
    let readable = match &one.what {
        What::Subject(id) if is_svid => SpiffeId::parse(id).is_ok(),
        _ => true,
    };
    if !one.fits() || !readable {
        return Err("a revocation names nothing that can be revoked".into());
    }
    let full = entries.len() >= MAX_REVOKED;
    match entries.get_mut(&(one.issuer.clone(), one.what.clone())) {
        Some(before) => {
            before.issued_until = before.issued_until.max(one.issued_until);
            before.forget_at = before.forget_at.max(one.forget_at);
        }
        None if full => return Err(Full.to_string()),
        None => drop(entries.insert((one.issuer.clone(), one.what.clone()), one)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, forget_at: u64) -> Revocation {
        let what = What::Subject(name.into());
        Revocation { issuer: "https://id.example".into(), what, issued_until: 5, forget_at }
    }

    fn svid(what: What, issued_until: u64) -> Revocation {
        Revocation { issuer: SVID.into(), what, issued_until, forget_at: 100 }
    }

    fn part(first: bool, last: bool, entries: Vec<Revocation>) -> Told {
        Told::Part { first, last, entries }
    }

    #[test]
    fn nothing_counts_before_the_list_is_whole_and_what_is_new_counts_at_once() {
        let mut known = Known::default();
        assert!(known.compiled(0).is_none());
        assert_eq!(known.take(Told::Added(vec![user("early", 100)])), Ok(false));
        assert_eq!(known.take(part(true, false, vec![user("ann", 100)])), Ok(false));
        assert_eq!(known.take(Told::Added(vec![user("between", 100)])), Ok(false));
        assert!(known.compiled(0).is_none());
        assert_eq!(known.take(part(false, true, vec![user("bob", 50)])), Ok(true));
        assert_eq!(known.compiled(0).unwrap().tokens.len(), 3);
        assert_eq!(known.take(Told::Added(vec![user("late", 100), user("ann", 100)])), Ok(true));
        assert_eq!(known.compiled(0).unwrap().tokens.len(), 4);
        assert_eq!(known.compiled(50).unwrap().tokens.len(), 3, "what is over is forgotten");
        // Another list takes its place, also one with less.
        known.take(part(true, true, vec![user("ann", 100)])).unwrap();
        assert_eq!((known.len(), known.compiled(50).unwrap().tokens.len()), (1, 1));
    }

    #[test]
    fn svids_are_told_apart_from_tokens_and_what_makes_no_sense_changes_nothing() {
        let id = "spiffe://x/service/a";
        let all = vec![svid(What::Token("0a".into()), u64::MAX), svid(What::Subject(id.into()), 7)];
        let mut known = Known::kept(all, 1).unwrap();
        let revoked = known.compiled(1).unwrap();
        let id = SpiffeId::parse(id).unwrap();
        assert!(revoked.svids.check(&id, "01", 7).is_err() && revoked.svids.check(&id, "0a", 9).is_err());
        revoked.svids.check(&id, "01", 8).unwrap();
        assert!(revoked.tokens.is_empty());
        for wrong in [svid(What::Subject("nobody".into()), 1), svid(What::Token(String::new()), 1)] {
            assert!(known.take(part(true, true, vec![wrong.clone()])).is_err());
            assert!(known.take(Told::Added(vec![wrong.clone()])).is_err());
            assert!(Known::kept(vec![wrong], 1).is_err());
        }
        let many = vec![user("ann", 9); MAX_REVOCATIONS + 1];
        assert!(known.take(part(true, true, many)).is_err());
        assert_eq!(known.take(part(false, true, Vec::new())), Ok(false), "nothing was begun");
        assert_eq!(known.len(), 2);
    }
}
