//! Durable state: every change with its audit record and its outbox row, in one transaction, in one order.
//!
//! One task writes. It takes what waits, puts each batch under a revision of its own and commits them together, so a
//! revision is never visible before a lower one, and one flush to disk serves many callers. Revisions from a sequence
//! were rejected: they follow the order of asking, not of committing, and readers must then track gaps.
#![forbid(unsafe_code)]

mod audit;
mod batch;
mod read;
mod store;
mod writer;

pub use audit::{AuditRecord, AuditTail};
pub use batch::{Batch, Issued, MAX_BODY, MAX_CHANGES};
pub use read::{Document, OutboxRow};
pub use store::{Durability, Store, StoreError};
