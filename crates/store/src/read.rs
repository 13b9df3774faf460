//! Reading: documents, what was issued, the outbox, the audit trail.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::audit::{self, AuditRecord, AuditTail};
use crate::batch::{Batch, Issued};
use crate::store::{Store, StoreError};
use crate::writer::{signed, unsigned};

/// Most rows that one call reads.
const PAGE: u32 = 10_000;

/// A document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What kind.
    pub kind: String,
    /// Its name within the kind.
    pub name: String,
    /// The revision that wrote it.
    pub revision: u64,
    /// JSON.
    pub body: String,
    /// The sealed part.
    pub sealed: Option<Vec<u8>>,
}

impl Document {
    /// The body as a type.
    ///
    /// # Errors
    /// When it is not one.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_str(&self.body).map_err(StoreError::Body)
    }
}

/// What happened to a document under a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The revision.
    pub revision: u64,
    /// Kind of the document, or `issued`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `put`, `delete` or `append`.
    pub effect: String,
}

impl Store {
    /// The document of that kind and name.
    ///
    /// # Errors
    /// The database.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Option<Document>, StoreError> {
        sqlx::query("SELECT kind, name, revision, body, sealed FROM document WHERE kind = ? AND name = ?")
            .bind(kind)
            .bind(name)
            .fetch_optional(&self.readers)
            .await?
            .map(|row| document(&row))
            .transpose()
    }

    /// Documents of a kind in order of name, from the one after `after` (empty for the first), at most 10,000.
    ///
    /// # Errors
    /// The database.
    pub async fn list(&self, kind: &str, after: &str) -> Result<Vec<Document>, StoreError> {
        sqlx::query(
            "SELECT kind, name, revision, body, sealed FROM document WHERE kind = ? AND name > ? ORDER BY name LIMIT ?",
        )
        .bind(kind)
        .bind(after)
        .bind(i64::from(PAGE))
        .fetch_all(&self.readers)
        .await?
        .iter()
        .map(document)
        .collect()
    }

    /// All documents of a kind as a type, by name.
    ///
    /// # Errors
    /// The database, or a document that is not of that type: with a hole in it, this is not all.
    pub async fn all<T: DeserializeOwned>(&self, kind: &str) -> Result<BTreeMap<String, T>, StoreError> {
        let (mut all, mut after) = (BTreeMap::new(), String::new());
        loop {
            let page = self.list(kind, &after).await?;
            let Some(last) = page.last() else { return Ok(all) };
            after.clone_from(&last.name);
            for document in page {
                let body = document.decode()?;
                all.insert(document.name, body);
            }
        }
    }

    /// What changed after revision `since`, oldest first, at most 10,000 rows.
    ///
    /// # Errors
    /// The database.
    pub async fn outbox(&self, since: u64) -> Result<Vec<OutboxRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT revision, kind, name, effect FROM outbox WHERE revision > ? ORDER BY revision, position LIMIT ?",
        )
        .bind(signed(since))
        .bind(i64::from(PAGE))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(OutboxRow {
                    revision: unsigned(row.try_get(0)?),
                    kind: row.try_get(1)?,
                    name: row.try_get(2)?,
                    effect: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Records what was issued, in one transaction with its audit record.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn issue_log(&self, actor: &str, records: Vec<Issued>) -> Result<u64, StoreError> {
        let detail = serde_json::json!({ "count": records.len(), "digest": digest(&records) });
        self.apply(Batch::new(actor, "issue").detail(detail).issued(records)).await
    }

    /// What was issued and ends after `ends_after`, soonest end first, at most 10,000.
    ///
    /// # Errors
    /// The database.
    pub async fn issued(&self, ends_after: u64) -> Result<Vec<Issued>, StoreError> {
        let rows = sqlx::query(
            "SELECT serial, kind, subject, key_digest, not_before, not_after FROM issued \
             WHERE not_after > ? ORDER BY not_after LIMIT ?",
        )
        .bind(signed(ends_after))
        .bind(i64::from(PAGE))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(issued).collect()
    }

    /// The certificate or token of that serial number.
    ///
    /// # Errors
    /// The database.
    pub async fn issued_serial(&self, serial: &str) -> Result<Option<Issued>, StoreError> {
        sqlx::query(
            "SELECT serial, kind, subject, key_digest, not_before, not_after FROM issued WHERE serial = ?",
        )
        .bind(serial)
        .fetch_optional(&self.readers)
        .await?
        .map(|row| issued(&row))
        .transpose()
    }

    /// Audit records after revision `since`, oldest first, at most 10,000.
    ///
    /// # Errors
    /// The database.
    pub async fn audit(&self, since: u64) -> Result<Vec<AuditRecord>, StoreError> {
        let mut connection = self.readers.acquire().await?;
        Ok(audit_page(&mut connection, since).await?.into_iter().map(|(record, _)| record).collect())
    }

    /// Checks the whole audit trail, record by record, up to the present.
    ///
    /// # Errors
    /// [`StoreError::Altered`] at the first record that does not fit.
    pub async fn verify_audit(&self) -> Result<AuditTail, StoreError> {
        let mut connection = self.readers.acquire().await?;
        let (mut hash, mut revision) = (String::new(), 0);
        loop {
            let page = audit_page(&mut connection, revision).await?;
            if page.is_empty() {
                break;
            }
            for (record, detail) in page {
                let expected =
                    audit::hash(&hash, record.revision, record.at, &record.actor, &record.action, &detail);
                if record.hash != expected || record.revision != revision + 1 {
                    return Err(StoreError::Altered(revision + 1, "state.db"));
                }
                (hash, revision) = (record.hash, record.revision);
            }
        }
        let head = sqlx::query("SELECT revision FROM head WHERE id = 1").fetch_one(&mut *connection).await?;
        // More may have been committed meanwhile, but never less than what was seen.
        if unsigned(head.try_get(0)?) < revision {
            return Err(StoreError::Altered(revision, "state.db"));
        }
        Ok(AuditTail { records: revision, hash })
    }
}

/// Binds the records of a batch to its audit record.
fn digest(records: &[Issued]) -> String {
    let mut digest = ringfence_keys::digest::Sha256::new();
    for record in records {
        for part in [&record.serial, &record.kind, &record.subject, &record.key_digest] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        digest.update(&record.not_before.to_be_bytes());
        digest.update(&record.not_after.to_be_bytes());
    }
    ringfence_keys::to_hex(&digest.finish())
}

async fn audit_page(
    connection: &mut SqliteConnection,
    since: u64,
) -> Result<Vec<(AuditRecord, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT revision, at, actor, action, detail, hash FROM audit WHERE revision > ? ORDER BY revision LIMIT ?",
    )
    .bind(signed(since))
    .bind(i64::from(PAGE))
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let detail: String = row.try_get(4)?;
            let record = AuditRecord {
                revision: unsigned(row.try_get(0)?),
                at: unsigned(row.try_get(1)?),
                actor: row.try_get(2)?,
                action: row.try_get(3)?,
                detail: serde_json::from_str(&detail).map_err(StoreError::Body)?,
                hash: row.try_get(5)?,
            };
            Ok((record, detail))
        })
        .collect()
}

fn document(row: &SqliteRow) -> Result<Document, StoreError> {
    Ok(Document {
        kind: row.try_get(0)?,
        name: row.try_get(1)?,
        revision: unsigned(row.try_get(2)?),
        body: row.try_get(3)?,
        sealed: row.try_get(4)?,
    })
}

fn issued(row: &SqliteRow) -> Result<Issued, StoreError> {
    Ok(Issued {
        serial: row.try_get(0)?,
        kind: row.try_get(1)?,
        subject: row.try_get(2)?,
        key_digest: row.try_get(3)?,
        not_before: unsigned(row.try_get(4)?),
        not_after: unsigned(row.try_get(5)?),
    })
}
