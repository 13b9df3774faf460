//! What was revoked: by whom, when, why, and until when that must be remembered.
//!
//! A revocation is stored first, with its audit record, and told at once: to every proxy, which cuts what is open, and to the keeper,
//! which signs nothing for it any more. Whoever is introduced later is told the whole list, and believes nobody before that.

mod target;
mod tell;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use ringfence_event::{Emitter, Entity, Event, Kind};
use ringfence_keys::digest::sha256;
use ringfence_keys::to_hex;
use ringfence_snapshot::node::MAX_REVOKED;
use ringfence_store::{Batch, Store, StoreError};
use ringfence_token::{Full, Revocation, SVID, What};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, broadcast};

use crate::refusal::Refusal;
pub use target::{Revoke, RevokeWhat};
pub(crate) use target::{SVID_BACKDATE, Target};

const KIND: &str = "revocation";
/// Changes that whoever is told may be behind before it is told the whole list again.
const BEHIND: usize = 1024;
/// Longest reason, and name of who revokes.
const MAX_WHY: usize = 512;
/// Who asks by the admin API, and how many revocations only they can add: whoever signs in and out all day must not take an operator's
/// means away.
const OPERATOR: &str = "operator";
const OPERATORS_SHARE: usize = 4096;
/// Most that one answer lists.
const PAGE: usize = 1000;
/// Most that are forgotten in one write.
const SWEEP: usize = 1000;

/// A question about revocations.
#[derive(Clone, Debug)]
pub(crate) enum AskRevocations {
    Revoke(Revoke),
    List { after: String },
    Remove(String),
}

/// A revocation as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    revocation: Revocation,
    /// As the operator says it: `user`, `session`, and so on.
    what: String,
    /// The provider's name at the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    name: String,
    at: u64,
    by: String,
    why: String,
}

#[derive(Clone, Debug)]
enum Change {
    Added(Revocation),
    /// Something counts no more: the whole list is told again.
    Removed,
}

/// All revocations. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Revocations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    emitter: Emitter,
    changes: broadcast::Sender<Change>,
    all: OnceCell<Mutex<BTreeMap<String, Stored>>>,
    /// One change after the other, so that what is told is in the order of what is stored.
    turn: tokio::sync::Mutex<()>,
}

