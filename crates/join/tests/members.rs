//! Who joins, and what a removed host gets.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use ringfence_join::{Hosts, JoinError, JoinToken, MAX_TTL, Request, Seat};
use ringfence_keys::{Algorithm, SigningKey, possession};
use ringfence_spiffe::{TrustBundle, TrustDomain};
use ringfence_store::{Durability, Issued, Store};

const NOW: u64 = 1_800_000_000;

struct Place {
    _folder: tempfile::TempDir,
    store: Store,
    hosts: Hosts,
}

async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db"), Durability::Process).await.unwrap();
    Place { _folder: folder, hosts: Hosts::new(store.clone()), store }
}

fn token(host: &str, domain: &str) -> JoinToken {
    let domain = TrustDomain::new(domain).unwrap();
    let bundle = TrustBundle::new(domain, Vec::new(), Vec::new(), 1, None).unwrap();
    JoinToken::generate(host, &bundle, vec!["192.0.2.1:7443".parse().unwrap()]).unwrap()
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::P256).unwrap()
}

async fn join(hosts: &Hosts, token: &JoinToken, key: &SigningKey, now: u64) -> Result<Seat, JoinError> {
    let id = format!("spiffe://{}/node/{}", token.trust_domain().as_str(), token.host());
    let proof = possession::prove(key, &id).unwrap();
    hosts.join(&Request { token, key: key.verifying_key(), proof: &proof }, now).await
}

fn certificate(serial: &str) -> Vec<Issued> {
    vec![Issued {
        serial: serial.to_owned(),
        kind: "x509".to_owned(),
        subject: "spiffe://clinic.example/node/east".to_owned(),
        key_digest: "00".repeat(32),
        not_before: NOW,
        not_after: NOW + 3600,
    }]
}

#[tokio::test]
async fn a_token_is_good_once() {
    let place = place().await;
    let (token, first) = (token("east", "clinic.example"), key());
    place.hosts.admit(&token, 600, NOW, "operator").await.unwrap();
    let seat = join(&place.hosts, &token, &first, NOW + 599).await.unwrap();
    seat.issue(certificate("a1")).await.unwrap();
    assert!(place.store.issued_serial("a1").await.unwrap().is_some());
    assert!(matches!(join(&place.hosts, &token, &key(), NOW).await, Err(JoinError::Unknown(_))));
    place.hosts.seat("east", first.verifying_key()).await.unwrap();
    let other = place.hosts.seat("east", key().verifying_key()).await;
    assert!(matches!(other, Err(JoinError::Stranger(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_with_one_token_one_joins() {
    let place = place().await;
    let token = token("east", "clinic.example");
    place.hosts.admit(&token, 600, NOW, "operator").await.unwrap();
    let tries: Vec<_> = (0..16)
        .map(|_| {
            let (hosts, token) = (place.hosts.clone(), token.clone());
            tokio::spawn(async move { join(&hosts, &token, &key(), NOW).await.map(|_| ()) })
        })
        .collect();
    let mut joined = 0;
    for one in tries {
        match one.await.unwrap() {
            Ok(()) => joined += 1,
            Err(why) => assert!(matches!(why, JoinError::Unknown(_)), "{why}"),
        }
    }
    assert_eq!(joined, 1);
}

#[tokio::test]
async fn what_is_forged_ended_replaced_or_not_proved_is_refused_and_spends_nothing() {
    let place = place().await;
    let good = token("east", "clinic.example");
    place.hosts.admit(&token("east", "clinic.example"), 600, NOW, "operator").await.unwrap();
    let replaced = token("west", "clinic.example");
    place.hosts.admit(&replaced, 600, NOW, "operator").await.unwrap();
    place.hosts.admit(&token("west", "clinic.example"), 600, NOW, "operator").await.unwrap();
    place.hosts.admit(&good, 600, NOW, "operator").await.unwrap();
    for bad in [token("east", "clinic.example"), token("north", "clinic.example"), replaced] {
        assert!(matches!(join(&place.hosts, &bad, &key(), NOW).await, Err(JoinError::Unknown(_))));
    }
    assert!(matches!(join(&place.hosts, &good, &key(), NOW + 600).await, Err(JoinError::Ended(_))));
    let (mine, theirs) = (key(), key());
    for subject in ["spiffe://clinic.example/node/west", "spiffe://clinic.example/service/east"] {
        let proof = possession::prove(&mine, subject).unwrap();
        let request = Request { token: &good, key: mine.verifying_key(), proof: &proof };
        assert!(matches!(place.hosts.join(&request, NOW).await, Err(JoinError::Possession(_))));
    }
    let proof = possession::prove(&theirs, "spiffe://clinic.example/node/east").unwrap();
    let request = Request { token: &good, key: mine.verifying_key(), proof: &proof };
    assert!(matches!(place.hosts.join(&request, NOW).await, Err(JoinError::Possession(_))));
    assert!(place.hosts.list().await.unwrap().is_empty());
    join(&place.hosts, &good, &mine, NOW).await.unwrap();
    for ttl in [0, MAX_TTL + 1] {
        assert!(matches!(place.hosts.admit(&good, ttl, NOW, "operator").await, Err(JoinError::Ttl)));
    }
}

#[tokio::test]
async fn a_removed_host_gets_nothing_even_by_a_view_from_before() {
    let place = place().await;
    let (first, mine) = (token("east", "clinic.example"), key());
    place.hosts.admit(&first, 600, NOW, "operator").await.unwrap();
    let before = join(&place.hosts, &first, &mine, NOW).await.unwrap();
    let waiting = token("east", "clinic.example");
    place.hosts.admit(&waiting, 600, NOW, "operator").await.unwrap();
    assert!(place.hosts.remove("east", NOW + 1, "operator").await.unwrap());
    assert!(matches!(before.issue(certificate("b1")).await, Err(JoinError::Stranger(_))));
    assert!(place.store.issued_serial("b1").await.unwrap().is_none());
    assert!(matches!(place.hosts.seat("east", mine.verifying_key()).await, Err(JoinError::Stranger(_))));
    assert!(matches!(join(&place.hosts, &waiting, &mine, NOW).await, Err(JoinError::Unknown(_))));
    assert_eq!(place.hosts.list().await.unwrap()["east"].removed_at, Some(NOW + 1));
    assert!(!place.hosts.remove("east", NOW + 2, "operator").await.unwrap());
    let again = token("east", "clinic.example");
    place.hosts.admit(&again, 600, NOW, "operator").await.unwrap();
    join(&place.hosts, &again, &key(), NOW).await.unwrap();
    assert!(matches!(before.issue(certificate("b2")).await, Err(JoinError::Stranger(_))));
}

#[tokio::test]
async fn the_secret_is_nowhere_in_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state.db"), Durability::Process).await.unwrap();
    let token = token("east", "clinic.example");
    Hosts::new(store).admit(&token, 600, NOW, "operator").await.unwrap();
    let secret = ringfence_keys::to_hex(token.secret().expose());
    let mut seen = false;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        seen |= bytes.windows(10).any(|part| part == b"join_token");
        assert!(!bytes.windows(32).any(|part| part == token.secret().expose()));
        assert!(!bytes.windows(64).any(|part| part == secret.as_bytes()));
    }
    assert!(seen);
}
