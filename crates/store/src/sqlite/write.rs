//! Writing a group of batches to the file.

use std::collections::HashMap;

use sqlx::{Connection, QueryBuilder, Row, Sqlite, SqliteConnection, SqliteTransaction};

use crate::batch::Batch;
use crate::error::Failure;
use crate::plan::{Found, Head, Outcome, Plan};
use crate::row::{now, signed, unsigned};

/// Rows of one statement: seven values each stay far below what the engine takes.
const ROWS: usize = 512;

/// The one connection that writes.
#[derive(Debug)]
pub(crate) struct Writer(SqliteConnection);

impl Writer {
    pub(crate) fn new(connection: SqliteConnection) -> Self {
        Self(connection)
    }

    /// Writes all batches in one transaction. Answers their outcomes and the newest revision.
    pub(crate) async fn write(&mut self, batches: &[Batch]) -> Result<(Vec<Outcome>, u64), Failure> {
        // A commit that fails was rolled back: the file is on this machine, so there is no lost answer.
        write(&mut self.0, batches).await.map_err(|e| Failure::Refused(e.to_string()))
    }

    /// Closing only tidies up: the write-ahead log makes any end safe.
    pub(crate) async fn close(self) {
        let _ = self.0.close().await;
    }
}

async fn write(
    connection: &mut SqliteConnection,
    batches: &[Batch],
) -> Result<(Vec<Outcome>, u64), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found = find(&mut transaction, batches).await?;
    let plan = Plan::of(found, batches, now());
    if plan.is_needed() {
        carry_out(&mut transaction, &plan).await?;
    }
    transaction.commit().await?;
    Ok((plan.outcomes, plan.head.revision))
}

async fn find(transaction: &mut SqliteTransaction<'_>, batches: &[Batch]) -> Result<Found, sqlx::Error> {
    let head = sqlx::query("SELECT revision, audit_hash FROM head WHERE id = 1")
        .fetch_one(&mut **transaction)
        .await?;
    let head = Head { revision: unsigned(head.try_get(0)?), hash: head.try_get(1)? };
    let (mut applied, mut documents) = (HashMap::new(), HashMap::new());
    for key in batches.iter().filter_map(|batch| batch.key.as_ref()) {
        let row = sqlx::query("SELECT revision FROM applied WHERE key = ?")
            .bind(key)
            .fetch_optional(&mut **transaction)
            .await?;
        if let Some(row) = row {
            applied.insert(key.clone(), unsigned(row.try_get(0)?));
        }
    }
    for (kind, name, _) in batches.iter().flat_map(|batch| &batch.expectations) {
        let row = sqlx::query("SELECT revision FROM document WHERE kind = ? AND name = ?")
            .bind(kind)
            .bind(name)
            .fetch_optional(&mut **transaction)
            .await?;
        if let Some(row) = row {
            documents.insert((kind.clone(), name.clone()), unsigned(row.try_get(0)?));
        }
    }
    Ok(Found { head, applied, documents })
}

async fn carry_out(transaction: &mut SqliteTransaction<'_>, plan: &Plan<'_>) -> Result<(), sqlx::Error> {
    for ((kind, name), written) in &plan.documents {
        let query = match written {
            Some((revision, body, sealed)) => sqlx::query(
                "INSERT INTO document (kind, name, revision, body, sealed) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (kind, name) DO UPDATE \
                 SET revision = excluded.revision, body = excluded.body, sealed = excluded.sealed",
            )
            .bind(*kind)
            .bind(*name)
            .bind(signed(*revision))
            .bind(*body)
            .bind(*sealed),
            None => sqlx::query("DELETE FROM document WHERE kind = ? AND name = ?").bind(*kind).bind(*name),
        };
        query.execute(&mut **transaction).await?;
    }
    insert(
        transaction,
        "issued (serial, kind, subject, key_digest, not_before, not_after, revision)",
        &plan.issued,
        |mut row, (revision, record)| {
            row.push_bind(&record.serial)
                .push_bind(&record.kind)
                .push_bind(&record.subject)
                .push_bind(&record.key_digest)
                .push_bind(signed(record.not_before))
                .push_bind(signed(record.not_after))
                .push_bind(signed(*revision));
        },
    )
    .await?;
    insert(transaction, "outbox (revision, position, kind, name, effect)", &plan.outbox, |mut row, told| {
        row.push_bind(signed(told.revision))
            .push_bind(signed(told.position))
            .push_bind(told.kind)
            .push_bind(told.name)
            .push_bind(told.effect);
    })
    .await?;
    insert(
        transaction,
        "audit (revision, at, actor, action, detail, hash)",
        &plan.audit,
        |mut row, audited| {
            row.push_bind(signed(audited.revision))
                .push_bind(signed(audited.at))
                .push_bind(audited.actor)
                .push_bind(audited.action)
                .push_bind(&audited.detail)
                .push_bind(&audited.hash);
        },
    )
    .await?;
    insert(transaction, "applied (key, revision)", &plan.applied, |mut row, (key, revision)| {
        row.push_bind(*key).push_bind(signed(*revision));
    })
    .await?;
    if let Some(until) = plan.forgets() {
        sqlx::query("DELETE FROM applied WHERE revision <= ?")
            .bind(signed(until))
            .execute(&mut **transaction)
            .await?;
    }
    sqlx::query("UPDATE head SET revision = ?, audit_hash = ? WHERE id = 1")
        .bind(signed(plan.head.revision))
        .bind(&plan.head.hash)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

async fn insert<'a, T>(
    transaction: &mut SqliteTransaction<'_>,
    into: &str,
    rows: &'a [T],
    bind: impl FnMut(sqlx::query_builder::Separated<'_, Sqlite, &'static str>, &'a T) + Copy,
) -> Result<(), sqlx::Error> {
    for rows in rows.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO ");
        query.push(into).push(" ").push_values(rows, bind);
        query.build().execute(&mut **transaction).await?;
    }
    Ok(())
}
