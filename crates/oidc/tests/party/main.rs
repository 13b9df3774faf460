//! Sign-ins at real providers, and at some that lie.
#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod agent;
mod entities;
mod federation;
mod flows;
mod liar;
mod lies;
mod provider;
