//! From a file to a server, and what an operator is told of either.

use std::sync::Arc;

use ringfence_store::{Batch, Durability, Issued, Postgres, Store, StoreError, copy_file};
use serde_json::json;

use crate::engine::{Database, Engine, File, answered, eventually, impatient};
use crate::server::{FAST, Server};

/// Durable, as control wants it: the server of these stories must not be one that forgets.
async fn database() -> (Arc<Server>, Postgres) {
    let server = Arc::new(Server::new(&["autovacuum=off"]));
    let name = server.database().await;
    let postgres = Postgres::new(&name, "postgres").socket(server.socket(), 5432);
    (server, postgres)
}

fn issued(serial: &str) -> Issued {
    Issued {
        serial: serial.into(),
        kind: "x509".into(),
        subject: "spiffe://clinic.example/service/lab".into(),
        key_digest: "00".into(),
        not_before: 1,
        not_after: 2,
    }
}

async fn filled(file: &File) -> Store {
    let store = file.open().await;
    for n in 0..250 {
        let batch =
            Batch::new("operator", "put").detail(json!({ "n": n, "é": "\u{1F600}" })).key(format!("key {n}"));
        let sealed = (n % 2 == 0).then(|| vec![n as u8; 3]);
        let batch = batch.put_sealed("k", &format!("ä{}", n % 200), &json!({ "n": n }), sealed).unwrap();
        store.apply(batch.delete("k", "ä7").issued(vec![issued(&format!("{n:x}"))])).await.unwrap();
    }
    store
}

#[tokio::test]
async fn all_of_a_file_arrives_under_its_revisions_and_a_second_time_is_recognised() {
    let (file, (_server, postgres)) = (File::new().await, database().await);
    let store = filled(&file).await;
    let audit = store.verify_audit().await.unwrap();
    let (documents, outbox) = (store.list("k", "").await.unwrap(), store.outbox(0).await.unwrap());
    drop(store);
    let moved = copy_file(&file.path(), postgres.clone()).await.unwrap();
    assert_eq!((moved.revision, &moved.audit, moved.found), (250, &audit.hash, false));
    // 199 documents, and per revision a record, an issued one, a key, and rows of the outbox.
    assert_eq!(moved.rows, 199 + 3 * 250 + outbox.len() as u64);

    let there = Store::connect(postgres.clone(), Durability::Full).await.unwrap();
    assert_eq!(there.list("k", "").await.unwrap(), documents);
    assert_eq!(there.outbox(0).await.unwrap(), outbox);
    assert_eq!(there.outcome("key 3").await.unwrap(), Some(4));
    let again = copy_file(&file.path(), postgres.clone()).await.unwrap();
    assert_eq!((again.found, again.digest), (true, moved.digest), "an answer that was lost is had again");

    // It goes on where the file ended, in one chain; and then it is no copy of the file any more.
    assert_eq!(there.apply(Batch::new("operator", "more")).await.unwrap(), 251);
    assert_eq!(there.verify_audit().await.unwrap().records, 251);
    let refused = copy_file(&file.path(), postgres).await.unwrap_err().to_string();
    assert!(refused.contains("not empty") && refused.contains("251"), "{refused}");
}

#[tokio::test]
async fn a_copy_that_was_tampered_with_and_a_database_in_use_are_refused() {
    let (file, (server, postgres)) = (File::new().await, database().await);
    drop(filled(&file).await);
    copy_file(&file.path(), postgres.clone()).await.unwrap();
    server.sql("d0", "UPDATE document SET body = '{\"n\":1000}' WHERE name = 'ä9'").await;
    let refused = copy_file(&file.path(), postgres).await.unwrap_err().to_string();
    assert!(refused.contains("the file stays in force"), "{refused}");

    let other = Postgres::new(server.database().await, "postgres").socket(server.socket(), 5432);
    let used = Store::connect(other.clone(), Durability::Full).await.unwrap();
    used.apply(Batch::new("operator", "somebody else's")).await.unwrap();
    let refused = copy_file(&file.path(), other).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Setup(why) if why.contains("not empty")), "{refused}");
    assert_eq!(used.verify_audit().await.unwrap().records, 1, "and stays as it was");
}

#[tokio::test]
async fn both_engines_say_what_they_are() {
    let (file, database) = (File::new().await, Database::new().await);
    let (file, database) = ((file.open().await, &file), (database.open().await, &database));
    for (store, engine) in [(&file.0, "sqlite"), (&database.0, "postgresql")] {
        store.apply(Batch::new("operator", "test")).await.unwrap();
        let about = store.about().await.unwrap();
        assert_eq!((about.engine.as_str(), about.revision, about.known), (engine, 1, 1));
        assert!(about.size > 4096 && about.schema >= 2, "{about:?}");
        assert_eq!(store.trouble(), None);
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_told_as_such_until_it_is_back() {
    let server = Arc::new(Server::new(FAST));
    let database = Database::on(server.clone()).await;
    let store = Store::connect(database.postgres().limits(impatient()), Durability::Process).await.unwrap();
    store.apply(Batch::new("operator", "before")).await.unwrap();
    server.kill();
    eventually("trouble is told", async || store.trouble().is_some()).await;
    let refused = store.apply(Batch::new("operator", "meanwhile").key("meanwhile")).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_) | StoreError::Unknown { .. })), "{refused:?}");
    server.start();
    eventually("trouble is over", async || store.trouble().is_none()).await;
    answered(async || store.apply(Batch::new("operator", "meanwhile").key("meanwhile")).await).await.unwrap();
    assert_eq!(store.revision(), 2);
}
