//! The way from a file to a PostgreSQL server: everything or nothing, under the same revisions.
//!
//! All rows go over in one transaction, which refuses a database that has any. What arrived is then read back and held against the
//! file, row by row, by count and digest, and the audit trail is checked on both sides. A copy that was made before, and whose answer
//! was lost, is recognised by that same check: the way can be gone again.

use std::path::Path;

use ringfence_keys::{digest::Sha256, to_hex};
use serde::Serialize;

use crate::error::StoreError;
use crate::postgres::{self, Postgres};
use crate::row::{Row, Value, signed};
use crate::store::{Durability, Store};

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// The newest revision, on both sides.
    pub revision: u64,
    /// Rows of all tables.
    pub rows: u64,
    /// SHA-256 over all of them, hexadecimal, on both sides.
    pub digest: String,
    /// Hash of the last audit record, on both sides.
    pub audit: String,
    /// It had been copied before; this time it was only checked.
    pub found: bool,
}

/// A table that is copied, page by page in the order of its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    count: &'static str,
    select: &'static str,
    pub(crate) insert: &'static str,
    columns: &'static [Kind],
    /// Columns of the key, which come first.
    key: usize,
    page: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Bytes,
}

/// A value as it goes over.
#[derive(Debug)]
pub(crate) enum Cell {
    Text(String),
    Number(u64),
    Bytes(Option<Vec<u8>>),
}

use Kind::{Bytes, Number, Text};

/// All but `head`, which is one row, and `schema_version`, which each side has of its own.
pub(crate) const TABLES: [Table; 5] = [
    Table {
        count: "SELECT COUNT(*) FROM document",
        select: "SELECT kind, name, revision, body, sealed FROM document \
                 WHERE (kind, name) > ($1, $2) ORDER BY kind, name LIMIT $3",
        insert: "INSERT INTO document (kind, name, revision, body, sealed) SELECT * FROM UNNEST($1, $2, $3, $4, $5)",
        columns: &[Text, Text, Number, Text, Bytes],
        key: 2,
        page: 100,
    },
    Table {
        count: "SELECT COUNT(*) FROM audit",
        select: "SELECT revision, at, actor, action, detail, hash FROM audit WHERE revision > $1 ORDER BY revision LIMIT $2",
        insert: "INSERT INTO audit (revision, at, actor, action, detail, hash) \
                 SELECT * FROM UNNEST($1, $2, $3, $4, $5, $6)",
        columns: &[Number, Number, Text, Text, Text, Text],
        key: 1,
        page: 1000,
    },
    Table {
        count: "SELECT COUNT(*) FROM outbox",
        select: "SELECT revision, position, kind, name, effect FROM outbox \
                 WHERE (revision, position) > ($1, $2) ORDER BY revision, position LIMIT $3",
        insert: "INSERT INTO outbox (revision, position, kind, name, effect) SELECT * FROM UNNEST($1, $2, $3, $4, $5)",
        columns: &[Number, Number, Text, Text, Text],
        key: 2,
        page: 1000,
    },
    Table {
        count: "SELECT COUNT(*) FROM issued",
        select: "SELECT serial, kind, subject, key_digest, not_before, not_after, revision FROM issued \
                 WHERE serial > $1 ORDER BY serial LIMIT $2",
        insert: "INSERT INTO issued (serial, kind, subject, key_digest, not_before, not_after, revision) \
                 SELECT * FROM UNNEST($1, $2, $3, $4, $5, $6, $7)",
        columns: &[Text, Text, Text, Text, Number, Number, Number],
        key: 1,
        page: 1000,
    },
    Table {
        count: "SELECT COUNT(*) FROM applied",
        select: "SELECT key, revision FROM applied WHERE key > $1 ORDER BY key LIMIT $2",
        insert: "INSERT INTO applied (key, revision) SELECT * FROM UNNEST($1, $2)",
        columns: &[Text, Number],
        key: 1,
        page: 1000,
    },
];

