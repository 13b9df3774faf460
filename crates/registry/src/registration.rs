//! What a service may say of itself: tags, data and how it does. Never where it is: that is the fence's to say.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::check::{Check, CheckKind, MAX_OUTPUT, Status, cut};

/// Most bytes of a registration.
pub const MAX_BODY: usize = 64 << 10;
const MAX_DEPTH: usize = 8;
const MAX_TAGS: usize = 64;
const MAX_META: usize = 64;
const MAX_CHECKS: usize = 8;
const MAX_WORD: usize = 128;
const MAX_VALUE: usize = 512;
/// Longest TTL: a day.
const MAX_TTL_MS: u64 = 86_400_000;

/// A registration that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub(crate) id: String,
    pub(crate) tags: Vec<String>,
    pub(crate) meta: BTreeMap<String, String>,
    pub(crate) ttls: Vec<Ttl>,
    pub(crate) maintenance: Option<String>,
}

/// A check that the service renews itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ttl {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) ttl_ms: u64,
    pub(crate) deregister_ms: Option<u64>,
    pub(crate) due_ms: u64,
    pub(crate) critical_since_ms: Option<u64>,
    pub(crate) status: Status,
    pub(crate) output: String,
}

/// Who and where a registration claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The service.
    pub name: String,
    /// Its address; empty: that of whoever asks.
    pub address: String,
    /// Its port; 0: the one that the fence declares.
    pub port: u16,
}

/// Why a registration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// No JSON object of the right shape.
    #[error("the registration cannot be read: {0}")]
    Json(String),
    /// Too much of something.
    #[error("the registration has too many or too long {0}")]
    Bound(&'static str),
    /// A word that is none.
    #[error("`{0}` is no {1}")]
    Word(String, &'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(alias = "Id", alias = "id", rename = "ID", default)]
    id: Option<String>,
    #[serde(alias = "name")]
    name: String,
    #[serde(alias = "address", default)]
    address: Option<String>,
    #[serde(alias = "port", default)]
    port: Option<u16>,
    #[serde(alias = "tags", default)]
    tags: Option<Vec<String>>,
    #[serde(alias = "meta", default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(alias = "check", default)]
    check: Option<WireCheck>,
    #[serde(alias = "checks", default)]
    checks: Option<Vec<WireCheck>>,
    #[serde(alias = "kind", default)]
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireCheck {
    #[serde(rename = "CheckID", alias = "CheckId", alias = "ID", default)]
    id: Option<String>,
    #[serde(alias = "name", default)]
    name: Option<String>,
    #[serde(rename = "TTL", alias = "ttl", default)]
    ttl: Option<String>,
    #[serde(alias = "status", default)]
    status: Option<String>,
    #[serde(alias = "notes", default)]
    notes: Option<String>,
    #[serde(alias = "deregistercriticalserviceafter", default)]
    deregister_critical_service_after: Option<String>,
}

/// Reads the body of `PUT /v1/agent/service/register`.
///
/// Checks that the agent would make by itself (`HTTP`, `TCP`, …) are left to the sidecar, which looks already.
pub(crate) fn read(body: &[u8], now_ms: u64) -> Result<(Claim, Registration), RegistrationError> {
    use RegistrationError::{Bound, Json, Word};
    if body.len() > MAX_BODY {
        return Err(Bound("bytes"));
    }
    let value = ringfence_json::parse(body, MAX_DEPTH).map_err(|e| Json(e.to_string()))?;
    let wire: Wire = serde_json::from_value(value).map_err(|e| Json(e.to_string()))?;
    let plain = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
    let id = wire.id.filter(|id| !id.is_empty()).unwrap_or_else(|| wire.name.clone());
    if ![&id, &wire.name].into_iter().all(|word| plain(word, MAX_WORD)) {
        return Err(Bound("characters in `ID` or `Name`"));
    }
    if let Some(kind) = wire.kind.filter(|kind| !kind.is_empty()) {
        return Err(Word(
            cut(&kind, MAX_WORD).into(),
            "kind that is registered here; every service has its sidecar already",
        ));
    }
    let (tags, meta) = (wire.tags.unwrap_or_default(), wire.meta.unwrap_or_default());
    if tags.len() > MAX_TAGS || !tags.iter().all(|tag| plain(tag, MAX_WORD)) {
        return Err(Bound("tags"));
    }
    if meta.len() > MAX_META || !meta.iter().all(|(k, v)| plain(k, MAX_WORD) && plain(v, MAX_VALUE)) {
        return Err(Bound("entries in `Meta`"));
    }
    let checks: Vec<WireCheck> = wire.check.into_iter().chain(wire.checks.into_iter().flatten()).collect();
    if checks.len() > MAX_CHECKS {
        return Err(Bound("checks"));
    }
    let single = checks.len() == 1;
    let mut ttls: Vec<Ttl> = Vec::new();
    for (at, check) in checks.into_iter().enumerate() {
        let Some(ttl) = &check.ttl else { continue };
        let time = |text: &str| {
            let found = duration_ms(text).filter(|ms| (1..=MAX_TTL_MS).contains(ms));
            found.ok_or_else(|| Word(cut(text, MAX_WORD).into(), "duration up to a day"))
        };
        let ttl_ms = time(ttl)?;
        let own = if single { format!("service:{id}") } else { format!("service:{id}:{}", at + 1) };
        let own = check.id.filter(|id| !id.is_empty()).unwrap_or(own);
        let name = check.name.unwrap_or_else(|| format!("Service '{}' check", wire.name));
        if !plain(&own, 2 * MAX_WORD) || !plain(&name, 2 * MAX_WORD) || ttls.iter().any(|ttl| ttl.id == own) {
            return Err(Bound("characters, or equal ones, among the ids of checks"));
        }
        let word = check.status.filter(|word| !word.is_empty()).unwrap_or_else(|| "critical".into());
        let status = Status::parse(&word).ok_or_else(|| Word(cut(&word, MAX_WORD).into(), "status"))?;
        ttls.push(Ttl {
            id: own,
            name,
            ttl_ms,
            deregister_ms: check.deregister_critical_service_after.as_deref().map(time).transpose()?,
            due_ms: now_ms.saturating_add(ttl_ms),
            critical_since_ms: (status == Status::Critical).then_some(now_ms),
            status,
            output: cut(&check.notes.unwrap_or_default(), MAX_OUTPUT).into(),
        });
    }
    let claim =
        Claim { name: wire.name, address: wire.address.unwrap_or_default(), port: wire.port.unwrap_or(0) };
    Ok((claim, Registration { id, tags, meta, ttls, maintenance: None }))
}

impl Registration {
    pub(crate) fn ttl(&mut self, id: &str) -> Option<&mut Ttl> {
        self.ttls.iter_mut().find(|ttl| ttl.id == id)
    }
}

impl Ttl {
    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.status = Status::Critical;
        self.output = "TTL expired".into();
        self.critical_since_ms = Some(now_ms);
    }

    pub(crate) fn check(&self) -> Check {
        Check {
            id: self.id.clone(),
            name: self.name.clone(),
            kind: CheckKind::Ttl,
            status: self.status,
            output: self.output.clone(),
        }
    }
}

/// A duration as Go writes it (`1m30s`, `500ms`) in milliseconds.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let each = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(each)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}
