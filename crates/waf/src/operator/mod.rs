//! Operators: what a rule asks of a value.
//!
//! An operator is compiled once, with the rule. Besides answering for one value it says what a value must contain to have
//! a chance at all ([`Prefilter`]), so that one pass over a value can excuse most rules at once.

mod address;
mod bytes;
mod cache;
mod captures;
mod identity;
mod literal;
mod pattern;
mod phrase;
mod regex;
mod text;

pub use captures::{Captures, GROUPS};

pub(crate) use literal::required as required_texts;

use crate::detect;
use address::Networks;
use bytes::ByteSet;
use identity::Identity;
use phrase::Phrases;
use regex::{Expanded, Expression};
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

impl OperatorError {
    /// Whether a rule is right and asks for what this engine does not do, so that it can only be left out.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Expression { problem } => {
                problem.contains("look-around") || problem.contains("refers back")
            }
            _ => false,
        }
    }
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
    RxExpanded(Expanded),
    Phrases(Phrases),
    Compare(Comparison),
    Bytes(ByteSet),
    Utf8,
    UrlEncoding,
    Address(Networks),
    Identity(Identity, Expression),
    Sqli,
    Xss,
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
        let has_macro = memchr::memmem::find(argument, b"%{").is_some();
        let name = NAMES
            .iter()
            .find(|known| known.eq_ignore_ascii_case(name))
            .ok_or_else(|| OperatorError::Unknown { name: name.to_owned() })?;
        let identity = |identity| Ok(Kind::Identity(identity, Expression::parse(argument)?));
        let kind = match *name {
            "rx" if has_macro => Kind::RxExpanded(Expanded::default()),
            "rx" => Kind::Rx(Expression::parse(argument)?),
            "rxGlobal" => Kind::RxGlobal(Expression::parse(argument)?),
            "pm" => Kind::Phrases(Phrases::new(phrase::parse(argument))?),
            "pmf" | "pmFromFile" => Kind::Phrases(phrases(argument, files)?),
            "validateByteRange" => Kind::Bytes(ByteSet::parse(argument)?),
            "validateUtf8Encoding" => Kind::Utf8,
            "validateUrlEncoding" => Kind::UrlEncoding,
            "ipMatch" => Kind::Address(networks(argument)?),
            "ipMatchF" | "ipMatchFromFile" => {
                let mut text = Vec::new();
                for file in read(argument, files)? {
                    text.extend(file);
                    text.push(b'\n');
                }
                Kind::Address(Networks::parse_file(&text)?)
            }
            "verifyCC" => identity(Identity::Card)?,
            "verifyCPF" => identity(Identity::Cpf)?,
            "verifySSN" => identity(Identity::Ssn)?,
            "verifySVNR" => identity(Identity::Svnr)?,
            "detectSQLi" => Kind::Sqli,
            "detectXSS" => Kind::Xss,
            "unconditionalMatch" => Kind::Always,
            "noMatch" => Kind::Never,
            name => {
                if let Some((_, comparison)) = COMPARISONS.iter().find(|(known, _)| *known == name) {
                    Kind::Compare(*comparison)
                } else {
                    let reason =
                        REFUSED.iter().find(|(known, _)| *known == name).map_or("", |(_, reason)| reason);
                    return Err(OperatorError::Refused { name, reason });
                }
            }
        };
        let expands = has_macro && matches!(kind, Kind::RxExpanded(_) | Kind::Compare(_));
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
            Kind::RxExpanded(expanded) => {
                expanded.of(argument).is_some_and(|expression| expression.find(value, captures))
            }
            Kind::Phrases(phrases) => phrases.find(value, captures),
            Kind::Compare(comparison) => comparison.holds(value, argument),
            Kind::Bytes(allowed) => allowed.is_left_by(value),
            Kind::Utf8 => std::str::from_utf8(value).is_err(),
            Kind::UrlEncoding => bytes::has_bad_percent(value),
            Kind::Address(networks) => networks.contain(value),
            Kind::Identity(identity, expression) => identity.find(expression, value, captures),
            Kind::Sqli => detect::sqli(value).is_some_and(|fingerprint| {
                if let Some(captures) = captures {
                    captures.set_text(fingerprint.as_bytes());
                }
                true
            }),
            Kind::Xss => {
                let found = detect::xss(value);
                if let (true, Some(captures)) = (found, captures) {
                    captures.set(0, 0..value.len());
                }
                found
            }
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
            Kind::Identity(_, expression) => Prefilter {
                literals: expression.literals().map(<[_]>::to_vec),
                expression: Some(expression.text().to_owned()),
                min_len: expression.min_len().max(1),
            },
            // No detector finds anything in less.
            Kind::Sqli => Prefilter { min_len: 2, ..Prefilter::default() },
            Kind::Xss => Prefilter {
                literals: Some(vec![b"<".to_vec(), b"=".to_vec()]),
                min_len: 4,
                ..Prefilter::default()
            },
            Kind::Bytes(allowed) => match allowed.left() {
                Some(class) => Prefilter { expression: Some(class), min_len: 1, ..Prefilter::default() },
                None => Prefilter { literals: Some(Vec::new()), ..Prefilter::default() },
            },
            Kind::Utf8 => Prefilter {
                expression: Some("(?-u:[\\x80-\\xff])".to_owned()),
                min_len: 1,
                ..Prefilter::default()
            },
            Kind::UrlEncoding => {
                Prefilter { literals: Some(vec![b"%".to_vec()]), min_len: 1, ..Prefilter::default() }
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

/// All names; case does not count.
const NAMES: &[&str] = &[
    "rx",
    "rxGlobal",
    "pm",
    "pmf",
    "pmFromFile",
    "validateByteRange",
    "validateUtf8Encoding",
    "validateUrlEncoding",
    "ipMatch",
    "ipMatchF",
    "ipMatchFromFile",
    "verifyCC",
    "verifyCPF",
    "verifySSN",
    "verifySVNR",
    "detectSQLi",
    "detectXSS",
    "unconditionalMatch",
    "noMatch",
    "streq",
    "contains",
    "strmatch",
    "containsWord",
    "beginsWith",
    "endsWith",
    "within",
    "eq",
    "ge",
    "gt",
    "le",
    "lt",
    "rbl",
    "geoLookup",
    "gsbLookup",
    "inspectFile",
    "fuzzyHash",
    "validateSchema",
    "validateDTD",
    "validateHash",
    "rsub",
    "validateNid",
    "restpath",
];

/// Operators of other engines that this one does not have.
const REFUSED: &[(&str, &str)] = &[
    ("rbl", "it asks the domain name system about each request"),
    ("geoLookup", "it needs a geographic database"),
    ("gsbLookup", "it needs a list of unsafe addresses that is no longer published"),
    ("inspectFile", "it starts a program for each file"),
    ("fuzzyHash", "it needs a database of fuzzy digests"),
    ("validateSchema", "bodies are held to a description by a route's `openapi`"),
    ("validateDTD", "document types are refused in all bodies"),
    ("validateHash", "nothing signs links here"),
    ("rsub", "values are not rewritten here"),
    ("validateNid", "it is another engine's own; `@verifySSN` and `@verifyCPF` are here"),
    ("restpath", "it is another engine's own; paths are held to a description by a route's `openapi`"),
];

/// The files that an argument names.
fn read(argument: &[u8], files: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<Vec<u8>>, OperatorError> {
    let names = std::str::from_utf8(argument).ok().filter(|names| !names.trim().is_empty());
    let names = names.ok_or(OperatorError::Argument { name: "pmFromFile", what: "the name of a file" })?;
    names
        .split_ascii_whitespace()
        .map(|file| files(file).ok_or_else(|| OperatorError::File { file: file.to_owned() }))
        .collect()
}

fn phrases(argument: &[u8], files: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Phrases, OperatorError> {
    let phrases: Vec<_> = read(argument, files)?.iter().flat_map(|text| phrase::lines(text)).collect();
    if phrases.is_empty() {
        return Err(OperatorError::Argument { name: "pmFromFile", what: "a file with at least one phrase" });
    }
    Phrases::new(phrases)
}

fn networks(argument: &[u8]) -> Result<Networks, OperatorError> {
    let networks = Networks::parse(argument)?;
    if networks.is_empty() {
        return Err(OperatorError::Argument { name: "ipMatch", what: "at least one address or network" });
    }
    Ok(networks)
}

#[cfg(test)]
mod tests;
