//! API keys: made here, shown once, kept as digests only.
//!
//! The records live in the store, not in memory: a million of them are read page by page when a proxy is introduced. A change is
//! stored first and told at once. A change that a proxy is told twice, or that its page has already, does no harm: records are whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use ringfence_channel::{ChannelError, Sender};
use ringfence_snapshot::node::{ApiKeys, MAX_API_KEYS, ToProxy};
use ringfence_store::{Batch, Document, Store, StoreError};
use ringfence_token::{ApiKey, KeyPrefix, KeyRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};

const KIND: &str = "api_key";
/// When a key was last used, apart from its record: a use must never write over a revocation.
const USE: &str = "api_key_use";
/// Changes that a proxy may be behind before it is told the whole set again.
const BEHIND: usize = 1024;
/// Bytes of stored records in one message, about.
const MAX_PART: usize = 1024 * 1024;
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

/// All API keys.
#[derive(Debug)]
pub(crate) struct Keys {
    store: Store,
    changes: broadcast::Sender<Arc<ToProxy>>,
    uses: mpsc::Sender<Vec<(KeyPrefix, u64)>>,
}

impl Keys {
    pub(crate) fn new(store: Store) -> Self {
        let (uses, reported) = mpsc::channel(USES);
        tokio::spawn(note_uses(store.clone(), reported));
        Self { store, changes: broadcast::Sender::new(BEHIND), uses }
    }

    /// Tells one proxy the whole set and then each change, until its channel ends.
    pub(crate) fn tell(&self, sender: Sender<ToProxy>) -> impl Future<Output = ()> + use<> {
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
        self.store.apply(batch).await?;
        // Nobody is connected: whoever comes reads it.
        let _ = self.changes.send(Arc::new(ToProxy::ApiKeys(ApiKeys::Changed(stored.record.clone()))));
        Ok(())
    }
}

/// The record of one key, for the keeper to hold what was shown against.
pub(crate) async fn record(store: &Store, prefix: KeyPrefix) -> Result<Option<KeyRecord>, StoreError> {
    let document = store.get(KIND, &prefix.to_string()).await?;
    document.map(|document| document.decode::<Stored>().map(|stored| stored.record)).transpose()
}

