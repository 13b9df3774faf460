//! Requests out of untrusted bytes: bounded, and no member stands twice.

use serde_json::{Map, Value};

use super::{
    EvaluationRequest, EvaluationsRequest, MAX_EVALUATIONS, MAX_REQUEST_BYTES, Refused, Semantic, bad,
};
use crate::data::JSON_DEPTH;

/// What an evaluation must say, and of each the members that it may leave to the request as a whole.
const REQUIRED: [(&str, &[&str]); 3] =
    [("subject", &["type", "id"]), ("action", &["name"]), ("resource", &["type", "id"])];

impl EvaluationRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// When it is none, or has no bound.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        read(strict(bytes)?)
    }
}

impl EvaluationsRequest {
    /// One that is the only one.
    #[must_use]
    pub fn one(evaluation: EvaluationRequest) -> Self {
        Self { evaluations: vec![Ok(evaluation)], semantic: Semantic::default(), single: true }
    }

    /// Reads a request for several evaluations.
    ///
    /// # Errors
    /// When it is none, or has no bound.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        let Value::Object(mut shared) = strict(bytes)? else { return bad("a request is an object") };
        let evaluations = shared.remove("evaluations");
        let semantic = shared.remove("options").map_or(Ok(Semantic::ExecuteAll), |o| semantic(&o))?;
        let list = match evaluations {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => return bad("`evaluations` is a list"),
        };
        if list.len() > MAX_EVALUATIONS {
            return bad(format!("a request has at most {MAX_EVALUATIONS} evaluations"));
        }
        if list.is_empty() {
            return Ok(Self { evaluations: vec![Ok(read(Value::Object(shared))?)], semantic, single: true });
        }
        let members = REQUIRED.iter().map(|(name, _)| *name).chain(["context"]);
        if let Some(name) = members.into_iter().find(|name| shared.get(*name).is_some_and(|v| !v.is_object()))
        {
            return bad(format!("`{name}` is an object"));
        }
        let one = |evaluation| {
            let Value::Object(own) = evaluation else { return bad("an evaluation is an object") };
            Ok(read(Value::Object(completed(own, &shared))))
        };
        let evaluations = list.into_iter().map(one).collect::<Result<_, _>>()?;
        Ok(Self { evaluations, semantic, single: false })
    }
}

/// An evaluation with what it leaves to the request: whole members, and of those that it has the required ones.
fn completed(mut own: Map<String, Value>, shared: &Map<String, Value>) -> Map<String, Value> {
    for (name, required) in REQUIRED {
        if let (Some(Value::Object(mine)), Some(Value::Object(theirs))) =
            (own.get_mut(name), shared.get(name))
        {
            for member in required {
                if let (None, Some(value)) = (mine.get(*member), theirs.get(*member)) {
                    mine.insert((*member).to_owned(), value.clone());
                }
            }
        }
    }
    for name in REQUIRED.iter().map(|(name, _)| *name).chain(["context"]) {
        if let (None, Some(value)) = (own.get(name), shared.get(name)) {
            own.insert(name.to_owned(), value.clone());
        }
    }
    own
}

fn semantic(options: &Value) -> Result<Semantic, Refused> {
    let Value::Object(options) = options else { return bad("`options` is an object") };
    match options.get("evaluations_semantic").map(Value::as_str) {
        None | Some(Some("execute_all")) => Ok(Semantic::ExecuteAll),
        Some(Some("deny_on_first_deny")) => Ok(Semantic::DenyOnFirstDeny),
        Some(Some("permit_on_first_permit")) => Ok(Semantic::PermitOnFirstPermit),
        Some(_) => {
            bad("`evaluations_semantic` is `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`")
        }
    }
}

fn read(value: Value) -> Result<EvaluationRequest, Refused> {
    serde_json::from_value(value).map_err(|error| Refused::new(400, error.to_string()))
}

fn strict(bytes: &[u8]) -> Result<Value, Refused> {
    if bytes.len() > MAX_REQUEST_BYTES {
        return bad(format!("a request has at most {} KiB", MAX_REQUEST_BYTES >> 10));
    }
    ringfence_json::parse(bytes, JSON_DEPTH).map_err(|error| Refused::new(400, error.to_string()))
}
