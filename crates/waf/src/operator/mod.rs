//! Operators: what a rule asks of a value.
//!
//! An operator is compiled once, with the rule. Besides answering for one value it says what a value must contain to have
//! a chance at all ([`Prefilter`]), so that one pass over a value can excuse most rules at once.

mod captures;
mod literal;
mod pattern;
mod phrase;
mod regex;
mod text;

pub use captures::{Captures, GROUPS};

use phrase::Phrases;
use regex::Expression;
use text::Comparison;

/// Why an operator cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts tell")]
#[non_exhaustive]
pub enum OperatorError {
    #[error("there is no operator `@{name}`")]
    Unknown { name: String },
    #[error("`@{name}` is not supported: {reason}; remove the rule")]
    Refused { name: &'static str, reason: &'static str },
    #[error("`@{name}` needs {what}")]
    Argument { name: &'static str, what: &'static str },
    #[error("expression: {problem}")]
    Expression { problem: String },
    #[error("this {what} is too large; split the rule")]
    TooLarge { what: &'static str },
    #[error("cannot read `{file}`: put it beside the rules")]
    File { file: String },
}

/// A compiled operator with its argument. Negation (`!@rx`) is the rule's.
#[derive(Debug)]
pub struct Operator {
    kind: Kind,
    name: &'static str,
    /// The argument has `%{…}`, and this operator expands it.
    expands: bool,
    argument: Box<[u8]>,
}

#[derive(Debug)]
enum Kind {
    Rx(Expression),
    RxGlobal(Expression),
    /// An expression with a macro, compiled for the text it expands to.
    RxExpanded,
    Phrases(Phrases),
    Compare(Comparison),
    Always,
    Never,
}

/// What every value on which an operator answers true fulfils. Each part may be missing, and then says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefilter {
    /// One of these is in the value. All in lower case; in the value ASCII letters may have either case.
    pub literals: Option<Vec<Vec<u8>>>,
    /// The value matches this, read with Unicode off over bytes. Flags are inside.
    pub expression: Option<String>,
    /// The value has at least so many bytes.
    pub min_len: usize,
}

impl Operator {
    /// Compiles `@name argument`; `files` reads what the argument names.
    pub fn compile(
        name: &str,
        argument: &[u8],
        files: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, OperatorError> {
        let lower = name.to_ascii_lowercase();
        let has_macro = memchr::memmem::find(argument, b"%{").is_some();
        let (name, kind, expands) = match lower.as_str() {
            "rx" if has_macro => ("rx", Kind::RxExpanded, true),
            "rx" => ("rx", Kind::Rx(Expression::parse(argument)?), false),
            "rxglobal" => ("rxGlobal", Kind::RxGlobal(Expression::parse(argument)?), false),
            "pm" => ("pm", Kind::Phrases(Phrases::new(phrase::parse(argument)?)?), false),
            "pmf" | "pmfromfile" => ("pmFromFile", Kind::Phrases(Phrases::new(from_files(argument, files)?)?), false),
            "unconditionalmatch" => ("unconditionalMatch", Kind::Always, false),
            "nomatch" => ("noMatch", Kind::Never, false),
            other => {
                let (name, comparison) = COMPARISONS
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(other))
                    .ok_or_else(|| OperatorError::Unknown { name: name.to_owned() })?;
                (*name, Kind::Compare(*comparison), has_macro)
            }
        };
        Ok(Self { kind, name, expands, argument: argument.into() })
    }

    /// Its name, as in SecLang.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The argument as it was compiled, macros unexpanded.
    pub fn argument(&self) -> &[u8] {
        &self.argument
    }

    /// Whether the argument has a macro that must be expanded before each evaluation.
    pub fn takes_macro(&self) -> bool {
        self.expands
    }

    /// Whether the value is what the operator looks for. `argument` is the compiled one with its macros expanded, and
    /// counts only if [`Self::takes_macro`]. With `captures`, what matched is noted there; without, it costs less.
    pub fn evaluate(&self, value: &[u8], argument: &[u8], captures: Option<&mut Captures>) -> bool {
        let argument = if self.expands { argument } else { &self.argument };
        match &self.kind {
            Kind::Rx(expression) => expression.find(value, captures),
            Kind::RxGlobal(expression) => expression.find_all(value, captures),
            Kind::RxExpanded => Expression::parse(argument).is_ok_and(|expression| expression.find(value, captures)),
            Kind::Phrases(phrases) => phrases.find(value, captures),
            Kind::Compare(comparison) => comparison.holds(value, argument),
            Kind::Always => true,
            Kind::Never => false,
        }
    }

    /// What a value must fulfil to be worth evaluating.
    pub fn literals(&self) -> Prefilter {
        match &self.kind {
            Kind::Rx(expression) | Kind::RxGlobal(expression) => Prefilter {
                literals: expression.literals().map(<[_]>::to_vec),
                expression: Some(expression.text().to_owned()),
                min_len: expression.min_len(),
            },
            Kind::Phrases(phrases) => Prefilter {
                literals: Some(phrases.phrases().to_vec()),
                min_len: phrases.phrases().iter().map(Vec::len).min().unwrap_or(0),
                ..Prefilter::default()
            },
            Kind::Compare(comparison)
                if comparison.needs_argument() && !self.expands && !self.argument.is_empty() =>
            {
                Prefilter {
                    literals: Some(vec![self.argument.to_ascii_lowercase()]),
                    min_len: self.argument.len(),
                    ..Prefilter::default()
                }
            }
            Kind::Never => Prefilter { literals: Some(Vec::new()), ..Prefilter::default() },
            _ => Prefilter::default(),
        }
    }
}

const COMPARISONS: &[(&str, Comparison)] = &[
    ("streq", Comparison::StrEq),
    ("contains", Comparison::Contains),
    ("strmatch", Comparison::Contains),
    ("containsWord", Comparison::ContainsWord),
    ("beginsWith", Comparison::BeginsWith),
    ("endsWith", Comparison::EndsWith),
    ("within", Comparison::Within),
    ("eq", Comparison::Eq),
    ("ge", Comparison::Ge),
    ("gt", Comparison::Gt),
    ("le", Comparison::Le),
    ("lt", Comparison::Lt),
];

/// The phrases of all files that an argument names.
fn from_files(
    argument: &[u8],
    files: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>, OperatorError> {
    let names = std::str::from_utf8(argument)
        .map_err(|_| OperatorError::Argument { name: "pmFromFile", what: "file names in UTF-8" })?;
    let mut phrases = Vec::new();
    for file in names.split_ascii_whitespace() {
        let text = files(file).ok_or_else(|| OperatorError::File { file: file.to_owned() })?;
        phrases.extend(phrase::lines(&text));
    }
    if phrases.is_empty() {
        return Err(OperatorError::Argument { name: "pmFromFile", what: "a file with at least one phrase" });
    }
    Ok(phrases)
}
