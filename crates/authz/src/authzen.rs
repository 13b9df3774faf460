//! AuthZEN Authorization API 1.0: the same decisions for services that ask. Types and their meaning; the endpoint is not here.
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
//! What a subject's properties claim is as true as whoever asks: the endpoint puts the verified principal in their place.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::actor::{Principal, PrincipalKind};
use crate::data::Strict;
use crate::decision::Decision;
use crate::engine::Engine;
use crate::names::{CONNECT, RPC};
use crate::question::Question;

/// Bytes of a request.
pub const MAX_REQUEST_BYTES: usize = 256 << 10;
/// Evaluations of one request.
pub const MAX_EVALUATIONS: usize = 100;
/// Bytes of a name, a path or a host.
const MAX_TEXT: usize = 4 << 10;
/// Elements of a list.
const MAX_LIST: usize = 256;

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
    /// The evaluations, at least one.
    pub evaluations: Vec<EvaluationRequest>,
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

/// Why a request means nothing here; the caller's fault (400).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(String);

fn bad<T>(message: impl Into<String>) -> Result<T, BadRequest> {
    Err(BadRequest(message.into()))
}

impl EvaluationRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// When it is none, or has no bound.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadRequest> {
        serde_json::from_value(strict(bytes)?).map_err(|error| BadRequest(error.to_string()))
    }

    /// The question it asks.
    ///
    /// # Errors
    /// When it speaks of something that the fence does not have.
    pub fn question(&self) -> Result<Question, BadRequest> {
        let principal = self.principal()?;
        let (service, path) = match self.resource.kind.as_str() {
            "service" => {
                let path = text(&self.resource.properties, "path")?.unwrap_or_else(|| "/".to_owned());
                (self.resource.id.clone(), path)
            }
            "path" => match self.resource.id.find('/') {
                Some(at) if at > 0 => (self.resource.id[..at].to_owned(), self.resource.id[at..].to_owned()),
                _ => return bad("the id of a `path` is written SERVICE/PATH"),
            },
            _ => return bad("`resource.type` is `service` or `path`"),
        };
        // A path of another form would be judged as another path than the one that is taken.
        let odd = |segment: &str| matches!(segment, "." | "..");
        let plain = path.starts_with('/')
            && !path.split('/').any(odd)
            && !path.trim_start_matches('/').trim_end_matches('/').contains("//")
            && !path.starts_with("//")
            && !path.contains(|c: char| c.is_control() || matches!(c, '?' | '#' | '%' | '\\' | ';'));
        if !plain || path.len() > MAX_TEXT || service.len() > MAX_TEXT {
            return bad("the path is not in normal form: no query, no `.`, `..`, `//`, `%`, `;` or `\\`");
        }
        let method = match self.action.name.as_str() {
            RPC => "POST",
            CONNECT => "",
            name if !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_graphic()) => {
                name
            }
            _ => return bad("`action.name` is an HTTP method, `rpc` or `connect`"),
        };
        let mut question = Question::new(principal, method, &service, &path);
        if let Some(caller) = text(&self.context, "caller")? {
            question = question.through(&caller);
        }
        if let Some(chain) = list(&self.context, "chain")? {
            question.chain = chain;
        }
        if let Some(host) = text(&self.context, "host")? {
            question.host = host;
        }
        if let Some(source) = text(&self.context, "source")? {
            let source: Result<IpAddr, _> = source.parse();
            question.source =
                Some(source.map_err(|_| BadRequest("`context.source` is an IP address".into()))?);
        }
        if let Some(time) = text(&self.context, "time")? {
            let time = humantime::parse_rfc3339(&time);
            question.time =
                Some(time.map_err(|_| BadRequest("`context.time` is an RFC 3339 time in UTC".into()))?);
        }
        Ok(question)
    }

    fn principal(&self) -> Result<Principal, BadRequest> {
        let properties = &self.subject.properties;
        let kind = match self.subject.kind.as_str() {
            "user" => PrincipalKind::User,
            "client" => PrincipalKind::Client,
            "service" => PrincipalKind::Service,
            "anonymous" => return Ok(Principal::default()),
            _ => return bad("`subject.type` is `user`, `client`, `service` or `anonymous`"),
        };
        if self.subject.id.len() > MAX_TEXT {
            return bad("`subject.id` is too long");
        }
        if kind == PrincipalKind::Service {
            return Ok(Principal::service(&self.subject.id));
        }
        let Some((provider, id)) = self.subject.id.split_once('/') else {
            return bad("`subject.id` is written PROVIDER/NAME");
        };
        let auth_time = match properties.get("auth_time") {
            None => None,
            Some(value) => match value.as_u64() {
                None => return bad("`auth_time` is a number of seconds since 1970"),
                some => some,
            },
        };
        Ok(Principal {
            kind,
            groups: list(properties, "groups")?.unwrap_or_default(),
            scopes: list(properties, "scopes")?.unwrap_or_default(),
            acr: text(properties, "acr")?,
            client: text(properties, "client")?,
            auth_time,
            ..Principal::user(provider, id)
        })
    }
}

