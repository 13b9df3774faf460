//! The event schema: OCSF classes as Rust types, ids, severity
