//! A description as it was written: its tree, and where each part of it stands.
//!
//! YAML goes through the reader that the fence has, JSON through serde's, so that escapes mean what JSON says. Both refuse a key
//! that stands twice.

use std::collections::HashMap;

use ringfence_model::yaml::{self, Dialect, Mark, Node};
use serde_json::{Map, Number, Value};

/// A longer text is not read.
const MAX_TEXT: usize = 16 << 20;
/// References followed from one place before they count as a circle.
const MAX_HOPS: usize = 32;
/// Problems told of one description.
const MAX_PROBLEMS: usize = 100;

/// What is wrong, or probably wrong, in a description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", self.place())]
pub struct Problem {
    /// Line and column from 1; none where the text has no such place.
    pub at: Option<(u32, u32)>,
    /// The place in the tree, as a JSON pointer.
    pub pointer: String,
    /// What and why, and what to do.
    pub message: String,
}

impl Problem {
    fn place(&self) -> String {
        match self.at {
            Some((line, column)) => format!("{line}:{column}: "),
            None if self.pointer.is_empty() => String::new(),
            None => format!("{}: ", self.pointer),
        }
    }
}

/// A bounded list of problems.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        if self.0.len() < MAX_PROBLEMS && !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }
}

/// The tree of a description.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Value,
    marks: HashMap<Box<str>, (u32, u32)>,
}

/// A node and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    pub(crate) value: &'a Value,
    pub(crate) pointer: String,
}

impl<'a> At<'a> {
    /// The value under a key.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key)?;
        Some(Self { value, pointer: join(&self.pointer, key) })
    }

    /// The text under a key.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.value.get(key)?.as_str()
    }

    /// The truth value under a key.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        self.value.get(key)?.as_bool()
    }

    /// The entries of a mapping; extensions (`x-`) are left out.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, Self)> {
        let pointer = self.pointer.clone();
        let object = self.value.as_object().into_iter().flatten();
        object
            .filter(|(key, _)| !key.starts_with("x-"))
            .map(move |(key, value)| (key.as_str(), Self { value, pointer: join(&pointer, key) }))
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> impl Iterator<Item = Self> {
        let pointer = self.pointer.clone();
        let list = self.value.as_array().into_iter().flatten();
        list.enumerate().map(move |(i, value)| Self { value, pointer: format!("{pointer}/{i}") })
    }
}

impl Document {
    /// Reads a text.
    pub(crate) fn read(text: &str) -> Result<Self, Vec<Problem>> {
        if text.len() > MAX_TEXT {
            let message = format!("a description of more than {} MiB is not read", MAX_TEXT >> 20);
            return Err(vec![Problem { at: None, pointer: String::new(), message }]);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_start().starts_with('{')
            && let Ok(root) = read_json(text)
        {
            let mut marks = HashMap::new();
            mark_json(text, &mut marks);
            return Ok(Self { root, marks });
        }
        let read = read_yaml(text);
        match (read, text.trim_start().starts_with('{')) {
            // Flow style of YAML begins like JSON; what neither can read is told as what it looks like.
            (Err(_), true) => match read_json(text) {
                Err(problem) => Err(vec![problem]),
                Ok(_) => Err(Vec::new()),
            },
            (read, _) => read,
        }
    }

    pub(crate) fn top(&self) -> At<'_> {
        At { value: &self.root, pointer: String::new() }
    }

    /// A problem at a place of the tree; where it has no mark, at the nearest one above.
    pub(crate) fn problem(&self, pointer: &str, message: impl Into<String>) -> Problem {
        let mut at = pointer;
        let mark = loop {
            match (self.marks.get(at), at.rfind('/')) {
                (Some(mark), _) => break Some(*mark),
                (None, Some(up)) => at = &at[..up],
                (None, None) => break None,
            }
        };
        Problem { at: mark, pointer: pointer.to_owned(), message: message.into() }
    }

