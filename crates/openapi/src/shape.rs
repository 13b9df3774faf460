//! What a schema lets one expect: enough to read a text as the value that is meant, before the schema itself judges it.
//!
//! A query says `5`; whether that is a number or a text, only the schema knows.

use std::collections::BTreeMap;

use serde_json::{Number, Value};

use crate::source::{At, Document};

/// Kinds of values, a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NULL: Self = Self(1);
    pub(crate) const BOOLEAN: Self = Self(2);
    pub(crate) const INTEGER: Self = Self(4);
    pub(crate) const NUMBER: Self = Self(8);
    pub(crate) const STRING: Self = Self(16);
    pub(crate) const ARRAY: Self = Self(32);
    pub(crate) const OBJECT: Self = Self(64);
    const ALL: Self = Self(127);

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether this is one kind of values that are neither lists nor objects.
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & (Self::ARRAY.0 | Self::OBJECT.0) == 0
    }

    fn named(name: &str) -> Self {
        match name {
            "null" => Self::NULL,
            "boolean" => Self::BOOLEAN,
            "integer" => Self::INTEGER,
            "number" => Self::NUMBER,
            "string" => Self::STRING,
            "array" => Self::ARRAY,
            "object" => Self::OBJECT,
            _ => Self::ALL,
        }
    }

    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(_) => Self::NUMBER.or(Self::INTEGER),
            Value::String(_) => Self::STRING,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }
}

/// What may be expected of a value.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) kinds: Kinds,
    /// What items look like.
    pub(crate) items: Option<Box<Self>>,
    /// What the first ones look like, where they differ.
    pub(crate) first: Vec<Self>,
    pub(crate) properties: BTreeMap<Box<str>, Self>,
    /// What properties of other names look like; none where they may not be.
    pub(crate) others: Option<Box<Self>>,
    /// Whether the schema says anything about other names.
    pub(crate) says_others: bool,
    /// Bytes, not text.
    pub(crate) binary: bool,
    /// The most characters, of a text.
    pub(crate) most: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            kinds: Kinds::ALL,
            items: None,
            first: Vec::new(),
            properties: BTreeMap::new(),
            others: Some(Box::new(Self::text())),
            says_others: false,
            binary: false,
            most: None,
        }
    }
}

/// How deep a shape is looked at; below, everything may be expected.
const MAX_DEPTH: usize = 12;
/// Schemas looked at for one shape.
const MAX_STEPS: usize = 4_000;

impl Shape {
    /// Of anything that has no schema: a text.
    pub(crate) fn text() -> Self {
        Self {
            kinds: Kinds::STRING,
            items: None,
            first: Vec::new(),
            properties: BTreeMap::new(),
            others: None,
            says_others: false,
            binary: false,
            most: None,
        }
    }

    /// The shape of the schema at a place.
    pub(crate) fn of(document: &Document, at: &At<'_>) -> Self {
        let mut steps = MAX_STEPS;
        let mut shape = look(document, at, 0, &mut steps);
        shape.settle();
        shape
    }

    /// What is not said is a text, as far as texts are read by shapes.
    fn settle(&mut self) {
        if self.kinds == Kinds::ALL {
            self.kinds = match () {
                () if !self.properties.is_empty() => Kinds::OBJECT,
                () if self.items.is_some() || !self.first.is_empty() => Kinds::ARRAY,
                () => Kinds::STRING,
            };
        }
        if let Some(items) = &mut self.items {
            items.settle();
        }
        if let Some(others) = &mut self.others {
            others.settle();
        }
        self.first.iter_mut().for_each(Self::settle);
        self.properties.values_mut().for_each(Self::settle);
    }

    /// The shape of a property.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.others.as_deref())
    }

    /// The shape of an item.
    pub(crate) fn item(&self, at: usize) -> Option<&Self> {
        self.first.get(at).or(self.items.as_deref())
    }

    /// Whether a text might be read in more than one way.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let own = self.kinds.has(Kinds::STRING) && self.kinds.without(Kinds::STRING) != Kinds::default();
        own || self.items.as_ref().is_some_and(|items| items.is_ambiguous())
            || self.first.iter().any(Self::is_ambiguous)
            || self.properties.values().any(Self::is_ambiguous)
            || self.others.as_ref().is_some_and(|others| others.is_ambiguous())
    }

    /// Reads a text as the plain value that is expected.
    pub(crate) fn read(&self, text: &str) -> Value {
        let kinds = self.kinds;
        if kinds.has(Kinds::NUMBER.or(Kinds::INTEGER))
            && let Some(number) = number(text, kinds.has(Kinds::NUMBER))
        {
            return Value::Number(number);
        }
        match text {
            "true" if kinds.has(Kinds::BOOLEAN) => Value::Bool(true),
            "false" if kinds.has(Kinds::BOOLEAN) => Value::Bool(false),
            "null" if kinds.has(Kinds::NULL) => Value::Null,
            "" if kinds.has(Kinds::NULL) && !kinds.has(Kinds::STRING) => Value::Null,
            text => Value::String(text.to_owned()),
        }
    }
}

