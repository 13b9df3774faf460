//! How parameters are written: `style` and `explode` (OpenAPI 3.1.1, section 4.8.12; RFC 6570).
//!
//! Separators are looked for before percent-encoding is taken off, as RFC 6570 writes them. Many clients encode the separators too, and
//! many servers take the encoding off first; so there is a second reading, [`Reading::Encoded`], which is tried only when the first does
//! not hold.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::shape::{Kinds, Shape};
use crate::text::decode_text;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    SpaceDelimited,
    PipeDelimited,
    DeepObject,
}

impl Style {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Self::Simple,
            "label" => Self::Label,
            "matrix" => Self::Matrix,
            "form" => Self::Form,
            "spaceDelimited" => Self::SpaceDelimited,
            "pipeDelimited" => Self::PipeDelimited,
            "deepObject" => Self::DeepObject,
            _ => return None,
        })
    }
}

/// Which of the readings of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Separators may be percent-encoded.
    pub(crate) encoded: bool,
    /// What may be a text is one.
    pub(crate) text: bool,
}

impl Reading {
    /// All of them, the most exact one first.
    pub(crate) const ALL: [Self; 4] = [
        Self { encoded: false, text: false },
        Self { encoded: false, text: true },
        Self { encoded: true, text: false },
        Self { encoded: true, text: true },
    ];
}

/// What a value could not be read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is not written in this style, or its percent-encoding is broken.
    Syntax,
    /// Something stands twice that may stand once.
    Repeated,
}

/// How a text is taken out of its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writing<'a> {
    pub(crate) style: Style,
    pub(crate) explode: bool,
    pub(crate) name: &'a str,
    /// Whether percent-encoding is used at all: not in header fields.
    pub(crate) percent: bool,
    /// Whether `+` is a space.
    pub(crate) plus: bool,
}

impl Writing<'_> {
    fn decode<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Wrong> {
        if !self.percent {
            return Ok(Cow::Borrowed(text.trim_matches([' ', '\t'])));
        }
        decode_text(text, self.plus).ok_or(Wrong::Syntax)
    }

    /// Pieces between separators, decoded.
    fn split(&self, text: &str, separator: char, reading: Reading) -> Result<Vec<String>, Wrong> {
        let encoded = reading.encoded || separator == ' ';
        if encoded && !text.contains(separator) {
            let whole = self.decode(text)?;
            return Ok(whole.split(separator).map(str::to_owned).collect());
        }
        text.split(separator).map(|piece| self.decode(piece).map(Cow::into_owned)).collect()
    }

    /// `name=value` pieces.
    fn exploded(&self, text: &str, separator: char) -> Result<Vec<(String, String)>, Wrong> {
        let pieces = text.split(separator).filter(|piece| !piece.is_empty());
        let pair = |piece: &str| {
            let (name, value) = piece.split_once('=').ok_or(Wrong::Syntax)?;
            Ok((self.decode(name)?.into_owned(), self.decode(value)?.into_owned()))
        };
        pieces.map(pair).collect()
    }

    /// One text that holds the whole value: a path segment, a header field, a parameter that stands once.
    pub(crate) fn value(&self, raw: &str, shape: &Shape, reading: Reading) -> Result<Value, Wrong> {
        let (body, separator) = match self.style {
            Style::Simple | Style::Form | Style::DeepObject => (raw, ','),
            Style::SpaceDelimited => (raw, ' '),
            Style::PipeDelimited => (raw, '|'),
            Style::Label => {
                let body = raw.strip_prefix('.').ok_or(Wrong::Syntax)?;
                // OpenAPI up to 3.0.3 and 3.1.0 shows dots for both, RFC 6570 commas where it is not exploded.
                let dots = self.explode || (reading.encoded && !body.contains(','));
                (body, if dots { '.' } else { ',' })
            }
            Style::Matrix => return self.matrix(raw, shape, reading),
        };
        match self.kind(shape, body.contains(separator)) {
            Kind::Plain => Ok(read(shape, &self.decode(body)?, reading)),
            // RFC 6570 writes a list with one empty text so, and many clients a list of nothing.
            Kind::List if body.is_empty() && !(self.percent && takes_text(shape)) => {
                Ok(Value::Array(Vec::new()))
            }
            Kind::List => Ok(list(shape, self.split(body, separator, reading)?, reading)),
            Kind::Object if self.explode => object(shape, self.exploded(body, separator)?, reading),
            Kind::Object => object(shape, pairs(self.split(body, separator, reading)?)?, reading),
        }
    }

    fn matrix(&self, raw: &str, shape: &Shape, reading: Reading) -> Result<Value, Wrong> {
        let body = raw.strip_prefix(';').ok_or(Wrong::Syntax)?;
        let named = |piece: &str| -> Result<String, Wrong> {
            let rest = piece.strip_prefix(self.name).ok_or(Wrong::Syntax)?;
            match rest.strip_prefix('=') {
                Some(value) => Ok(value.to_owned()),
                // RFC 6570: an empty value has no `=`.
                None if rest.is_empty() => Ok(String::new()),
                None => Err(Wrong::Syntax),
            }
        };
        match self.kind(shape, body.contains([',', ';'])) {
            Kind::Plain => Ok(read(shape, &self.decode(&named(body)?)?, reading)),
            Kind::List if self.explode => {
                let items = body.split(';').map(|piece| Ok(self.decode(&named(piece)?)?.into_owned()));
                Ok(list(shape, items.collect::<Result<_, Wrong>>()?, reading))
            }
            Kind::List => Ok(list(shape, self.split(&named(body)?, ',', reading)?, reading)),
            Kind::Object if self.explode => object(shape, self.exploded(body, ';')?, reading),
            Kind::Object => object(shape, pairs(self.split(&named(body)?, ',', reading)?)?, reading),
        }
    }

    /// A parameter that may stand several times, each value as received.
    pub(crate) fn values(&self, raw: &[&str], shape: &Shape, reading: Reading) -> Result<Value, Wrong> {
        let repeats = self.explode || self.style == Style::DeepObject;
        match (raw, self.kind(shape, raw.len() > 1)) {
            (raw, Kind::List) if repeats => {
                let mut items = Vec::with_capacity(raw.len());
                for raw in raw {
                    items.push(self.decode(raw)?.into_owned());
                }
                Ok(list(shape, items, reading))
            }
            ([raw], _) => self.value(raw, shape, reading),
            _ => Err(Wrong::Repeated),
        }
    }

    fn kind(&self, shape: &Shape, separated: bool) -> Kind {
        let (list, object) = (shape.kinds.has(Kinds::ARRAY), shape.kinds.has(Kinds::OBJECT));
        match (list, object) {
            _ if shape.kinds.is_plain() => Kind::Plain,
            _ if plain_too(shape) && !separated => Kind::Plain,
            (true, _) => Kind::List,
            _ => Kind::Object,
        }
    }
}