/// Why a question was refused.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl From<(StatusCode, String)> for Refusal {
    fn from((status, why): (StatusCode, String)) -> Self {
        Self(status, why)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
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

/// Tells one proxy, until its channel ends.
async fn tell(store: Store, sender: Sender<ToProxy>, mut changes: broadcast::Receiver<Arc<ToProxy>>) {
    loop {
        // Whatever is stored from here on comes as a change too.
        changes = changes.resubscribe();
        match whole_set(&store, &sender, &mut changes).await {
            Ok(Whole::Told) => {}
            Ok(Whole::Behind) => continue,
            Err(_) => return,
        }
        loop {
            match changes.recv().await {
                Ok(change) => {
                    if sender.send(&*change, &[]).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Whether the proxy knows every key.
enum Whole {
    Told,
    /// More has changed meanwhile than is remembered: all over again.
    Behind,
}

/// Every key, with the changes that happen meanwhile in between: a revocation does not wait for a million keys.
async fn whole_set(
    store: &Store,
    sender: &Sender<ToProxy>,
    changes: &mut broadcast::Receiver<Arc<ToProxy>>,
) -> Result<Whole, ChannelError> {
    let (mut after, mut first) = (String::new(), true);
    loop {
        let Ok(page) = store.list(KIND, &after).await else {
            // The database is in trouble: a set that is not whole would refuse clients that are welcome.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        // A change counts at once, and once more after this page, which was read before it: a later part may hold the record as it was.
        let mut again = Vec::new();
        for records in parts(&page) {
            let part = ApiKeys::Part { first: std::mem::take(&mut first), last: false, records };
            sender.send(&ToProxy::ApiKeys(part), &[]).await?;
            loop {
                match changes.try_recv() {
                    Ok(change) => {
                        sender.send(&*change, &[]).await?;
                        again.push(change);
                    }
                    Err(TryRecvError::Lagged(_)) => return Ok(Whole::Behind),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
                if again.len() > BEHIND {
                    return Ok(Whole::Behind);
                }
            }
        }
        for change in again {
            sender.send(&*change, &[]).await?;
        }
        match page.last() {
            Some(document) => after.clone_from(&document.name),
            None => break,
        }
    }
    let end = ApiKeys::Part { first, last: true, records: Vec::new() };
    sender.send(&ToProxy::ApiKeys(end), &[]).await?;
    Ok(Whole::Told)
}

/// The records of a page in parts that fit into a message. One that cannot be read is no key.
fn parts(page: &[Document]) -> Vec<Vec<KeyRecord>> {
    let mut parts: Vec<Vec<KeyRecord>> = Vec::new();
    let mut bytes = usize::MAX;
    for document in page {
        let Ok(stored) = document.decode::<Stored>() else { continue };
        bytes = bytes.saturating_add(document.body.len());
        match parts.last_mut() {
            Some(part) if bytes <= MAX_PART && part.len() < MAX_API_KEYS => part.push(stored.record),
            _ => {
                bytes = document.body.len();
                parts.push(vec![stored.record]);
            }
        }
    }
    parts
}

/// Writes what proxies report, of keys that are there: a proxy parses what comes from outside, and must not fill the disk.
async fn note_uses(store: Store, mut reported: mpsc::Receiver<Vec<(KeyPrefix, u64)>>) {
    while let Some(used) = reported.recv().await {
        // What is lost is a time to the minute.
        let _ = note(&store, used).await;
    }
}

async fn note(store: &Store, used: Vec<(KeyPrefix, u64)>) -> Result<(), StoreError> {
    // A proxy's clock is this host's.
    let latest = crate::core::now();
    let (mut batch, mut count) = (Batch::new("node", "key use"), 0);
    for (prefix, at) in used {
        let name = prefix.to_string();
        if at <= latest && store.get(KIND, &name).await?.is_some() {
            batch = batch.put(USE, &name, &at)?;
            count += 1;
        }
    }
    if count > 0 {
        store.apply(batch.detail(json!({ "keys": count }))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use ringfence_channel::Channel;
    use ringfence_snapshot::node::FromProxy;
    use ringfence_store::Durability;
    use ringfence_token::KeyTable;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    async fn keys(dir: &tempfile::TempDir) -> Keys {
        Keys::new(Store::open(&dir.path().join("state.db"), Durability::Process).await.unwrap())
    }

    fn lab() -> CreateKey {
        CreateKey { client: "lab".into(), scopes: vec!["read".into()], life: Some(1000), not_before: None }
    }

    async fn created(keys: &Keys, create: CreateKey) -> (ApiKey, String, String) {
        let (value, done) = keys.answer(AskKeys::Create(create), NOW).await.unwrap();
        let text = value["key"].as_str().unwrap().to_owned();
        let id = value["id"].as_str().unwrap().to_owned();
        let done = done.unwrap();
        assert!(done.prefix == id && !done.message.contains(&text[16..]), "{}", done.message);
        (ApiKey::parse(&text).unwrap(), id, text)
    }

    /// What a proxy knows: fed as control tells.
    struct Proxy {
        channel: Channel<FromProxy, ToProxy>,
        table: KeyTable,
        wholes: usize,
    }

    impl Proxy {
        fn new(keys: &Keys) -> Self {
            let (theirs, ours) = UnixStream::pair().unwrap();
            let (sender, _) = Channel::<ToProxy, FromProxy>::new(ours).unwrap().split();
            tokio::spawn(keys.tell(sender));
            Self { channel: Channel::new(theirs).unwrap(), table: KeyTable::new(), wholes: 0 }
        }

        /// Takes messages until `done`.
        async fn until(&mut self, done: impl Fn(&Self) -> bool) {
            while !done(self) {
                let next = tokio::time::timeout(Duration::from_secs(10), self.channel.recv());
                let ToProxy::ApiKeys(told) = next.await.unwrap().unwrap().0 else {
                    panic!("not of API keys")
                };
                match told {
                    ApiKeys::Part { first, last, records } => {
                        if first {
                            self.table = KeyTable::new();
                        }
                        assert!(records.len() <= MAX_API_KEYS);
                        records.iter().for_each(|record| self.table.replace(record).unwrap());
                        self.wholes += usize::from(last);
                    }
                    ApiKeys::Changed(record) => self.table.replace(&record).unwrap(),
                }
            }
        }

        fn knows(&self, key: &ApiKey, at: u64) -> bool {
            self.table.authenticate(key, at).is_ok()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_proxy_knows_every_key_when_it_comes_and_each_change_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir).await;
        let (first, id, _) = created(&keys, lab()).await;
        let mut proxy = Proxy::new(&keys);
        proxy.until(|p| p.wholes == 1).await;
        assert!(
            proxy.knows(&first, NOW + 999) && !proxy.knows(&first, NOW + 1000),
            "it ends when it was said to"
        );
        let (second, ..) = created(&keys, lab()).await;
        proxy.until(|p| p.knows(&second, NOW)).await;

        let rotate = AskKeys::Rotate(id.clone(), RotateKey { overlap: 60 });
        let (value, _) = keys.answer(rotate, NOW).await.unwrap();
        let rotated = ApiKey::parse(value["key"].as_str().unwrap()).unwrap();
        proxy.until(|p| p.knows(&rotated, NOW)).await;
        assert!(proxy.knows(&first, NOW + 59) && !proxy.knows(&first, NOW + 60), "both are good for a while");

        keys.answer(AskKeys::Revoke(id.clone()), NOW).await.unwrap();
        proxy.until(|p| !p.knows(&rotated, NOW)).await;
        assert!(!proxy.knows(&first, NOW) && proxy.knows(&second, NOW));
        let refused = keys.answer(AskKeys::Rotate(id, RotateKey { overlap: 0 }), NOW).await.unwrap_err();
        assert_eq!(refused.0, StatusCode::CONFLICT);

        let mut late = Proxy::new(&keys);
        late.until(|p| p.wholes == 1).await;
        assert!(late.table.len() == 2 && late.knows(&second, NOW) && !late.knows(&rotated, NOW));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_proxy_that_fell_behind_is_told_everything_again() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir).await;
        let mut proxy = Proxy::new(&keys);
        proxy.until(|p| p.wholes == 1).await;
        // More than the socket and the memory of changes hold, while it does not read.
        let (key, id, _) = created(&keys, lab()).await;
        let (stored, _) = keys.stored(&id).await.unwrap();
        keys.answer(AskKeys::Revoke(id), NOW).await.unwrap();
        let change = Arc::new(ToProxy::ApiKeys(ApiKeys::Changed(stored.record)));
        for _ in 0..20 * BEHIND {
            keys.changes.send(change.clone()).unwrap();
        }
        proxy.until(|p| p.wholes == 2).await;
        assert!(!proxy.knows(&key, NOW), "what counts is what is stored");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_keys_than_a_page_are_told_and_listed_whole_and_a_revocation_does_not_wait_for_them() {
        const MANY: usize = 10_500;
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir).await;
        let (template, ..) = created(&keys, lab()).await;
        let (stored, _) = keys.stored(&template.prefix().to_string()).await.unwrap();
        let all: Vec<ApiKey> = (0..MANY).map(|_| ApiKey::generate()).collect();
        for some in all.chunks(4000) {
            let batch = some.iter().fold(Batch::new("test", "fill"), |batch, key| {
                let record =
                    KeyRecord { prefix: key.prefix(), secret: key.digest(), ..stored.record.clone() };
                let stored = Stored { record, ..stored.clone() };
                batch.put(KIND, &key.prefix().to_string(), &stored).unwrap()
            });
            keys.store.apply(batch).await.unwrap();
        }
        let mut proxy = Proxy::new(&keys);
        proxy.until(|p| !p.table.is_empty()).await;
        keys.answer(AskKeys::Revoke(template.prefix().to_string()), NOW).await.unwrap();
        proxy.until(|p| p.wholes == 1).await;
        proxy.until(|p| p.table.record(template.prefix()).is_some_and(|r| r.disabled)).await;
        assert_eq!(proxy.table.len(), MANY + 1);
        assert!(all.iter().step_by(500).all(|key| proxy.knows(key, NOW)));

        let (mut listed, mut after) = (0, String::new());
        loop {
            let (page, _) = keys.answer(AskKeys::List { after }, NOW).await.unwrap();
            listed += page["keys"].as_array().unwrap().len();
            let Some(next) = page["next"].as_str() else { break };
            after = next.to_owned();
        }
        assert_eq!(listed, MANY + 1);
    }

    #[tokio::test]
    async fn no_secret_is_in_the_database_and_every_change_is_in_the_audit_trail() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir).await;
        let (key, id, first) = created(&keys, lab()).await;
        let rotate = AskKeys::Rotate(id.clone(), RotateKey { overlap: 60 });
        let (value, _) = keys.answer(rotate, NOW).await.unwrap();
        let second = value["key"].as_str().unwrap().to_owned();
        keys.answer(AskKeys::Revoke(id.clone()), NOW).await.unwrap();
        let actions: Vec<_> = keys.store.audit(0).await.unwrap().into_iter().map(|r| r.action).collect();
        assert_eq!(actions, ["key create", "key rotate", "key revoke"]);
        assert_eq!(keys.store.outbox(0).await.unwrap().len(), 3);
        keys.store.verify_audit().await.unwrap();
        for ask in [AskKeys::Show(id.clone()), AskKeys::List { after: String::new() }] {
            let (value, _) = keys.answer(ask, NOW).await.unwrap();
            let text = value.to_string();
            assert!(text.contains(&id) && !text.contains(&first) && !text.contains(&second));
            assert!(!text.contains(&ringfence_keys::to_hex(key.digest().as_bytes())), "{text}");
        }
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
        }
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds(&id) && holds("lab"), "the record is there");
        for secret in [&first, &second] {
            let secret = secret.rsplit_once('_').unwrap().1;
            // Sixteen characters in a row would be no accident.
            assert!((0..secret.len() - 16).all(|at| !holds(&secret[at..at + 16])));
        }
    }

    #[tokio::test]
    async fn last_use_is_kept_of_keys_that_are_there_and_never_undoes_a_revocation() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir).await;
        let (key, id, _) = created(&keys, lab()).await;
        keys.answer(AskKeys::Revoke(id.clone()), NOW).await.unwrap();
        let (now, stranger) = (crate::core::now(), ApiKey::generate().prefix());
        keys.used(vec![(key.prefix(), now - 60), (stranger, now - 60)]);
        let used = async {
            loop {
                let (value, _) = keys.answer(AskKeys::Show(id.clone()), NOW).await.unwrap();
                if value["last_used"] == now - 60 {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let value = tokio::time::timeout(Duration::from_secs(10), used).await.unwrap();
        assert_eq!(value["revoked"], NOW);
        let (list, _) = keys.answer(AskKeys::List { after: String::new() }, NOW).await.unwrap();
        assert_eq!(list["keys"][0]["last_used"], now - 60);
        assert!(keys.store.get(USE, &stranger.to_string()).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(&dir).await;
        for create in [
            CreateKey { client: String::new(), ..lab() },
            CreateKey { client: "a b".into(), ..lab() },
            CreateKey { client: "a".repeat(257), ..lab() },
            CreateKey { scopes: vec!["a\"b".into()], ..lab() },
            CreateKey { scopes: vec!["a".into(), "a".into()], ..lab() },
            CreateKey { scopes: (0..65).map(|i| format!("s{i}")).collect(), ..lab() },
            CreateKey { life: Some(0), ..lab() },
            CreateKey { life: Some(u64::MAX), ..lab() },
            CreateKey { not_before: Some(u64::MAX), ..lab() },
        ] {
            assert_eq!(
                keys.answer(AskKeys::Create(create), NOW).await.unwrap_err().0,
                StatusCode::BAD_REQUEST
            );
        }
        for id in ["", "lab", "aaaaaaaaaaaa", "../../../etc"] {
            let ask = AskKeys::Show(id.into());
            assert_eq!(keys.answer(ask, NOW).await.unwrap_err().0, StatusCode::NOT_FOUND);
        }
        assert!(keys.store.audit(0).await.unwrap().is_empty());
    }
}