    /// The node at a pointer.
    pub(crate) fn at(&self, pointer: &str) -> Option<At<'_>> {
        self.root.pointer(pointer).map(|value| At { value, pointer: pointer.to_owned() })
    }

    /// The node that a `$ref` names, as far as references lead; the node itself where it is none.
    pub(crate) fn resolve<'a>(&'a self, node: At<'a>) -> Result<At<'a>, Problem> {
        let mut node = node;
        for _ in 0..MAX_HOPS {
            let Some(reference) = node.value.get("$ref") else { return Ok(node) };
            let Some(reference) = reference.as_str() else {
                return Err(self.problem(&node.pointer, "a reference is a text"));
            };
            node = self.target(reference, &node.pointer)?;
        }
        Err(self.problem(&node.pointer, "these references lead in a circle, or too far"))
    }

    /// What a reference within the document names.
    pub(crate) fn target(&self, reference: &str, from: &str) -> Result<At<'_>, Problem> {
        let Some(pointer) = fragment(reference) else {
            let message = format!(
                "the reference {} leads out of the document: bundle the description into one file",
                shorten(reference)
            );
            return Err(self.problem(from, message));
        };
        self.at(&pointer)
            .ok_or_else(|| self.problem(from, format!("the reference {} leads nowhere", shorten(reference))))
    }
}

/// The JSON pointer in a reference within the document.
pub(crate) fn fragment(reference: &str) -> Option<String> {
    let fragment = reference.strip_prefix('#')?;
    let pointer = crate::text::percent_decode(fragment.as_bytes(), false)?;
    let pointer = String::from_utf8(pointer.into_owned()).ok()?;
    (pointer.is_empty() || pointer.starts_with('/')).then_some(pointer)
}

/// A pointer one step further.
pub(crate) fn join(pointer: &str, key: &str) -> String {
    let mut out = String::with_capacity(pointer.len() + key.len() + 1);
    out.push_str(pointer);
    push_step(&mut out, key);
    out
}

/// Appends `/key`, escaped.
pub(crate) fn push_step(out: &mut String, key: &str) {
    out.push('/');
    for c in key.chars() {
        match c {
            '~' => out.push_str("~0"),
            '/' => out.push_str("~1"),
            c => out.push(c),
        }
    }
}

/// A text of somebody else, fit for a message.
pub(crate) fn shorten(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 {
        out.push('…');
    }
    format!("`{out}`")
}

fn read_json(text: &str) -> Result<Value, Problem> {
    ringfence_json::parse(text.as_bytes(), yaml::MAX_DEPTH * 4).map_err(|e| Problem {
        at: Some((u32::try_from(e.line).unwrap_or(u32::MAX), u32::try_from(e.column).unwrap_or(u32::MAX))),
        pointer: String::new(),
        message: format!("this is not valid JSON: {}", e.message),
    })
}

fn read_yaml(text: &str) -> Result<Document, Vec<Problem>> {
    let parsed = yaml::parse(text, Dialect::Foreign);
    let place = |mark: Mark| Some((mark.line, mark.column));
    if !parsed.problems.is_empty() {
        let told = parsed.problems.into_iter().map(|p| Problem {
            at: place(p.mark),
            pointer: String::new(),
            message: p.message,
        });
        return Err(told.collect());
    }
    let [node] = parsed.documents.as_slice() else {
        let message = "a description is one document".to_owned();
        return Err(vec![Problem { at: None, pointer: String::new(), message }]);
    };
    let mut marks = HashMap::new();
    let mut problems = Problems::default();
    let root = value_of(node, &mut String::new(), &mut marks, &mut problems);
    if problems.0.is_empty() { Ok(Document { root, marks }) } else { Err(problems.0) }
}

