use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringfence_channel::Channel;
use ringfence_event::{Writer, WriterOptions};
use ringfence_model::Fence;
use ringfence_snapshot::node::{FromProxy, MAX_REVOCATIONS, Revocations as Told, ToProxy};
use ringfence_store::{Durability, Issued};
use ringfence_token::SESSION_MAX_LIFE;

use super::*;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.clinic.example";

struct World {
    dir: tempfile::TempDir,
    store: Store,
    emitter: Emitter,
    _writer: Writer,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db"), Durability::Process).await.unwrap();
        let writer = Writer::open(&dir.path().join("events"), "control", WriterOptions::default()).unwrap();
        Self { dir, store, emitter: writer.emitter(), _writer: writer }
    }

    fn revocations(&self) -> Revocations {
        Revocations::new(self.store.clone(), self.emitter.clone())
    }

    async fn target(&self, body: Value) -> Result<Target, Refusal> {
        let fence = "fence: clinic
trust_domain: clinic.example
providers:
  staff: { issuer: https://id.clinic.example }
services:
  billing: { run: [billing], listen: 9000 }
";
        let fence = Fence::parse(vec![("ringfence.yaml", fence)]).unwrap();
        let revoke: Revoke = serde_json::from_value(body).unwrap();
        revoke.target(&fence, "clinic.example", &self.store, NOW).await
    }
}

/// What a proxy knows: names, as control tells them.
struct Proxy {
    channel: Channel<FromProxy, ToProxy>,
    names: BTreeSet<String>,
    wholes: usize,
}

impl Proxy {
    fn new(revocations: &Revocations) -> Self {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let (sender, _) = Channel::<ToProxy, FromProxy>::new(ours).unwrap().split();
        tokio::spawn(revocations.tell(crate::nodes::Teller::Here(sender)));
        Self { channel: Channel::new(theirs).unwrap(), names: BTreeSet::new(), wholes: 0 }
    }

    async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let next = tokio::time::timeout(Duration::from_secs(60), self.channel.recv());
            let ToProxy::Revocations(told) = next.await.unwrap().unwrap().0 else { panic!("something else") };
            let entries = match told {
                Told::Part { first, last, entries } => {
                    if first {
                        self.names.clear();
                    }
                    self.wholes += usize::from(last);
                    entries
                }
                Told::Added(entries) => entries,
            };
            assert!(entries.len() <= MAX_REVOCATIONS);
            self.names.extend(entries.into_iter().map(|one| one.what).filter_map(|what| match what {
                What::Subject(name) | What::Token(name) => Some(name),
                _ => None,
            }));
        }
    }
}

