//! What happened, as typed OCSF 1.8 events: why this is a crate.
//!
//! Every process of Ringfence tells what it allowed, refused, started and signed in one schema that other people's tools read
//! too. An event is borrowed and written straight into the producer's buffer as a JSON line, so that telling costs no
//! allocation; a thread of its own moves full buffers to disk. Channels of owned events were rejected: they allocate
//! per request what is thrown away a moment later.
#![forbid(unsafe_code)]

mod class;
mod id;
mod json;
mod kept;
mod log;
mod place;
mod query;
mod writer;

pub use class::{
    Call, Connection, Dial, Entity, Event, Finding, Kind, Lifecycle, LifecycleActivity, Observed, Scan,
    Severity, Tamper, User, Verdict,
};
pub use id::{EventId, TraceContext, TraceId};
pub use log::own_files;
pub use place::open_own;
pub use query::{Filter, Follow, Record, read_dir};
pub use writer::{Emitter, Writer, WriterOptions, WriterStats};
