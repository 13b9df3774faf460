//! One operation of a description, and messages judged by it.

use std::borrow::Cow;

use crate::content::{BODY, Form, Media, choose};
use crate::judge::Spot;
use crate::parameter::{Parameter, cookies, pairs};
use crate::text::MediaType;
use crate::violation::{Place, Report, Violation};

/// Header fields of a message, in order, as received.
pub trait Fields {
    /// Calls with name and value of each.
    fn each(&self, found: &mut dyn FnMut(&[u8], &[u8]));
}

impl Fields for [(&str, &str)] {
    fn each(&self, found: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| found(name.as_bytes(), value.as_bytes()));
    }
}

/// How much body comes with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// None.
    Empty,
    /// So many bytes.
    Known(u64),
    /// It ends where it ends.
    Unknown,
}

/// What has to happen with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It need not be seen; beyond `most` bytes it is too large.
    Pass {
        /// The most bytes.
        most: Option<u64>,
    },
    /// It has to be read whole and judged; beyond `most` bytes it is too large.
    Hold {
        /// The most bytes.
        most: Option<u64>,
    },
}

impl Plan {
    const NOTHING: Self = Self::Pass { most: None };
}

#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) required: bool,
    pub(crate) content: Vec<Media>,
    pub(crate) pointer: Box<str>,
}

/// Which statuses a response is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    One(u16),
    /// Of one hundred.
    Class(u16),
    Default,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: Status,
    pub(crate) headers: Vec<Parameter>,
    pub(crate) content: Vec<Media>,
    pub(crate) pointer: Box<str>,
}

/// An operation, compiled.
#[derive(Debug)]
pub struct Operation {
    pub(crate) method: Box<str>,
    pub(crate) path: Box<str>,
    pub(crate) path_parameters: Vec<Parameter>,
    pub(crate) query: Vec<Parameter>,
    pub(crate) headers: Vec<Parameter>,
    pub(crate) cookies: Vec<Parameter>,
    /// Names of API keys in the query.
    pub(crate) keys: Vec<Box<str>>,
    pub(crate) body: Option<Body>,
    pub(crate) responses: Vec<Response>,
    pub(crate) pointer: Box<str>,
}

/// An operation that a request was found to be for.
#[derive(Debug)]
pub struct Match<'a> {
    pub(crate) operation: &'a Operation,
    pub(crate) number: usize,
    pub(crate) captures: Vec<(&'a str, &'a str)>,
}

impl<'a> Match<'a> {
    /// The operation.
    #[must_use]
    pub fn operation(&self) -> &'a Operation {
        self.operation
    }

    /// Its number in [`Api::operations`](crate::Api::operations).
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Judges a head: its parameters, and whether such a body may follow; what is to be done with the body.
    pub fn head(
        &self,
        query: Option<&str>,
        fields: &(impl Fields + ?Sized),
        length: Length,
        report: &mut Report,
    ) -> Plan {
        let operation = self.operation;
        for parameter in &operation.path_parameters {
            match self.captures.iter().find(|(name, _)| *name == &*parameter.name) {
                Some((_, raw)) => parameter.judge_text(raw, report),
                None => parameter.missing(report),
            }
        }
        operation.query(query.unwrap_or_default(), report);
        let mut media = None;
        let mut cookie = String::new();
        let mut values: Vec<Option<String>> = vec![None; operation.headers.len()];
        fields.each(&mut |name, value| {
            if name.eq_ignore_ascii_case(b"content-type") {
                media = Some(value.to_vec());
            } else if !operation.cookies.is_empty() && name.eq_ignore_ascii_case(b"cookie") {
                if !cookie.is_empty() {
                    cookie.push(';');
                }
                cookie.push_str(&String::from_utf8_lossy(value));
            }
            collect(&operation.headers, name, value, &mut values);
        });
        judge_headers(&operation.headers, &values, report);
        if !operation.cookies.is_empty() {
            let all: Vec<(&str, &str)> = cookies(&cookie).collect();
            operation.cookies.iter().for_each(|parameter| parameter.judge_cookies(&all, report));
        }
        operation.body_plan(media.as_deref(), length, report)
    }
}