impl Revocations {
    pub(crate) fn new(store: Store, emitter: Emitter) -> Self {
        let changes = broadcast::Sender::new(BEHIND);
        Self(Arc::new(Inner {
            store,
            emitter,
            changes,
            all: OnceCell::new(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Revokes from now on. `by` is who wants it, `why` is for whoever reads the list. The same again makes it last longer.
    ///
    /// # Errors
    /// What makes no sense, does not fit, or could not be stored: nothing was revoked then.
    pub(crate) async fn revoke(
        &self,
        target: Target,
        by: &str,
        why: &str,
        now: u64,
    ) -> Result<Value, Refusal> {
        if by.is_empty()
            || [by, why].iter().any(|text| text.len() > MAX_WHY || text.chars().any(char::is_control))
        {
            let reason = format!("a reason has at most {MAX_WHY} bytes, on one line");
            return Err(Refusal(StatusCode::BAD_REQUEST, reason));
        }
        let (what, name, provider) = (target.word(), target.name(), target.provider());
        let revocation = target.revocation(now);
        if !revocation.fits() {
            let reason = "a name to revoke has 1 to 1024 bytes".to_owned();
            return Err(Refusal(StatusCode::BAD_REQUEST, reason));
        }
        let id = id(&revocation);
        let mut stored =
            Stored { revocation, what: what.into(), provider, name, at: now, by: by.into(), why: why.into() };
        let _turn = self.0.turn.lock().await;
        let all = self.all().await?;
        let room = if by == OPERATOR { MAX_REVOKED } else { MAX_REVOKED - OPERATORS_SHARE };
        {
            let known = lock(all);
            match known.get(&id) {
                Some(before) => {
                    let (new, old) = (&mut stored.revocation, &before.revocation);
                    new.issued_until = new.issued_until.max(old.issued_until);
                    new.forget_at = new.forget_at.max(old.forget_at);
                }
                None if known.len() >= room => {
                    return Err(Refusal(StatusCode::CONFLICT, Full.to_string()));
                }
                None => {}
            }
        }
        let value = shown(&id, &stored);
        let batch = Batch::new(by, "revoke").detail(value.clone()).put(KIND, &id, &stored)?;
        self.0.store.apply(batch).await?;
        lock(all).insert(id.clone(), stored.clone());
        let _ = self.0.changes.send(Change::Added(stored.revocation.clone()));
        self.tell_event(&id, &stored, 1, &format!("revoked by {by}: {why}"));
        Ok(value)
    }

    /// Takes a revocation back, as when a service that was revoked as a whole was mended.
    async fn remove(&self, id: &str, by: &str) -> Result<Value, Refusal> {
        let _turn = self.0.turn.lock().await;
        let all = self.all().await?;
        let Some(stored) = lock(all).get(id).cloned() else {
            let reason = format!("there is no revocation `{id}`: `ringfence revocations` lists all");
            return Err(Refusal(StatusCode::NOT_FOUND, reason));
        };
        let value = shown(id, &stored);
        let batch = Batch::new(by, "revocation remove").detail(value.clone()).delete(KIND, id);
        self.0.store.apply(batch).await?;
        lock(all).remove(id);
        let _ = self.0.changes.send(Change::Removed);
        self.tell_event(id, &stored, 4, &format!("taken back by {by}"));
        Ok(value)
    }

    async fn list(&self, after: &str) -> Result<Value, Refusal> {
        let known = lock(self.all().await?);
        let range = (std::ops::Bound::Excluded(after.to_owned()), std::ops::Bound::Unbounded);
        let mut page: Vec<(&String, &Stored)> = known.range(range).take(PAGE + 1).collect();
        let more = page.len() > PAGE;
        page.truncate(PAGE);
        let next = page.last().filter(|_| more).map(|(id, _)| (*id).clone());
        let all: Vec<Value> = page.into_iter().map(|(id, stored)| shown(id, stored)).collect();
        Ok(json!({ "revocations": all, "next": next }))
    }

    /// Lists, or takes back. What is to be revoked is resolved first, by [`Revoke::target`].
    pub(crate) async fn answer(&self, ask: AskRevocations) -> Result<Value, Refusal> {
        match ask {
            AskRevocations::List { after } => self.list(&after).await,
            AskRevocations::Remove(id) => self.remove(&id, OPERATOR).await,
            AskRevocations::Revoke(_) => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "not here".into())),
        }
    }

    /// Up to which beginning of their validity the SVIDs of each SPIFFE ID are revoked; [`u64::MAX`] for those that get none any more.
    pub(crate) async fn svids(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let known = lock(self.all().await?);
        let svids = known.values().map(|stored| &stored.revocation).filter(|one| one.issuer == SVID);
        let of_ids = svids.filter_map(|one| match &one.what {
            What::Subject(id) => Some((id.clone(), one.issued_until)),
            _ => None,
        });
        Ok(of_ids.collect())
    }

    /// Forgets what nobody can show any more.
    pub(crate) async fn forget(&self, now: u64) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
        let all = self.all().await?;
        let over: Vec<String> = {
            let known = lock(all);
            let over = known.iter().filter(|(_, stored)| stored.revocation.forget_at <= now);
            over.map(|(id, _)| id.clone()).take(SWEEP).collect()
        };
        if over.is_empty() {
            return Ok(());
        }
        let batch = Batch::new("control", "revocations forget").detail(json!({ "count": over.len() }));
        self.0.store.apply(over.iter().fold(batch, |batch, id| batch.delete(KIND, id))).await?;
        let mut known = lock(all);
        over.iter().for_each(|id| drop(known.remove(id)));
        Ok(())
    }

    /// Everything, read once. One that cannot be read is an error: a list with a hole is none.
    async fn all(&self) -> Result<&Mutex<BTreeMap<String, Stored>>, StoreError> {
        self.0.all.get_or_try_init(async || self.0.store.all(KIND).await.map(Mutex::new)).await
    }

    fn tell_event(&self, id: &str, stored: &Stored, activity: u8, message: &str) {
        let of = stored.provider.as_ref().map_or_else(String::new, |provider| format!(" of {provider}"));
        let name = format!("{} {}{of}", stored.what, stored.name);
        let entity =
            Entity { entity: "revocation", name: &name, uid: Some(id), activity, granted: true, message };
        self.0.emitter.emit(&Event::new(Kind::Entity(entity)));
    }
}

fn lock(all: &Mutex<BTreeMap<String, Stored>>) -> MutexGuard<'_, BTreeMap<String, Stored>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What names a revocation: the same thing of the same issuer always has the same.
/// Stores revocations that somebody else remembers, if they still mean anything and are not there; how many were not.
pub(crate) async fn replay(
    store: &Store,
    remembered: Vec<Revocation>,
    now: u64,
) -> Result<usize, StoreError> {
    let known: BTreeMap<String, Stored> = store.all(KIND).await?;
    let mut new = BTreeMap::new();
    for revocation in remembered.into_iter().filter(|one| one.forget_at > now && one.fits()).take(MAX_REVOKED)
    {
        let id = id(&revocation);
        let counts = |known: &Stored| {
            known.revocation.issued_until >= revocation.issued_until
                && known.revocation.forget_at >= revocation.forget_at
        };
        if known.get(&id).is_some_and(counts) {
            continue;
        }
        let name = match &revocation.what {
            What::Subject(name) | What::Token(name) | What::Session(name) | What::Client(name) => {
                name.clone()
            }
            other => format!("{other:?}"),
        };
        let why = "remembered by an enforcement point when the state was restored".to_owned();
        let (what, by) = ("restored".to_owned(), OPERATOR.to_owned());
        new.insert(id, Stored { revocation, what, provider: None, name, at: now, by, why });
    }
    let count = new.len();
    let all: Vec<(String, Stored)> = new.into_iter().collect();
    for some in all.chunks(SWEEP) {
        let mut batch = Batch::new(OPERATOR, "revocations restored").detail(json!({ "count": some.len() }));
        for (id, stored) in some {
            batch = batch.put(KIND, id, stored)?;
        }
        store.apply(batch).await?;
    }
    Ok(count)
}

/// The revocations of another state of the same fence.
pub(crate) async fn of(other: &Store) -> Result<Vec<Revocation>, StoreError> {
    Ok(other.all::<Stored>(KIND).await?.into_values().map(|stored| stored.revocation).collect())
}

fn id(revocation: &Revocation) -> String {
    let said = json!([revocation.issuer, revocation.what]).to_string();
    to_hex(&sha256(said.as_bytes())[..6])
}

fn shown(id: &str, stored: &Stored) -> Value {
    let Stored { revocation, what, provider, name, at, by, why } = stored;
    let time = |time: u64| (time != u64::MAX).then_some(time);
    json!({
        "id": id,
        "what": what,
        "provider": provider,
        "issuer": revocation.issuer,
        "name": name,
        "at": at,
        "by": by,
        "why": why,
        "issued_until": time(revocation.issued_until),
        "forgotten_at": time(revocation.forget_at),
    })
}

#[cfg(test)]
mod tests;
