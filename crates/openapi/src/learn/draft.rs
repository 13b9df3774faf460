//! Samples of many requests, put together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Content, Sample, Sketch, shape_of_path, yaml};

/// Paths that are kept.
const MAX_PATHS: usize = 4_000;
/// So many different words at one place of a path are values.
const MANY_WORDS: usize = 12;

/// A description in the making.
#[derive(Debug, Default)]
pub struct Draft {
    /// By path and method.
    seen: BTreeMap<(Vec<String>, String), Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    samples: u32,
    query: BTreeMap<String, Sketch>,
    bodies: u32,
    request: BTreeMap<String, Option<Sketch>>,
    responses: BTreeMap<u16, BTreeMap<String, Option<Sketch>>>,
}

impl Draft {
    /// Adds a sample.
    pub fn add(&mut self, sample: &Sample) {
        if !is_operation(&sample.method, sample.status) {
            return;
        }
        let Some(seen) = self.at(&sample.method, &sample.path) else { return };
        seen.samples += 1;
        for (name, sketch) in &sample.query {
            let known = seen.query.remove(name);
            let merged = known.map_or_else(|| sketch.clone(), |known| known.merged(sketch.clone()));
            seen.query.insert(name.clone(), merged);
        }
        // What was refused tells nothing of what is right.
        if let Some(content) = sample.request.as_ref().filter(|_| sample.status < 400) {
            seen.bodies += 1;
            merge(&mut seen.request, content);
        }
        let response = seen.responses.entry(sample.status).or_default();
        if let Some(content) = &sample.response {
            merge(response, content);
        }
    }

    /// Adds what an event of a call tells: that there is such an operation.
    pub fn add_call(&mut self, method: &str, path: &str, status: u16) {
        if is_operation(method, status)
            && let Some(seen) = self.at(method, &shape_of_path(path))
        {
            seen.responses.entry(status).or_default();
        }
    }

    /// How many operations there are.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.grouped().values().map(BTreeMap::len).sum()
    }

    fn at(&mut self, method: &str, path: &str) -> Option<&mut Seen> {
        let segments = path.strip_prefix('/')?.split('/').map(str::to_owned).collect();
        let key = (segments, method.to_ascii_lowercase());
        if self.seen.len() >= MAX_PATHS && !self.seen.contains_key(&key) {
            return None;
        }
        Some(self.seen.entry(key).or_default())
    }

    /// By path, in which words that are many are values too, then by method.
    fn grouped(&self) -> BTreeMap<Vec<String>, BTreeMap<String, Seen>> {
        let mut paths: BTreeMap<Vec<String>, BTreeMap<String, Seen>> = BTreeMap::new();
        let longest = self.seen.keys().map(|(path, _)| path.len()).max().unwrap_or_default();
        let mut all: Vec<(Vec<String>, &String, &Seen)> =
            self.seen.iter().map(|((path, method), seen)| (path.clone(), method, seen)).collect();
        for at in 0..longest {
            // The first segment names what a service has.
            let mut words: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
            for (path, ..) in all.iter().filter(|(path, ..)| at > 0 && path.len() > at) {
                words.entry(path[..at].to_vec()).or_default().insert(path[at].clone());
            }
            for (path, ..) in &mut all {
                let many = path.get(..at).and_then(|before| words.get(before));
                if path.len() > at && many.is_some_and(|words| words.len() > MANY_WORDS) {
                    path[at] = "{string}".to_owned();
                }
            }
        }
        for (path, method, seen) in all {
            let own = paths.entry(path).or_default().entry(method.clone()).or_default();
            own.samples += seen.samples;
            own.bodies += seen.bodies;
            for (name, sketch) in &seen.query {
                let known = own.query.remove(name);
                let merged = known.map_or_else(|| sketch.clone(), |known| known.merged(sketch.clone()));
                own.query.insert(name.clone(), merged);
            }
            absorb(&mut own.request, &seen.request);
            for (status, content) in &seen.responses {
                absorb(own.responses.entry(*status).or_default(), content);
            }
        }
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