impl Operation {
    /// Its method, in capitals.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Its path, with braces.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    fn query(&self, query: &str, report: &mut Report) {
        if query.is_empty() && self.query.is_empty() {
            return;
        }
        let mut pairs = match pairs(query) {
            Ok(pairs) => pairs,
            Err(rule) => {
                let spot = Spot { place: Place::Query, name: "" };
                return report.push(spot.wrong(rule, "a query", &self.pointer));
            }
        };
        let (spread, others): (Vec<&Parameter>, Vec<&Parameter>) =
            self.query.iter().partition(|p| p.is_spread());
        for parameter in others.into_iter().chain(spread) {
            parameter.judge_pairs(&mut pairs, report);
        }
        for pair in pairs.iter().filter(|pair| !pair.taken) {
            if self.keys.iter().any(|key| **key == *pair.name) {
                continue;
            }
            let spot = Spot { place: Place::Query, name: &pair.name };
            report.push(Violation { unknown: true, ..spot.wrong("unknown", "", &self.pointer) });
        }
    }

    fn body_plan(&self, media: Option<&[u8]>, length: Length, report: &mut Report) -> Plan {
        let empty = matches!(length, Length::Empty | Length::Known(0));
        let Some(body) = &self.body else {
            if !empty {
                let wrong = BODY.wrong("unknown", "no body", &self.pointer);
                report.push(Violation { unknown: true, ..wrong });
            }
            return Plan::NOTHING;
        };
        if empty {
            if body.required {
                report.push(BODY.wrong("missing", "a body", &body.pointer));
            }
            return Plan::NOTHING;
        }
        let types = || {
            let ranges: Vec<&str> = body.content.iter().map(|media| &*media.range).collect();
            ranges.join(" or ")
        };
        let parsed = media.and_then(MediaType::parse);
        let Some(chosen) = parsed.as_ref().and_then(|media| choose(&body.content, &media.essence)) else {
            report.push(BODY.wrong("media-type", types(), &body.pointer));
            return Plan::NOTHING;
        };
        let form = parsed.as_ref().map_or(Form::Opaque, |media| Form::of(&media.essence));
        let most = chosen.most(form);
        if let (Length::Known(length), Some(most)) = (length, most)
            && length > most
        {
            report.push(BODY.wrong("size", format!("at most {most} bytes"), &chosen.pointer));
            return Plan::NOTHING;
        }
        if chosen.reads(form) { Plan::Hold { most } } else { Plan::Pass { most } }
    }

    /// Judges the whole body of a request whose head was judged. `fields` asks for fields that the description does not know, too.
    pub fn body(&self, content_type: Option<&[u8]>, bytes: &[u8], fields: bool, report: &mut Report) {
        let Some(body) = &self.body else { return };
        // One that came without a length may have been none.
        if bytes.is_empty() {
            if body.required {
                report.push(BODY.wrong("missing", "a body", &body.pointer));
            }
            return;
        }
        let Some(media) = content_type.and_then(MediaType::parse) else { return };
        if let Some(chosen) = choose(&body.content, &media.essence) {
            chosen.judge(&media, bytes, fields, report);
        }
    }

    /// Something too large: what a stream is refused with that went beyond its [`Plan`].
    #[must_use]
    pub fn too_large(&self, most: u64) -> Violation {
        let pointer = self.body.as_ref().map_or(&self.pointer, |body| &body.pointer);
        BODY.wrong("size", format!("at most {most} bytes"), pointer)
    }

    /// Judges the head of a response; what is to be done with its body.
    pub fn response_head(
        &self,
        status: u16,
        fields: &(impl Fields + ?Sized),
        length: Length,
        report: &mut Report,
    ) -> Plan {
        let Some(response) = self.response(status) else {
            let spot = Spot { place: Place::Status, name: "" };
            let wrong = spot.wrong("unknown", format!("not {status}"), &self.pointer);
            report.push(Violation { unknown: true, ..wrong });
            return Plan::NOTHING;
        };
        let mut media = None;
        let mut values: Vec<Option<String>> = vec![None; response.headers.len()];
        fields.each(&mut |name, value| {
            if name.eq_ignore_ascii_case(b"content-type") {
                media = Some(value.to_vec());
            }
            collect(&response.headers, name, value, &mut values);
        });
        judge_headers(&response.headers, &values, report);
        if matches!(length, Length::Empty | Length::Known(0)) {
            return Plan::NOTHING;
        }
        if response.content.is_empty() {
            let wrong = BODY.wrong("unknown", "no body", &response.pointer);
            report.push(Violation { unknown: true, ..wrong });
            return Plan::NOTHING;
        }
        let parsed = media.as_deref().and_then(MediaType::parse);
        let Some(chosen) = parsed.as_ref().and_then(|media| choose(&response.content, &media.essence)) else {
            let ranges: Vec<&str> = response.content.iter().map(|media| &*media.range).collect();
            report.push(BODY.wrong("media-type", ranges.join(" or "), &response.pointer));
            return Plan::NOTHING;
        };
        let form = parsed.as_ref().map_or(Form::Opaque, |media| Form::of(&media.essence));
        if chosen.reads(form) { Plan::Hold { most: chosen.most(form) } } else { Plan::NOTHING }
    }

    /// Judges the whole body of a response.
    pub fn response_body(
        &self,
        status: u16,
        content_type: Option<&[u8]>,
        bytes: &[u8],
        fields: bool,
        report: &mut Report,
    ) {
        let Some(response) = self.response(status) else { return };
        let Some(media) = content_type.and_then(MediaType::parse) else { return };
        if let Some(chosen) = choose(&response.content, &media.essence) {
            chosen.judge(&media, bytes, fields, report);
        }
    }

    /// Whether responses are described at all.
    #[must_use]
    pub fn describes_responses(&self) -> bool {
        !self.responses.is_empty()
    }

    fn response(&self, status: u16) -> Option<&Response> {
        let of = |wanted: Status| self.responses.iter().find(|response| response.status == wanted);
        of(Status::One(status)).or_else(|| of(Status::Class(status / 100))).or_else(|| of(Status::Default))
    }
}

fn collect(parameters: &[Parameter], name: &[u8], value: &[u8], values: &mut [Option<String>]) {
    for (parameter, slot) in parameters.iter().zip(values) {
        if name.eq_ignore_ascii_case(parameter.name.as_bytes()) {
            let value: Cow<'_, str> = String::from_utf8_lossy(value);
            match slot {
                Some(all) => {
                    all.push(',');
                    all.push_str(&value);
                }
                None => *slot = Some(value.into_owned()),
            }
        }
    }
}

fn judge_headers(parameters: &[Parameter], values: &[Option<String>], report: &mut Report) {
    for (parameter, value) in parameters.iter().zip(values) {
        match value {
            Some(value) => parameter.judge_text(value, report),
            None => parameter.missing(report),
        }
    }
}
