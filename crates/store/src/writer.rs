//! The one task that writes.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{Connection, QueryBuilder, Row, Sqlite, SqliteConnection, SqliteTransaction};
use tokio::sync::{mpsc, oneshot, watch};

use crate::audit;
use crate::batch::{Batch, Change, Issued};
use crate::store::StoreError;

/// Batches that share one flush to disk.
const GROUP: usize = 64;
/// Rows of one statement: seven values each stay far below what a database takes.
const ROWS: usize = 512;

pub(crate) type Job = (Batch, oneshot::Sender<Result<u64, StoreError>>);

/// Writes what comes in until nobody can send any more.
pub(crate) async fn run(
    mut connection: SqliteConnection,
    mut jobs: mpsc::Receiver<Job>,
    revision: watch::Sender<u64>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.recv_many(&mut group, GROUP).await > 0 {
        let (batches, replies): (Vec<Batch>, Vec<_>) = group.drain(..).unzip();
        match write(&mut connection, &batches).await {
            Ok((outcomes, last)) => {
                revision.send_replace(last);
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // Whoever stopped waiting can read the revision.
                    let _ = reply.send(outcome);
                }
            }
            Err(e) => {
                let reason = e.to_string();
                for reply in replies {
                    let _ = reply.send(Err(StoreError::Database(reason.clone())));
                }
            }
        }
    }
    // The write-ahead log makes any end safe; closing only tidies up.
    let _ = connection.close().await;
}

type Outcomes = Vec<Result<u64, StoreError>>;

async fn write(connection: &mut SqliteConnection, batches: &[Batch]) -> Result<(Outcomes, u64), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let head = sqlx::query("SELECT revision, audit_hash FROM head WHERE id = 1")
        .fetch_one(&mut *transaction)
        .await?;
    let (mut revision, mut hash) = (unsigned(head.try_get(0)?), head.try_get::<String, _>(1)?);
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut outcomes = Vec::with_capacity(batches.len());
    for batch in batches {
        // Everything that can be refused is refused before the first write, so a batch needs no savepoint.
        if let Some((kind, name)) = unmet(&mut transaction, batch).await? {
            outcomes.push(Err(StoreError::Conflict { kind, name }));
            continue;
        }
        revision += 1;
        changes(&mut transaction, batch, revision).await?;
        let detail = batch.detail.to_string();
        hash = audit::hash(&hash, revision, at, &batch.actor, &batch.action, &detail);
        sqlx::query(
            "INSERT INTO audit (revision, at, actor, action, detail, hash) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(signed(revision))
        .bind(signed(at))
        .bind(&batch.actor)
        .bind(&batch.action)
        .bind(detail)
        .bind(&hash)
        .execute(&mut *transaction)
        .await?;
        outcomes.push(Ok(revision));
    }
    sqlx::query("UPDATE head SET revision = ?, audit_hash = ? WHERE id = 1")
        .bind(signed(revision))
        .bind(&hash)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok((outcomes, revision))
}

/// The first expectation that does not hold.
async fn unmet(
    transaction: &mut SqliteTransaction<'_>,
    batch: &Batch,
) -> Result<Option<(String, String)>, sqlx::Error> {
    for (kind, name, expected) in &batch.expectations {
        let found = sqlx::query("SELECT revision FROM document WHERE kind = ? AND name = ?")
            .bind(kind)
            .bind(name)
            .fetch_optional(&mut **transaction)
            .await?;
        let found = found.map(|row| row.try_get(0).map(unsigned)).transpose()?;
        if found != *expected {
            return Ok(Some((kind.clone(), name.clone())));
        }
    }
    Ok(None)
}

async fn changes(
    transaction: &mut SqliteTransaction<'_>,
    batch: &Batch,
    revision: u64,
) -> Result<(), sqlx::Error> {
    let mut outbox = Vec::with_capacity(batch.changes.len() + 1);
    for change in &batch.changes {
        match change {
            Change::Put { kind, name, body, sealed } => {
                sqlx::query(
                    "INSERT INTO document (kind, name, revision, body, sealed) VALUES (?, ?, ?, ?, ?) \
                     ON CONFLICT (kind, name) DO UPDATE \
                     SET revision = excluded.revision, body = excluded.body, sealed = excluded.sealed",
                )
                .bind(kind)
                .bind(name)
                .bind(signed(revision))
                .bind(body)
                .bind(sealed.as_deref())
                .execute(&mut **transaction)
                .await?;
                outbox.push((kind.as_str(), name.as_str(), "put"));
            }
            Change::Delete { kind, name } => {
                sqlx::query("DELETE FROM document WHERE kind = ? AND name = ?")
                    .bind(kind)
                    .bind(name)
                    .execute(&mut **transaction)
                    .await?;
                outbox.push((kind.as_str(), name.as_str(), "delete"));
            }
        }
    }
    for rows in batch.issued.chunks(ROWS) {
        issued(transaction, rows, revision).await?;
    }
    if !batch.issued.is_empty() {
        // One row for all: who follows the outbox reads the records by revision.
        outbox.push(("issued", batch.action.as_str(), "append"));
    }
    let outbox: Vec<_> = outbox.into_iter().enumerate().collect();
    for rows in outbox.chunks(ROWS) {
        let mut query =
            QueryBuilder::<Sqlite>::new("INSERT INTO outbox (revision, position, kind, name, effect) ");
        query.push_values(rows, |mut row, (position, (kind, name, effect))| {
            row.push_bind(signed(revision))
                .push_bind(*position as i64)
                .push_bind(*kind)
                .push_bind(*name)
                .push_bind(*effect);
        });
        query.build().execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn issued(
    transaction: &mut SqliteTransaction<'_>,
    records: &[Issued],
    revision: u64,
) -> Result<(), sqlx::Error> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT INTO issued (serial, kind, subject, key_digest, not_before, not_after, revision) ",
    );
    query.push_values(records, |mut row, record| {
        row.push_bind(&record.serial)
            .push_bind(&record.kind)
            .push_bind(&record.subject)
            .push_bind(&record.key_digest)
            .push_bind(signed(record.not_before))
            .push_bind(signed(record.not_after))
            .push_bind(signed(revision));
    });
    query.build().execute(&mut **transaction).await?;
    Ok(())
}

/// SQL has signed integers only; times and revisions are far from their end.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
