//! API keys: made here, shown once, kept as digests only.
//!
//! The records live in the store, not in memory: a million of them are read page by page when a proxy is introduced. A change is
//! stored first and told at once. A change that a proxy is told twice, or that its page has already, does no harm: records are whole.

mod tell;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use ringfence_snapshot::node::{ApiKeys, MAX_API_KEYS, ToProxy};
use ringfence_store::{Batch, Store, StoreError};
use ringfence_token::{ApiKey, KeyPrefix, KeyRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use self::tell::{BEHIND, tell};
use self::uses::note_uses;
use crate::nodes::Teller;
use crate::refusal::Refusal;

const KIND: &str = "api_key";
/// When a key was last used, apart from its record: a use must never write over a revocation.
const USE: &str = "api_key_use";
/// Reports of uses that wait to be written; more are dropped, since the next minute tells again.
const USES: usize = 64;
/// Longest life of a key, and longest overlap, in seconds.
const MAX_LIFE: u64 = 10 * 366 * 24 * 3600;
const MAX_OVERLAP: u64 = 366 * 24 * 3600;
const MAX_SCOPES: usize = 64;
const MAX_WORD: usize = 256;
/// Most keys that one answer lists.
const PAGE: usize = 1000;

/// Body of `POST /v1/keys`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Whose it is.
    pub client: String,
    /// What it is good for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Life in seconds; without it, the key does not end.
    #[serde(default)]
    pub life: Option<u64>,
    /// From when it is good, Unix seconds.
    #[serde(default)]
    pub not_before: Option<u64>,
}

/// Body of `POST /v1/keys/ID/rotate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateKey {
    /// Seconds for which the secret before stays good.
    pub overlap: u64,
}

/// A question about API keys.
#[derive(Clone, Debug)]
pub(crate) enum AskKeys {
    Create(CreateKey),
    List { after: String },
    Show(String),
    Rotate(String, RotateKey),
    Revoke(String),
}

/// What happened to a key, for the event.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) prefix: String,
    /// OCSF `activity_id`.
    pub(crate) activity: u8,
    pub(crate) message: String,
}

/// A key as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    record: KeyRecord,
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotated: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<u64>,
}

/// Revokes the keys that were revoked in another state of the same fence; how many were not yet. A secret that was replaced there
/// is replaced here too.
pub(crate) async fn replay(store: &Store, other: &Store) -> Result<usize, StoreError> {
    let here: std::collections::BTreeMap<String, Stored> = store.all(KIND).await?;
    let mut count = 0;
    for (name, there) in other.all::<Stored>(KIND).await? {
        let Some(known) = here.get(&name) else { continue };
        if (there.revoked.is_some() && known.revoked.is_none()) || there.rotated > known.rotated {
            let batch = Batch::new("operator", "key restored").detail(json!({ "prefix": name }));
            store.apply(batch.put(KIND, &name, &there)?).await?;
            count += 1;
        }
    }
    Ok(count)
}

/// Most records that are remembered for a time without the database.
const REMEMBERED: usize = 16_384;

/// Records of keys as they were last read or written here, for a time in which the database does not answer: who is let in then is who was
/// before, and what is revoked is known to the keeper by itself. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    records: HashMap<KeyPrefix, KeyRecord>,
    /// How many changes were begun or ended here.
    changes: u64,
}

impl Remembered {
    fn put(&mut self, prefix: KeyPrefix, record: Option<&KeyRecord>) {
        self.records.remove(&prefix);
        if let Some(record) = record.filter(|_| self.records.len() < REMEMBERED) {
            self.records.insert(prefix, record.clone());
        }
    }
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change of this key begins or has ended; without a record it is not certain what holds.
    fn change(&self, prefix: KeyPrefix, record: Option<&KeyRecord>) {
        let mut all = self.lock();
        all.changes += 1;
        all.put(prefix, record);
    }

    /// What was read is remembered, unless something was changed since it was asked for: it may be what held before.
    fn learn(&self, changes: u64, prefix: KeyPrefix, record: Option<&KeyRecord>) {
        let mut all = self.lock();
        if all.changes == changes {
            all.put(prefix, record);
        }
    }
}

/// All API keys.
#[derive(Debug)]
pub(crate) struct Keys {
    store: Store,
    changes: broadcast::Sender<Arc<ToProxy>>,
    uses: mpsc::Sender<Vec<(KeyPrefix, u64)>>,
    known: Known,
}

