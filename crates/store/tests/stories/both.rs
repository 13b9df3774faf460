//! Stories that hold for both engines.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use ringfence_store::{Batch, Issued, MAX_CHANGES, StoreError};
use serde_json::{Value, json};

use crate::engine::{Database, Engine, File};

macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $story() {
                super::$story::<super::File>().await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $story() {
                super::$story::<super::Database>().await;
            })*
        }
    };
}

stories!(
    what_was_acknowledged_is_there_after_a_restart_with_its_audit_record_and_outbox_row,
    a_batch_as_large_as_is_taken_is_written_whole_and_in_order,
    revisions_follow_commits_without_gaps_however_many_write_at_once,
    who_expects_what_is_no_longer_so_writes_nothing,
    what_was_issued_is_found_by_serial_and_by_end_and_a_serial_is_issued_once,
    an_altered_audit_trail_is_found,
    what_is_too_large_is_refused_before_it_is_queued,
    tables_go_one_version_back_and_forth_and_keep_what_is_in_them,
    tables_of_a_newer_program_are_used_if_it_says_so_and_never_otherwise,
    a_key_is_written_once_however_often_it_is_tried,
    whoever_shares_a_commit_with_a_refused_batch_is_written_all_the_same,
    documents_are_listed_by_their_bytes_in_every_language,
);

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

async fn what_was_acknowledged_is_there_after_a_restart_with_its_audit_record_and_outbox_row<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    assert_eq!(store.revision(), 0);
    assert_eq!(store.apply(put("a", 1)).await.unwrap(), 1);
    let sealed = Batch::new("test", "put").put_sealed("thing", "b", &json!(2), Some(vec![9])).unwrap();
    assert_eq!(store.apply(sealed.delete("thing", "a")).await.unwrap(), 2);
    drop(store);
    let store = engine.open().await;
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
}

async fn a_batch_as_large_as_is_taken_is_written_whole_and_in_order<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    let many = (0..MAX_CHANGES)
        .fold(Batch::new("test", "put"), |batch, i| batch.put("thing", &format!("{i:04}"), &i).unwrap());
    assert_eq!(store.apply(many).await.unwrap(), 1);
    let names: Vec<_> = store.outbox(0).await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names.len(), MAX_CHANGES);
    assert!(names.is_sorted());
    assert_eq!(store.list("thing", "").await.unwrap().len(), MAX_CHANGES);
}

async fn revisions_follow_commits_without_gaps_however_many_write_at_once<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
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

async fn who_expects_what_is_no_longer_so_writes_nothing<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    store.apply(put("a", 1).expect("thing", "a", None)).await.unwrap();
    let stale = store.apply(put("a", 2).expect("thing", "a", None)).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })));
    store.apply(put("a", 3).expect("thing", "a", Some(1))).await.unwrap();
    assert_eq!(store.get("thing", "a").await.unwrap().unwrap().decode::<Value>().unwrap()["value"], 3);
    assert_eq!(store.verify_audit().await.unwrap().records, 2);
}

async fn what_was_issued_is_found_by_serial_and_by_end_and_a_serial_is_issued_once<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    store.issue_log("ca", vec![record("01", 100), record("02", 50)]).await.unwrap();
    assert_eq!(store.issued(50).await.unwrap(), [record("01", 100)]);
    assert_eq!(store.issued_serial("02").await.unwrap(), Some(record("02", 50)));
    assert!(store.issue_log("ca", vec![record("03", 1), record("01", 7)]).await.is_err());
    assert!(store.issued_serial("03").await.unwrap().is_none());
    let many: Vec<Issued> = (0..2000).map(|i| record(&format!("m{i}"), 200)).collect();
    store.issue_log("ca", many).await.unwrap();
    assert_eq!(store.issued(150).await.unwrap().len(), 2000);
}

async fn an_altered_audit_trail_is_found<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    for i in 0..5 {
        store.apply(put("a", i)).await.unwrap();
    }
    engine.alter("UPDATE audit SET actor = 'nobody' WHERE revision = 3").await;
    assert!(matches!(store.verify_audit().await, Err(StoreError::Altered(3, _))));
    engine.alter("UPDATE audit SET actor = 'test' WHERE revision = 3").await;
    assert_eq!(store.verify_audit().await.unwrap().records, 5);
    engine.alter("DELETE FROM audit WHERE revision = 2").await;
    assert!(matches!(store.verify_audit().await, Err(StoreError::Altered(2, _))));
}

async fn what_is_too_large_is_refused_before_it_is_queued<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    assert!(matches!(store.apply(put(&"n".repeat(3000), 1)).await, Err(StoreError::TooLarge)));
    let many = (0..5000).map(|i| record(&i.to_string(), 1)).collect();
    assert!(matches!(store.issue_log("ca", many).await, Err(StoreError::TooLarge)));
    assert!(Batch::new("a", "b").put("k", "n", &"x".repeat(17 << 20)).is_err());
    assert_eq!(store.revision(), 0);
}

async fn tables_go_one_version_back_and_forth_and_keep_what_is_in_them<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    store.apply(put("a", 1).key("first")).await.unwrap();
    drop(store);
    engine.downgrade(1).await.unwrap();
    let store = engine.open().await;
    assert_eq!((store.revision(), store.get("thing", "a").await.unwrap().unwrap().revision), (1, 1));
    assert_eq!(store.outcome("first").await.unwrap(), None, "keys came with the second version");
    assert_eq!(store.apply(put("a", 2)).await.unwrap(), 2);
    drop(store);
    engine.downgrade(0).await.unwrap();
    assert_eq!(engine.open().await.revision(), 0);
}

