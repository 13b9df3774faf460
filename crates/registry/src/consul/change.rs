//! What changes what a service says of itself.

use super::query::decode;
use super::{Query, Reply};
use crate::check::Status;
use crate::registration::{self, Claim, Registration};

/// A change that was read; nothing is proved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `/v1/agent/service/register`.
    Register(Claim, Registration),
    /// `/v1/agent/service/deregister/ID`.
    Deregister(String),
    /// `/v1/agent/check/{pass,warn,fail,update}/ID`.
    Check {
        /// The check.
        id: String,
        /// How it does.
        status: Status,
        /// What came with it.
        output: String,
    },
    /// `/v1/agent/service/maintenance/ID`.
    Maintain {
        /// What the service registered under.
        id: String,
        /// Why it is taken out; none: it is back.
        reason: Option<String>,
    },
}

const REGISTER: &str = "/v1/agent/service/register";
const DEREGISTER: &str = "/v1/agent/service/deregister/";
const MAINTAIN: &str = "/v1/agent/service/maintenance/";
const CHECK: &str = "/v1/agent/check/";

/// Whether something is changed at a path.
pub(super) fn is_change(path: &str) -> bool {
    let check = |rest: &str| {
        rest.split_once('/')
            .is_some_and(|(what, id)| matches!(what, "pass" | "warn" | "fail" | "update") && !id.is_empty())
    };
    path == REGISTER
        || [DEREGISTER, MAINTAIN].iter().any(|p| path.strip_prefix(p).is_some_and(|id| !id.is_empty()))
        || path.strip_prefix(CHECK).is_some_and(check)
}

/// Reads a change; what cannot be read is told.
pub fn change(path: &str, query: &Query, body: &[u8], now_ms: u64) -> Result<Change, Reply> {
    let wrong = |reason: &str| Reply::text(400, reason);
    let named = |id: &str| decode(id).ok_or_else(|| wrong("the path is malformed"));
    if path == REGISTER {
        let (claim, registration) = registration::read(body, now_ms).map_err(|e| wrong(&e.to_string()))?;
        return Ok(Change::Register(claim, registration));
    }
    if let Some(id) = path.strip_prefix(DEREGISTER) {
        return Ok(Change::Deregister(named(id)?));
    }
    if let Some(id) = path.strip_prefix(MAINTAIN) {
        let reason = || {
            query
                .value("reason")
                .filter(|r| !r.is_empty())
                .unwrap_or("Maintenance mode is enabled for this service")
        };
        let reason = match query.value("enable") {
            Some("true") => Some(reason().to_owned()),
            Some("false") => None,
            _ => return Err(wrong("Missing value for enable")),
        };
        return Ok(Change::Maintain { id: named(id)?, reason });
    }
    let (what, id) = path
        .strip_prefix(CHECK)
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| wrong("nothing is changed here"))?;
    let note = query.value("note").unwrap_or_default().to_owned();
    let (status, output) = match what {
        "pass" => (Status::Passing, note),
        "warn" => (Status::Warning, note),
        "fail" => (Status::Critical, note),
        _ => update(body).ok_or_else(|| {
            wrong("an update has a `Status` of passing, warning or critical, and an `Output`")
        })?,
    };
    Ok(Change::Check { id: named(id)?, status, output })
}

fn update(body: &[u8]) -> Option<(Status, String)> {
    let value = ringfence_json::parse(body, 2).ok()?;
    let output = value.get("Output").and_then(|o| o.as_str()).unwrap_or_default().to_owned();
    Some((Status::parse(value.get("Status")?.as_str()?)?, output))
}
