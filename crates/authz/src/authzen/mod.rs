//! AuthZEN Authorization API 1.0: the same decisions for services that ask. Types and their meaning; the endpoint is the proxy's.
//!
//! | AuthZEN | here |
//! |---|---|
//! | `subject.type` | `user`, `client`, `service`, `anonymous` |
//! | `subject.id` | `PROVIDER/NAME`, the service's name |
//! | `subject.properties` | `groups`, `scopes`, `acr`, `auth_time`, `client` |
//! | `action.name` | an HTTP method; `rpc`, `connect` |
//! | `resource.type` | `service` with `id` its name and `properties.path`, or `path` with `id` `SERVICE/PATH` |
//! | `context` | `caller`, `chain`, `host`, `source`, `time` |
//!
//! Members that are not named here mean nothing and are no error, as the specification wants it.

mod evaluate;
mod parse;
mod question;
mod time;

pub use evaluate::{Asker, Judged};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Bytes of a request.
pub const MAX_REQUEST_BYTES: usize = 256 << 10;
/// Evaluations of one request.
pub const MAX_EVALUATIONS: usize = 100;

/// A subject or a resource (sections 5.1 and 5.2).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Entity {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub properties: Map<String, Value>,
}

/// An action (section 5.3).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub properties: Map<String, Value>,
}

/// An access evaluation request (section 6.1).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct EvaluationRequest {
    /// Who.
    pub subject: Entity,
    /// What.
    pub action: Action,
    /// On what.
    pub resource: Entity,
    /// Under which circumstances.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Value>,
}

/// An access evaluation response (section 6.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationResponse {
    /// Whether it may.
    pub decision: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub context: Map<String, Value>,
}

/// Several at once (section 7.1): each evaluation takes from the request what it does not say itself.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationsRequest {
    /// The evaluations, at least one; what is wrong with one of several does not hinder the others.
    pub evaluations: Vec<Result<EvaluationRequest, Refused>>,
    /// When to stop.
    pub semantic: Semantic,
    /// Whether the request itself was the only evaluation, so that the answer is no list.
    pub single: bool,
}

/// When to stop (section 7.1.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Semantic {
    /// Never.
    #[default]
    ExecuteAll,
    /// At the first deny.
    DenyOnFirstDeny,
    /// At the first permit.
    PermitOnFirstPermit,
}

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// As an HTTP status: 400, it means nothing here; 403, it is not for the asker to know.
    pub status: u16,
    /// For the asker.
    pub message: String,
}

impl Refused {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

fn bad<T>(message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::new(400, message))
}