impl Keys {
    pub(crate) fn new(store: Store) -> Self {
        let (uses, reported) = mpsc::channel(USES);
        tokio::spawn(note_uses(store.clone(), reported));
        Self { store, changes: broadcast::Sender::new(BEHIND), uses, known: Known::default() }
    }

    /// What is remembered of them.
    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    /// Tells one proxy the whole set and then each change, until its channel ends.
    pub(crate) fn tell(&self, sender: Teller) -> impl Future<Output = ()> + use<> {
        tell(self.store.clone(), sender, self.changes.subscribe())
    }

    /// Notes which keys a proxy says were used.
    pub(crate) fn used(&self, mut used: Vec<(KeyPrefix, u64)>) {
        used.truncate(MAX_API_KEYS);
        let _ = self.uses.try_send(used);
    }

    pub(crate) async fn answer(&self, ask: AskKeys, now: u64) -> Result<(Value, Option<Done>), Refusal> {
        match ask {
            AskKeys::Create(create) => {
                self.create(create, now).await.map(|(value, done)| (value, Some(done)))
            }
            AskKeys::List { after } => Ok((self.list(&after).await?, None)),
            AskKeys::Show(id) => {
                let (stored, _) = self.stored(&id).await?;
                let used = self.store.get(USE, &id).await?.and_then(|d| d.decode().ok());
                Ok((shown(&stored, used), None))
            }
            AskKeys::Rotate(id, rotate) => {
                self.rotate(&id, &rotate, now).await.map(|(value, done)| (value, Some(done)))
            }
            AskKeys::Revoke(id) => self.revoke(&id, now).await.map(|(value, done)| (value, Some(done))),
        }
    }

    async fn create(&self, create: CreateKey, now: u64) -> Result<(Value, Done), Refusal> {
        check(&create, now)?;
        let key = ApiKey::generate();
        let from = create.not_before.unwrap_or(now).max(now);
        let record = KeyRecord {
            prefix: key.prefix(),
            secret: key.digest(),
            previous: None,
            client: create.client,
            scopes: create.scopes,
            not_before: create.not_before,
            expires_at: create.life.map(|life| from + life),
            disabled: false,
            last_used: None,
        };
        let stored = Stored { record, created: now, rotated: None, revoked: None };
        self.put("create", &stored, None).await?;
        let message = format!("made for {}, scopes {}", stored.record.client, stored.record.scopes.join(" "));
        Ok((with_secret(&stored, &key), done(&stored, 1, message)))
    }

    async fn rotate(&self, id: &str, rotate: &RotateKey, now: u64) -> Result<(Value, Done), Refusal> {
        if rotate.overlap > MAX_OVERLAP {
            return Err(wrong("an overlap is a year at most"));
        }
        let (mut stored, revision) = self.stored(id).await?;
        let over = stored.record.expires_at.is_some_and(|end| now >= end);
        if stored.record.disabled || over {
            let why = if over { "has expired" } else { "was revoked" };
            return Err((StatusCode::CONFLICT, format!("key {id} {why}: make a new one")).into());
        }
        let key = ApiKey::generate_for(stored.record.prefix);
        let until = now + rotate.overlap;
        stored.record.rotate(&key, until);
        if rotate.overlap == 0 {
            stored.record.previous = None;
        }
        stored.rotated = Some(now);
        self.put("rotate", &stored, Some(revision)).await?;
        let message = format!("rotated; the secret before is good for {} s more", rotate.overlap);
        Ok((with_secret(&stored, &key), done(&stored, 3, message)))
    }

    async fn revoke(&self, id: &str, now: u64) -> Result<(Value, Done), Refusal> {
        let (mut stored, revision) = self.stored(id).await?;
        stored.record.disabled = true;
        stored.record.previous = None;
        stored.revoked = stored.revoked.or(Some(now));
        self.put("revoke", &stored, Some(revision)).await?;
        let value = shown(&stored, None);
        let message = format!("revoked; it was of {}", stored.record.client);
        Ok((value, done(&stored, 4, message)))
    }

    async fn list(&self, after: &str) -> Result<Value, StoreError> {
        let mut keys = self.store.list(KIND, after).await?;
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        // Both are in order of name, and only keys that are there have been used.
        let used: HashMap<String, u64> = self
            .store
            .list(USE, after)
            .await?
            .into_iter()
            .filter_map(|document| Some((document.name.clone(), document.decode().ok()?)))
            .collect();
        let next = keys.last().filter(|_| more).map(|document| document.name.clone());
        let all: Result<Vec<Value>, StoreError> = keys
            .iter()
            .map(|document| Ok(shown(&document.decode()?, used.get(&document.name).copied())))
            .collect();
        Ok(json!({ "keys": all?, "next": next }))
    }

