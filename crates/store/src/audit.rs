//! The audit trail: a record per revision, each bound to the one before.

use ringfence_keys::{digest::sha256, to_hex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The revision that it is about.
    pub revision: u64,
    /// Unix seconds.
    pub at: u64,
    /// Who.
    pub actor: String,
    /// Did what.
    pub action: String,
    /// And what else is to be known.
    pub detail: Value,
    /// SHA-256 over this record and the hash before it, hexadecimal.
    pub hash: String,
}

/// The end of a trail that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditTail {
    /// Records.
    pub records: u64,
    /// The last hash.
    pub hash: String,
}

/// The hash of a record that follows `previous`. `detail` is the text as it is stored.
pub(crate) fn hash(
    previous: &str,
    revision: u64,
    at: u64,
    actor: &str,
    action: &str,
    detail: &str,
) -> String {
    // A JSON array has one reading, however the texts look.
    to_hex(&sha256(json!([previous, revision, at, actor, action, detail]).to_string().as_bytes()))
}