async fn tables_of_a_newer_program_are_used_if_it_says_so_and_never_otherwise<E: Engine>() {
    let engine = E::new().await;
    drop(engine.open().await);
    engine.alter("INSERT INTO schema_version (version, oldest) VALUES (3, 2)").await;
    let store = engine.open().await;
    assert_eq!(store.apply(put("a", 1)).await.unwrap(), 1);
    drop(store);
    engine.alter("INSERT INTO schema_version (version, oldest) VALUES (4, 3)").await;
    let error = engine.try_open().await.unwrap_err();
    assert!(matches!(error, StoreError::Newer(..)), "{error}");
    assert!(engine.downgrade(1).await.is_err());
}

async fn a_key_is_written_once_however_often_it_is_tried<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    assert_eq!(store.outcome("k").await.unwrap(), None);
    assert_eq!(store.apply(put("a", 1).key("k")).await.unwrap(), 1);
    assert_eq!(store.apply(put("b", 1)).await.unwrap(), 2);
    // Also when it would not fit any more, and after a restart.
    assert_eq!(store.apply(put("a", 9).expect("thing", "a", None).key("k")).await.unwrap(), 1);
    drop(store);
    let store = engine.open().await;
    assert_eq!(store.apply(put("a", 9).key("k")).await.unwrap(), 1);
    assert_eq!(store.outcome("k").await.unwrap(), Some(1));
    assert_eq!(store.get("thing", "a").await.unwrap().unwrap().decode::<Value>().unwrap()["value"], 1);
    assert_eq!((store.revision(), store.verify_audit().await.unwrap().records), (2, 2));
    let refused = store.apply(put("c", 1).expect("thing", "c", Some(7)).key("refused")).await;
    assert!(matches!(refused, Err(StoreError::Conflict { .. })));
    assert_eq!(store.apply(put("c", 1).key("refused")).await.unwrap(), 3, "what was refused took no key");
}

async fn whoever_shares_a_commit_with_a_refused_batch_is_written_all_the_same<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    store.issue_log("ca", vec![record("01", 100)]).await.unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let store = store.clone();
            // Every tenth issues a serial that is issued already.
            let serial = if i % 10 == 0 { "01".to_owned() } else { format!("s{i}") };
            tokio::spawn(async move { store.issue_log("ca", vec![record(&serial, 100)]).await.is_ok() })
        })
        .collect();
    let mut written = 0;
    for task in tasks {
        written += u64::from(task.await.unwrap());
    }
    assert_eq!((written, store.revision()), (36, 37));
}

async fn documents_are_listed_by_their_bytes_in_every_language<E: Engine>() {
    let engine = E::new().await;
    let store = engine.open().await;
    let names = ["Zebra", "a-b", "a/b", "ab", "zebra", "\u{e4}hre", "\u{1f512}"];
    for name in names.iter().rev() {
        store.apply(put(name, 1)).await.unwrap();
    }
    let listed: Vec<_> = store.list("thing", "").await.unwrap().into_iter().map(|d| d.name).collect();
    assert_eq!(listed, names);
    assert_eq!(store.list("thing", "ab").await.unwrap().len(), 3);
    let error = store.apply(put("a\0b", 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Name), "{error}");
    // In a body it is an escape, which is text.
    store.apply(Batch::new("test", "put").put("thing", "nul", &"a\0b").unwrap()).await.unwrap();
    assert_eq!(store.get("thing", "nul").await.unwrap().unwrap().decode::<String>().unwrap(), "a\0b");
}

#[tokio::test]
async fn the_file_is_private_and_files_of_the_first_program_are_taken_over() {
    let file = File::new().await;
    let store = file.open().await;
    store.apply(put("a", 1)).await.unwrap();
    drop(store);
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The first program kept its list of steps elsewhere.
    file.downgrade(1).await.unwrap();
    file.alter("DROP TABLE schema_version").await;
    let store = file.open().await;
    assert_eq!((store.revision(), store.list("thing", "").await.unwrap().len()), (1, 1));
    assert_eq!(store.apply(put("a", 2).key("k")).await.unwrap(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_file_is_a_map_that_survives(steps in steps()) {
        map_that_survives::<File>(&steps);
    }
}

proptest! {
    // Each case is a database of its own.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_database_is_a_map_that_survives(steps in steps()) {
        map_that_survives::<Database>(&steps);
    }
}

type Steps = Vec<(u8, bool, u32)>;

fn steps() -> impl Strategy<Value = Steps> {
    prop::collection::vec((0..4_u8, any::<bool>(), any::<u32>()), 1..30)
}

/// The store against a map: after any sequence of writes both say the same, before and after a restart.
fn map_that_survives<E: Engine>(steps: &Steps) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = E::new().await;
        let mut model = std::collections::BTreeMap::new();
        let mut store = engine.open().await;
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
                store = engine.open().await;
            }
        }
        let list = store.list("thing", "").await.unwrap();
        let found: Vec<_> = list.iter().map(|d| (d.name.clone(), d.decode::<u32>().unwrap())).collect();
        assert_eq!(found, model.into_iter().collect::<Vec<_>>());
    });
}