impl Table {
    /// The rows after those that end with `last`.
    pub(crate) async fn page(
        &self,
        store: &Store,
        last: Option<&Vec<Cell>>,
    ) -> Result<Vec<Vec<Cell>>, StoreError> {
        let mut values: Vec<Value<'_>> = match last {
            Some(row) => row.iter().take(self.key).map(Cell::value).collect(),
            // Below every key there is.
            None => self.columns[..self.key]
                .iter()
                .map(|kind| if *kind == Text { Value::Text("") } else { Value::Number(-1) })
                .collect(),
        };
        values.push(Value::Number(self.page));
        store.rows(self.select, &values).await?.iter().map(|row| self.row(row)).collect()
    }

    fn row(&self, row: &Row) -> Result<Vec<Cell>, StoreError> {
        let cell = |(column, kind): (usize, &Kind)| match kind {
            Text => row.text(column).map(Cell::Text),
            Number => row.number(column).map(Cell::Number),
            Bytes => row.bytes(column).map(Cell::Bytes),
        };
        self.columns.iter().enumerate().map(cell).collect()
    }

    pub(crate) fn columns(&self) -> &'static [Kind] {
        self.columns
    }
}

impl Cell {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Number(number) => Value::Number(signed(*number)),
            // No key has one.
            Self::Bytes(_) => Value::Text(""),
        }
    }

    /// Each value has one reading: its kind, its length, its bytes.
    fn digest(&self, digest: &mut Sha256) {
        let mut add = |tag: u8, bytes: &[u8]| {
            digest.update(&[tag]);
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        match self {
            Self::Text(text) => add(1, text.as_bytes()),
            Self::Number(number) => add(2, &number.to_be_bytes()),
            Self::Bytes(Some(bytes)) => add(3, bytes),
            Self::Bytes(None) => add(4, &[]),
        }
    }
}

/// Rows and digest of everything in a store.
async fn whole(store: &Store) -> Result<(u64, String), StoreError> {
    let (mut digest, mut rows) = (Sha256::new(), 0);
    for (number, table) in TABLES.iter().enumerate() {
        let mut in_table = 0;
        let mut last = None;
        loop {
            let page = table.page(store, last.as_ref()).await?;
            for cell in page.iter().flatten() {
                cell.digest(&mut digest);
            }
            in_table += page.len() as u64;
            let Some(end) = page.into_iter().next_back() else { break };
            last = Some(end);
        }
        let counted = store.rows(table.count, &[]).await?;
        let counted = counted.first().map_or(Ok(0), |row| row.number(0))?;
        if counted != in_table {
            return Err(StoreError::Setup(format!(
                "the state has {counted} rows in a table where {in_table} can be read: something else is writing to it"
            )));
        }
        digest.update(&[number as u8]);
        digest.update(&in_table.to_be_bytes());
        rows += in_table;
    }
    Ok((rows, to_hex(&digest.finish())))
}

/// Copies the state in the file at `path` to an empty database, and checks what arrived. The file stays as it is. Nothing else may have it
/// open.
///
/// # Errors
/// [`StoreError`]; then the database is as empty as before, unless it is what arrived that is not as it should be.
pub async fn copy_file(path: &Path, to: Postgres) -> Result<Moved, StoreError> {
    if !path.exists() {
        return Err(StoreError::Setup(format!("there is no state at {}", path.display())));
    }
    let file = Store::open(path, Durability::Full).await?;
    let audit = file.verify_audit().await?;
    if audit.records == 0 {
        return Err(StoreError::Setup(format!(
            "the state at {} is empty: there is nothing to move",
            path.display()
        )));
    }
    let found = postgres::fill(to.clone(), &file, audit.records, &audit.hash).await?;
    let database = Store::connect(to, Durability::Full).await?;
    let (here, there) = (whole(&file).await?, whole(&database).await?);
    let arrived = database.verify_audit().await?;
    if here != there || arrived != audit {
        return Err(StoreError::Setup(format!(
            "what is in the database is not what is in {}: {} rows {} here, {} rows {} there; the file stays in force, \
             give the move an empty database",
            path.display(),
            here.0,
            here.1,
            there.0,
            there.1
        )));
    }
    Ok(Moved { revision: audit.records, rows: here.0, digest: here.1, audit: audit.hash, found })
}
