//! Samples of many requests, put together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Content, Sample, Sketch, shape_of_path, yaml};

/// Paths that are kept.
const MAX_PATHS: usize = 4_000;
/// So many different words at one place of a path are values.
const MANY_WORDS: usize = 12;

/// What the draft says of an operation that nobody looked at.
const BARE: &str = "Only its path is known, not its parameters and bodies";

/// A description in the making.
#[derive(Debug, Default)]
pub struct Draft {
    /// By path and method.
    seen: BTreeMap<(Path, String), Seen>,
    /// Operations must have succeeded so often.
    least: u32,
    /// There were more paths than are kept.
    full: bool,
}

type Path = Vec<String>;

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Calls that succeeded: only they tell what is right.
    good: u32,
    /// Those of them whose shape is known.
    samples: u32,
    query: BTreeMap<String, Sketch>,
    bodies: u32,
    request: BTreeMap<String, Option<Sketch>>,
    responses: BTreeMap<u16, BTreeMap<String, Option<Sketch>>>,
}

impl Draft {
    /// A draft of operations that succeeded at least so often, and once in any case.
    #[must_use]
    pub fn of_at_least(calls: u32) -> Self {
        Self { least: calls, ..Self::default() }
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample) {
        let Some(seen) = self.at(&sample.method, &sample.path, sample.status) else { return };
        if sample.status < 400 && !sample.response_only {
            seen.samples += 1;
            for (name, sketch) in &sample.query {
                blend(&mut seen.query, name, sketch);
            }
            if let Some(content) = &sample.request {
                seen.bodies += 1;
                merge(&mut seen.request, content);
            }
        }
        if let Some(content) = &sample.response {
            merge(seen.responses.entry(sample.status).or_default(), content);
        }
    }

    /// Adds what an event of a call tells: that there is such an operation.
    pub fn add_call(&mut self, method: &str, path: &str, status: u16) {
        let _ = self.at(method, &shape_of_path(path), status);
    }

