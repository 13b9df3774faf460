use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringfence_channel::Channel;
use ringfence_snapshot::node::FromProxy;
use ringfence_store::Durability;
use ringfence_token::KeyTable;

use super::tell::BEHIND;
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
        tokio::spawn(keys.tell(Teller::Here(sender)));
        Self { channel: Channel::new(theirs).unwrap(), table: KeyTable::new(), wholes: 0 }
    }

    /// Takes messages until `done`.
    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let next = tokio::time::timeout(Duration::from_secs(60), self.channel.recv());
            let ToProxy::ApiKeys(told) = next.await.unwrap().unwrap().0 else { panic!("not of API keys") };
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
    let (_, other, _) = created(&keys, lab()).await;
    let (stored, _) = keys.stored(&other).await.unwrap();
    keys.answer(AskKeys::Revoke(id), NOW).await.unwrap();
    // Of another key: some of them come after it was told everything again, and each says what is so.
    let change = Arc::new(ToProxy::ApiKeys(ApiKeys::Changed(stored.record)));
    for _ in 0..20 * BEHIND {
        keys.changes.send(change.clone()).unwrap();
    }
    proxy.until(|p| p.wholes >= 2).await;
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
            let record = KeyRecord { prefix: key.prefix(), secret: key.digest(), ..stored.record.clone() };
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
    let value = tokio::time::timeout(Duration::from_secs(60), used).await.unwrap();
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
        assert_eq!(keys.answer(AskKeys::Create(create), NOW).await.unwrap_err().0, StatusCode::BAD_REQUEST);
    }
    for id in ["", "lab", "aaaaaaaaaaaa", "../../../etc"] {
        let ask = AskKeys::Show(id.into());
        assert_eq!(keys.answer(ask, NOW).await.unwrap_err().0, StatusCode::NOT_FOUND);
    }
    assert!(keys.store.audit(0).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_read_before_a_key_was_revoked_is_not_remembered_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keys(&dir).await;
    let (key, id, _) = created(&keys, lab()).await;
    let remembered = || keys.known().lock().records.get(&key.prefix()).cloned();
    let before = remembered().unwrap();
    let changes = keys.known().lock().changes;
    keys.answer(AskKeys::Revoke(id), NOW).await.unwrap();
    let revoked = remembered().unwrap();
    assert_ne!(revoked, before);
    // A question that was asked before is answered late.
    keys.known().learn(changes, key.prefix(), Some(&before));
    assert_eq!(remembered(), Some(revoked.clone()));
    let changes = keys.known().lock().changes;
    keys.known().learn(changes, key.prefix(), Some(&revoked));
    assert_eq!(remembered(), Some(revoked));
}
