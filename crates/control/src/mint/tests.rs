use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence_channel::BlockingChannel;
use ringfence_keeper::protocol::{Answer as KeeperAnswer, Call, Reply, Request};
use ringfence_keys::Secret;
use ringfence_model::Fence;
use ringfence_snapshot::{Addresses, Bundle, Der, Header, compile};
use ringfence_store::{Batch, Durability};
use serde_json::json;

use super::*;

const GATEWAY: &str = "spiffe://t.example/gateway/t";

fn snapshot() -> Snapshot {
    let text = "fence: t\ntrust_domain: t.example\ngateway: { listen: 127.0.0.1:1 }\nservices: { a: { listen: 1 } }\n";
    let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
    let header = Header {
        epoch: 1,
        revision: 1,
        issued_at: 0,
        expires_at: u64::MAX,
        lease: 1,
        bundle: Bundle::default(),
    };
    compile(&fence, &mut Addresses::default(), header).unwrap()
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn mint(shown: Shown) -> Mint {
    Mint { shown, workload: GATEWAY.into(), scope: String::new(), request: Map::new() }
}

fn token(text: &str) -> Mint {
    mint(Shown::Token { provider: "staff".into(), token: secret(text) })
}

/// A keeper whose tokens say what it was asked, and which takes its time; how many batches it had.
fn keeper() -> (Arc<Client>, Arc<AtomicUsize>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let batches = Arc::new(AtomicUsize::new(0));
    let counted = batches.clone();
    std::thread::spawn(move || {
        let channel = BlockingChannel::<KeeperAnswer, Call>::new(theirs);
        while let Ok((Call { id, request }, _)) = channel.recv() {
            let Request::MintTxn { requests } = request else { panic!("not expected: {request:?}") };
            counted.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
            let results = requests.into_iter().map(|MintRequest { ask, evidence }| {
                let text = match (&ask.shown, evidence) {
                    (Shown::Token { token, .. }, None) if token.expose() == "bad" => {
                        return Err(Refusal { code: RefusalCode::Denied, reason: "bad".into() });
                    }
                    (Shown::Token { token, .. }, None) => token.expose().clone(),
                    (Shown::ApiKey(_), Some(Evidence::ApiKey(record))) => record.client,
                    (Shown::Opaque { .. }, Some(Evidence::Introspected { claims, .. })) => {
                        claims["sub"].as_str().unwrap().to_owned()
                    }
                    other => panic!("not expected: {other:?}"),
                };
                Ok(TxnToken { token: Secret::new(text), expires_at: 1 })
            });
            let result = Ok(Reply::Minted { results: results.collect() });
            if channel.send(&KeeperAnswer { id, result }, &[]).is_err() {
                return;
            }
        }
    });
    (Arc::new(Client::new(ours).unwrap()), batches)
}

async fn minter(folder: &std::path::Path) -> (Minter, Store) {
    let store = Store::open(&folder.join("state.db"), Durability::Full).await.unwrap();
    (Minter::new(store.clone(), Known::default()), store)
}

fn said(outcome: Result<Told, NoAnswer>) -> Result<String, NoAnswerCode> {
    match outcome {
        Ok(Told::Minted { token, .. }) => Ok(token),
        Ok(other) => panic!("not expected: {other:?}"),
        Err(no) => Err(no.code),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_come_together_go_together_and_each_gets_its_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let ((minter, _), (keeper, batches)) = (minter(dir.path()).await, keeper());
    let asked: Vec<_> = (0..500)
        .map(|i| {
            let (minter, keeper) = (minter.clone(), keeper.clone());
            let text = if i % 7 == 0 { "bad".to_owned() } else { i.to_string() };
            tokio::spawn(async move { (text.clone(), said(minter.mint(keeper, token(&text)).await)) })
        })
        .collect();
    for one in asked {
        let (text, outcome) = one.await.unwrap();
        let expected = if text == "bad" { Err(NoAnswerCode::Denied) } else { Ok(text) };
        assert_eq!(outcome, expected);
    }
    assert!(batches.load(Ordering::Relaxed) < 250, "{batches:?}");
}

#[tokio::test]
async fn control_adds_what_it_knows_of_keys_and_opaque_tokens_and_refuses_what_nobody_knows() {
    let dir = tempfile::tempdir().unwrap();
    let ((minter, store), (keeper, batches)) = (minter(dir.path()).await, keeper());
    let ask = async |shown| said(minter.mint(keeper.clone(), mint(shown)).await);
    let key = ApiKey::generate();
    assert_eq!(ask(Shown::ApiKey(key.to_text())).await, Err(NoAnswerCode::Denied));
    let stored = json!({ "record": { "prefix": key.prefix(), "secret": key.digest(), "client": "lab" }, "created": 1 });
    let batch = Batch::new("test", "key").put("api_key", &key.prefix().to_string(), &stored).unwrap();
    store.apply(batch).await.unwrap();
    assert_eq!(ask(Shown::ApiKey(key.to_text())).await, Ok("lab".into()));
    assert_eq!(ask(Shown::ApiKey(secret("x"))).await, Err(NoAnswerCode::Denied));

    let opaque = |provider: &str| Shown::Opaque { provider: provider.into(), token: secret("o") };
    assert_eq!(ask(opaque("staff")).await, Err(NoAnswerCode::Denied), "nobody asked the provider");
    let claims = json!({ "sub": "nora" }).as_object().unwrap().clone();
    minter.introspected().keep("staff", "o", &claims, now() + 60, now());
    assert_eq!(ask(opaque("staff")).await, Ok("nora".into()));
    assert_eq!(ask(opaque("other")).await, Err(NoAnswerCode::Denied), "another provider said nothing of it");
    minter.introspected().forget("staff", "o");
    assert_eq!(ask(opaque("staff")).await, Err(NoAnswerCode::Denied));
    assert_eq!(batches.load(Ordering::Relaxed), 2, "the keeper is not asked in vain");
}

#[tokio::test]
async fn without_a_keeper_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (minter, _) = minter(dir.path()).await;
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let gone = Arc::new(Client::new(ours).unwrap());
    assert_eq!(said(minter.mint(gone, token("a")).await), Err(NoAnswerCode::Unavailable));
}

#[test]
fn a_node_asks_for_itself_and_within_bounds() {
    let snapshot = snapshot();
    let may = |mint: Mint| may_mint("local", &snapshot, &mint).map_err(|no| no.code);
    assert_eq!(may(token("a")), Ok(()));
    assert_eq!(may(Mint { workload: "spiffe://t.example/service/a".into(), ..token("a") }), Ok(()));
    for workload in ["spiffe://t.example/service/b", "spiffe://u.example/gateway/t", ""] {
        assert_eq!(may(Mint { workload: workload.into(), ..token("a") }), Err(NoAnswerCode::Denied));
    }
    let long = "x".repeat(MAX_TOKEN + 1);
    let certificate = |authority: &str, chain| Shown::Certificate { authority: authority.to_owned(), chain };
    let chain = |der: usize, count: usize| certificate("a.pem", vec![Der(vec![0; der]); count]);
    let members = |count: usize| (0..count).map(|i| (i.to_string(), json!(1))).collect::<Map<_, _>>();
    for huge in [
        token(&long),
        mint(Shown::Session(secret(&long))),
        mint(chain(MAX_CHAIN + 1, 1)),
        mint(chain(1, MAX_MEMBERS + 1)),
        mint(certificate(&long, Vec::new())),
        Mint { scope: long.clone(), ..token("a") },
        Mint { workload: long.clone(), ..token("a") },
        Mint { request: members(MAX_MEMBERS + 1), ..token("a") },
        Mint { request: Map::from_iter([("ip".to_owned(), long.clone().into())]), ..token("a") },
    ] {
        assert_eq!(may(huge), Err(NoAnswerCode::Malformed));
    }
}

#[test]
fn what_providers_said_is_bounded_and_over_when_they_say() {
    let kept = Introspected::default();
    let claims = json!({ "sub": "nora" }).as_object().unwrap().clone();
    kept.keep("staff", "a", &claims, 100, 50);
    assert_eq!(kept.find("staff", "a", 99), Some((claims.clone(), 100)));
    assert_eq!(kept.find("staff", "a", 100), None);
    kept.keep("staff", "over", &claims, 50, 50);
    assert_eq!(kept.find("staff", "over", 49), None);
    let large = json!({ "sub": "x".repeat(MAX_CLAIMS) }).as_object().unwrap().clone();
    kept.keep("staff", "large", &large, 100, 50);
    assert_eq!(kept.find("staff", "large", 60), None);
    for i in 0..MAX_KEPT + 10 {
        kept.keep("staff", &i.to_string(), &claims, 100, 50);
    }
    assert_eq!(kept.kept().len(), MAX_KEPT);
    kept.keep("staff", "late", &claims, 300, 200);
    assert_eq!(kept.kept().len(), 1, "what is over makes room");
}
