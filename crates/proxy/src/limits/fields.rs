//! `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): structured fields (RFC 9651) for clients.
//!
//! A policy's name says where its rule stands and what it counts, never whom.

use std::fmt::Write as _;
use std::sync::Arc;

use ringfence_limit::Standing;
use ringfence_model::{Amount, LimitRule};

pub(super) const POLICY: &str = "ratelimit-policy";
pub(super) const STANDING: &str = "ratelimit";

/// One policy: so many units in a window of so many seconds, if it is of whole seconds.
pub(super) fn policy(name: &str, amount: Amount) -> String {
    let (seconds, rest) = (amount.window.as_secs(), amount.window.subsec_nanos());
    let window = if rest == 0 { format!(";w={seconds}") } else { String::new() };
    format!("\"{name}\";q={}{window}", amount.units)
}

/// One policy about what runs at the same time.
pub(super) fn concurrency(name: &str, most: u32) -> String {
    format!("\"{name}\";q={most};qu=\"concurrent-requests\"")
}

pub(super) fn policies(policies: &[Arc<str>]) -> String {
    let mut field = String::with_capacity(policies.len() * 32);
    for (at, policy) in policies.iter().enumerate() {
        field.push_str(if at > 0 { ", " } else { "" });
        field.push_str(policy);
    }
    field
}

/// Units that are left, and after how many seconds all of them are back.
pub(super) fn standings(standings: &[(Arc<str>, Standing)]) -> String {
    let mut field = String::with_capacity(standings.len() * 32);
    for (at, (name, standing)) in standings.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        // Into a string nothing can fail.
        let _ = write!(field, "{comma}\"{name}\";r={}", standing.remaining);
        match standing.reset.as_secs_up() {
            0 => {}
            seconds => drop(write!(field, ";t={seconds}")),
        }
    }
    field
}

/// What a rule says, for the operator.
pub(super) fn says(rule: &LimitRule, what: &str, kind: &str, place: &str) -> String {
    let by = match &rule.by {
        ringfence_model::By::Claim(claim) => format!("claim {claim}"),
        by => by.as_str().replace('_', " "),
    };
    if kind == place {
        return format!("{what} by {by} ({kind})");
    }
    format!("{what} by {by} ({kind} {place})")
}
