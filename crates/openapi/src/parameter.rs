//! A declared parameter, and the reading of requests by it.

use std::borrow::Cow;

use serde_json::Value;

use crate::judge::Spot;
use crate::schemas::Schema;
use crate::shape::{Kinds, Shape};
use crate::style::{self, Reading, Style, Writing, Wrong};
use crate::text::decode_text;
use crate::violation::{Place, Report};

/// Depth of JSON in a parameter.
const JSON_DEPTH: usize = 16;

/// A parameter, or a field of a form.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub(crate) name: Box<str>,
    pub(crate) place: Place,
    pub(crate) required: bool,
    pub(crate) allow_empty: bool,
    pub(crate) style: Style,
    pub(crate) explode: bool,
    pub(crate) shape: Shape,
    /// None where everything holds.
    pub(crate) schema: Option<Schema>,
    /// Whether it is written as JSON (`content`).
    pub(crate) json: bool,
    /// Where it is declared.
    pub(crate) pointer: Box<str>,
}

/// A pair of a query or a form, as received.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) raw: &'a str,
    pub(crate) taken: bool,
}

/// Pairs of one query.
pub(crate) const MAX_PAIRS: usize = 1_000;

/// Takes a query or a form apart. An error where there are too many pairs, or the encoding of a name is broken.
pub(crate) fn pairs(query: &str) -> Result<Vec<Pair<'_>>, &'static str> {
    let mut out = Vec::new();
    for piece in query.split('&').filter(|piece| !piece.is_empty()) {
        if out.len() >= MAX_PAIRS {
            return Err("size");
        }
        let (name, raw) = piece.split_once('=').unwrap_or((piece, ""));
        let name = decode_text(name, true).ok_or("syntax")?;
        out.push(Pair { name, raw, taken: false });
    }
    Ok(out)
}

