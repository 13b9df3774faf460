//! Several servers on one database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ringfence_store::{Batch, Durability, Postgres, Store, StoreError};
use serde_json::json;

use crate::engine::{Database, Engine, answered, eventually, impatient};
use crate::server::{FAST, Server};

fn put(name: &str, value: u64) -> Batch {
    Batch::new("test", "put").put("thing", name, &json!(value)).unwrap()
}

#[tokio::test]
async fn servers_that_start_at_once_on_an_empty_database_make_its_tables_once() {
    let database = Arc::new(Database::new().await);
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move { database.open().await })
        })
        .collect();
    for (n, store) in (1..).zip(opening) {
        assert_eq!(store.await.unwrap().apply(put("a", n)).await.unwrap(), n);
    }
}

#[tokio::test]
async fn a_reader_never_sees_a_revision_before_a_lower_one() {
    let database = Database::new().await;
    let done = Arc::new(AtomicBool::new(false));
    let (watcher, finished) = (database.open().await, done.clone());
    // Whatever is seen, everything below it is there, at once and for good.
    let reading = tokio::spawn(async move {
        let (mut last, mut rows) = (0, 0);
        while !finished.load(Ordering::SeqCst) || last < 120 {
            for row in watcher.outbox(last).await.unwrap() {
                assert!(row.revision == last || row.revision == last + 1, "{last} is followed by {row:?}");
                (last, rows) = (row.revision, rows + 1);
            }
        }
        rows
    });
    let mut writing = Vec::new();
    for server in 0..3 {
        let store = database.open().await;
        writing.push(tokio::spawn(async move {
            for n in 0..40 {
                store.apply(put(&format!("s{server}"), n)).await.unwrap();
            }
        }));
    }
    for task in writing {
        task.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert_eq!(reading.await.unwrap(), 120);
}

#[tokio::test]
async fn each_server_learns_what_the_others_write() {
    let database = Database::new().await;
    let (one, other) = (database.open().await, database.open().await);
    let mut watch = other.watch();
    for n in 1..=5 {
        one.apply(put("a", n)).await.unwrap();
    }
    watch.wait_for(|revision| *revision == 5).await.unwrap();
    other.apply(put("b", 1)).await.unwrap();
    eventually("the first knows of the second's", async || one.revision() == 6).await;
}

#[tokio::test]
async fn of_two_servers_that_lead_only_the_one_that_took_over_last_writes() {
    let database = Database::new().await;
    let (one, other) = (database.open().await, database.open().await);
    let lead = |who: &str, before| {
        Batch::new("test", "lead")
            .put("leader", "rotation", &json!(who))
            .unwrap()
            .expect("leader", "rotation", before)
    };
    let epoch = one.apply(lead("one", None)).await.unwrap();
    one.apply(put("a", 1).expect("leader", "rotation", Some(epoch))).await.unwrap();
    let next = other.apply(lead("other", Some(epoch))).await.unwrap();
    // The first was asleep and does not know.
    let late = one.apply(put("a", 2).expect("leader", "rotation", Some(epoch))).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })));
    other.apply(put("a", 3).expect("leader", "rotation", Some(next))).await.unwrap();
    assert_eq!(one.get("thing", "a").await.unwrap().unwrap().decode::<u64>().unwrap(), 3);
}

#[tokio::test]
async fn no_more_connections_are_used_than_are_allowed() {
    let database = Database::new().await;
    let store = database.open().await;
    let asking: Vec<_> = (0..200)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store.apply(put(&format!("n{n}"), n)).await.unwrap();
                assert!(store.get("thing", &format!("n{n}")).await.unwrap().is_some());
            })
        })
        .collect();
    for task in asking {
        task.await.unwrap();
    }
    let client = database.server.client(&database.name).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'ringfence%'";
    let count: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    // Four read, one writes, one follows.
    assert!((3..=6).contains(&count), "{count}");
}

#[tokio::test]
async fn a_store_outlives_its_database_and_goes_on_when_that_is_back() {
    let server = Arc::new(Server::new(FAST));
    let database = Database::on(server.clone()).await;
    let postgres = database.postgres().limits(impatient());
    let store = answered(async || Store::connect(postgres.clone(), Durability::Process).await).await.unwrap();
    let written =
        async |value: u64| answered(async || store.apply(put("a", value).key(value.to_string())).await).await;
    assert_eq!(written(1).await.unwrap(), 1);
    server.stop();
    let error = store.apply(put("a", 2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(matches!(store.get("thing", "a").await, Err(StoreError::Unavailable(_))));
    server.start();
    assert_eq!(written(3).await.unwrap(), 2);
    let found = answered(async || store.get("thing", "a").await).await.unwrap().unwrap();
    assert_eq!(found.decode::<u64>().unwrap(), 3);
}

#[tokio::test]
async fn a_server_that_would_forget_is_refused() {
    let server = Arc::new(Server::new(&["fsync=off", "synchronous_commit=off"]));
    let database = Database::on(server.clone()).await;
    let error = Store::connect(database.postgres(), Durability::Full).await.unwrap_err();
    assert!(error.to_string().contains("fsync = off"), "{error}");
    // Who only wants to outlive processes may, and still no commit is answered before it is written.
    let store = Store::connect(database.postgres(), Durability::Process).await.unwrap();
    assert_eq!(store.apply(put("a", 1)).await.unwrap(), 1);
    server.kill();
    server.start();
    assert_eq!(store.get("thing", "a").await.unwrap().unwrap().revision, 1);
    let client = server.client("postgres").await;
    client.batch_execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await.unwrap();
    let latin = Postgres::new("latin", "postgres").socket(server.socket(), 5432);
    let error = Store::connect(latin, Durability::Process).await.unwrap_err();
    assert!(error.to_string().contains("ENCODING 'UTF8'"), "{error}");
}