fn user(name: &str) -> Target {
    Target::user("staff", ISSUER, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_is_told_all_and_each_change_at_once() {
    let world = World::new().await;
    let revocations = world.revocations();
    let mut early = Proxy::new(&revocations);
    early.until(|p| p.wholes == 1).await;
    assert!(early.names.is_empty(), "a list of nothing is a list");
    let ann = revocations.revoke(user("ann"), "operator", "lost a laptop", NOW).await.unwrap();
    early.until(|p| p.names.contains("ann")).await;
    revocations.revoke(user("bob"), "operator", "", NOW).await.unwrap();
    let mut late = Proxy::new(&revocations);
    late.until(|p| p.wholes == 1).await;
    assert_eq!(late.names, BTreeSet::from(["ann".to_owned(), "bob".into()]));
    let remove = AskRevocations::Remove(ann["id"].as_str().unwrap().into());
    revocations.answer(remove.clone()).await.unwrap();
    for proxy in [&mut early, &mut late] {
        proxy.until(|p| p.wholes == 2).await;
        assert_eq!(proxy.names, BTreeSet::from(["bob".to_owned()]), "what was taken back counts no more");
    }
    assert_eq!(revocations.answer(remove).await.unwrap_err().0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_message_holds_come_in_parts() {
    let world = World::new().await;
    let mut batch = Batch::new("test", "fill");
    for number in 0..3000 {
        let revocation = user(&format!("user-{number}")).revocation(NOW);
        let name = id(&revocation);
        let stored = Stored {
            revocation,
            what: "user".into(),
            provider: None,
            name: String::new(),
            at: NOW,
            by: "test".into(),
            why: String::new(),
        };
        batch = batch.put(KIND, &name, &stored).unwrap();
    }
    world.store.apply(batch).await.unwrap();
    let revocations = world.revocations();
    let mut proxy = Proxy::new(&revocations);
    proxy.until(|p| p.wholes == 1).await;
    assert_eq!(proxy.names.len(), 3000);
    let (mut listed, mut after) = (0, String::new());
    loop {
        let page = revocations.answer(AskRevocations::List { after }).await.unwrap();
        listed += page["revocations"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        after = next.to_owned();
    }
    assert_eq!(listed, 3000);
}

#[tokio::test]
async fn it_is_remembered_who_revoked_what_when_and_why_until_it_can_be_forgotten() {
    let world = World::new().await;
    let session = Target::session("clinic.example", "s-1");
    world.revocations().revoke(session, "provider staff", "signed out there", NOW).await.unwrap();
    let first = world.revocations().revoke(user("ann"), "operator", "first", NOW).await.unwrap();
    let again = world.revocations().revoke(user("ann"), "operator", "again", NOW + 10).await.unwrap();
    assert_eq!(first["id"], again["id"]);

    // Another control, with the same database.
    let revocations = world.revocations();
    let list = revocations.answer(AskRevocations::List { after: String::new() }).await.unwrap();
    let list = list["revocations"].as_array().unwrap().clone();
    assert_eq!(list.len(), 2);
    let of = |what: &str| list.iter().find(|one| one["what"] == what).unwrap();
    let (user, session) = (of("user"), of("session"));
    assert_eq!(
        (&user["by"], &user["why"], &user["provider"]),
        (&json!("operator"), &json!("again"), &json!("staff"))
    );
    assert_eq!((&user["issued_until"], &session["issued_until"]), (&json!(NOW + 10), &Value::Null));
    assert_eq!(session["by"], "provider staff");
    let actions: Vec<_> = world.store.audit(0).await.unwrap().into_iter().map(|r| r.action).collect();
    assert_eq!(actions, ["revoke"; 3]);

    revocations.forget(NOW + 3600).await.unwrap();
    let end = session["forgotten_at"].as_u64().unwrap();
    assert!(end > NOW + 24 * 3600, "no session lives for longer");
    revocations.forget(end).await.unwrap();
    for revocations in [revocations, world.revocations()] {
        let list = revocations.answer(AskRevocations::List { after: String::new() }).await.unwrap();
        assert_eq!(list["revocations"].as_array().unwrap().len(), 1);
    }
    world.store.verify_audit().await.unwrap();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_makes_no_shorter_list() {
    let world = World::new().await;
    let batch = Batch::new("test", "fill").put(KIND, "x", &json!({"what": "user"})).unwrap();
    world.store.apply(batch).await.unwrap();
    let mut proxy = Proxy::new(&world.revocations());
    let next = tokio::time::timeout(Duration::from_millis(1500), proxy.channel.recv());
    assert!(next.await.is_err(), "it waits for the whole list");
}

#[tokio::test]
async fn what_is_meant_is_found_in_the_fence_and_among_what_was_issued() {
    let world = World::new().await;
    let svid = |serial: &str, kind: &str| Issued {
        serial: serial.into(),
        kind: kind.into(),
        subject: "spiffe://clinic.example/service/billing".into(),
        key_digest: String::new(),
        not_before: NOW - 60,
        not_after: NOW + 1000,
    };
    world.store.issue_log("ca", vec![svid("0abc", "x509"), svid("0def", "serving")]).await.unwrap();
    let one = async |body: Value| world.target(body).await.unwrap().revocation(NOW);
    let key = one(json!({"what": "key", "provider": "staff", "name": "k1"})).await;
    assert_eq!((key.issuer.as_str(), key.issued_until, key.forget_at), (ISSUER, u64::MAX, u64::MAX));
    let all = one(json!({"what": "provider", "provider": "staff"})).await;
    assert_eq!((all.what, all.issued_until), (What::Issuer, NOW));
    let kept = one(json!({"what": "client", "provider": "staff", "name": "app", "keep": u64::MAX})).await;
    assert_eq!(kept.forget_at, u64::MAX);
    let kept = one(json!({"what": "token", "provider": "staff", "name": "t", "keep": 1})).await;
    assert!(kept.forget_at > NOW + 300 * 24 * 3600, "no shorter than is usual");
    let session = one(json!({"what": "session", "name": "s"})).await;
    assert_eq!((session.issuer.as_str(), session.what), ("clinic.example", What::Token("s".into())));
    let serial = one(json!({"what": "svid", "name": "0ABC"})).await;
    assert_eq!((serial.what, serial.forget_at), (What::Token("0abc".into()), NOW + 1120));
    let service = one(json!({"what": "svid", "name": "billing"})).await;
    let id = || What::Subject("spiffe://clinic.example/service/billing".into());
    assert_eq!(
        (service.issuer.as_str(), service.what, service.issued_until),
        (SVID, id(), NOW - SVID_BACKDATE)
    );
    let whole = one(json!({"what": "svid", "name": "billing", "for_good": true})).await;
    assert_eq!((whole.what, whole.issued_until, whole.forget_at), (id(), u64::MAX, u64::MAX));

    for (wrong, said) in [
        (json!({"what": "user", "provider": "nobody", "name": "ann"}), "it has staff"),
        (json!({"what": "user", "name": "ann"}), "of which provider"),
        (json!({"what": "client", "provider": "api_key", "name": "lab"}), "ringfence key revoke"),
        (json!({"what": "token", "provider": "certificate", "name": "ab:cd"}), "SHA-256"),
        (json!({"what": "user", "provider": "certificate", "name": "lab"}), "of certificates"),
        (json!({"what": "provider", "provider": "certificate"}), "of certificates"),
        (json!({"what": "svid", "name": "nothing"}), "neither a service"),
        (json!({"what": "svid", "name": "0def"}), "neither a service"),
        (json!({"what": "svid", "name": "0abc", "for_good": true}), "name the service"),
        (json!({"what": "user", "provider": "staff", "name": "ann", "for_good": true}), "only a service"),
    ] {
        let refused = world.target(wrong.clone()).await.unwrap_err();
        assert!(refused.1.contains(said), "{wrong}: {}", refused.1);
    }
    let revocations = world.revocations();
    for (target, why) in [(user(""), ""), (user(&"a".repeat(2000)), ""), (user("ann"), "two\nlines")] {
        let refused = revocations.revoke(target, "operator", why, NOW).await.unwrap_err();
        assert_eq!(refused.0, StatusCode::BAD_REQUEST);
    }
    assert!(world.dir.path().exists());
}

#[tokio::test]
async fn a_client_certificate_is_revoked_by_its_digest_and_all_of_a_client_by_its_name() {
    use ringfence_token::{CERTIFICATE, Revoked};
    let world = World::new().await;
    let digest = "0a".repeat(32);
    let shown = vec!["0A"; 32].join(":");
    for (what, name, about) in [
        ("token", shown.as_str(), Revoked::Token(&digest)),
        ("client", "lab-7.partner.example", Revoked::Client("lab-7.partner.example")),
    ] {
        let target =
            world.target(json!({"what": what, "provider": "certificate", "name": name})).await.unwrap();
        let revocation = target.revocation(NOW);
        assert_eq!((revocation.issued_until, revocation.forget_at), (u64::MAX, u64::MAX));
        let mut list = ringfence_token::Revocations::new(1);
        list.add(&revocation).unwrap();
        assert!(list.hits(CERTIFICATE, &[about], 0).is_some(), "{what}");
        assert!(list.hits("api_key", &[about], 0).is_none());
    }
}

#[tokio::test]
async fn those_who_sign_out_all_day_leave_the_operator_room() {
    let world = World::new().await;
    let revocations = world.revocations();
    let session = |id: &str| Target::session("clinic.example", id);
    let first = session("s").revocation(NOW);
    assert!(first.forget_at >= NOW + SESSION_MAX_LIFE);
    // It is remembered for as long as the session might last, and no longer.
    let forget_at = |end: u64| session("s").ending(end, NOW).revocation(NOW).forget_at;
    assert_eq!((forget_at(NOW + 60), forget_at(NOW - 60)), (NOW + 180, NOW + 120));
    assert_eq!(forget_at(u64::MAX), first.forget_at);
    {
        let mut all = lock(revocations.all().await.unwrap());
        for number in 0..MAX_REVOKED - OPERATORS_SHARE {
            let stored = Stored {
                revocation: first.clone(),
                what: "session".into(),
                provider: None,
                name: String::new(),
                at: NOW,
                by: "user".into(),
                why: String::new(),
            };
            all.insert(format!("n{number}"), stored);
        }
    }
    let full = revocations.revoke(session("a"), "user", "signed out", NOW).await.unwrap_err();
    assert_eq!(full.0, StatusCode::CONFLICT);
    revocations.revoke(session("a"), OPERATOR, "by the operator", NOW).await.unwrap();
    revocations.revoke(session("a"), "user", "again is no other one", NOW).await.unwrap();
}
