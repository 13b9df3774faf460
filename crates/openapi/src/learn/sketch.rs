//! What values look like.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::text::{decode_text, is_name};

const MAX_DEPTH: usize = 8;
const MAX_FIELDS: usize = 64;
const MAX_ITEMS: usize = 8;

/// Kinds and formats of the values of one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// How many values.
    #[serde(rename = "n", default)]
    seen: u32,
    /// How many of them of each kind.
    #[serde(rename = "k", default, skip_serializing_if = "BTreeMap::is_empty")]
    kinds: BTreeMap<Kind, u32>,
    /// The format that all texts have; empty where they have none.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(rename = "p", default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, Self>,
    /// Fields whose names are no names.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    others: Option<Box<Self>>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    items: Option<Box<Self>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

impl Sketch {
    fn one(kind: Kind) -> Self {
        Self { seen: 1, kinds: BTreeMap::from([(kind, 1)]), ..Self::default() }
    }

    /// Of a value of JSON.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        Self::at(value, 0)
    }

    fn at(value: &Value, depth: usize) -> Self {
        match value {
            Value::Null => Self::one(Kind::Null),
            Value::Bool(_) => Self::one(Kind::Boolean),
            Value::Number(n) if n.is_f64() => Self::one(Kind::Number),
            Value::Number(_) => Self::one(Kind::Integer),
            Value::String(text) => {
                let format = format_of(text).unwrap_or_default().to_owned();
                Self { format: Some(format), ..Self::one(Kind::String) }
            }
            Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => Self::default(),
            Value::Array(items) => {
                let items = items.iter().take(MAX_ITEMS).map(|item| Self::at(item, depth + 1));
                let items = items.reduce(Self::merged).map(Box::new);
                Self { items, ..Self::one(Kind::Array) }
            }
            Value::Object(fields) => {
                Self::object(fields.iter().map(|(name, value)| (name.clone(), Self::at(value, depth + 1))))
            }
        }
    }

    pub(super) fn object(fields: impl Iterator<Item = (String, Self)>) -> Self {
        let mut out = Self::one(Kind::Object);
        for (name, field) in fields {
            if !is_name(&name) || out.fields.len() >= MAX_FIELDS {
                out.others =
                    Some(Box::new(out.others.map_or_else(|| field.clone(), |o| o.merged(field.clone()))));
            } else if let Some(known) = out.fields.remove(&name) {
                out.fields.insert(name, Self::list_of(known, field));
            } else {
                out.fields.insert(name, field);
            }
        }
        out
    }

    /// Of a text that may stand for something else: in a query, in a form.
    pub(super) fn of_text(text: &str) -> Self {
        let number = !text.is_empty() && text.len() < 19;
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match text {
            "true" | "false" => Self::one(Kind::Boolean),
            _ if number && plain && (digits == "0" || !digits.starts_with('0')) => Self::one(Kind::Integer),
            text if number && text.contains('.') && serde_json::from_str::<f64>(text).is_ok() => {
                Self::one(Kind::Number)
            }
            text => Self::of(&Value::String(text.to_owned())),
        }
    }

    pub(super) fn binary() -> Self {
        Self { format: Some("binary".to_owned()), ..Self::one(Kind::String) }
    }

    /// A list of what was one thing and now is another one more.
    pub(super) fn list_of(known: Self, other: Self) -> Self {
        let items = match known.items {
            Some(items) if known.kinds.contains_key(&Kind::Array) => items.merged(other),
            _ => known.merged(other),
        };
        Self { items: Some(Box::new(items)), ..Self::one(Kind::Array) }
    }

    /// Both together.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        self.seen = self.seen.saturating_add(other.seen);
        for (kind, count) in other.kinds {
            let own = self.kinds.entry(kind).or_default();
            *own = own.saturating_add(count);
        }
        self.format = match (self.format, other.format) {
            (Some(a), Some(b)) if a != b => Some(String::new()),
            (a, b) => a.or(b),
        };
        for (name, field) in other.fields {
            let field = match self.fields.remove(&name) {
                Some(own) => own.merged(field),
                None => field,
            };
            if self.fields.len() < MAX_FIELDS {
                self.fields.insert(name, field);
            }
        }
        let both = |a: Option<Box<Self>>, b: Option<Box<Self>>| match (a, b) {
            (Some(a), Some(b)) => Some(Box::new(a.merged(*b))),
            (a, b) => a.or(b),
        };
        self.others = both(self.others, other.others);
        self.items = both(self.items, other.items);
        self
    }

    /// How many values there were.
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// A schema that all of them hold to.
    #[must_use]
    pub fn to_schema(&self) -> Value {
        let mut out = Map::new();
        let has = |kind| self.kinds.contains_key(&kind);
        let numbers = has(Kind::Number);
        let names = self.kinds.keys().filter(|kind| !(numbers && **kind == Kind::Integer));
        let names: Vec<&str> = names.map(|kind| kind.name()).collect();
        match names.as_slice() {
            [] => {}
            [one] => drop(out.insert("type".into(), json!(one))),
            many => drop(out.insert("type".into(), json!(many))),
        }
        if let Some(format) = self.format.as_deref().filter(|format| !format.is_empty()) {
            out.insert("format".into(), json!(format));
        }
        if let Some(items) = &self.items {
            out.insert("items".into(), items.to_schema());
        }
        let objects = self.kinds.get(&Kind::Object).copied().unwrap_or_default();
        if !self.fields.is_empty() {
            let always = self.fields.iter().filter(|(_, field)| field.seen >= objects);
            let required: Vec<&String> = always.map(|(name, _)| name).collect();
            if !required.is_empty() {
                out.insert("required".into(), json!(required));
            }
            let fields: Map<String, Value> =
                self.fields.iter().map(|(name, field)| (name.clone(), field.to_schema())).collect();
            out.insert("properties".into(), Value::Object(fields));
        }
        if let Some(others) = &self.others {
            out.insert("additionalProperties".into(), others.to_schema());
        }
        Value::Object(out)
    }
}

