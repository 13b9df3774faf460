//! What the store promises, on real files.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use ringfence_store::{Batch, Durability, Issued, MAX_CHANGES, Store, StoreError};
use serde_json::{Value, json};

async fn open(directory: &Path) -> Store {
    Store::open(&directory.join("state.db"), Durability::Full).await.unwrap()
}

fn put(name: &str, value: u64) -> Batch {
    Batch::new("test", "put").put("thing", name, &json!({ "value": value })).unwrap()
}

fn record(serial: &str, not_after: u64) -> Issued {
    Issued {
        serial: serial.into(),
        kind: "x509".into(),
        subject: "spiffe://clinic.example/service/portal".into(),
        key_digest: "00".into(),
        not_before: 1,
        not_after,
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_with_its_audit_record_and_outbox_row() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    assert_eq!(store.revision(), 0);
    assert_eq!(store.apply(put("a", 1)).await.unwrap(), 1);
    let sealed = Batch::new("test", "put").put_sealed("thing", "b", &json!(2), Some(vec![9])).unwrap();
    assert_eq!(store.apply(sealed.delete("thing", "a")).await.unwrap(), 2);
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(store.revision(), 2);
    assert!(store.get("thing", "a").await.unwrap().is_none());
    let document = store.get("thing", "b").await.unwrap().unwrap();
    assert_eq!(
        (document.revision, document.decode::<u64>().unwrap(), document.sealed),
        (2, 2, Some(vec![9]))
    );
    let outbox = store.outbox(0).await.unwrap();
    let outbox: Vec<_> =
        outbox.iter().map(|row| (row.revision, row.name.as_str(), row.effect.as_str())).collect();
    assert_eq!(outbox, [(1, "a", "put"), (2, "b", "put"), (2, "a", "delete")]);
    assert_eq!(store.outbox(1).await.unwrap().len(), 2);
    assert_eq!(store.verify_audit().await.unwrap().records, 2);
    let mode = std::fs::metadata(directory.path().join("state.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_batch_as_large_as_is_taken_is_written_whole_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let many = (0..MAX_CHANGES)
        .fold(Batch::new("test", "put"), |batch, i| batch.put("thing", &format!("{i:04}"), &i).unwrap());
    assert_eq!(store.apply(many).await.unwrap(), 1);
    let names: Vec<_> = store.outbox(0).await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names.len(), MAX_CHANGES);
    assert!(names.is_sorted());
    assert_eq!(store.list("thing", "").await.unwrap().len(), MAX_CHANGES);
}

#[tokio::test]
async fn revisions_follow_commits_without_gaps_however_many_write_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let tasks: Vec<_> = (0..300)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move { store.apply(put(&format!("n{}", i % 7), i)).await.unwrap() })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=300).collect::<Vec<_>>());
    assert_eq!(store.verify_audit().await.unwrap().records, 300);
    // What a reader sees under a revision is what the revision wrote.
    for row in store.outbox(0).await.unwrap().iter().rev().take(7) {
        let document = store.get("thing", &row.name).await.unwrap().unwrap();
        assert!(document.revision >= row.revision);
    }
}

#[tokio::test]
async fn who_expects_what_is_no_longer_so_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.apply(put("a", 1).expect("thing", "a", None)).await.unwrap();
    let stale = store.apply(put("a", 2).expect("thing", "a", None)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    store.apply(put("a", 3).expect("thing", "a", Some(1))).await.unwrap();
    assert_eq!(store.get("thing", "a").await.unwrap().unwrap().decode::<Value>().unwrap()["value"], 3);
    assert_eq!(store.verify_audit().await.unwrap().records, 2);
}

#[tokio::test]
async fn what_was_issued_is_found_by_serial_and_by_end_and_a_serial_is_issued_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.issue_log("ca", vec![record("01", 100), record("02", 50)]).await.unwrap();
    assert_eq!(store.issued(50).await.unwrap(), [record("01", 100)]);
    assert_eq!(store.issued_serial("02").await.unwrap(), Some(record("02", 50)));
    assert!(store.issue_log("ca", vec![record("03", 1), record("01", 7)]).await.is_err());
    assert!(store.issued_serial("03").await.unwrap().is_none());
    let many: Vec<Issued> = (0..2000).map(|i| record(&format!("m{i}"), 200)).collect();
    store.issue_log("ca", many).await.unwrap();
    assert_eq!(store.issued(150).await.unwrap().len(), 2000);
}

#[tokio::test]
async fn an_altered_audit_trail_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    for i in 0..5 {
        store.apply(put("a", i)).await.unwrap();
    }
    let path = directory.path().join("state.db");
    let alter = async |sql: &'static str| {
        use sqlx::{ConnectOptions, Executor};
        let mut connection =
            sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        connection.execute(sql).await.unwrap();
    };
    alter("UPDATE audit SET actor = 'nobody' WHERE revision = 3").await;
    assert!(matches!(store.verify_audit().await, Err(StoreError::Altered(3, _))));
    alter("UPDATE audit SET actor = 'test' WHERE revision = 3").await;
    assert_eq!(store.verify_audit().await.unwrap().records, 5);
    alter("DELETE FROM audit WHERE revision = 2").await;
    assert!(matches!(store.verify_audit().await, Err(StoreError::Altered(2, _))));
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    assert!(matches!(store.apply(put(&"n".repeat(3000), 1)).await, Err(StoreError::TooLarge)));
    let many = (0..5000).map(|i| record(&i.to_string(), 1)).collect();
    assert!(matches!(store.issue_log("ca", many).await, Err(StoreError::TooLarge)));
    assert!(Batch::new("a", "b").put("k", "n", &"x".repeat(17 << 20)).is_err());
    assert_eq!(store.revision(), 0);
}

#[tokio::test]
async fn the_tables_can_be_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", directory.path().join("state.db").display()))
        .await
        .unwrap();
    sqlx::migrate!("./migrations").undo(&pool, 0).await.unwrap();
    sqlx::migrate!("./migrations").run(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(open(directory.path()).await.revision(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The store against a map: after any sequence of writes both say the same, before and after a restart.
    #[test]
    fn the_store_is_a_map_that_survives(steps in prop::collection::vec((0..4_u8, any::<bool>(), any::<u32>()), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut model = std::collections::BTreeMap::new();
            let mut store = open(directory.path()).await;
            for (i, (name, delete, value)) in steps.iter().enumerate() {
                let name = name.to_string();
                let batch = Batch::new("test", "step");
                let batch = if *delete {
                    model.remove(&name);
                    batch.delete("thing", &name)
                } else {
                    model.insert(name.clone(), *value);
                    batch.put("thing", &name, value).unwrap()
                };
                assert_eq!(store.apply(batch).await.unwrap(), i as u64 + 1);
                if value % 5 == 0 {
                    drop(store);
                    store = open(directory.path()).await;
                }
            }
            let list = store.list("thing", "").await.unwrap();
            let found: Vec<_> = list.iter().map(|d| (d.name.clone(), d.decode::<u32>().unwrap())).collect();
            assert_eq!(found, model.into_iter().collect::<Vec<_>>());
        });
    }
}
