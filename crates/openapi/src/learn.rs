//! A description drafted from traffic.
//!
//! What is kept of a message is its shape: names of fields, kinds and formats of values, never a value. What is used as a name but looks
//! like a value is none. Shapes of many messages are merged, and what all of them have in common becomes a schema.

mod draft;
mod sketch;
mod yaml;

use serde::{Deserialize, Serialize};

pub use self::draft::Draft;
pub use self::sketch::Sketch;
use crate::content::Form;
use crate::multipart;
use crate::parameter::pairs;
use crate::text::{MediaType, decode_text, is_name};

/// The most bytes of a sample.
const MAX_SAMPLE: usize = 16 << 10;
/// Parameters of a query that are kept.
const MAX_PARAMETERS: usize = 32;
const JSON_DEPTH: usize = 32;
/// Segments of a path that are looked at.
const MAX_SEGMENTS: usize = 32;

/// The shape of one request and its response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The method.
    pub method: String,
    /// The path, see [`shape_of_path`].
    pub path: String,
    /// Parameters of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<(String, Sketch)>,
    /// The body of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Content>,
    /// The status of the response.
    pub status: u16,
    /// The body of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Content>,
    /// Whether nobody looked at the body of the request: what is not told of it may have been there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub response_only: bool,
}

/// The shape of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its content type, without parameters.
    #[serde(rename = "type")]
    pub media: String,
    /// What was in it, if that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Sketch>,
}

impl Sample {
    /// A sample of a request, the path as it is normalized; `template` is that of a description, if it has one for it.
    #[must_use]
    pub fn new(method: &str, path: &str, template: Option<&str>, query: Option<&str>) -> Self {
        let method = if method.len() <= 20 { method.to_owned() } else { String::new() };
        let path = template.map_or_else(|| shape_of_path(path), |template| shape_along(template, path));
        let mut sample = Self { method, path, ..Self::default() };
        let pairs = query.and_then(|query| pairs(query).ok()).unwrap_or_default();
        for pair in pairs.iter().filter(|pair| is_name(&pair.name)) {
            let text = decode_text(pair.raw, true).unwrap_or_default();
            let sketch = Sketch::of_text(&text);
            // Twice: a list.
            if let Some((_, known)) = sample.query.iter_mut().find(|(name, _)| *name == *pair.name) {
                *known = Sketch::list_of(std::mem::take(known), sketch);
            } else if sample.query.len() < MAX_PARAMETERS {
                sample.query.push((pair.name.to_string(), sketch));
            }
        }
        sample
    }

    /// Whether a body of this content type is read at all.
    #[must_use]
    pub fn reads(content_type: &[u8]) -> bool {
        let form = MediaType::parse(content_type).map(|media| Form::of(&media.essence));
        matches!(form, Some(Form::Json | Form::Fields | Form::Parts))
    }

    /// The same with a body of the request.
    pub fn set_request(&mut self, content_type: Option<&[u8]>, body: Option<&[u8]>) {
        self.request = Content::of(content_type, body);
    }

    /// The same with its response.
    pub fn set_response(&mut self, status: u16, content_type: Option<&[u8]>, body: Option<&[u8]>) {
        self.status = status;
        self.response = Content::of(content_type, body);
    }

    /// As JSON, for an event; without what would make it too long.
    #[must_use]
    pub fn to_json(&self) -> String {
        let written = serde_json::to_string(self).unwrap_or_default();
        if written.len() <= MAX_SAMPLE {
            return written;
        }
        let bare = |content: &Option<Content>| {
            content.as_ref().map(|content| Content { media: content.media.clone(), body: None })
        };
        let small = Self { request: bare(&self.request), response: bare(&self.response), ..self.clone() };
        let written = serde_json::to_string(&small).unwrap_or_default();
        if written.len() <= MAX_SAMPLE { written } else { String::new() }
    }

