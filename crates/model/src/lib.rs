//! The fence: `ringfence.yaml` parsed with positions, validated, and queried as a graph.
//!
//! Everything downstream (snapshots, events, `why`) names the line of the fence it rests on, so every element here
//! carries its [`Position`], and a [`Fence`] exists only when the whole declaration is valid: what cannot be enforced
//! cannot be held. A serde decoder was rejected: it stops at the first error and forgets where values stood.
#![forbid(unsafe_code)]

mod access;
pub mod content;
mod decode;
mod diagnostic;
mod fence;
pub mod graph;
pub mod import;
mod load;
mod pattern;
mod position;
mod scalar;
mod schema;
mod suggest;
mod validate;
pub mod yaml;

pub use access::{
    Accepted, Access, Binding, Client, ClientProof, Credential, Login, Provider, Require, TokenAlgorithm,
};
pub use diagnostic::{Diagnostic, Diagnostics, Related, Severity};
pub use fence::{
    Accept, Allow, Amount, Beyond, Bound, Branch, Breaker, By, Call, Cohort, Cors, Date, Egress, Entities,
    EntitiesUrl, Excluded, Exclusion, ExternalTls, Fault, Fence, FileRule, Gateway, GatewayTls, Guards,
    Handling, Header, Headers, Host, HostPort, Kind, LimitRule, Limits, MAX_HOSTS, Metrics, Mode, OpenApi,
    Policies, Priority, Protocol, Ready, Responses, Retries, Route, Service, SourceFile, Split, Timeout,
    Trip, Waf, WhenFull, Which, runs_at,
};
pub use graph::{Edge, Missing, OUTSIDE, Rule, Step, UnknownName, Why};
pub use load::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES};
pub use pattern::{PathPattern, PatternError};
pub use position::Position;
pub use schema::json_schema;
