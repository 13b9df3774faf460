//! SecLang as text: from bytes to directives that know where they stand, before anything is decided about their meaning.

mod actions;
mod directive;
mod lexer;
mod parser;
mod targets;
#[cfg(test)]
mod tests;
mod variable;

pub(crate) use actions::{ActionNode, parse_actions};
pub(crate) use directive::{Directive, Item, OperatorNode, RuleNode, Setting};
pub(crate) use parser::parse;
pub(crate) use targets::{Selector, Target, parse_targets};
pub(crate) use variable::Variable;

/// Where something stands in a rule file, counted from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) file: u16,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A finding about the text, at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) position: Position,
    pub(crate) text: String,
}

/// Parses one file for its effect on nothing: what the fuzz target drives.
#[doc(hidden)]
#[must_use]
pub fn parse_only(text: &[u8]) -> (usize, usize) {
    let mut findings = Vec::new();
    let items = parse(0, text, &mut findings);
    (items.len(), findings.len())
}