impl EvaluationsRequest {
    /// Reads a request for several evaluations.
    ///
    /// # Errors
    /// When it is none, or has no bound.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadRequest> {
        let Value::Object(mut members) = strict(bytes)? else { return bad("a request is an object") };
        let evaluations = members.remove("evaluations");
        let semantic = match members.remove("options") {
            None => Semantic::ExecuteAll,
            Some(options) => match options.get("evaluations_semantic").map(Value::as_str) {
                None | Some(Some("execute_all")) => Semantic::ExecuteAll,
                Some(Some("deny_on_first_deny")) => Semantic::DenyOnFirstDeny,
                Some(Some("permit_on_first_permit")) => Semantic::PermitOnFirstPermit,
                Some(_) => return bad("`evaluations_semantic` is unknown"),
            },
        };
        let read = |members: Map<String, Value>| {
            serde_json::from_value(Value::Object(members)).map_err(|error| BadRequest(error.to_string()))
        };
        match evaluations {
            None => Ok(Self { evaluations: vec![read(members)?], semantic, single: true }),
            Some(Value::Array(list)) if list.is_empty() => {
                Ok(Self { evaluations: vec![read(members)?], semantic, single: true })
            }
            Some(Value::Array(list)) if list.len() <= MAX_EVALUATIONS => {
                let one = |evaluation| {
                    let Value::Object(own) = evaluation else { return bad("an evaluation is an object") };
                    let mut merged = members.clone();
                    merged.extend(own);
                    read(merged)
                };
                Ok(Self {
                    evaluations: list.into_iter().map(one).collect::<Result<_, _>>()?,
                    semantic,
                    single: false,
                })
            }
            Some(Value::Array(_)) => bad(format!("a request has at most {MAX_EVALUATIONS} evaluations")),
            Some(_) => bad("`evaluations` is a list"),
        }
    }
}

impl Engine {
    /// Answers an evaluation request; one that means nothing is denied with the reason.
    #[must_use]
    pub fn evaluate(&self, request: &EvaluationRequest, now: SystemTime) -> EvaluationResponse {
        match request.question() {
            Ok(question) => EvaluationResponse::of(&self.answer(&question, now)),
            Err(error) => EvaluationResponse {
                decision: false,
                context: Map::from_iter([(
                    "error".into(),
                    json!({ "status": 400, "message": error.to_string() }),
                )]),
            },
        }
    }

    /// Answers several; those after the stop are not answered.
    #[must_use]
    pub fn evaluate_all(&self, request: &EvaluationsRequest, now: SystemTime) -> Vec<EvaluationResponse> {
        let mut answers = Vec::with_capacity(request.evaluations.len());
        for evaluation in &request.evaluations {
            let answer = self.evaluate(evaluation, now);
            let stops = match request.semantic {
                Semantic::ExecuteAll => false,
                Semantic::DenyOnFirstDeny => !answer.decision,
                Semantic::PermitOnFirstPermit => answer.decision,
            };
            answers.push(answer);
            if stops {
                break;
            }
        }
        answers
    }
}

impl EvaluationResponse {
    /// The answer, with the ids of the policies that decided and what they say of it.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let mut context = Map::new();
        let policies: Vec<&str> = decision.determining.iter().map(|policy| policy.id.as_ref()).collect();
        if !policies.is_empty() {
            context.insert("policies".into(), json!(policies));
        }
        let reasons: Vec<&str> =
            decision.determining.iter().filter_map(|policy| policy.reason.as_deref()).collect();
        if !reasons.is_empty() {
            context.insert("reason_admin".into(), json!({ "en": reasons.join("; ") }));
        }
        Self { decision: decision.allowed, context }
    }
}

fn strict(bytes: &[u8]) -> Result<Value, BadRequest> {
    if bytes.len() > MAX_REQUEST_BYTES {
        return bad(format!("a request has at most {} KiB", MAX_REQUEST_BYTES >> 10));
    }
    let Strict(value) = serde_json::from_slice(bytes).map_err(|error| BadRequest(error.to_string()))?;
    Ok(value)
}

fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, BadRequest> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_TEXT => Ok(Some(text.clone())),
        Some(_) => bad(format!("`{name}` is a text")),
    }
}

fn list(members: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, BadRequest> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let items = value.as_array().filter(|items| items.len() <= MAX_LIST);
    let texts = items.and_then(|items| {
        let text = |item: &Value| item.as_str().filter(|text| text.len() <= MAX_TEXT).map(ToOwned::to_owned);
        items.iter().map(text).collect::<Option<Vec<_>>>()
    });
    texts.map(Some).ok_or_else(|| BadRequest(format!("`{name}` is a list of at most {MAX_LIST} texts")))
}