/// The format that a text has, if it has one that can hardly be chance.
fn format_of(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let like = |pattern: &str| {
        bytes.len() == pattern.len()
            && bytes.iter().zip(pattern.bytes()).all(|(b, p)| match p {
                b'9' => b.is_ascii_digit(),
                b'h' => b.is_ascii_hexdigit(),
                other => *b == other,
            })
    };
    if like("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh") {
        return Some("uuid");
    }
    if like("9999-99-99") {
        return Some("date");
    }
    if text.is_ascii() && bytes.len() >= 20 && bytes.len() <= 35 {
        let (day, rest) = text.split_at(10);
        let zone = rest.ends_with(['Z', 'z']) || rest.get(9..).is_some_and(|end| end.contains(['+', '-']));
        if format_of(day) == Some("date") && rest.starts_with(['T', 't']) && zone {
            return Some("date-time");
        }
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some("ipv4");
    }
    if text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some("ipv6");
    }
    let web = text.starts_with("https://") || text.starts_with("http://");
    if web && text.len() > 8 && text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&b)) {
        return Some("uri");
    }
    let (name, host) = text.split_once('@')?;
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    };
    (word(name) && word(host) && host.contains('.') && text.len() <= 254).then_some("email")
}

/// What a segment of a path stands for, if it looks like a value.
pub(super) fn kind_of_segment(segment: &str) -> Option<&'static str> {
    let text = decode_text(segment, false)?;
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if !text.is_empty() && digits == text.len() {
        return Some("integer");
    }
    if let Some(format @ ("uuid" | "date")) = format_of(&text) {
        return Some(format);
    }
    // A name of somebody's, or one that a machine made.
    let odd = text.len() > 64 || text.bytes().any(|b| !(b.is_ascii_alphanumeric() || b"-._~".contains(&b)));
    (odd || digits > 3).then_some("string")
}
