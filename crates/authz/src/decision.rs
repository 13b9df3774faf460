//! What was decided, by which policies, and what policies that only watch would have said.

use std::fmt;
use std::sync::Arc;

use ringfence_model::Position;
use serde::Serialize;

/// Whether a policy takes part, only watches, or neither. The same words as everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is read and checked, no more.
    Off,
    /// An observed permit grants nothing, an observed forbid denies nothing; both are recorded.
    Observe,
    /// It counts.
    #[default]
    Enforce,
}

/// What a policy does where it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It permits.
    Permit,
    /// It forbids, whatever permits.
    Forbid,
}

/// A policy, by name and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyRef {
    /// `@id`, or `FILE:LINE`.
    pub id: Arc<str>,
    /// Where it begins.
    #[serde(flatten)]
    pub position: Position,
    /// Permit or forbid.
    pub effect: Effect,
    /// `@mode`.
    pub mode: Mode,
    /// `@reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// A policy that could not be evaluated: it counts as if it were not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyError {
    /// Which.
    pub policy: Arc<PolicyRef>,
    /// Why.
    pub message: String,
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Whether it may pass: something permits it, nothing forbids it.
    pub allowed: bool,
    /// The policies that decided: the forbids that hold, or without one the permits. None: nothing permits it.
    pub determining: Vec<Arc<PolicyRef>>,
    /// Policies that could not be evaluated.
    pub errors: Vec<PolicyError>,
    /// Policies in observe mode that hold.
    pub observed: Vec<Arc<PolicyRef>>,
    /// Whether it might pass if the observed policies counted.
    pub if_enforced: bool,
}

impl Decision {
    pub(crate) fn of(
        permits: Vec<Arc<PolicyRef>>,
        forbids: Vec<Arc<PolicyRef>>,
        observed: Vec<Arc<PolicyRef>>,
        errors: Vec<PolicyError>,
    ) -> Self {
        let observed_that = |effect| observed.iter().any(|policy| policy.effect == effect);
        let allowed = forbids.is_empty() && !permits.is_empty();
        let if_enforced = forbids.is_empty()
            && !observed_that(Effect::Forbid)
            && (!permits.is_empty() || observed_that(Effect::Permit));
        let determining = if forbids.is_empty() { permits } else { forbids };
        Self { allowed, determining, errors, observed, if_enforced }
    }
}

impl Effect {
    /// The word of the language.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` ({})", self.effect.as_str(), self.id, self.position)?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
