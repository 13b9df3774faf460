//! YAML as a tree in which every node knows its place, collected from parser events within bounds.
//!
//! Two dialects: the fence is strict (one reading for people and programs alike: no anchors, tags, merge keys or second
//! documents), files of other tools are read as they are, with the expansion of their aliases bounded.

mod collect;

pub use collect::parse;

/// Levels of nesting.
pub const MAX_DEPTH: usize = 32;
/// Nodes of one text, after the expansion of aliases.
pub const MAX_NODES: usize = 400_000;

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The fence.
    Strict,
    /// Another tool's file: several documents, anchors, aliases, merge keys and tags.
    Foreign,
}

/// A place in the text, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where.
    pub mark: Mark,
    /// What.
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A text; `plain` when it stands without quotes, so that it may also be a number or a truth value.
    Scalar {
        /// The text.
        text: String,
        /// Whether it stands without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in order, without duplicates.
    Map(Vec<Entry>),
    /// Something refused, about which a [`Problem`] has been reported.
    Refused,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub mark: Mark,
    /// The value.
    pub value: Node,
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A stable word for it.
    pub code: &'static str,
    /// Where.
    pub mark: Mark,
    /// What and why.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The earlier place, of a duplicate.
    pub earlier: Option<Mark>,
    /// Whether the text could not be read to its end.
    pub fatal: bool,
}

/// The documents of a text, and what was wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// One in the strict dialect, or none when the text is empty.
    pub documents: Vec<Node>,
    /// What was wrong, at most a hundred.
    pub problems: Vec<Problem>,
}

impl Node {
    /// The value under `key`, of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The value at the end of a path of keys.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of a mapping; none of anything else.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The items of a list; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let Value::Scalar { text, .. } = &self.value { Some(text) } else { None }
    }
}
