//! Bodies by their content type: JSON, forms, parts, text; everything else by its size alone.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::judge::Spot;
use crate::multipart;
use crate::parameter::{Parameter, pairs};
use crate::schemas::Schema;
use crate::shape::{Kinds, Shape};
use crate::style::Wrong;
use crate::text::{MediaType, covers};
use crate::violation::{Place, Report, Violation};

/// Depth of JSON in a body.
const JSON_DEPTH: usize = 64;
/// Fields told of one body that the description does not know.
const MAX_UNKNOWN: usize = 8;

pub(crate) const BODY: Spot<'static> = Spot { place: Place::Body, name: "" };

/// How a body of some content type is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Fields,
    Parts,
    Text,
    /// Not read.
    Opaque,
}

impl Form {
    pub(crate) fn of(essence: &str) -> Self {
        let (kind, sub) = essence.split_once('/').unwrap_or_default();
        match (kind, sub) {
            _ if sub == "json" || sub.ends_with("+json") => Self::Json,
            ("application", "x-www-form-urlencoded") => Self::Fields,
            ("multipart", "form-data") => Self::Parts,
            // A stream of events has no end to wait for.
            ("text", sub) if sub != "xml" && sub != "event-stream" => Self::Text,
            _ => Self::Opaque,
        }
    }
}

/// What a body of one content type, or of a range of them, has to be.
#[derive(Clone, Debug)]
pub(crate) struct Media {
    /// In lower case; may be a range.
    pub(crate) range: Box<str>,
    pub(crate) schema: Option<Schema>,
    pub(crate) shape: Shape,
    /// Fields of a form.
    pub(crate) fields: Vec<Parameter>,
    /// Content types of parts, by name.
    pub(crate) parts: Vec<(Box<str>, Vec<Box<str>>)>,
    /// The most bytes of JSON.
    pub(crate) longest: Option<u64>,
    pub(crate) pointer: Box<str>,
}

/// The narrowest of some that holds a type.
pub(crate) fn choose<'m>(content: &'m [Media], essence: &str) -> Option<&'m Media> {
    let fitting = content.iter().filter_map(|media| Some((covers(&media.range, essence)?, media)));
    fitting.max_by_key(|(narrow, _)| *narrow).map(|(_, media)| media)
}

impl Media {
    /// The most bytes that a body of this type may have.
    pub(crate) fn most(&self, form: Form) -> Option<u64> {
        match form {
            Form::Json => self.longest,
            Form::Text => self.shape.most.filter(|_| self.shape.kinds == Kinds::STRING)?.checked_mul(4),
            Form::Opaque => self.shape.most,
            Form::Fields | Form::Parts => None,
        }
    }

    /// Whether the body itself has to be seen.
    pub(crate) fn reads(&self, form: Form) -> bool {
        match form {
            Form::Json | Form::Fields | Form::Parts => true,
            Form::Text => self.schema.is_some(),
            Form::Opaque => false,
        }
    }

    fn wrong(&self, rule: &'static str, expected: &str) -> Violation {
        BODY.wrong(rule, expected, &self.pointer)
    }

    /// Judges a whole body. `fields` asks for fields that the description does not know, too.
    pub(crate) fn judge(&self, media: &MediaType, body: &[u8], fields: bool, report: &mut Report) {
        let form = Form::of(&media.essence);
        if form != Form::Opaque && !media.is_utf8() {
            return report.push(self.wrong("media-type", "UTF-8"));
        }
        if let Some(most) = self.most(form)
            && u64::try_from(body.len()).unwrap_or(u64::MAX) > most
        {
            return report.push(self.wrong("size", &format!("at most {most} bytes")));
        }
        let value = match form {
            Form::Json => match ringfence_json::parse(body, JSON_DEPTH) {
                Ok(value) => value,
                Err(error) => return report.push(self.wrong("syntax", &format!("JSON: {}", error.message))),
            },
            Form::Fields => match self.read_form(body, report) {
                Some(value) => value,
                None => return,
            },
            Form::Parts => match self.read_parts(media, body, report) {
                Some(value) => value,
                None => return,
            },
            Form::Text => match std::str::from_utf8(body) {
                Ok(text) => self.shape.read(text),
                Err(_) => return report.push(self.wrong("syntax", "UTF-8")),
            },
            Form::Opaque => return,
        };
        if let Some(schema) = &self.schema {
            schema.judge(&value, BODY, report);
            if fields {
                let mut found = MAX_UNKNOWN;
                unknown(&value, &self.shape, &mut String::new(), &mut found, &mut |pointer| {
                    report.push(Violation { pointer, unknown: true, ..self.wrong("unknown", "") });
                });
            }
        }
    }

