//! What differs from a description, as events and refusals say it.

use ringfence_model::Mode;
use ringfence_openapi::{Place, Report, Violation};

use super::Described;
use super::drift::Whence;
use crate::deny::{Deny, Told};
use crate::note::{Note, Notes};

/// Violations that the reason of a refusal names.
const NAMED: usize = 5;

/// What is to be judged: a request or a response of an operation, or of a path that is none.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) described: &'a Described,
    pub(super) whence: Whence<'a>,
    pub(super) now_ms: u64,
}

impl About<'_> {
    /// Notes what was found; refuses what is to be refused. Whether there was something that is only observed, and news.
    pub(super) fn decide(&self, report: Report, notes: &Notes) -> Result<bool, Deny> {
        let mut news = false;
        let mut refused = Report { violations: Vec::new(), more: report.more };
        for violation in report.violations {
            let mode = self.mode(&violation);
            let rule = self.rule(&violation);
            match mode {
                Mode::Off => continue,
                Mode::Observe if is_refusable(&violation) => notes.would_deny(rule.to_owned()),
                Mode::Observe | Mode::Enforce => {}
            }
            if mode == Mode::Enforce {
                notes.add(note(&violation, rule, false));
                refused.violations.push(violation);
                continue;
            }
            if let Some(untold) = self.described.drift.news(self.whence, &violation, self.now_ms) {
                let mut note = note(&violation, rule, true);
                if untold > 0 {
                    note.message.push_str(&format!("; {untold} more of this kind were not told"));
                }
                notes.add(note);
                news = true;
            }
        }
        let Some(first) = refused.violations.first() else { return Ok(news) };
        Err(self.deny(self.rule(first), &refused))
    }

    /// The mode that a violation falls under.
    fn mode(&self, violation: &Violation) -> Mode {
        let declared = &self.described.declared;
        match () {
            // Nobody forbade a field that is left open: it is only news.
            () if !is_refusable(violation) && declared.undocumented.is_off() => Mode::Off,
            () if !is_refusable(violation) => Mode::Observe,
            () if self.whence.response => declared.responses,
            () if violation.unknown => declared.undocumented,
            () => declared.mode,
        }
    }

    fn rule(&self, violation: &Violation) -> &'static str {
        match (violation.place, &*violation.rule) {
            (Place::Status, _) => "openapi.status",
            _ if self.whence.response => "openapi.response",
            (Place::Path, "unknown") => "openapi.path",
            (Place::Method, _) => "openapi.method",
            (Place::Body, "media-type") if violation.pointer.is_empty() => "openapi.content-type",
            (Place::Body, "size") => "openapi.size",
            (Place::Body, _) => "openapi.body",
            _ => "openapi.parameter",
        }
    }

    fn deny(&self, rule: &'static str, refused: &Report) -> Deny {
        let reason = if self.whence.response {
            format!("the answer of {} is not as described: {}", self.whence.operation, refused.summary(NAMED))
        } else {
            format!("{}: {}", self.whence.operation, refused.summary(NAMED))
        };
        let position = Some(self.described.position.clone());
        if self.whence.response {
            // What is wrong with it is the service's own affair.
            return Deny::new(502, "validate", rule, reason).position(position);
        }
        let mut told = Told::default();
        let status = refused.status();
        if let Some(method) = refused.violations.iter().find(|v| v.place == Place::Method && status == 405) {
            told.fields.push(("allow", method.expected.clone()));
        }
        told.violations = Some(refused.for_client().to_string());
        Deny::new(status, "validate", rule, reason).position(position).told(told)
    }
}

/// Whether something is more than a field that the description does not know and does not forbid.
fn is_refusable(violation: &Violation) -> bool {
    !(violation.unknown && violation.place == Place::Body && !violation.pointer.is_empty())
}

fn note(violation: &Violation, rule: &str, observed: bool) -> Note {
    let mut message = violation.rule.clone().into_owned();
    if !violation.expected.is_empty() {
        message = format!("{message}, expected {}", violation.expected);
    }
    let text = violation.to_string();
    let target = text.split(": ").next().unwrap_or_default().to_owned();
    Note { stage: "validate", rule: rule.to_owned(), message, target, observed, ..Note::default() }
}
