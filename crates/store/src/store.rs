//! The handle that others hold.

use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row};
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::Batch;
use crate::writer::{Job, run, unsigned};

/// Batches that wait to be written.
const QUEUE: usize = 256;
/// Connections that read.
const READERS: u32 = 2;

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
    pub(crate) readers: SqlitePool,
    jobs: mpsc::Sender<Job>,
    revision: watch::Receiver<u64>,
}

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record of the audit trail does not fit the one before.
    #[error("the audit trail was altered at revision {0}: restore {1} from a backup and find out by whom")]
    Altered(u64, &'static str),
    /// The body of a document.
    #[error("a document's body is not JSON: {0}")]
    Body(serde_json::Error),
    /// Somebody else wrote in between.
    #[error("{kind} `{name}` was changed in between; read it again and retry")]
    Conflict {
        /// Kind of the document.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The database.
    #[error("state: {0}")]
    Database(String),
    /// The file.
    #[error("state {path}: {why}", path = .0.display(), why = .1)]
    Io(PathBuf, std::io::Error),
    /// It ended.
    #[error("the store was closed")]
    Closed,
    /// A bound of [`Batch`].
    #[error("a batch or a document is larger than the store takes")]
    TooLarge,
    /// The file was written by a newer Ringfence.
    #[error("state {path} was written by a newer ringfence ({why}); use that one", path = .0.display(), why = .1)]
    Newer(PathBuf, String),
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        Self::Database(e.to_string())
    }
}

impl Store {
    /// Opens the database at `path` (mode 0600), creates it and brings its tables up to date as needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        create_private(path).map_err(|e| StoreError::Io(path.to_owned(), e))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match durability {
                Durability::Full => SqliteSynchronous::Full,
                Durability::Process => SqliteSynchronous::Normal,
            })
            .foreign_keys(true)
            .busy_timeout(std::time::Duration::from_secs(10))
            // What was deleted is not left in the file's free space.
            .pragma("secure_delete", "fast");
        let mut writer = options.clone().connect().await?;
        sqlx::migrate!("./migrations").run(&mut writer).await.map_err(|e| match e {
            MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
                StoreError::Newer(path.to_owned(), e.to_string())
            }
            _ => StoreError::Database(e.to_string()),
        })?;
        let head: i64 =
            sqlx::query("SELECT revision FROM head WHERE id = 1").fetch_one(&mut writer).await?.try_get(0)?;
        let readers =
            SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (sender, revision) = watch::channel(unsigned(head));
        tokio::spawn(run(writer, queue, sender));
        Ok(Self { readers, jobs, revision })
    }

    /// Writes a batch and waits until it is durable. Answers its revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation does not hold; then, as with any other error, nothing was written.
    pub async fn apply(&self, batch: Batch) -> Result<u64, StoreError> {
        batch.check()?;
        let (reply, outcome) = oneshot::channel();
        self.jobs.send((batch, reply)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Tells of each newer revision.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.clone()
    }
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}
