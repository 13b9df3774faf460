//! From nodes to types: each reader takes a node, reports what is wrong with it, and goes on.

mod access;
mod fragment;
mod handling;
mod host;
mod inspect;
mod limit;
mod limits;
mod metrics;
mod policies;
mod provider;
mod response;
mod service;
pub(crate) mod spec;
mod split;
mod traffic;

use std::sync::Arc;

pub(crate) use fragment::{Fragment, decode};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::fence::Mode;
use crate::position::Position;
use crate::scalar::digits;
use crate::suggest::{did_you_mean, nearest, quote};
use crate::yaml::{Entry, Mark, Node, Value};
use spec::Object;

/// Reads the nodes of one file.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    file: Arc<str>,
    out: &'a mut Diagnostics,
}

/// The fields of an object whose keys have been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'n> {
    spec: &'static Object,
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    fn get(&self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    fn entry(&self, key: &'static str) -> Option<&'n Entry> {
        debug_assert!(self.spec.keys.contains(&key), "{key} is missing in the keys of {}", self.spec.name);
        self.entries.iter().find(|entry| entry.key == key)
    }
}

impl Decoder<'_> {
    fn at(&self, mark: Mark) -> Position {
        Position::new(Arc::clone(&self.file), mark.line, mark.column)
    }

    fn error(&mut self, code: &'static str, mark: Mark, message: impl Into<String>, help: Option<String>) {
        let position = self.at(mark);
        self.out.push(Diagnostic::error(code, position, message).help(help));
    }

    /// The fields of a mapping, with an error for each key that is not known.
    fn fields<'n>(&mut self, node: &'n Node, spec: &'static Object) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            let keys = spec.keys.iter().take(3).copied().collect::<Vec<_>>().join("`, `");
            self.mismatch(
                node,
                &format!("a mapping with `{keys}`{}", if spec.keys.len() > 3 { ", …" } else { "" }),
            );
            return None;
        };
        for entry in entries {
            if !spec.keys.contains(&entry.key.as_str()) {
                self.unknown_key(entry, spec);
            }
        }
        Some(Fields { spec, entries })
    }

    fn unknown_key(&mut self, entry: &Entry, spec: &'static Object) {
        let known = spec.keys.iter().copied();
        let foreign =
            spec.foreign.iter().find(|(word, _)| *word == entry.key).map(|(_, help)| (*help).to_owned());
        let near = nearest(&entry.key, known.clone()).map(|near| format!("did you mean `{near}`?"));
        let help = foreign.or(near).or_else(|| did_you_mean(&entry.key, known));
        let message = format!("unknown key {} in {}", quote(&entry.key), spec.name.replace('_', " "));
        self.error("unknown-key", entry.mark, message, help);
    }

    /// Says what was expected and what stands there.
    fn mismatch(&mut self, node: &Node, expected: &str) {
        let found = match &node.value {
            Value::Refused => return,
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } => quote(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        self.error("wrong-type", node.mark, format!("expected {expected}, found {found}"), None);
    }

    fn missing(&mut self, mark: Mark, key: &str, of: &str, help: &str) {
        self.error("missing-key", mark, format!("{of} has no `{key}`"), Some(help.to_owned()));
    }

    fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar { text, .. } if !text.is_empty() => Some(text),
            _ => {
                self.mismatch(node, what);
                None
            }
        }
    }

    /// A text with a grammar of its own.
    fn parsed<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(node, what)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.error("bad-value", node.mark, format!("{} is not {what}: {reason}", quote(text)), None);
                None
            }
        }
    }

    fn truth(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.mismatch(node, "`true` or `false`");
                None
            }
        }
    }

    fn number(&mut self, node: &Node, from: u64, to: u64) -> Option<u64> {
        match &node.value {
            Value::Scalar { text, plain: true } => match digits(text) {
                Some(number) if (from..=to).contains(&number) => Some(number),
                _ => {
                    let message = format!("expected a number from {from} to {to}, found {}", quote(text));
                    self.error("out-of-range", node.mark, message, None);
                    None
                }
            },
            Value::Scalar { text, .. } if digits(text).is_some() => {
                let message = format!("expected a number, found the text {text:?}");
                self.error("wrong-type", node.mark, message, Some("remove the quotes".to_owned()));
                None
            }
            _ => {
                self.mismatch(node, &format!("a number from {from} to {to}"));
                None
            }
        }
    }

    fn port(&mut self, node: &Node) -> Option<u16> {
        self.number(node, 1, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    /// The items of a list; `example` shows how one is written.
    fn list<'n>(&mut self, node: &'n Node, of: &str, example: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) => return items,
            Value::Null | Value::Refused | Value::Map(_) => self.mismatch(node, &format!("a list of {of}")),
            Value::Scalar { text, .. } => {
                let message = format!("expected a list of {of}, found {}", quote(text));
                self.error("wrong-type", node.mark, message, Some(format!("write it as a list: {example}")));
            }
        }
        &[]
    }

    /// The entries of a mapping whose keys are names.
    fn named<'n>(&mut self, node: &'n Node, of: &str) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                self.mismatch(node, &format!("a mapping from name to {of}"));
                &[]
            }
        }
    }

    /// How strictly a rule is taken; people know `block` from elsewhere.
    fn mode(&mut self, node: &Node) -> Option<Mode> {
        if node.text() == Some("block") {
            return Some(Mode::Enforce);
        }
        self.choice(node, &[("off", Mode::Off), ("observe", Mode::Observe), ("enforce", Mode::Enforce)])
    }

    /// One word out of a few.
    fn choice<T: Copy>(&mut self, node: &Node, choices: &[(&'static str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = format!("one of `{}`", words.join("`, `"));
        let text = self.text(node, &expected)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let help = nearest(text, words.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            self.error("bad-value", node.mark, format!("expected {expected}, found {}", quote(text)), help);
        }
        found
    }
}