/// Recursion is bounded by the depth that the reader of YAML allows.
fn value_of(
    node: &Node,
    pointer: &mut String,
    marks: &mut HashMap<Box<str>, (u32, u32)>,
    problems: &mut Problems,
) -> Value {
    let mark = (node.mark.line, node.mark.column);
    marks.entry(pointer.as_str().into()).or_insert(mark);
    match &node.value {
        yaml::Value::Null | yaml::Value::Refused => Value::Null,
        yaml::Value::Scalar { text, plain: false } => Value::String(text.clone()),
        yaml::Value::Scalar { text, plain: true } => plain(text).unwrap_or_else(|| {
            let message = "JSON has no such number".to_owned();
            problems.push(Problem { at: Some(mark), pointer: pointer.clone(), message });
            Value::Null
        }),
        yaml::Value::List(items) => {
            let length = pointer.len();
            let values = items.iter().enumerate().map(|(i, item)| {
                push_step(pointer, &i.to_string());
                let value = value_of(item, pointer, marks, problems);
                pointer.truncate(length);
                value
            });
            Value::Array(values.collect())
        }
        yaml::Value::Map(entries) => {
            let length = pointer.len();
            let mut map = Map::with_capacity(entries.len());
            for entry in entries {
                push_step(pointer, &entry.key);
                marks.insert(pointer.as_str().into(), (entry.mark.line, entry.mark.column));
                map.insert(entry.key.clone(), value_of(&entry.value, pointer, marks, problems));
                pointer.truncate(length);
            }
            Value::Object(map)
        }
    }
}

/// A plain scalar by YAML's core schema. `None` for numbers that JSON does not have.
fn plain(text: &str) -> Option<Value> {
    match text {
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN" | ".NAN" => {
            return None;
        }
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        if let Ok(n) = text.parse::<i64>() {
            return Some(Value::Number(n.into()));
        }
        if let Ok(n) = text.parse::<u64>() {
            return Some(Value::Number(n.into()));
        }
        return Number::from_f64(text.parse().ok()?).map(Value::Number);
    }
    let radix = |digits: &str, radix| i64::from_str_radix(digits, radix).ok();
    if let Some(octal) = text.strip_prefix("0o")
        && let Some(n) = radix(octal, 8)
    {
        return Some(Value::Number(n.into()));
    }
    if let Some(hex) = text.strip_prefix("0x")
        && let Some(n) = radix(hex, 16)
    {
        return Some(Value::Number(n.into()));
    }
    let float = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if float && let Ok(n) = text.parse::<f64>() {
        return Number::from_f64(n).map(Value::Number);
    }
    Some(Value::String(text.to_owned()))
}

/// Marks the keys and items of a text that is known to be valid JSON.
fn mark_json(text: &str, marks: &mut HashMap<Box<str>, (u32, u32)>) {
    /// A container that is open: an index, or a key to come.
    enum Open {
        List(usize),
        Map { key: bool },
    }
    let bytes = text.as_bytes();
    let (mut line, mut start) = (1_u32, 0);
    let mut pointer = String::new();
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut i = 0;
    let column = |start: usize, i: usize| {
        u32::try_from(text.get(start..i).map_or(0, |s| s.chars().count()))
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    };
    marks.insert("".into(), (1, 1));
    while let Some(byte) = bytes.get(i).copied() {
        match byte {
            b'\n' => {
                line = line.saturating_add(1);
                start = i + 1;
            }
            b'"' => {
                let end = string_end(bytes, i);
                if let Some((Open::Map { key: key @ true }, length)) = open.last_mut() {
                    let name: String =
                        text.get(i..end).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
                    pointer.truncate(*length);
                    push_step(&mut pointer, &name);
                    marks.insert(pointer.as_str().into(), (line, column(start, i)));
                    *key = false;
                }
                i = end;
                continue;
            }
            b'{' => open.push((Open::Map { key: true }, pointer.len())),
            b'[' => {
                open.push((Open::List(0), pointer.len()));
                push_step(&mut pointer, "0");
                marks.insert(pointer.as_str().into(), (line, column(start, i + 1)));
            }
            b'}' | b']' => {
                if let Some((_, length)) = open.pop() {
                    pointer.truncate(length);
                }
            }
            b',' => match open.last_mut() {
                Some((Open::List(at), length)) => {
                    *at += 1;
                    pointer.truncate(*length);
                    push_step(&mut pointer, &at.to_string());
                    marks.insert(pointer.as_str().into(), (line, column(start, i + 1)));
                }
                Some((Open::Map { key }, length)) => {
                    *key = true;
                    pointer.truncate(*length);
                }
                None => {}
            },
            _ => {}
        }
        i += 1;
    }
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(byte) = bytes.get(i) {
        match byte {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}
