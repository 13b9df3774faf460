//! A value before its schema: a fast yes, or what is wrong with it, told without the value.

use std::borrow::Cow;

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use crate::schemas::Schema;
use crate::source::join;
use crate::violation::{MAX_POINTER, MAX_VIOLATIONS, Place, Report, Violation};

/// A value of more parts than this is told the first thing that is wrong with it, so that a large wrong value costs little.
const MANY: usize = 2_000;

/// Where in a message the value is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot<'a> {
    pub(crate) place: Place,
    pub(crate) name: &'a str,
}

impl Spot<'_> {
    /// Something wrong here that no schema says.
    pub(crate) fn wrong(self, rule: &'static str, expected: impl Into<String>, schema: &str) -> Violation {
        Violation {
            place: self.place,
            name: self.name.into(),
            pointer: String::new(),
            rule: Cow::Borrowed(rule),
            expected: expected.into(),
            schema: schema.to_owned(),
            unknown: false,
        }
    }
}

impl Schema {
    /// Whether the value is as the schema says.
    pub(crate) fn holds(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }

    /// Adds what is wrong with the value.
    pub(crate) fn judge(&self, value: &Value, spot: Spot<'_>, report: &mut Report) {
        if self.holds(value) {
            return;
        }
        let before = report.violations.len();
        if self.recursive {
            // To say what is wrong, each branch of each choice is tried at each level: more than a small body may cost.
            report.push(spot.wrong("schema", "", &self.pointer));
            return;
        }
        if more_parts_than(value, &mut { MANY }) {
            if let Err(error) = self.validator.validate(value) {
                self.tell(&error, spot, report, 0);
                report.more = true;
            }
        } else {
            for error in self.validator.iter_errors(value).take(MAX_VIOLATIONS + 1) {
                self.tell(&error, spot, report, 0);
            }
        }
        if report.violations.len() == before && !report.is_full() {
            report.push(spot.wrong("schema", "", &self.pointer));
        }
    }

    fn tell(&self, error: &ValidationError<'_>, spot: Spot<'_>, report: &mut Report, depth: usize) {
        let at = error.instance_path().as_str();
        // Pointers are cut where they are told; one that a client made long is not copied for each name.
        let near = at.char_indices().nth(MAX_POINTER).map_or(at, |(end, _)| &at[..end]);
        let mut push = |pointer: String, rule: &str, expected: String| {
            report.push(Violation {
                place: spot.place,
                name: spot.name.into(),
                pointer,
                rule: Cow::Owned(rule.to_owned()),
                expected,
                schema: self.pointer.to_string(),
                unknown: false,
            });
        };
        match error.kind() {
            Kind::Required { property } => {
                push(join(at, property.as_str().unwrap_or_default()), "required", String::new());
            }
            Kind::AdditionalProperties { unexpected } => {
                let some = unexpected.iter().take(MAX_VIOLATIONS + 1);
                some.for_each(|name| push(join(near, name), "additionalProperties", String::new()));
            }
            Kind::UnevaluatedProperties { unexpected } => {
                let some = unexpected.iter().take(MAX_VIOLATIONS + 1);
                some.for_each(|name| push(join(near, name), "unevaluatedProperties", String::new()));
            }
            Kind::FalseSchema => push(at.to_owned(), "forbidden", "nothing here".to_owned()),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match meant(at, context) {
                Some(branch) if depth < 4 => {
                    branch.iter().for_each(|error| self.tell(error, spot, report, depth + 1));
                }
                _ => push(at.to_owned(), error.kind().keyword(), format!("one of {} forms", context.len())),
            },
            kind => push(at.to_owned(), kind.keyword(), expected(kind)),
        }
    }
}

/// The branch of a choice that was meant: the only one beside `null`, or the only one in which the value itself has the right type.
fn meant<'e>(
    at: &str,
    context: &'e [Vec<ValidationError<'static>>],
) -> Option<&'e [ValidationError<'static>]> {
    let type_at = |branch: &Vec<ValidationError<'static>>, null: bool| {
        branch.iter().any(|e| match e.kind() {
            Kind::Type { kind } if e.instance_path().as_str() == at => {
                !null || matches!(kind, TypeKind::Single(JsonType::Null))
            }
            _ => false,
        })
    };
    let only = |null: bool| {
        let mut near = context.iter().filter(|branch| !type_at(branch, null));
        let branch = near.next()?;
        near.next().is_none().then_some(branch.as_slice()).filter(|branch| !branch.is_empty())
    };
    only(true).or_else(|| only(false))
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Type { kind: TypeKind::Single(kind) } => kind.to_string(),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or ")
        }
        Kind::MaxLength { limit } => format!("at most {limit} characters"),
        Kind::MinLength { limit } => format!("at least {limit} characters"),
        Kind::MaxItems { limit } => format!("at most {limit} items"),
        Kind::MinItems { limit } => format!("at least {limit} items"),
        Kind::MaxProperties { limit } => format!("at most {limit} fields"),
        Kind::MinProperties { limit } => format!("at least {limit} fields"),
        Kind::Maximum { limit } => format!("at most {limit}"),
        Kind::Minimum { limit } => format!("at least {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("more than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("a multiple of {multiple_of}"),
        Kind::Format { format } => format.clone(),
        Kind::Pattern { pattern } => format!("the pattern {}", crate::source::shorten(pattern)),
        Kind::Enum { options } => {
            format!("one of {} values", options.as_array().map_or(1, Vec::len))
        }
        Kind::UniqueItems => "no item twice".to_owned(),
        Kind::AdditionalItems { limit } => format!("at most {limit} items"),
        _ => String::new(),
    }
}

/// Whether a value has more parts than `left`. Recursion is bounded by the depth that values are read to.
fn more_parts_than(value: &Value, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(1) else { return true };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().any(|item| more_parts_than(item, left)),
        Value::Object(entries) => entries.values().any(|value| more_parts_than(value, left)),
        _ => false,
    }
}