    /// How many operations there are.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.grouped().values().map(BTreeMap::len).sum()
    }

    /// Of how many of them only the path is known.
    #[must_use]
    pub fn bare(&self) -> usize {
        self.grouped().values().flat_map(BTreeMap::values).filter(|seen| seen.samples == 0).count()
    }

    /// Whether there were more paths than a draft can have.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Counts a call, and gives what is known of its operation.
    fn at(&mut self, method: &str, path: &str, status: u16) -> Option<&mut Seen> {
        if !is_operation(method, status) {
            return None;
        }
        let segments = path.strip_prefix('/')?.split('/').map(str::to_owned).collect();
        let key = (segments, method.to_ascii_lowercase());
        let succeeded = status < 400;
        if self.seen.len() >= MAX_PATHS && !self.seen.contains_key(&key) {
            // What never succeeded makes room for what did.
            if succeeded && !self.full {
                self.seen.retain(|_, seen| seen.good > 0);
            }
            if !succeeded || self.seen.len() >= MAX_PATHS {
                self.full |= succeeded;
                return None;
            }
        }
        let seen = self.seen.entry(key).or_default();
        seen.good += u32::from(succeeded);
        seen.responses.entry(status).or_default();
        Some(seen)
    }

    /// By path, in which words that are many are values too, then by method.
    fn grouped(&self) -> BTreeMap<Path, BTreeMap<String, Seen>> {
        // What somebody tried that is not there would make words many.
        let good = self.seen.iter().filter(|(_, seen)| seen.good > 0);
        let mut all: Vec<(Path, &String, Seen)> =
            good.map(|((path, method), seen)| (path.clone(), method, seen.clone())).collect();
        let longest = all.iter().map(|(path, ..)| path.len()).max().unwrap_or_default();
        for at in 0..longest {
            // Whether it is followed by a value, by word: then it is the name of a collection.
            let mut words: BTreeMap<Path, BTreeMap<String, bool>> = BTreeMap::new();
            for (path, ..) in all.iter().filter(|(path, ..)| path.len() > at) {
                let words = words.entry(path[..at].to_vec()).or_default();
                *words.entry(path[at].clone()).or_default() |=
                    path.get(at + 1).is_some_and(|next| is_value(next));
            }
            for (path, ..) in all.iter_mut().filter(|(path, ..)| path.len() > at) {
                let Some(words) = words.get(&path[..at]) else { continue };
                let named = words.get(&path[at]).copied().unwrap_or_default();
                // The first segment names what a service has.
                let many = at > 0 && !named && words.values().filter(|named| !**named).count() > MANY_WORDS;
                let kinds = words.keys().filter(|word| is_value(word)).count();
                if many || (kinds > 1 && is_value(&path[at])) {
                    path[at] = "{string}".to_owned();
                }
            }
        }
        let mut paths: BTreeMap<Path, BTreeMap<String, Seen>> = BTreeMap::new();
        // What was looked at comes first. Of what was not, a word may be a value: a description says so, by which others were looked at.
        all.sort_by_key(|(.., seen)| seen.samples == 0);
        for (path, method, seen) in all {
            let looked_at = seen.samples > 0 || paths.get(&path).is_some_and(|own| own.contains_key(method));
            let valued =
                paths.iter().filter(|(other, own)| is_among(&path, other) && own.contains_key(method));
            let valued = if looked_at { None } else { valued.map(|(other, _)| other.clone()).next() };
            let own = paths.entry(valued.unwrap_or(path)).or_default();
            own.entry(method.clone()).or_default().absorb(&seen);
        }
        for methods in paths.values_mut() {
            methods.retain(|_, seen| seen.good >= self.least);
        }
        paths.retain(|_, methods| !methods.is_empty());
        paths
    }

    /// The description, as YAML.
    #[must_use]
    pub fn to_yaml(&self, title: &str) -> String {
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (segments, methods) in self.grouped() {
            let (path, parameters) = template(&segments);
            let item = paths.entry(path).or_default();
            if !parameters.is_empty() {
                item.insert("parameters".into(), Value::Array(parameters));
            }
            for (method, seen) in methods {
                item.insert(method, operation(&seen));
            }
        }
        let description = json!({
            "openapi": "3.1.0",
            "info": { "title": title, "version": "0.1.0" },
            "paths": paths,
        });
        yaml::write(&description)
    }
}

impl Seen {
    fn absorb(&mut self, other: &Self) {
        self.good = self.good.saturating_add(other.good);
        self.samples = self.samples.saturating_add(other.samples);
        self.bodies = self.bodies.saturating_add(other.bodies);
        for (name, sketch) in &other.query {
            blend(&mut self.query, name, sketch);
        }
        absorb(&mut self.request, &other.request);
        for (status, content) in &other.responses {
            absorb(self.responses.entry(*status).or_default(), content);
        }
    }
}

/// Whether a segment stands for values.
fn is_value(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

/// Whether a path is one of those that another one, with values in it, stands for.
fn is_among(path: &[String], other: &[String]) -> bool {
    let like = |(word, other): (&String, &String)| word == other || is_value(other);
    path.len() == other.len() && path != other && path.iter().zip(other).all(like)
}

fn blend(into: &mut BTreeMap<String, Sketch>, name: &str, sketch: &Sketch) {
    let known = into.remove(name);
    let merged = known.map_or_else(|| sketch.clone(), |known| known.merged(sketch.clone()));
    into.insert(name.to_owned(), merged);
}

/// Whether a call tells that there is an operation: not where nobody let it in or nothing was there.
fn is_operation(method: &str, status: u16) -> bool {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&method);
    known
        && (200..600).contains(&status)
        && !matches!(status, 401 | 403 | 405 | 407 | 408 | 413 | 421 | 429 | 431 | 499 | 501..=599)
}

fn merge(into: &mut BTreeMap<String, Option<Sketch>>, content: &Content) {
    let known = into.remove(&content.media).flatten();
    let merged = match (known, content.body.clone()) {
        (Some(a), Some(b)) => Some(a.merged(b)),
        (a, b) => a.or(b),
    };
    into.insert(content.media.clone(), merged);
}

