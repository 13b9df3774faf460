//! Filling an empty database from another store, in one transaction.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::link::{Link, Trouble, step};
use super::options::Postgres;
use super::setup;
use super::write::{Column, run};
use crate::error::StoreError;
use crate::moved::{Cell, Kind, TABLES};
use crate::row::{signed, unsigned};
use crate::store::{Durability, Store};

/// Longest that one step may take: a page of large documents, or the commit.
const STEP: Duration = Duration::from_secs(60);

/// Writes all that `from` holds, whose audit trail ends with `hash` at `revision`. Whether exactly that was there already; a database
/// that holds anything else is refused.
pub(crate) async fn fill(to: Postgres, from: &Store, revision: u64, hash: &str) -> Result<bool, StoreError> {
    to.check()?;
    let soon = || Instant::now() + STEP;
    let mut link = Link::open(&to, "ringfence move", soon()).await?;
    setup::check(&link, Durability::Full, soon()).await?;
    setup::migrate(&mut link, soon()).await?;
    step(soon(), link.client.batch_execute("BEGIN")).await?;
    let sql = "SELECT revision, audit_hash, \
               EXISTS (SELECT 1 FROM document) OR EXISTS (SELECT 1 FROM audit) OR EXISTS (SELECT 1 FROM outbox) \
               OR EXISTS (SELECT 1 FROM issued) OR EXISTS (SELECT 1 FROM applied) FROM head WHERE id = 1 FOR UPDATE";
    let head = step(soon(), link.client.query_typed_one(sql, &[])).await?;
    let there = unsigned(head.try_get(0).map_err(Trouble::from)?);
    let last: String = head.try_get(1).map_err(Trouble::from)?;
    let holds: bool = head.try_get(2).map_err(Trouble::from)?;
    if there == revision && last == hash {
        return Ok(true);
    }
    if there != 0 || holds {
        return Err(StoreError::Setup(format!(
            "the database is not empty, it stands at revision {there}: name an empty one (`CREATE DATABASE … ENCODING 'UTF8'`)"
        )));
    }
    for table in &TABLES {
        let mut last = None;
        loop {
            let page = table.page(from, last.as_ref()).await?;
            if page.is_empty() {
                break;
            }
            let columns: Vec<Column<'_>> =
                (0..).zip(table.columns()).map(|(n, kind)| column(&page, n, *kind)).collect();
            step(soon(), run(&link, table.insert, &columns)).await?;
            last = page.into_iter().next_back();
        }
    }
    let head = [(&signed(revision) as _, Type::INT8), (&hash as _, Type::TEXT)];
    let sql = "UPDATE head SET revision = $1, audit_hash = $2 WHERE id = 1";
    step(soon(), link.client.execute_typed(sql, &head)).await?;
    step(soon(), link.client.batch_execute("COMMIT")).await?;
    Ok(false)
}

fn column(page: &[Vec<Cell>], column: usize, kind: Kind) -> Column<'_> {
    let cells = page.iter().filter_map(|row| row.get(column));
    match kind {
        Kind::Text => Column::Texts(
            cells
                .filter_map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None })
                .collect(),
        ),
        Kind::Number => Column::Numbers(
            cells
                .filter_map(|cell| if let Cell::Number(n) = cell { Some(signed(*n)) } else { None })
                .collect(),
        ),
        Kind::Bytes => Column::Bytes(
            cells
                .filter_map(|cell| if let Cell::Bytes(bytes) = cell { Some(bytes.as_deref()) } else { None })
                .collect(),
        ),
    }
}
