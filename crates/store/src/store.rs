//! The handle that others hold.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::error::StoreError;
use crate::postgres::{self, Postgres};
use crate::row::{Row, Value};
use crate::sqlite;
use crate::writer::{Job, Writer, run};

/// Batches that wait to be written.
const QUEUE: usize = 256;

/// What a return from [`Store::apply`] promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Survives a loss of power.
    #[default]
    Full,
    /// Survives the death of every process, but not a loss of power in the last moments.
    Process,
}

/// Durable state. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    reader: Reader,
    jobs: mpsc::Sender<Job>,
    newest: watch::Receiver<u64>,
    follower: Option<Arc<Follower>>,
    health: Option<postgres::Health>,
}

#[derive(Clone, Debug)]
enum Reader {
    Sqlite(sqlite::Reader),
    Postgres(postgres::Reader),
}

/// The task that learns what other servers write; it ends with the last handle.
#[derive(Debug)]
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Store {
    /// Opens the file at `path` (mode 0600), creates it and brings its tables up to date as needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        let (writer, reader, head) = sqlite::open(path, durability).await?;
        let (newest, _) = watch::channel(head);
        Ok(Self::start(Writer::Sqlite(writer), Reader::Sqlite(reader), Arc::new(newest)))
    }

    /// Opens a database of a PostgreSQL server and brings its tables up to date as needed. Any number of processes may do so at once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connect(postgres: Postgres, durability: Durability) -> Result<Self, StoreError> {
        let opened = postgres::open(postgres, durability).await?;
        let (newest, health) = (opened.newest.clone(), opened.health.clone());
        let mut store =
            Self::start(Writer::Postgres(Box::new(opened.writer)), Reader::Postgres(opened.reader), newest);
        store.follower = Some(Arc::new(Follower(tokio::spawn(opened.follower.run()).abort_handle())));
        store.health = Some(health);
        Ok(store)
    }

    fn start(writer: Writer, reader: Reader, newest: Arc<watch::Sender<u64>>) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let revision = newest.subscribe();
        tokio::spawn(run(writer, queue, newest));
        Self { reader, jobs, newest: revision, follower: None, health: None }
    }

    /// Writes what is in the file `from` at one moment into the new file `to`, while a [`Store`] works with it.
    ///
    /// # Errors
    /// The file, or the disk.
    pub async fn copy_of_file(from: &Path, to: &Path) -> Result<(), StoreError> {
        sqlite::copy(from, to).await
    }

    /// Checks that a file is whole: its pages, and its audit trail from the first record to the last. Answers its newest revision.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check_file(path: &Path) -> Result<u64, StoreError> {
        sqlite::check(path).await?;
        let store = Self::open(path, Durability::Full).await?;
        store.verify_audit().await?;
        Ok(store.revision())
    }

    /// Takes the tables of a file back to `version`, for a program that knows no newer ones. Nothing else may have it open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn downgrade_file(path: &Path, version: u32) -> Result<(), StoreError> {
        sqlite::downgrade(path, version.into()).await
    }

    /// The same for a database of a PostgreSQL server. No server may use it meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn downgrade_database(postgres: Postgres, version: u32) -> Result<(), StoreError> {
        postgres::downgrade(postgres, version.into()).await
    }

    /// Writes a batch and waits until it is durable. Answers its revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold; then, as with any other error but
    /// [`StoreError::Unknown`], nothing was written.
    pub async fn apply(&self, mut batch: Batch) -> Result<u64, StoreError> {
        batch.check()?;
        if matches!(self.reader, Reader::Postgres(_)) {
            // Whether a commit happened whose answer was lost is found out by the key.
            batch.key.get_or_insert_with(|| uuid::Uuid::now_v7().to_string());
        }
        let (reply, outcome) = oneshot::channel();
        let since = self.health.as_ref().map_or_else(Instant::now, postgres::Health::since);
        let job = Job { batch, since, reply };
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Under which revision a batch of that key was written, if it was. Certain: a commit still under way is waited for.
    ///
    /// # Errors
    /// The database.
    pub async fn outcome(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let rows = match &self.reader {
            Reader::Sqlite(_) => {
                self.rows("SELECT revision FROM applied WHERE key = $1", &[Value::Text(key)]).await?
            }
            Reader::Postgres(reader) => reader.outcome(key).await?.into_iter().map(Row::Postgres).collect(),
        };
        rows.first().map(|row| row.number(0)).transpose()
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Why the database does not answer at present, if it does not. What needs it is told so soon, instead of waiting.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.health.as_ref().and_then(postgres::Health::trouble)
    }

    /// Tells of each newer revision, also of other servers'.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.clone()
    }

    pub(crate) async fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        Ok(match &self.reader {
            Reader::Sqlite(reader) => reader.rows(sql, values).await?.into_iter().map(Row::Sqlite).collect(),
            Reader::Postgres(reader) => {
                reader.rows(sql, values).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// `sqlite` or `postgresql`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match self.reader {
            Reader::Sqlite(_) => "sqlite",
            Reader::Postgres(_) => "postgresql",
        }
    }

    /// What an operator knows the state by.
    pub(crate) fn place(&self) -> &'static str {
        match self.reader {
            Reader::Sqlite(_) => "state.db",
            Reader::Postgres(_) => "the database",
        }
    }
}
