//! What the stories run on.

use std::path::PathBuf;
use std::sync::Arc;

use ringfence_store::{Durability, Limits, Postgres, Store, StoreError};
use tempfile::TempDir;

use crate::server::Server;

/// A place that stores are opened at.
pub(crate) trait Engine: Sized + Send + Sync + 'static {
    async fn new() -> Self;
    async fn try_open(&self) -> Result<Store, StoreError>;
    async fn downgrade(&self, version: u32) -> Result<(), StoreError>;
    /// What somebody does to the database by hand.
    async fn alter(&self, sql: &'static str);

    async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }
}

/// A file.
pub(crate) struct File(TempDir);

impl File {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("state.db")
    }
}

impl Engine for File {
    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.path(), Durability::Process).await
    }

    async fn downgrade(&self, version: u32) -> Result<(), StoreError> {
        Store::downgrade_file(&self.path(), version).await
    }

    async fn alter(&self, sql: &'static str) {
        use sqlx::{ConnectOptions, Executor};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path());
        options.connect().await.unwrap().execute(sql).await.unwrap();
    }
}

/// A database of a server that the stories running at the same time share.
pub(crate) struct Database {
    pub(crate) server: Arc<Server>,
    pub(crate) name: String,
}

impl Database {
    pub(crate) async fn on(server: Arc<Server>) -> Self {
        let name = server.database().await;
        Self { server, name }
    }

    pub(crate) fn postgres(&self) -> Postgres {
        Postgres::new(&self.name, "postgres").socket(self.server.socket(), 5432)
    }
}

impl Engine for Database {
    async fn new() -> Self {
        Self::on(Server::shared()).await
    }

    async fn try_open(&self) -> Result<Store, StoreError> {
        Store::connect(self.postgres(), Durability::Process).await
    }

    async fn downgrade(&self, version: u32) -> Result<(), StoreError> {
        Store::downgrade_database(self.postgres(), version).await
    }

    async fn alter(&self, sql: &'static str) {
        self.server.sql(&self.name, sql).await;
    }
}

/// Tries until the database has answered in time, which on a busy machine may need more than what [`impatient`] grants. What it tries must
/// be such that it can be repeated.
pub(crate) async fn answered<T>(attempt: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..60 {
        match attempt().await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            answer => return answer,
        }
    }
    panic!("the database never answered in time");
}

/// Limits for stories that wait for them to be reached.
pub(crate) fn impatient() -> Limits {
    let second = std::time::Duration::from_secs(1);
    Limits { write: 2 * second, read: 2 * second, connect: second, ..Limits::default() }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..1800 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it never came to this: {what}");
}