/// A number as JSON writes it; an integer without fraction or exponent.
fn number(text: &str, fraction: bool) -> Option<Number> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let first = *digits.as_bytes().first()?;
    let whole = digits.bytes().all(|b| b.is_ascii_digit());
    if !first.is_ascii_digit() || text.len() > 400 || (first == b'0' && digits.len() > 1 && whole) {
        return None;
    }
    if !whole && !fraction {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn look(document: &Document, at: &At<'_>, depth: usize, steps: &mut usize) -> Shape {
    let mut shape = Shape::default();
    if depth > MAX_DEPTH || *steps == 0 {
        return shape;
    }
    *steps -= 1;
    let Ok(target) = document.resolve(at.clone()) else { return shape };
    let merge_ref = target.pointer != at.pointer;
    let own = if merge_ref { at.clone() } else { target.clone() };
    if merge_ref {
        shape = plain(document, &target, depth, steps);
        // In 3.1 a reference may have siblings.
        if own.value.as_object().is_some_and(|o| o.len() > 1) {
            let beside = plain(document, &own, depth, steps);
            shape = both(shape, beside);
        }
        return shape;
    }
    plain(document, &target, depth, steps)
}

fn plain(document: &Document, at: &At<'_>, depth: usize, steps: &mut usize) -> Shape {
    let mut shape = Shape::default();
    let Some(object) = at.value.as_object() else { return shape };
    match object.get("type") {
        Some(Value::String(name)) => shape.kinds = Kinds::named(name),
        Some(Value::Array(names)) => {
            let named = names.iter().filter_map(Value::as_str).map(Kinds::named);
            shape.kinds = named.fold(Kinds::default(), Kinds::or);
        }
        _ => {
            let values = object.get("const").map(std::slice::from_ref);
            let values = values.or_else(|| object.get("enum").and_then(Value::as_array).map(Vec::as_slice));
            if let Some(values) = values {
                shape.kinds = values.iter().map(Kinds::of).fold(Kinds::default(), Kinds::or);
            }
        }
    }
    if object.get("nullable").and_then(Value::as_bool) == Some(true) {
        shape.kinds = shape.kinds.or(Kinds::NULL);
    }
    let format = at.text("format");
    shape.binary = format == Some("binary")
        || (object.contains_key("contentMediaType") && !object.contains_key("contentEncoding"));
    shape.most = object.get("maxLength").and_then(Value::as_u64);
    if let Some(items) = at.get("items") {
        shape.items = Some(Box::new(look(document, &items, depth + 1, steps)));
    }
    if let Some(first) = at.get("prefixItems") {
        shape.first = first.items().map(|item| look(document, &item, depth + 1, steps)).collect();
    }
    if let Some(properties) = at.get("properties") {
        for (name, value) in properties.value.as_object().into_iter().flatten() {
            let pointer = crate::source::join(&properties.pointer, name);
            let inner = look(document, &At { value, pointer }, depth + 1, steps);
            shape.properties.insert(name.as_str().into(), inner);
        }
    }
    if let Some(others) = at.get("additionalProperties").or_else(|| at.get("unevaluatedProperties")) {
        shape.says_others = true;
        shape.others = match others.value {
            Value::Bool(false) => None,
            Value::Bool(true) => Some(Box::new(Shape::text())),
            _ => Some(Box::new(look(document, &others, depth + 1, steps))),
        };
    }
    shape.says_others |= object.contains_key("patternProperties");
    if let Some(all) = at.get("allOf") {
        for part in all.items() {
            let part = look(document, &part, depth + 1, steps);
            shape = both(shape, part);
        }
    }
    for key in ["anyOf", "oneOf"] {
        let Some(choice) = at.get(key) else { continue };
        let parts = choice.items().map(|part| look(document, &part, depth + 1, steps));
        if let Some(any) = parts.reduce(either) {
            shape = both(shape, any);
        }
    }
    for key in ["then", "else"] {
        if let Some(part) = at.get(key) {
            let part = look(document, &part, depth + 1, steps);
            shape.properties.extend(part.properties);
        }
    }
    shape
}

/// What holds to both.
fn both(mut a: Shape, b: Shape) -> Shape {
    a.kinds = a.kinds.and(b.kinds);
    a.binary |= b.binary;
    a.most = match (a.most, b.most) {
        (Some(x), Some(y)) => Some(x.min(y)),
        (x, y) => x.or(y),
    };
    a.items = match (a.items, b.items) {
        (Some(x), Some(y)) => Some(Box::new(both(*x, *y))),
        (x, y) => x.or(y),
    };
    if a.first.is_empty() {
        a.first = b.first;
    }
    if b.says_others {
        a.others = if a.says_others && a.others.is_none() { None } else { b.others };
        a.says_others = true;
    }
    for (name, shape) in b.properties {
        let merged = match a.properties.remove(&name) {
            Some(own) => both(own, shape),
            None => shape,
        };
        a.properties.insert(name, merged);
    }
    a
}

/// What holds to one of them.
fn either(mut a: Shape, b: Shape) -> Shape {
    a.kinds = a.kinds.or(b.kinds);
    a.binary |= b.binary;
    a.most = a.most.zip(b.most).map(|(x, y)| x.max(y));
    a.items = match (a.items, b.items) {
        (Some(x), Some(y)) => Some(Box::new(either(*x, *y))),
        (x, y) => x.or(y),
    };
    if a.first.is_empty() {
        a.first = b.first;
    }
    a.says_others |= b.says_others;
    a.others = a.others.or(b.others);
    for (name, shape) in b.properties {
        let merged = match a.properties.remove(&name) {
            Some(own) => either(own, shape),
            None => shape,
        };
        a.properties.insert(name, merged);
    }
    a
}
