//! The embedded engine: one file, one process.

mod read;
mod write;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};

use crate::error::StoreError;
use crate::schema;
use crate::store::Durability;

pub(crate) use read::Reader;
pub(crate) use write::Writer;

/// Connections that read.
const READERS: u32 = 2;

/// Opens the file, creates it and brings its tables up to date as needed. Answers its newest revision too.
pub(crate) async fn open(path: &Path, durability: Durability) -> Result<(Writer, Reader, u64), StoreError> {
    create_private(path).map_err(|e| StoreError::Io(path.to_owned(), e))?;
    let options = options(path, durability);
    let mut connection = options.clone().connect().await?;
    migrate(&mut connection).await?.map_err(|why| StoreError::Newer(path.display().to_string(), why))?;
    let head: i64 =
        sqlx::query("SELECT revision FROM head WHERE id = 1").fetch_one(&mut connection).await?.try_get(0)?;
    let readers: SqlitePool =
        SqlitePoolOptions::new().max_connections(READERS).connect_with(options.read_only(true)).await?;
    Ok((Writer::new(connection), Reader(readers), crate::row::unsigned(head)))
}

/// Writes what is in the file now into another one, while others work with it.
pub(crate) async fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut connection = options(from, Durability::Full).read_only(true).connect().await?;
    let to = to.to_str().ok_or_else(|| StoreError::Setup(format!("{} is no text", to.display())))?;
    sqlx::query("VACUUM INTO ?").bind(to).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Whether every page and index of the file is sound.
pub(crate) async fn check(path: &Path) -> Result<(), StoreError> {
    let mut connection = options(path, Durability::Full).connect().await?;
    let said: String =
        sqlx::query("PRAGMA integrity_check(1)").fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    if said == "ok" { Ok(()) } else { Err(StoreError::Setup(format!("{}: {said}", path.display()))) }
}

/// Takes the tables back to `version`, for a program that knows no newer ones.
pub(crate) async fn downgrade(path: &Path, version: i64) -> Result<(), StoreError> {
    let mut connection = options(path, Durability::Full).connect().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let (now, _) = version_of(&mut transaction).await?;
    let steps =
        schema::undone(now, version).map_err(|why| StoreError::Newer(path.display().to_string(), why))?;
    for step in steps {
        sqlx::raw_sql(step.down).execute(&mut *transaction).await?;
        sqlx::query("DELETE FROM schema_version WHERE version = ?")
            .bind(step.version)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

fn options(path: &Path, durability: Durability) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Process => SqliteSynchronous::Normal,
        })
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        // What was deleted is not left in the file's free space.
        .pragma("secure_delete", "fast")
}

async fn migrate(connection: &mut SqliteConnection) -> Result<Result<(), String>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let (version, oldest) = version_of(&mut transaction).await?;
    let steps = match schema::missing(version, oldest) {
        Ok(steps) => steps,
        Err(why) => return Ok(Err(why)),
    };
    for step in steps {
        sqlx::raw_sql(step.up).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema_version (version, oldest) VALUES (?, ?)")
            .bind(step.version)
            .bind(step.oldest)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await.map(Ok)
}

/// At which version the tables are, and from which on programs can use them.
async fn version_of(connection: &mut SqliteConnection) -> Result<(i64, i64), sqlx::Error> {
    sqlx::raw_sql(schema::TABLE).execute(&mut *connection).await?;
    // The first files carry another list of steps, with the first step in it.
    sqlx::raw_sql(
        "INSERT INTO schema_version (version, oldest) SELECT 1, 1 FROM sqlite_schema \
         WHERE type = 'table' AND name = 'head' AND NOT EXISTS (SELECT 1 FROM schema_version)",
    )
    .execute(&mut *connection)
    .await?;
    let sql = "SELECT COALESCE(MAX(version), 0), COALESCE(MAX(oldest), 0) FROM schema_version";
    let row = sqlx::query(sql).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}
