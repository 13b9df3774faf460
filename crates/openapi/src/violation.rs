//! What is wrong with a request or a response, told in two ways: to the client which fields and which rules, to the operator also
//! what was expected and where the description says so. Values are in neither.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{Value, json};

/// How many are told of one message.
pub const MAX_VIOLATIONS: usize = 32;
/// The most characters of a pointer.
pub(crate) const MAX_POINTER: usize = 256;

/// The part of a message that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The path.
    Path,
    /// The query.
    Query,
    /// The header section.
    Header,
    /// A cookie.
    Cookie,
    /// The body.
    Body,
    /// The method.
    Method,
    /// The status of a response.
    Status,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In which part.
    pub place: Place,
    /// The parameter or field; empty for the body.
    pub name: Box<str>,
    /// Where in its value, as a JSON pointer.
    pub pointer: String,
    /// The rule, by the keyword of the schema or a word of ours (`unknown`, `missing`, `repeated`, `syntax`, `media-type`, `size`).
    pub rule: Cow<'static, str>,
    /// What was expected: for the operator.
    pub expected: String,
    /// Where the description says so.
    pub schema: String,
    /// The description does not know it, rather than forbids it.
    pub unknown: bool,
}

/// Everything that is wrong with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// At most [`MAX_VIOLATIONS`].
    pub violations: Vec<Violation>,
    /// Whether there were more.
    pub more: bool,
}

impl Report {
    /// Nothing wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether nothing more is of interest.
    pub(crate) fn is_full(&self) -> bool {
        self.more
    }

    pub(crate) fn push(&mut self, mut violation: Violation) {
        // What is only unknown may be let pass, and must not push out what may not; nor the other way round.
        let alike = self.violations.iter().filter(|there| there.unknown == violation.unknown).count();
        if alike >= MAX_VIOLATIONS {
            self.more = true;
            return;
        }
        if violation.pointer.chars().count() > MAX_POINTER {
            violation.pointer = violation.pointer.chars().take(MAX_POINTER).chain(['…']).collect();
        }
        self.violations.push(violation);
    }

    /// Adds what another found.
    pub fn append(&mut self, other: Self) {
        self.more |= other.more;
        other.violations.into_iter().for_each(|violation| self.push(violation));
    }

    /// The status that says it best: 404 and 405 for what is not there, 413 and 415 for bodies, else 400.
    #[must_use]
    pub fn status(&self) -> u16 {
        let has = |test: &dyn Fn(&Violation) -> bool| self.violations.iter().any(test);
        match () {
            () if has(&|v| v.place == Place::Path && v.unknown) => 404,
            () if has(&|v| v.place == Place::Method) => 405,
            () if has(&|v| v.place == Place::Body && v.rule == "size") => 413,
            () if has(&|v| v.place == Place::Body && v.rule == "media-type") => 415,
            () => 400,
        }
    }

    /// What a client is told: which fields, by which rule.
    #[must_use]
    pub fn for_client(&self) -> Value {
        let told = |v: &Violation| {
            let mut told = json!({ "in": v.place, "rule": v.rule });
            if !v.name.is_empty() {
                told["name"] = Value::String(v.name.to_string());
            }
            if v.place == Place::Body || !v.pointer.is_empty() {
                told["pointer"] = Value::String(v.pointer.clone());
            }
            told
        };
        Value::Array(self.violations.iter().map(told).collect())
    }

    /// For the operator, in one line; names that the description does not have are shown only where they look like names.
    #[must_use]
    pub fn summary(&self, most: usize) -> String {
        let mut out = String::new();
        for (i, violation) in self.violations.iter().take(most).enumerate() {
            if i > 0 {
                out.push_str("; ");
            }
            out.push_str(&violation.to_string());
        }
        let rest = self.violations.len().saturating_sub(most);
        if rest > 0 || self.more {
            out.push_str(&format!("; and {rest}{} more", if self.more { " or" } else { "" }));
        }
        out
    }
}

impl Violation {
    /// The pointer with every step left out that might be a value used as a key.
    #[must_use]
    pub fn tame_pointer(&self) -> String {
        let steps = self.pointer.split('/').skip(1);
        let tame = |step: &str| {
            let index = step.len() <= 6 && !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
            if index || crate::text::is_name(step) { step.to_owned() } else { "*".to_owned() }
        };
        steps.fold(String::new(), |out, step| out + "/" + &tame(step))
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match self.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
            Place::Cookie => "cookie",
            Place::Body => "body",
            Place::Method => "method",
            Place::Status => "status",
        };
        f.write_str(place)?;
        if !self.name.is_empty() {
            let name = if crate::text::is_name(&self.name) { &self.name } else { "*" };
            write!(f, " {name}")?;
        }
        let pointer = self.tame_pointer();
        if !pointer.is_empty() {
            write!(f, " {pointer}")?;
        }
        write!(f, ": {}", self.rule)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        Ok(())
    }
}