    /// From such JSON.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        if text.len() > MAX_SAMPLE {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

impl Content {
    fn of(content_type: Option<&[u8]>, body: Option<&[u8]>) -> Option<Self> {
        let media = MediaType::parse(content_type?)?;
        let sketch = body.and_then(|body| match Form::of(&media.essence) {
            Form::Json => ringfence_json::parse(body, JSON_DEPTH).ok().map(|value| Sketch::of(&value)),
            Form::Fields => {
                let pairs = pairs(std::str::from_utf8(body).ok()?).ok()?;
                let fields = pairs.iter().map(|pair| {
                    let text = decode_text(pair.raw, true).unwrap_or_default();
                    (pair.name.to_string(), Sketch::of_text(&text))
                });
                Some(Sketch::object(fields))
            }
            Form::Parts => {
                let parts = multipart::parts(body, media.boundary.as_deref()?)?;
                let fields = parts.into_iter().map(|part| {
                    let text = std::str::from_utf8(part.body).ok().filter(|_| !part.file);
                    (part.name, text.map_or_else(Sketch::binary, Sketch::of_text))
                });
                Some(Sketch::object(fields))
            }
            Form::Text | Form::Opaque => None,
        });
        let known = media.essence.len() <= 80;
        known.then_some(Self { media: media.essence, body: sketch })
    }
}

/// A path with what looks like a value in braces: `/patients/{integer}/notes`.
#[must_use]
pub fn shape_of_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (i, segment) in path.split('/').take(MAX_SEGMENTS).enumerate() {
        if i > 0 {
            out.push('/');
        }
        match sketch::kind_of_segment(segment) {
            Some(kind) => {
                out.push('{');
                out.push_str(kind);
                out.push('}');
            }
            None => out.push_str(segment),
        }
    }
    out
}