/// Whether an item of a list may be a text.
fn takes_text(shape: &Shape) -> bool {
    shape.item(0).is_none_or(|item| item.kinds.has(Kinds::STRING))
}

fn plain_too(shape: &Shape) -> bool {
    shape.kinds.has(Kinds::STRING) || shape.kinds.has(Kinds::NUMBER) || shape.kinds.has(Kinds::INTEGER)
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    List,
    Object,
}

/// One text as a value.
pub(crate) fn read(shape: &Shape, text: &str, reading: Reading) -> Value {
    if reading.text && shape.kinds.has(Kinds::STRING) {
        return Value::String(text.to_owned());
    }
    shape.read(text)
}

fn list(shape: &Shape, items: Vec<String>, reading: Reading) -> Value {
    let text = Shape::text();
    let items = items.iter().enumerate();
    Value::Array(items.map(|(at, item)| read(shape.item(at).unwrap_or(&text), item, reading)).collect())
}

fn pairs(pieces: Vec<String>) -> Result<Vec<(String, String)>, Wrong> {
    if !pieces.len().is_multiple_of(2) {
        return Err(Wrong::Syntax);
    }
    let mut pieces = pieces.into_iter();
    let mut out = Vec::new();
    while let (Some(name), Some(value)) = (pieces.next(), pieces.next()) {
        out.push((name, value));
    }
    Ok(out)
}

/// Fields as an object; what may not stand there is a text, so that the schema tells of it.
pub(crate) fn object(shape: &Shape, pairs: Vec<(String, String)>, reading: Reading) -> Result<Value, Wrong> {
    let text = Shape::text();
    let mut out = Map::new();
    for (name, value) in pairs {
        let of = shape.property(&name).unwrap_or(&text);
        let value = read(of, &value, reading);
        if out.insert(name, value).is_some() {
            return Err(Wrong::Repeated);
        }
    }
    Ok(Value::Object(out))
}

/// Levels of `a[b][c]`.
const MAX_LEVELS: usize = 5;

/// `name[a]=1&name[b][c]=2`, the part in brackets decoded, as an object.
pub(crate) fn deep(shape: &Shape, fields: &[(String, String)], reading: Reading) -> Result<Value, Wrong> {
    let mut root = Map::new();
    for (brackets, value) in fields {
        let inner = brackets.strip_prefix('[').and_then(|b| b.strip_suffix(']')).ok_or(Wrong::Syntax)?;
        let mut steps: Vec<&str> = inner.split("][").collect();
        if steps.len() > MAX_LEVELS || steps.iter().any(|step| step.contains(['[', ']'])) {
            return Err(Wrong::Syntax);
        }
        // `a[b][]=1`: a list by another habit.
        let listed = steps.len() > 1 && steps.last() == Some(&"");
        if listed {
            steps.pop();
        }
        let Some((last, way)) = steps.split_last() else { return Err(Wrong::Syntax) };
        let text = Shape::text();
        let (mut at, mut of) = (&mut root, shape);
        for step in way {
            of = of.property(step).unwrap_or(&text);
            let entry = at.entry(*step).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = entry else { return Err(Wrong::Repeated) };
            at = next;
        }
        let of = of.property(last).unwrap_or(&text);
        let many = of.kinds.has(Kinds::ARRAY);
        let item = if many { of.items.as_deref().unwrap_or(&text) } else { of };
        let value = read(item, value, reading);
        match at.get_mut(*last) {
            None if many || listed => {
                at.insert((*last).to_owned(), Value::Array(vec![value]));
            }
            None => {
                at.insert((*last).to_owned(), value);
            }
            Some(Value::Array(items)) if many || listed => items.push(value),
            Some(_) => return Err(Wrong::Repeated),
        }
    }
    Ok(Value::Object(root))
}
