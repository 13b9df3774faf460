//! Durable state: every change with its audit record and its outbox row, in one transaction, in one order.
//!
//! Two engines, one behaviour: a SQLite file for one machine, a PostgreSQL database for several control servers. In each process one task
//! writes. It takes what waits, puts each batch under a revision of its own and commits them together, so one flush to disk serves many
//! callers. Every transaction that writes goes through the one row of `head`, which it holds until it is committed: so a revision is never
//! visible before a lower one, whoever wrote it. Revisions from a sequence were rejected: they follow the order of asking, not of
//! committing, and readers must then track gaps.
//!
//! There is no leader among servers, and none is needed: who must not write once somebody else took over, expects the revision of the
//! document that says who leads ([`Batch::expect`]), and the database refuses the late one.
#![forbid(unsafe_code)]

mod about;
mod audit;
mod batch;
mod error;
mod moved;
mod plan;
mod postgres;
mod read;
mod row;
mod schema;
mod sqlite;
mod store;
mod writer;

pub use about::About;
pub use audit::{AuditRecord, AuditTail};
pub use batch::{Batch, Issued, KEYS, MAX_BODY, MAX_CHANGES};
pub use error::StoreError;
pub use moved::{Moved, copy_file};
pub use postgres::{Limits, Place, Postgres};
pub use read::{Document, OutboxRow};
pub use store::{Durability, Store};
