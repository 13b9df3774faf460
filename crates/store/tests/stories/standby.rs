//! A standby takes over.

use std::sync::Arc;

use ringfence_store::{Batch, Durability, Limits, Postgres, Store, StoreError};
use serde_json::json;

use crate::engine::{Database, answered, impatient};
use crate::server::{FAST, Server};

fn put(value: u64) -> Batch {
    Batch::new("test", "put").put("thing", "a", &json!(value)).unwrap()
}

#[tokio::test]
async fn what_was_acknowledged_is_at_the_standby_that_takes_over_and_the_store_goes_on_there() {
    let primary = Arc::new(Server::new(FAST));
    let database = Database::on(primary.clone()).await;
    let standby = Server::standby(&primary, FAST);
    // From here on a commit is answered when the standby has it.
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    primary.sql("postgres", "SELECT pg_reload_conf()").await;
    let both = Postgres::new(&database.name, "postgres")
        .socket(primary.socket(), 5432)
        .socket(standby.socket(), 5432);
    // Only reading is expected to fail.
    let limits = Limits { read: impatient().read, ..Limits::default() };
    let store = Store::connect(both.limits(limits), Durability::Process).await.unwrap();
    for value in 1..=20 {
        assert_eq!(store.apply(put(value)).await.unwrap(), value);
    }
    primary.kill();
    standby.sql("postgres", "SELECT pg_promote()").await;
    assert_eq!(store.apply(put(21)).await.unwrap(), 21);
    assert_eq!(answered(async || store.verify_audit().await).await.unwrap().records, 21);
    // The old one comes back and knows nothing of it: it is not believed.
    drop(standby);
    primary.sync_with_nobody();
    primary.start();
    let error = answered(async || store.get("thing", "a").await).await.unwrap_err();
    assert!(matches!(error, StoreError::Rewound { seen: 21, .. }), "{error}");
}

#[tokio::test]
async fn a_commit_that_no_standby_has_is_not_acknowledged() {
    let server = Arc::new(Server::new(FAST));
    let database = Database::on(server.clone()).await;
    let postgres = database.postgres().limits(impatient());
    let store = answered(async || Store::connect(postgres.clone(), Durability::Process).await).await.unwrap();
    answered(async || store.apply(put(1).key("first")).await).await.unwrap();
    server.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    // The setting reaches each connection in its own time, so the next commits may still miss it.
    let key = loop {
        match answered(async || store.apply(put(2)).await).await {
            Ok(_) => {}
            Err(StoreError::Unknown { key, .. }) => break key,
            Err(error) => panic!("{error}"),
        }
    };
    // It is there, and must not be called so: it would be lost with this server.
    let again = answered(async || store.apply(put(2).key(&key)).await).await.unwrap_err();
    assert!(matches!(again, StoreError::Unknown { .. }), "{again}");
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names").await;
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    let revision = loop {
        match answered(async || store.apply(put(2).key(&key)).await).await {
            Ok(revision) => break revision,
            Err(StoreError::Unknown { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let tail = answered(async || store.verify_audit().await).await.unwrap();
    assert_eq!(tail.records, revision);
}
