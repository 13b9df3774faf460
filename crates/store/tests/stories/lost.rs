//! Connections that end while a commit is under way: what was written is acknowledged, once, and what is not known is said to be so.

use ringfence_store::{Batch, Durability, Limits, Store, StoreError};
use serde_json::json;

use crate::engine::{Database, Engine, answered, eventually, impatient};
use crate::relay::{Fate, Relay};

struct Rig {
    database: Database,
    relay: Relay,
    store: Store,
}

async fn rig(limits: Limits) -> Rig {
    let database = Database::new().await;
    let relay = Relay::to(database.server.socket());
    let postgres = ringfence_store::Postgres::new(&database.name, "postgres").socket(relay.socket(), 5432);
    let postgres = postgres.limits(limits);
    let store = answered(async || Store::connect(postgres.clone(), Durability::Process).await).await.unwrap();
    Rig { database, relay, store }
}

fn put(value: u64) -> Batch {
    Batch::new("test", "put").put("thing", "a", &json!(value)).unwrap()
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_acknowledged_and_not_repeated() {
    let Rig { database: _database, relay, store } = rig(Limits::default()).await;
    relay.next_commit(Fate::AnswerLost, false);
    assert_eq!(store.apply(put(1)).await.unwrap(), 1);
    assert_eq!((relay.met(), store.verify_audit().await.unwrap().records), (1, 1));
    assert_eq!(store.apply(put(2)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_made_up_for() {
    let Rig { database: _database, relay, store } = rig(Limits::default()).await;
    relay.next_commit(Fate::QuestionLost, false);
    assert_eq!(store.apply(put(1)).await.unwrap(), 1);
    assert_eq!((relay.met(), store.verify_audit().await.unwrap().records), (1, 1));
}

#[tokio::test]
async fn a_transaction_left_behind_by_a_partition_is_ended_and_nobody_waits_for_it() {
    let Rig { database, relay, store } = rig(Limits::default()).await;
    relay.next_commit(Fate::Partition, false);
    assert_eq!(store.apply(put(1)).await.unwrap(), 1);
    assert_eq!(relay.met(), 1);
    let other = database.open().await;
    assert_eq!(other.apply(put(2)).await.unwrap(), 2);
    assert_eq!(other.verify_audit().await.unwrap().records, 2);
}

#[tokio::test]
async fn what_is_not_known_is_never_called_written_or_refused_and_is_found_out_later() {
    for (fate, written) in [(Fate::AnswerLost, Some(1)), (Fate::QuestionLost, None)] {
        let Rig { database, relay, store } = rig(impatient()).await;
        relay.next_commit(fate, true);
        let error = answered(async || store.apply(put(1)).await).await.unwrap_err();
        let StoreError::Unknown { key, .. } = error else { panic!("{fate:?}: {error}") };
        assert_eq!(relay.met(), 1);
        // While nobody gets through, nothing more is known, and nothing more is written.
        let error = store.apply(put(2)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        assert!(matches!(store.get("thing", "a").await, Err(StoreError::Unavailable(_))));
        relay.reopen();
        let outcome = answered(async || store.outcome(&key).await).await.unwrap();
        assert_eq!(outcome, written, "{fate:?}");
        assert_eq!(answered(async || store.apply(put(1).key(&key)).await).await.unwrap(), 1);
        assert_eq!(database.open().await.verify_audit().await.unwrap().records, 1);
    }
}

#[tokio::test]
async fn a_database_that_went_back_is_neither_written_nor_read() {
    let Rig { database, relay: _relay, store } = rig(impatient()).await;
    for value in 1..=3 {
        let batch = put(value).key(value.to_string());
        assert_eq!(answered(async || store.apply(batch.clone()).await).await.unwrap(), value);
    }
    // As a standby has it that lacked the last write and took over.
    database
        .alter(
            "DELETE FROM audit WHERE revision = 3; DELETE FROM outbox WHERE revision = 3; \
             DELETE FROM applied WHERE revision = 3; UPDATE document SET revision = 2; \
             UPDATE head SET revision = 2, audit_hash = (SELECT hash FROM audit WHERE revision = 2)",
        )
        .await;
    let refused = async || {
        let error = answered(async || store.apply(put(9)).await).await.unwrap_err();
        assert!(matches!(error, StoreError::Rewound { seen: 3, .. }), "{error}");
    };
    refused().await;
    let error = answered(async || store.get("thing", "a").await).await.unwrap_err();
    assert!(matches!(error, StoreError::Rewound { seen: 3, .. }), "{error}");
    assert_eq!(store.revision(), 3);
    // Somebody who knew no better has gone on meanwhile: the number is there again, but it is another one.
    let other = database.open().await;
    assert_eq!(other.apply(put(7)).await.unwrap(), 3);
    refused().await;
    assert_eq!(other.apply(put(8)).await.unwrap(), 4, "a server that refuses to write leaves no lock behind");
}

#[tokio::test]
async fn a_hint_that_got_lost_is_made_up_for_by_asking() {
    let Rig { database, relay: _relay, store } = rig(Limits::default()).await;
    // Written without a word.
    database
        .alter(
            "BEGIN; INSERT INTO audit VALUES (1, 1, 'test', 'silent', 'null', 'x'); \
             UPDATE head SET revision = 1, audit_hash = 'x'; COMMIT",
        )
        .await;
    eventually("the server knows of it", async || store.revision() == 1).await;
}