fn absorb(into: &mut BTreeMap<String, Option<Sketch>>, from: &BTreeMap<String, Option<Sketch>>) {
    for (media, body) in from {
        merge(into, &Content { media: media.clone(), body: body.clone() });
    }
}

/// The path with names in braces, and its parameters.
fn template(segments: &[String]) -> (String, Vec<Value>) {
    let (mut path, mut parameters, mut names) = (String::new(), Vec::new(), BTreeSet::new());
    for (i, segment) in segments.iter().enumerate() {
        path.push('/');
        let Some(kind) = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) else {
            path.push_str(segment);
            continue;
        };
        let before = i.checked_sub(1).and_then(|i| segments.get(i)).map_or("", String::as_str);
        let mut name = parameter_name(before);
        while !names.insert(name.clone()) {
            name.push('2');
        }
        path.push_str(&format!("{{{name}}}"));
        let schema = match kind {
            "integer" => json!({ "type": "integer" }),
            "uuid" | "date" => json!({ "type": "string", "format": kind }),
            _ => json!({ "type": "string" }),
        };
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    (path, parameters)
}

/// `patients` becomes `patientId`.
fn parameter_name(before: &str) -> String {
    // Of one value below another, whatever kind that has.
    let before = if before.starts_with('{') { "" } else { before };
    let word: String = before.chars().filter(char::is_ascii_alphanumeric).collect();
    let one = match word.strip_suffix("ies") {
        Some(stem) if !stem.is_empty() => format!("{stem}y"),
        _ => word
            .strip_suffix('s')
            .filter(|stem| stem.len() > 1 && !stem.ends_with('s'))
            .unwrap_or(&word)
            .to_owned(),
    };
    if one.is_empty() || one.starts_with(|c: char| c.is_ascii_digit()) {
        "id".to_owned()
    } else {
        format!("{one}Id")
    }
}

fn operation(seen: &Seen) -> Value {
    let mut out = Map::new();
    if seen.samples == 0 {
        out.insert("description".into(), json!(BARE));
    }
    let parameters = seen.query.iter().map(|(name, sketch)| {
        let always = seen.samples > 1 && sketch.seen() >= seen.samples;
        let mut parameter = json!({ "name": name, "in": "query", "schema": sketch.to_schema() });
        if always {
            parameter["required"] = json!(true);
        }
        parameter
    });
    let parameters: Vec<Value> = parameters.collect();
    if !parameters.is_empty() {
        out.insert("parameters".into(), Value::Array(parameters));
    }
    if !seen.request.is_empty() {
        let mut body = json!({ "content": content(&seen.request) });
        if seen.bodies > 1 && seen.bodies >= seen.samples {
            body["required"] = json!(true);
        }
        out.insert("requestBody".into(), body);
    }
    let mut responses = Map::new();
    for (status, bodies) in &seen.responses {
        let reason = if *status < 400 { "As observed" } else { "Refused or failed, as observed" };
        let mut response = json!({ "description": reason });
        if !bodies.is_empty() {
            response["content"] = content(bodies);
        }
        responses.insert(status.to_string(), response);
    }
    out.insert("responses".into(), Value::Object(responses));
    Value::Object(out)
}