/// The same for a path that a description has: what stands in braces there is a value, whatever it looks like, and nothing else is one.
fn shape_along(template: &str, path: &str) -> String {
    let known: Vec<&str> = template.split('/').skip(1).collect();
    // What comes before it is the path of a server.
    let before = path.split('/').count().saturating_sub(known.len());
    let mut out = String::with_capacity(path.len());
    for (i, segment) in path.split('/').take(MAX_SEGMENTS).enumerate() {
        if i > 0 {
            out.push('/');
        }
        match i.checked_sub(before).and_then(|i| known.get(i)) {
            Some(known) if known.contains('{') => {
                let kind = if known.ends_with('}') { sketch::kind_of_segment(segment) } else { None };
                out.push_str(&format!("{{{}}}", kind.unwrap_or("string")));
            }
            // No path of a description has braces that name nothing.
            _ if segment.contains(['{', '}']) => out.push_str("{string}"),
            _ => out.push_str(segment),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Api, Found, Length, Report};

    #[test]
    fn a_draft_escapes_what_yaml_forbids() {
        for c in ('\0'..='\u{9f}').chain([
            '\u{2028}',
            '\u{2029}',
            '\u{feff}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{10ffff}',
        ]) {
            let mut draft = Draft::default();
            let path = format!("/a{c}b/c");
            let mut sample = Sample::new("POST", &path, Some(&path), None);
            let body = serde_json::json!({ format!("n{c}m"): "v" }).to_string();
            sample.set_request(Some(b"application/json"), Some(body.as_bytes()));
            sample.set_response(200, Some(b"application/json"), Some(body.as_bytes()));
            draft.add(&sample);
            let yaml = draft.to_yaml(&c.to_string());
            assert!(Api::load(&yaml).is_ok(), "{c:?}: {:?}: {yaml}", Api::load(&yaml));
        }
    }

    #[test]
    fn a_draft_of_a_long_path_is_a_description() {
        for path in [format!("/{}", ["a"; 60].concat()).repeat(30), format!("/c{}", "\0".repeat(200))] {
            let mut draft = Draft::default();
            let mut sample = Sample::new("GET", &path, Some(&path), None);
            sample.set_response(200, Some(b"application/json"), Some(br#"{"a":[{"b":1}]}"#));
            draft.add(&sample);
            let yaml = draft.to_yaml("t");
            let api = Api::load(&yaml).unwrap_or_else(|e| panic!("{e:?}: {yaml}"));
            let found = matches!(api.find("GET", &path), Found::Operation(_));
            assert!(found || path.contains('\0'), "{yaml}");
        }
    }

    #[test]
    fn braces_that_name_nothing_are_no_part_of_a_draft() {
        for path in ["/a/b}", "/{/b", "/a}{b/c"] {
            let mut draft = Draft::default();
            let mut sample = Sample::new("GET", path, Some(path), None);
            sample.set_response(200, None, None);
            draft.add(&sample);
            assert_eq!(draft.operations(), 1);
            let yaml = draft.to_yaml("t");
            assert!(Api::load(&yaml).is_ok(), "{yaml}");
        }
    }

    #[test]
    fn what_a_description_has_in_braces_is_a_value_and_the_rest_is_none() {
        for (template, path, shape) in [
            ("/users/{name}", "/users/anna", "/users/{string}"),
            ("/users/{name}", "/users/17", "/users/{integer}"),
            ("/reports/2024", "/reports/2024", "/reports/2024"),
            ("/users/{name}/notes", "/v1/users/anna/notes", "/v1/users/{string}/notes"),
            ("/files/{id}.json", "/files/17.json", "/files/{string}"),
            ("/", "/v1/", "/v1/"),
            ("/", "/", "/"),
        ] {
            assert_eq!(Sample::new("GET", path, Some(template), None).path, shape);
        }
    }

    #[test]
    fn paths_have_the_shape_of_what_is_in_them() {
        for (path, shape) in [
            ("/", "/"),
            ("/patients/17/notes", "/patients/{integer}/notes"),
            ("/v1/users/123e4567-e89b-12d3-a456-426614174000", "/v1/users/{uuid}"),
            ("/files/9f86d081884c7d659a2feaa0c55ad015", "/files/{string}"),
            ("/orders/ORD-2024-000123/", "/orders/{string}/"),
            ("/a/alice%40example.com", "/a/{string}"),
            ("/days/2024-02-29", "/days/{date}"),
            ("/oauth2/well-known", "/oauth2/well-known"),
        ] {
            assert_eq!(shape_of_path(path), shape);
        }
    }

    #[test]
    fn a_sample_holds_no_value() {
        let mut sample =
            Sample::new("POST", "/patients/4711", None, Some("q=Secret%20Name&page=3&4711-secret=x"));
        let body = br#"{"name":"Secret Name","born":"1970-01-01","secret 17":1,"list":[{"id":4711},{"id":"x"}],"4711-2":{}}"#;
        sample.set_request(Some(b"application/json"), Some(body));
        sample.set_response(201, Some(b"text/html; charset=utf-8"), Some(b"Secret Name"));
        let json = sample.to_json();
        for secret in ["Secret", "4711", "1970", "secret"] {
            assert!(!json.contains(secret), "{json}");
        }
        assert_eq!(Sample::from_json(&json), Some(sample));
    }

    #[test]
    fn what_is_drafted_holds_to_what_was_seen() {
        let mut draft = Draft::default();
        for id in 0..20 {
            let mut sample = Sample::new("GET", &format!("/patients/{id}"), None, Some("full=true"));
            let name = if id % 2 == 0 { r#","phone":null"# } else { r#","phone":"1""# };
            let body =
                format!(r#"{{"id":{id},"name":"n{id}","tags":["a"],"seen":"2024-02-29T00:00:00Z"{name}}}"#);
            sample.set_response(200, Some(b"application/json"), Some(body.as_bytes()));
            draft.add(&sample);
        }
        let mut sample = Sample::new("GET", "/patients/99", None, None);
        sample.set_response(404, None, None);
        draft.add(&sample);
        for user in 0..30 {
            let name = char::from(b'a' + u8::try_from(user % 26).unwrap());
            let path = format!("/users/{name}{name}{}", if user > 25 { "x" } else { "" });
            let mut sample = Sample::new("PUT", &path, None, None);
            sample
                .set_request(Some(b"application/x-www-form-urlencoded"), Some(b"mail=a%40example.com&age=3"));
            sample.set_response(204, None, None);
            draft.add(&sample);
        }
        draft.add_call("DELETE", "/patients/5", 403);
        draft.add_call("POST", "/patients", 201);
        let yaml = draft.to_yaml("patients");
        let api = Api::load(&yaml).unwrap_or_else(|e| panic!("{e:?}\n{yaml}"));
        let Found::Operation(found) = api.find("GET", "/patients/3") else { panic!("{yaml}") };
        assert_eq!(found.operation().path(), "/patients/{patientId}");
        let mut report = Report::default();
        found.head(Some("full=false"), &[][..], Length::Empty, &mut report);
        let judge = |body: &str| {
            let mut report = Report::default();
            found.operation().response_body(
                200,
                Some(b"application/json"),
                body.as_bytes(),
                true,
                &mut report,
            );
            report.violations.into_iter().map(|v| format!("{} {}", v.pointer, v.rule)).collect::<Vec<_>>()
        };
        assert_eq!(
            judge(r#"{"id":1,"name":"x","tags":[],"seen":"2024-02-29T00:00:00Z","phone":"2"}"#),
            Vec::<String>::new()
        );
        assert_eq!(
            judge(r#"{"id":"1","name":"x","tags":[],"seen":"now","phone":null}"#),
            ["/id type", "/seen format"]
        );
        assert!(report.is_empty(), "{report:?}\n{yaml}");
        let Found::Operation(user) = api.find("PUT", "/users/zoe") else { panic!("{yaml}") };
        assert_eq!(user.operation().path(), "/users/{userId}");
        assert!(
            matches!(api.find("DELETE", "/patients/7"), Found::Method { .. }),
            "what was refused is no operation"
        );
        assert!(matches!(api.find("POST", "/patients"), Found::Operation(_)));
    }
}
