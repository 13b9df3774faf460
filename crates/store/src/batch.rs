//! What is written together.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StoreError;

/// Most changes of a batch.
pub const MAX_CHANGES: usize = 4096;
/// How many revisions back the key of a batch is remembered.
pub const KEYS: u64 = 100_000;
/// Largest body of a document in bytes.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
const MAX_KIND: usize = 64;
const MAX_NAME: usize = 2048;
const MAX_KEY: usize = 128;

/// Changes that are written together or not at all, under one revision, with one audit record.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) detail: Value,
    pub(crate) changes: Vec<Change>,
    pub(crate) expectations: Vec<(String, String, Option<u64>)>,
    pub(crate) issued: Vec<Issued>,
    pub(crate) key: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put { kind: String, name: String, body: String, sealed: Option<Vec<u8>> },
    Delete { kind: String, name: String },
}

/// A certificate or token that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Serial number or digest, hexadecimal.
    pub serial: String,
    /// `x509`, `serving` or `jwt`.
    pub kind: String,
    /// For whom.
    pub subject: String,
    /// SHA-256 of the public key, hexadecimal.
    pub key_digest: String,
    /// Start of its validity, Unix seconds.
    pub not_before: u64,
    /// End of its validity, Unix seconds.
    pub not_after: u64,
}

impl Batch {
    /// A batch by `actor`, who does `action`.
    pub fn new(actor: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            actor: actor.into(),
            action: action.into(),
            detail: Value::Null,
            changes: Vec::new(),
            expectations: Vec::new(),
            issued: Vec::new(),
            key: None,
        }
    }

    /// What the audit record says besides.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Writes a document.
    ///
    /// # Errors
    /// When `body` is no JSON, or too large.
    pub fn put(self, kind: &str, name: &str, body: &impl Serialize) -> Result<Self, StoreError> {
        self.put_sealed(kind, name, body, None)
    }

    /// Writes a document with a sealed part.
    ///
    /// # Errors
    /// When `body` is no JSON, or too large.
    pub fn put_sealed(
        mut self,
        kind: &str,
        name: &str,
        body: &impl Serialize,
        sealed: Option<Vec<u8>>,
    ) -> Result<Self, StoreError> {
        let body = serde_json::to_string(body).map_err(StoreError::Body)?;
        if body.len() > MAX_BODY || sealed.as_ref().is_some_and(|sealed| sealed.len() > MAX_BODY) {
            return Err(StoreError::TooLarge);
        }
        self.changes.push(Change::Put { kind: kind.into(), name: name.into(), body, sealed });
        Ok(self)
    }

    /// Removes a document, if it is there.
    #[must_use]
    pub fn delete(mut self, kind: &str, name: &str) -> Self {
        self.changes.push(Change::Delete { kind: kind.into(), name: name.into() });
        self
    }

    /// Writes only if the document is of exactly this revision, or, with `None`, is not there.
    #[must_use]
    pub fn expect(mut self, kind: &str, name: &str, revision: Option<u64>) -> Self {
        self.expectations.push((kind.into(), name.into(), revision));
        self
    }

    /// Records what was issued.
    #[must_use]
    pub fn issued(mut self, records: Vec<Issued>) -> Self {
        self.issued.extend(records);
        self
    }

    /// Writes only if nothing was written under this key yet; otherwise [`crate::Store::apply`] answers the revision of that time.
    /// Who was told [`StoreError::Unknown`], or was ended while waiting, tries again under the same key. Keys are
    /// remembered for the last [`KEYS`] revisions.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let records = self.issued.len() + self.changes.len() + self.expectations.len();
        if records > MAX_CHANGES {
            return Err(StoreError::TooLarge);
        }
        let named = self.changes.iter().map(|change| match change {
            Change::Put { kind, name, .. } | Change::Delete { kind, name } => (kind, name),
        });
        for (kind, name) in named.chain(self.expectations.iter().map(|(kind, name, _)| (kind, name))) {
            if kind.is_empty() || name.is_empty() {
                return Err(StoreError::Name);
            }
            bounded(kind, MAX_KIND)?;
            bounded(name, MAX_NAME)?;
        }
        for record in &self.issued {
            for part in [&record.serial, &record.kind, &record.subject, &record.key_digest] {
                bounded(part, MAX_NAME)?;
            }
        }
        bounded(&self.actor, MAX_NAME)?;
        bounded(&self.action, MAX_KIND)?;
        self.key.as_ref().map_or(Ok(()), |key| bounded(key, MAX_KEY))
    }
}

/// Both engines take it as an indexed text.
fn bounded(text: &str, most: usize) -> Result<(), StoreError> {
    match text {
        _ if text.len() > most => Err(StoreError::TooLarge),
        _ if text.contains('\0') => Err(StoreError::Name),
        _ => Ok(()),
    }
}
