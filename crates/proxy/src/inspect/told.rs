//! What the rules found, as events and refusals say it.

use ringfence_model::Waf;
use ringfence_waf::{Interruption, Match, MatchedVariable, Transaction};

use crate::deny::Deny;
use crate::note::{Note, Notes};

/// Values of one match that are told.
const VALUES: usize = 3;

/// Notes what matched and counts, and what the last phase sums up.
pub(super) fn note(matches: &[Match], observed: bool, notes: &Notes) {
    for found in matches.iter().filter(|found| found.score > 0 || found.disruptive || found.rule.phase == 5) {
        let transformations = found.rule.transformations.join(",");
        let rule = name(found.rule.id);
        let note = |value: Option<&MatchedVariable>, score| Note {
            stage: "inspect",
            rule: rule.clone(),
            message: found.message.clone(),
            target: value.map(|value| value.name.clone()).unwrap_or_default(),
            value: value
                .map(|v| if v.found.is_empty() { &v.value } else { &v.found })
                .cloned()
                .unwrap_or_default(),
            transformations: transformations.clone(),
            score,
            observed,
        };
        let mut values = found.variables.iter().take(VALUES);
        notes.add(note(values.next(), u64::try_from(found.score).unwrap_or_default()));
        values.for_each(|value| notes.add(note(Some(value), 0)));
    }
}

/// Notes what would have been refused, if somebody did not only watch.
pub(super) fn observe(transaction: &Transaction, notes: &Notes) {
    if let Some(stop) = transaction.interruption() {
        notes.would_deny(name(blamed(transaction, stop).map_or(stop.rule, |found| found.rule.id)));
    }
}

/// What a request is refused with.
pub(super) fn deny(transaction: &Transaction, stop: &Interruption, waf: &Waf) -> Deny {
    // Answers of the rules are refusals, whatever they ask for: a redirect would tell an attacker where to go on.
    let status = if (400..600).contains(&stop.status) { stop.status } else { 403 };
    let (rule, reason) = match blamed(transaction, stop) {
        Some(found) => {
            let place =
                found.variables.first().map(|value| format!(" in {}", value.name)).unwrap_or_default();
            let scores = transaction.scores();
            let (score, of) = match stop.phase {
                1 | 2 => (scores.inbound, waf.inbound),
                _ => (scores.outbound, waf.outbound),
            };
            (name(found.rule.id), format!("{}{place}; the score is {score} of {of}", found.message))
        }
        None => {
            let found = transaction.matches().iter().rfind(|found| found.rule.id == stop.rule);
            let message = found.map(|found| found.message.as_str()).filter(|message| !message.is_empty());
            (name(stop.rule), message.map_or_else(|| format!("rule {} refuses it", stop.rule), str::to_owned))
        }
    };
    Deny::new(status, "inspect", rule, reason).position(Some(waf.position.to_string()))
}

/// The match that weighs the most, where a sum of scores is why it is refused.
fn blamed<'t>(transaction: &'t Transaction, stop: &Interruption) -> Option<&'t Match> {
    let own = transaction.matches().iter().rfind(|found| found.rule.id == stop.rule);
    if own.is_some_and(|found| found.score > 0) {
        return own;
    }
    // The first of several: later ones are often about what the first let through.
    transaction.matches().iter().rev().filter(|found| found.score > 0).max_by_key(|found| found.score)
}

fn name(rule: u64) -> String {
    format!("waf.{rule}")
}