fn content(bodies: &BTreeMap<String, Option<Sketch>>) -> Value {
    let one = |(media, body): (&String, &Option<Sketch>)| {
        let schema = body.as_ref().map_or_else(|| json!({}), |body| json!({ "schema": body.to_schema() }));
        (media.clone(), schema)
    };
    Value::Object(bodies.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Api, Found};

    fn paths(draft: &Draft) -> Vec<String> {
        let methods = |(path, methods): (Path, BTreeMap<String, Seen>)| {
            methods
                .into_keys()
                .map(move |method| format!("{method} {}", template(&path).0))
                .collect::<Vec<_>>()
        };
        draft.grouped().into_iter().flat_map(methods).collect()
    }

    #[test]
    fn what_never_succeeded_is_no_operation_and_makes_no_words_many() {
        let mut draft = Draft::default();
        draft.add_call("GET", "/api/notes", 200);
        draft.add_call("GET", "/api/notes", 500);
        for n in 0..MAX_PATHS + 5 {
            draft.add_call("GET", &format!("/api/{}", word(n)), 404);
        }
        draft.add_call("PUT", "/late", 204);
        draft.add_call("POST", "/never", 422);
        assert_eq!(paths(&draft), ["get /api/notes", "put /late"]);
        assert!(!draft.is_full());
    }

    /// A word for a number, without any digit.
    fn word(n: usize) -> String {
        n.to_string().bytes().map(|digit| char::from(b'a' + digit - b'0')).collect()
    }

    #[test]
    fn collections_keep_their_names_however_many_they_are() {
        let mut draft = Draft::default();
        for n in 10..40 {
            draft.add_call("GET", &format!("/api/{}", word(n)), 200);
            draft.add_call("GET", &format!("/api/{}/{n}", word(n)), 200);
            draft.add_call("GET", &format!("/people/{}", word(n)), 200);
            draft.add_call("GET", &format!("/people/{}/notes", word(n)), 200);
        }
        draft.add_call("GET", "/people/17", 200);
        assert_eq!(paths(&draft).len(), 62);
        assert!(paths(&draft).contains(&"get /people/{peopleId}/notes".to_owned()));
    }

    #[test]
    fn values_of_several_kinds_are_one_parameter_and_no_operation_takes_the_place_of_another() {
        let mut draft = Draft::default();
        let id = "123e4567-e89b-12d3-a456-426614174000";
        for path in ["/notes/17", &format!("/notes/{id}"), "/notes/mine"] {
            let mut sample = Sample::new("GET", path, None, Some("full=true"));
            sample.set_response(200, Some(b"application/json"), Some(br#"{"id":7}"#));
            draft.add(&sample);
            draft.add_call("GET", path, 200);
        }
        draft.add_call("DELETE", &format!("/notes/{id}"), 204);
        assert_eq!(paths(&draft), ["get /notes/mine", "delete /notes/{noteId}", "get /notes/{noteId}"]);
        let yaml = draft.to_yaml("notes");
        assert_eq!(yaml.matches("name: full").count(), 2, "{yaml}");
        assert_eq!((draft.bare(), yaml.matches(BARE).count()), (1, 1), "{yaml}");
        let api = Api::load(&yaml).unwrap();
        for path in ["/notes/anything", "/notes/17"] {
            assert!(matches!(api.find("DELETE", path), Found::Operation(_)), "{yaml}");
        }
    }

    #[test]
    fn a_word_that_a_description_takes_for_a_value_is_one() {
        let mut draft = Draft::default();
        draft
            .add(&Sample { status: 200, ..Sample::new("GET", "/people/anna", Some("/people/{name}"), None) });
        draft.add(&Sample { status: 200, ..Sample::new("GET", "/people/me", Some("/people/me"), None) });
        for name in ["anna", "bert", "me"] {
            draft.add_call("GET", &format!("/people/{name}"), 200);
        }
        assert_eq!(paths(&draft), ["get /people/me", "get /people/{peopleId}"]);
        assert!(!draft.to_yaml("people").contains("bert"));
    }

    #[test]
    fn what_failed_tells_nothing_of_what_is_right() {
        let mut draft = Draft::of_at_least(2);
        for status in [200, 200, 400] {
            let query = if status == 400 { "debug=1" } else { "q=1" };
            let mut sample = Sample::new("GET", "/a", None, Some(query));
            sample.set_response(status, Some(b"application/json"), Some(b"{}"));
            draft.add(&sample);
        }
        let mut answer = Sample::new("GET", "/a", None, None);
        answer.response_only = true;
        answer.set_response(200, Some(b"application/json"), Some(br#"{"more":1}"#));
        draft.add(&answer);
        draft.add_call("GET", "/once", 200);
        let yaml = draft.to_yaml("a");
        assert!(
            yaml.contains("required: true") && yaml.contains("more") && yaml.contains("\"400\""),
            "{yaml}"
        );
        assert!(!yaml.contains("debug") && !yaml.contains("once"), "{yaml}");
    }
}
