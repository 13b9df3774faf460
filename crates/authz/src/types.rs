//! What the validator says of policies, at the place it is said of.
//!
//! Its errors know their policy and mostly a place in it, each kind in members of its own and not all in their words; one without a place
//! stands at its policy, so that none is without a line.

use cedar_policy_core::ast::{PolicyID, PolicySet};
use cedar_policy_core::parser::Loc;
use cedar_policy_core::validator::{ValidationError, ValidationMode, ValidationWarning};
use ringfence_model::{Diagnostic, Diagnostics, Position, Severity};

use crate::policy::Read;
use crate::position::Lines;
use crate::schema::Schema;
use crate::text::short;

/// Characters of a message of Cedar's.
const MAX_TOLD: usize = 400;

/// Members that each kind has: a kind that another version adds must be listed here to compile.
macro_rules! members {
    ($told:expr, $all:ident: $($kind:ident)*) => {
        match $told { $($all::$kind(one) => (&one.policy_id, one.source_loc.as_ref()),)* }
    };
}

/// Checks policies, which are named by their place in the list, against the schema.
pub(crate) fn check_types(read: &[Read], lines: &[Lines], schema: &Schema, out: &mut Diagnostics) {
    let Ok(set) = PolicySet::try_from_iter(read.iter().map(|one| one.policy.clone())) else { return };
    let result = schema.validator.validate(&set, ValidationMode::Strict);
    let (errors, warnings) = result.into_errors_and_warnings();
    for error in errors {
        out.push(at_its_place(read, lines, error_of(&error), &error));
    }
    for warning in warnings {
        let mut diagnostic = at_its_place(read, lines, warning_of(&warning), &warning);
        diagnostic.severity = Severity::Warning;
        out.push(diagnostic);
    }
}

fn error_of(error: &ValidationError) -> (&PolicyID, Option<&Loc>) {
    members!(error, ValidationError:
        UnrecognizedEntityType UnrecognizedActionId UnexpectedType IncompatibleTypes UnsafeAttributeAccess
        UnsafeOptionalAttributeAccess UnsafeTagAccess NoTagsAllowed UndefinedFunction WrongNumberArguments
        FunctionArgumentValidation EmptySetForbidden NonLitExtConstructor InternalInvariantViolation InvalidEnumEntity
        EntityDerefLevelViolation IncompleteSchema)
}

fn warning_of(warning: &ValidationWarning) -> (&PolicyID, Option<&Loc>) {
    members!(warning, ValidationWarning:
        MixedScriptString BidiCharsInString BidiCharsInIdentifier MixedScriptIdentifier ConfusableIdentifier
        ImpossiblePolicy InvalidActionApplication)
}

fn at_its_place(
    read: &[Read],
    lines: &[Lines],
    (id, loc): (&PolicyID, Option<&Loc>),
    said: &dyn miette::Diagnostic,
) -> Diagnostic {
    let number: Option<usize> = AsRef::<str>::as_ref(id).parse().ok();
    let Some(one) = number.and_then(|number| read.get(number)) else {
        // It was given no other policies.
        let message = short(&said.to_string(), MAX_TOLD);
        return Diagnostic::error("policy", Position::whole("policies".into()), message);
    };
    let lines = &lines[one.file];
    let mut diagnostic = told(lines, "policy", said);
    let Some(loc) = loc.or_else(|| one.policy.loc()) else {
        diagnostic.position = one.reference.position.clone();
        return diagnostic;
    };
    diagnostic.position = lines.position(loc.start());
    diagnostic.width(lines.width(loc.start(), loc.end().saturating_sub(loc.start())))
}

/// Cedar's words, at our place.
pub(crate) fn told(lines: &Lines, code: &'static str, error: &dyn miette::Diagnostic) -> Diagnostic {
    let label = error.labels().and_then(|mut labels| labels.next());
    let (at, length) = label.as_ref().map_or((0, 1), |label| (label.offset(), label.len()));
    let expected = label.and_then(|label| label.label().map(ToOwned::to_owned));
    let help = error.help().map(|help| unnumbered(&help.to_string()).to_owned()).or(expected);
    let help = help.map(|help| short(&help, MAX_TOLD));
    Diagnostic::error(code, lines.position(at), short(unnumbered(&error.to_string()), MAX_TOLD))
        .width(lines.width(at, length))
        .help(help)
}

/// Without its own number of the policy, which says nothing to the reader.
fn unnumbered(text: &str) -> &str {
    let rest = text.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
    rest.and_then(|(_, rest)| rest.strip_prefix(", ").or_else(|| rest.strip_prefix(": "))).unwrap_or(text)
}