    async fn stored(&self, id: &str) -> Result<(Stored, u64), Refusal> {
        let document = match KeyPrefix::parse(id) {
            Some(_) => self.store.get(KIND, id).await?,
            None => None,
        };
        let document = document.ok_or_else(|| {
            (StatusCode::NOT_FOUND, format!("there is no API key `{id}`: `ringfence key list` shows all"))
        })?;
        Ok((document.decode()?, document.revision))
    }

    /// Stores a key and tells every proxy.
    async fn put(&self, action: &str, stored: &Stored, before: Option<u64>) -> Result<(), StoreError> {
        let name = stored.record.prefix.to_string();
        let detail = json!({ "key": name, "client": stored.record.client, "scopes": stored.record.scopes });
        let batch = Batch::new("operator", format!("key {action}"))
            .detail(detail)
            .expect(KIND, &name, before)
            .put(KIND, &name, stored)?;
        // Until it is certain, neither counts; nor does what is read meanwhile.
        self.known.change(stored.record.prefix, None);
        let outcome = self.store.apply(batch).await;
        self.known.change(stored.record.prefix, outcome.is_ok().then_some(&stored.record));
        outcome?;
        // Nobody is connected: whoever comes reads it.
        let _ = self.changes.send(Arc::new(ToProxy::ApiKeys(ApiKeys::Changed(stored.record.clone()))));
        Ok(())
    }
}

/// The record of one key, for the keeper to hold what was shown against.
pub(crate) async fn record(
    store: &Store,
    known: &Known,
    prefix: KeyPrefix,
) -> Result<Option<KeyRecord>, StoreError> {
    if store.engine() == "sqlite" {
        return read(store, prefix).await;
    }
    let remembered = || known.lock().records.get(&prefix).cloned();
    if store.trouble().is_some()
        && let Some(record) = remembered()
    {
        return Ok(Some(record));
    }
    let changes = known.lock().changes;
    match read(store, prefix).await {
        Ok(record) => {
            known.learn(changes, prefix, record.as_ref());
            Ok(record)
        }
        Err(e @ StoreError::Unavailable(_)) => remembered().map(Some).ok_or(e),
        Err(e) => Err(e),
    }
}

async fn read(store: &Store, prefix: KeyPrefix) -> Result<Option<KeyRecord>, StoreError> {
    let document = store.get(KIND, &prefix.to_string()).await?;
    document.map(|document| document.decode::<Stored>().map(|stored| stored.record)).transpose()
}

fn wrong(why: &str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why.to_owned())
}

fn check(create: &CreateKey, now: u64) -> Result<(), Refusal> {
    let word = |text: &String| {
        (1..=MAX_WORD).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    let mut scopes = create.scopes.clone();
    scopes.sort();
    scopes.dedup();
    if !word(&create.client) || !create.scopes.iter().all(word) {
        return Err(wrong(
            "a client or scope has 1 to 256 printable ASCII characters without spaces and quotes",
        ));
    }
    if scopes.len() != create.scopes.len() || scopes.len() > MAX_SCOPES {
        return Err(wrong("a key has at most 64 scopes, each once"));
    }
    if create.life.is_some_and(|life| life == 0 || life > MAX_LIFE) {
        return Err(wrong("a key lives for a second at least, ten years at most, or has no end"));
    }
    if create.not_before.is_some_and(|from| from > now + MAX_LIFE) {
        return Err(wrong("a key begins to be good within ten years"));
    }
    Ok(())
}

fn done(stored: &Stored, activity: u8, message: String) -> Done {
    Done { prefix: stored.record.prefix.to_string(), activity, message }
}

/// A key for the operator: without the digest, which is nobody's business.
fn shown(stored: &Stored, last_used: Option<u64>) -> Value {
    let Stored { record, created, rotated, revoked } = stored;
    json!({
        "id": record.prefix,
        "client": record.client,
        "scopes": record.scopes,
        "created": created,
        "not_before": record.not_before,
        "expires_at": record.expires_at,
        "rotated": rotated,
        "previous_until": record.previous.map(|(_, until)| until),
        "revoked": revoked,
        "last_used": last_used,
    })
}

fn with_secret(stored: &Stored, key: &ApiKey) -> Value {
    let mut value = shown(stored, None);
    value["key"] = key.to_text().expose().as_str().into();
    value
}
