//! `@rx`: regular expressions over bytes, in time linear in the value.
//!
//! Compiling all of the Core Rule Set's expressions takes seconds and most of them never meet a value that could match:
//! an expression is parsed at load, and compiled when it is first used.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use regex_automata::meta::{Config, Regex};
use regex_automata::util::captures::Captures as Slots;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};
use regex_syntax::hir::Hir;

use super::{Captures, GROUPS, OperatorError, cache, literal, pattern};

/// What one compiled expression may take; the largest of the Core Rule Set takes a tenth of it.
const MAX_COMPILED: usize = 10 << 20;

/// A regular expression, compiled at its first use.
#[derive(Debug)]
pub(super) struct Expression {
    /// In the engine's own syntax.
    text: String,
    literals: Option<Vec<Vec<u8>>>,
    min_len: usize,
    compiled: OnceLock<Option<Regex>>,
    number: cache::Number,
}

impl Expression {
    pub(super) fn parse(argument: &[u8]) -> Result<Self, OperatorError> {
        let text = pattern::rewrite(argument)?;
        let hir = parse(&text)?;
        let expression = Self {
            text,
            literals: literal::required(&hir),
            min_len: hir.properties().minimum_len().unwrap_or(0),
            compiled: OnceLock::new(),
            number: cache::Number::new(),
        };
        // What might be too large is found out now, while somebody reads the answer.
        if pattern::size(&hir) > MAX_COMPILED / 256 && expression.regex().is_none() {
            return Err(OperatorError::TooLarge { what: "expression" });
        }
        Ok(expression)
    }

    /// For a regex engine that reads bytes; flags included.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Texts in lower case of which one is in every value that matches, in whichever case.
    pub(super) fn literals(&self) -> Option<&[Vec<u8>]> {
        self.literals.as_deref()
    }

    pub(super) fn min_len(&self) -> usize {
        self.min_len
    }

    fn regex(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| compile(&parse(&self.text).ok()?)).as_ref()
    }

    pub(super) fn find(&self, value: &[u8], captures: Option<&mut Captures>) -> bool {
        // Whatever could fail to compile was compiled at load; should that be wrong, what cannot be judged is a match.
        let Some(regex) = self.regex() else { return true };
        cache::with(self.number, regex, |cache| {
            if regex.search_half_with(cache, &Input::new(value).earliest(true)).is_none() {
                return false;
            }
            if let Some(captures) = captures {
                let mut slots = [None; 2 * GROUPS];
                let groups = regex.captures_len();
                let used = &mut slots[..2 * groups.min(GROUPS)];
                regex.search_slots_with(cache, &Input::new(value), used);
                for (group, span) in used.chunks_exact(2).enumerate() {
                    if let [Some(start), Some(end)] = span {
                        captures.set(group, start.get()..end.get());
                    }
                }
                captures.set_len(groups);
            }
            true
        })
    }

    /// Every match in the value; of groups that several of them captured, the last one stays.
    pub(super) fn find_all(&self, value: &[u8], captures: Option<&mut Captures>) -> bool {
        let Some(regex) = self.regex() else { return true };
        let Some(captures) = captures else { return self.find(value, None) };
        let mut found = false;
        for slots in regex.captures_iter(value) {
            keep(&slots, captures);
            found = true;
        }
        found
    }

    /// The first match that begins at or after `from`.
    pub(super) fn find_at(&self, value: &[u8], from: usize) -> Option<std::ops::Range<usize>> {
        let regex = self.regex()?;
        let input = Input::new(value).range(from..);
        cache::with(self.number, regex, |cache| regex.search_with(cache, &input)).map(|found| found.range())
    }
}

/// An expression that depends on a macro: the one that was needed last.
#[derive(Debug, Default)]
pub(super) struct Expanded(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    argument: Vec<u8>,
    expression: Option<Arc<Expression>>,
}

impl Expanded {
    /// The expression that a macro expanded to; none if it is not one.
    pub(super) fn of(&self, argument: &[u8]) -> Option<Arc<Expression>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|known| known.argument == argument) {
            return known.expression.clone();
        }
        let expression = Expression::parse(argument).ok().map(Arc::new);
        *last = Some(Known { argument: argument.to_vec(), expression: expression.clone() });
        expression
    }
}

fn keep(slots: &Slots, captures: &mut Captures) {
    for (index, span) in slots.iter().enumerate() {
        if let Some(span) = span {
            captures.set(index, span.range());
        }
    }
    captures.set_len(slots.group_len());
}

fn parse(text: &str) -> Result<Hir, OperatorError> {
    syntax::parse_with(text, &syntax::Config::new().utf8(false))
        .map_err(|error| OperatorError::Expression { problem: error.to_string() })
}

fn compile(hir: &Hir) -> Option<Regex> {
    let config = Config::new()
        .utf8_empty(false)
        .match_kind(MatchKind::LeftmostFirst)
        .nfa_size_limit(Some(MAX_COMPILED))
        .hybrid_cache_capacity(1 << 20);
    Regex::builder().configure(config).build_from_hir(hir).ok()
}