    fn read_form(&self, body: &[u8], report: &mut Report) -> Option<Value> {
        let text = std::str::from_utf8(body).ok();
        let Some(mut pairs) = text.and_then(|text| pairs(text).ok()) else {
            report.push(self.wrong("syntax", "a form"));
            return None;
        };
        let mut out = Map::new();
        for field in &self.fields {
            match field.read_pairs(&mut pairs) {
                None => {}
                Some(Ok(value)) => {
                    out.insert(field.name.to_string(), value);
                }
                Some(Err(wrong)) => self.told_of(&field.name, wrong, report),
            }
        }
        for pair in pairs.iter().filter(|pair| !pair.taken) {
            let Some(text) = crate::text::decode_text(pair.raw, true) else {
                self.told_of(&pair.name, Wrong::Syntax, report);
                continue;
            };
            let value = self
                .shape
                .property(&pair.name)
                .map_or_else(|| Value::String(text.to_string()), |s| s.read(&text));
            if out.insert(pair.name.to_string(), value).is_some() {
                self.told_of(&pair.name, Wrong::Repeated, report);
            }
        }
        Some(Value::Object(out))
    }

    fn told_of(&self, name: &str, wrong: Wrong, report: &mut Report) {
        let rule = if wrong == Wrong::Repeated { "repeated" } else { "syntax" };
        report.push(Violation { pointer: crate::source::join("", name), ..self.wrong(rule, "") });
    }

    fn read_parts(&self, media: &MediaType, body: &[u8], report: &mut Report) -> Option<Value> {
        let parts = media.boundary.as_deref().and_then(|boundary| multipart::parts(body, boundary));
        let Some(parts) = parts else {
            report.push(self.wrong("syntax", "multipart/form-data"));
            return None;
        };
        let mut out = Map::new();
        for part in parts {
            let shape = self.shape.property(&part.name);
            let many = shape.is_some_and(|shape| shape.kinds.has(Kinds::ARRAY));
            let essence = match &part.media {
                Some(media) => media.essence.as_str(),
                None if part.file => "application/octet-stream",
                None => "text/plain",
            };
            let declared = self.parts.iter().find(|(name, _)| **name == *part.name);
            if let Some((_, types)) = declared
                && !types.iter().any(|range| covers(range, essence).is_some())
            {
                let expected = types.join(" or ");
                let pointer = crate::source::join("", &part.name);
                report.push(Violation { pointer, ..self.wrong("media-type", &expected) });
            }
            let of = if many { shape.and_then(|shape| shape.items.as_deref()) } else { shape };
            let Some(value) = read_part(&part, essence, of) else {
                self.told_of(&part.name, Wrong::Syntax, report);
                continue;
            };
            match out.get_mut(&part.name) {
                None if many && !value.is_array() => {
                    out.insert(part.name, Value::Array(vec![value]));
                }
                None => {
                    out.insert(part.name, value);
                }
                Some(Value::Array(items)) if many => items.push(value),
                Some(_) => self.told_of(&part.name, Wrong::Repeated, report),
            }
        }
        Some(Value::Object(out))
    }
}

/// A part as a value. Bytes that are no text stand for one character each, so that lengths count bytes.
fn read_part(part: &multipart::Part<'_>, essence: &str, shape: Option<&Shape>) -> Option<Value> {
    let text = std::str::from_utf8(part.body);
    let structured = |shape: &Shape| shape.kinds.has(Kinds::OBJECT) || shape.kinds.has(Kinds::ARRAY);
    let binary = part.file || shape.is_some_and(|shape| shape.binary);
    if !binary && (Form::of(essence) == Form::Json || shape.is_some_and(structured)) {
        return ringfence_json::parse(part.body, JSON_DEPTH).ok();
    }
    match (text, shape) {
        (Ok(text), Some(shape)) if !binary => Some(shape.read(text)),
        (Ok(text), _) => Some(Value::String(text.to_owned())),
        (Err(_), _) if binary || Form::of(essence) == Form::Opaque => {
            Some(Value::String(part.body.iter().map(|byte| char::from(*byte)).collect()))
        }
        (Err(_), _) => None,
    }
}

/// Fields that the description does not know, where it leaves open whether there are others.
fn unknown(
    value: &Value,
    shape: &Shape,
    pointer: &mut String,
    left: &mut usize,
    tell: &mut dyn FnMut(String),
) {
    let length = pointer.len();
    match value {
        Value::Object(entries) if !shape.properties.is_empty() => {
            for (name, value) in entries {
                if *left == 0 {
                    return;
                }
                crate::source::push_step(pointer, name);
                match shape.properties.get(name.as_str()) {
                    Some(shape) => unknown(value, shape, pointer, left, tell),
                    None if !shape.says_others => {
                        *left -= 1;
                        tell(pointer.clone());
                    }
                    None => {}
                }
                pointer.truncate(length);
            }
        }
        Value::Array(items) => {
            let Some(shape) = &shape.items else { return };
            // One item is like the other.
            for (i, item) in items.iter().take(20).enumerate() {
                crate::source::push_step(pointer, &Cow::from(i.to_string()));
                unknown(item, shape, pointer, left, tell);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}