impl Parameter {
    fn writing(&self) -> Writing<'_> {
        let query = self.place == Place::Query || self.place == Place::Body;
        Writing {
            style: self.style,
            explode: self.explode,
            name: &self.name,
            percent: self.place != Place::Header,
            plus: query,
        }
    }

    fn spot(&self) -> Spot<'_> {
        Spot { place: self.place, name: &self.name }
    }

    /// Whether its fields stand in the query by their own names.
    pub(crate) fn is_spread(&self) -> bool {
        self.style == Style::Form && self.explode && !self.json && self.shape.kinds == Kinds::OBJECT
    }

    pub(crate) fn missing(&self, report: &mut Report) {
        if self.required {
            report.push(self.spot().wrong("missing", "", &self.pointer));
        }
    }

    /// Judges one text: a piece of a path, a field.
    pub(crate) fn judge_text(&self, raw: &str, report: &mut Report) {
        if self.json {
            return self.judge_json(raw, report);
        }
        self.judge_readings(report, &|reading| self.writing().value(raw, &self.shape, reading));
    }

    fn judge_json(&self, raw: &str, report: &mut Report) {
        let text = if self.place == Place::Header {
            Cow::Borrowed(raw)
        } else {
            match decode_text(raw, self.writing().plus) {
                Some(text) => text,
                None => return report.push(self.spot().wrong("syntax", "percent-encoding", &self.pointer)),
            }
        };
        match ringfence_json::parse(text.as_bytes(), JSON_DEPTH) {
            Ok(value) => {
                if let Some(schema) = &self.schema {
                    schema.judge(&value, self.spot(), report);
                }
            }
            Err(_) => report.push(self.spot().wrong("syntax", "JSON", &self.pointer)),
        }
    }

    /// Judges by the first reading that holds; where none does, tells what is wrong by the first.
    fn judge_readings(&self, report: &mut Report, read: &dyn Fn(Reading) -> Result<Value, Wrong>) {
        let first = read(Reading::ALL[0]);
        let holds = |value: &Value| self.schema.as_ref().is_none_or(|schema| schema.holds(value));
        if first.as_ref().is_ok_and(holds) {
            return;
        }
        let ambiguous = self.shape.is_ambiguous();
        let others = Reading::ALL[1..].iter().filter(|reading| ambiguous || !reading.text);
        if others.map(|reading| read(*reading)).any(|value| value.as_ref().is_ok_and(holds)) {
            return;
        }
        match (first, &self.schema) {
            (Ok(value), Some(schema)) => schema.judge(&value, self.spot(), report),
            (Ok(_), None) => {}
            (Err(Wrong::Syntax), _) => report.push(self.spot().wrong("syntax", "", &self.pointer)),
            (Err(Wrong::Repeated), _) => report.push(self.spot().wrong("repeated", "", &self.pointer)),
        }
    }

    /// Takes its pairs out of a query and judges them. Spread ones come last: they take what nobody else does.
    pub(crate) fn judge_pairs(&self, pairs: &mut [Pair<'_>], report: &mut Report) {
        let Some(read) = self.take(pairs) else { return self.missing(report) };
        match read {
            Taken::Empty => {}
            Taken::Json(raw) => self.judge_json(&raw, report),
            Taken::Repeated => report.push(self.spot().wrong("repeated", "", &self.pointer)),
            Taken::Values(raw) => {
                let raw: Vec<&str> = raw.iter().map(String::as_str).collect();
                self.judge_readings(report, &|reading| self.writing().values(&raw, &self.shape, reading));
            }
            Taken::Deep(fields) => {
                self.judge_readings(report, &|reading| style::deep(&self.shape, &fields, reading));
            }
            Taken::Spread(fields) => {
                self.judge_readings(report, &|reading| style::object(&self.shape, fields.clone(), reading));
            }
            Taken::Broken => report.push(self.spot().wrong("syntax", "percent-encoding", &self.pointer)),
        }
    }

    /// The value of a field of a form: as it is read first, without being judged. None where it is not there.
    pub(crate) fn read_pairs(&self, pairs: &mut [Pair<'_>]) -> Option<Result<Value, Wrong>> {
        let reading = Reading::ALL[0];
        Some(match self.take(pairs)? {
            Taken::Empty => Ok(Value::String(String::new())),
            Taken::Json(raw) => match decode_text(&raw, true) {
                Some(text) => ringfence_json::parse(text.as_bytes(), JSON_DEPTH).map_err(|_| Wrong::Syntax),
                None => Err(Wrong::Syntax),
            },
            Taken::Repeated => Err(Wrong::Repeated),
            Taken::Broken => Err(Wrong::Syntax),
            Taken::Values(raw) => {
                let raw: Vec<&str> = raw.iter().map(String::as_str).collect();
                self.writing().values(&raw, &self.shape, reading)
            }
            Taken::Deep(fields) => style::deep(&self.shape, &fields, reading),
            Taken::Spread(fields) => style::object(&self.shape, fields, reading),
        })
    }

    fn take(&self, pairs: &mut [Pair<'_>]) -> Option<Taken> {
        if self.style == Style::DeepObject {
            return self.take_deep(pairs);
        }
        if self.is_spread() {
            return self.take_spread(pairs);
        }
        let mut raw = Vec::new();
        for pair in pairs.iter_mut().filter(|pair| pair.name == *self.name) {
            pair.taken = true;
            raw.push(pair.raw.to_owned());
        }
        match raw.as_slice() {
            [] => None,
            [one] if one.is_empty() && self.allow_empty => Some(Taken::Empty),
            [one] if self.json => Some(Taken::Json(one.clone())),
            _ if self.json => Some(Taken::Repeated),
            _ => Some(Taken::Values(raw)),
        }
    }

    fn take_deep(&self, pairs: &mut [Pair<'_>]) -> Option<Taken> {
        let mut fields = Vec::new();
        for pair in pairs {
            let Some(brackets) = pair.name.strip_prefix(&*self.name).filter(|rest| rest.starts_with('['))
            else {
                continue;
            };
            let brackets = brackets.to_owned();
            pair.taken = true;
            let Some(value) = decode_text(pair.raw, true) else { return Some(Taken::Broken) };
            fields.push((brackets, value.into_owned()));
        }
        (!fields.is_empty()).then_some(Taken::Deep(fields))
    }

    fn take_spread(&self, pairs: &mut [Pair<'_>]) -> Option<Taken> {
        let mut fields = Vec::new();
        for pair in pairs.iter_mut().filter(|pair| !pair.taken) {
            let known = self.shape.properties.contains_key(pair.name.as_ref());
            // Whatever name is left belongs to it where it says so itself.
            let others = self.shape.says_others && self.shape.others.is_some();
            if !known && !others {
                continue;
            }
            pair.taken = true;
            let Some(value) = decode_text(pair.raw, true) else { return Some(Taken::Broken) };
            fields.push((pair.name.to_string(), value.into_owned()));
        }
        (!fields.is_empty()).then_some(Taken::Spread(fields))
    }

    /// Judges a cookie by the values of all cookies.
    pub(crate) fn judge_cookies(&self, cookies: &[(&str, &str)], report: &mut Report) {
        let own: Vec<&str> =
            cookies.iter().filter(|(name, _)| *name == &*self.name).map(|(_, v)| *v).collect();
        if self.is_spread() {
            let mut fields = Vec::new();
            for (name, value) in cookies.iter().flat_map(|(name, value)| ampersands(name, value)) {
                let plain = |text| decode_text(text, false).unwrap_or(Cow::Borrowed(text));
                let name = plain(name);
                if self.shape.properties.contains_key(name.as_ref()) {
                    fields.push((name.into_owned(), plain(value).into_owned()));
                }
            }
            if fields.is_empty() {
                return self.missing(report);
            }
            return self
                .judge_readings(report, &|reading| style::object(&self.shape, fields.clone(), reading));
        }
        match own.as_slice() {
            [] => self.missing(report),
            [one] if self.json => self.judge_json(one, report),
            [one] if self.explode && self.shape.kinds.has(Kinds::ARRAY) => {
                let items: Vec<&str> = ampersands(&self.name, one).map(|(_, value)| value).collect();
                self.judge_readings(report, &|reading| self.writing().values(&items, &self.shape, reading));
            }
            [one] => self.judge_text(one, report),
            _ => report.push(self.spot().wrong("repeated", "", &self.pointer)),
        }
    }
}

/// RFC 6570 joins what is exploded by `&`, in cookies too.
fn ampersands<'a>(name: &'a str, value: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut pieces = value.split('&');
    let first = pieces.next().map(|value| (name, value));
    first.into_iter().chain(pieces.filter_map(|piece| piece.split_once('=')))
}

enum Taken {
    Empty,
    Json(String),
    Repeated,
    Values(Vec<String>),
    Deep(Vec<(String, String)>),
    Spread(Vec<(String, String)>),
    Broken,
}

/// Cookies of the header section; quotes around a value are not part of it.
pub(crate) fn cookies(field: &str) -> impl Iterator<Item = (&str, &str)> {
    field.split(';').filter_map(|piece| {
        let (name, value) = piece.trim_matches([' ', '\t']).split_once('=')?;
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        Some((name, value))
    })
}
