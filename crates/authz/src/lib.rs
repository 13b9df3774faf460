//! May they? Cedar policies beside the fence, judged against a schema that the fence generates.
//!
//! A policy reads as a sentence about the fence: who (`User`, `Client`, `Service`, `Anonymous`), does what (`GET`, `read`,
//! `rpc`), where (`Service`, `Path`), under which circumstances (`context.chain`, `context.scopes`, `context.path.id`).
//! [`Engine`] holds schema, policies and entity data as one immutable snapshot; whoever changes one builds a new engine and
//! swaps it, so that a decision takes no lock and never sees half of a change.
#![forbid(unsafe_code)]

mod actor;
#[cfg(test)]
mod agreement;
pub mod authzen;
mod data;
mod decision;
mod diff;
mod engine;
mod entities;
mod explain;
mod files;
pub mod index;
mod infer;
mod names;
mod paths;
mod policy;
mod position;
mod question;
mod request;
mod schema;
mod table;
mod text;
mod types;

pub use actor::{Actor, Principal, PrincipalKind};
pub use data::{MAX_DATA_BYTES, MAX_ENTITIES};
pub use decision::{Decision, Effect, Mode, PolicyError, PolicyRef};
pub use diff::{Change, Diff};
pub use engine::{Engine, Sources};
pub use explain::{Explanation, Failed, Near};
pub use files::{MAX_FILE_BYTES, MAX_FILES, load_policies, load_sources, load_sources_with};
pub use policy::{MAX_POLICIES, MAX_POLICY_NESTING};
pub use question::Question;
pub use request::Request;
pub use table::{Case, CaseResult, Table};
