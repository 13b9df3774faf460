//! Reading: documents, what was issued, the outbox, the audit trail.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::audit::{self, AuditRecord, AuditTail};
use crate::batch::{Batch, Issued};
use crate::error::StoreError;
use crate::row::{Row, Value, signed};
use crate::store::Store;

/// Most rows that one call reads.
const PAGE: i64 = 10_000;

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
        let sql = "SELECT kind, name, revision, body, sealed FROM document WHERE kind = $1 AND name = $2";
        self.rows(sql, &[Value::Text(kind), Value::Text(name)]).await?.first().map(document).transpose()
    }

    /// Documents of a kind in order of name, from the one after `after` (empty for the first), at most 10,000.
    ///
    /// # Errors
    /// The database.
    pub async fn list(&self, kind: &str, after: &str) -> Result<Vec<Document>, StoreError> {
        let sql = "SELECT kind, name, revision, body, sealed FROM document \
                   WHERE kind = $1 AND name > $2 ORDER BY name LIMIT $3";
        let values = [Value::Text(kind), Value::Text(after), Value::Number(PAGE)];
        self.rows(sql, &values).await?.iter().map(document).collect()
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
        let sql = "SELECT revision, kind, name, effect FROM outbox \
                   WHERE revision > $1 ORDER BY revision, position LIMIT $2";
        let row = |row: &Row| {
            Ok(OutboxRow {
                revision: row.number(0)?,
                kind: row.text(1)?,
                name: row.text(2)?,
                effect: row.text(3)?,
            })
        };
        self.rows(sql, &since_then(since)).await?.iter().map(row).collect()
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
        let sql = "SELECT serial, kind, subject, key_digest, not_before, not_after FROM issued \
                   WHERE not_after > $1 ORDER BY not_after LIMIT $2";
        self.rows(sql, &since_then(ends_after)).await?.iter().map(issued).collect()
    }

    /// The certificate or token of that serial number.
    ///
    /// # Errors
    /// The database.
    pub async fn issued_serial(&self, serial: &str) -> Result<Option<Issued>, StoreError> {
        let sql =
            "SELECT serial, kind, subject, key_digest, not_before, not_after FROM issued WHERE serial = $1";
        self.rows(sql, &[Value::Text(serial)]).await?.first().map(issued).transpose()
    }

    /// Audit records after revision `since`, oldest first, at most 10,000.
    ///
    /// # Errors
    /// The database.
    pub async fn audit(&self, since: u64) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(self.trail(since).await?.into_iter().map(|(record, _)| record).collect())
    }

    /// Checks the whole audit trail, record by record, up to the present.
    ///
    /// # Errors
    /// [`StoreError::Altered`] at the first record that does not fit.
    pub async fn verify_audit(&self) -> Result<AuditTail, StoreError> {
        let (mut hash, mut revision) = (String::new(), 0);
        loop {
            let page = self.trail(revision).await?;
            if page.is_empty() {
                break;
            }
            for (record, detail) in page {
                let expected =
                    audit::hash(&hash, record.revision, record.at, &record.actor, &record.action, &detail);
                if record.hash != expected || record.revision != revision + 1 {
                    return Err(StoreError::Altered(revision + 1, self.place()));
                }
                (hash, revision) = (record.hash, record.revision);
            }
        }
        let head = self.rows("SELECT revision FROM head WHERE id = 1", &[]).await?;
        let head = head.first().map_or(Ok(0), |row| row.number(0))?;
        // More may have been committed meanwhile, but never less than what was seen.
        if head < revision {
            return Err(StoreError::Altered(revision, self.place()));
        }
        Ok(AuditTail { records: revision, hash })
    }

    /// Records, each with its detail as it is stored.
    async fn trail(&self, since: u64) -> Result<Vec<(AuditRecord, String)>, StoreError> {
        let sql = "SELECT revision, at, actor, action, detail, hash FROM audit \
                   WHERE revision > $1 ORDER BY revision LIMIT $2";
        let record = |row: &Row| {
            let detail = row.text(4)?;
            let record = AuditRecord {
                revision: row.number(0)?,
                at: row.number(1)?,
                actor: row.text(2)?,
                action: row.text(3)?,
                detail: serde_json::from_str(&detail).map_err(StoreError::Body)?,
                hash: row.text(5)?,
            };
            Ok((record, detail))
        };
        self.rows(sql, &since_then(since)).await?.iter().map(record).collect()
    }
}

fn since_then(since: u64) -> [Value<'static>; 2] {
    [Value::Number(signed(since)), Value::Number(PAGE)]
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

fn document(row: &Row) -> Result<Document, StoreError> {
    Ok(Document {
        kind: row.text(0)?,
        name: row.text(1)?,
        revision: row.number(2)?,
        body: row.text(3)?,
        sealed: row.bytes(4)?,
    })
}

fn issued(row: &Row) -> Result<Issued, StoreError> {
    Ok(Issued {
        serial: row.text(0)?,
        kind: row.text(1)?,
        subject: row.text(2)?,
        key_digest: row.text(3)?,
        not_before: row.number(4)?,
        not_after: row.number(5)?,
    })
}
