//! From the tree of a description to operations. The tree is walked twice: first to gather its schemas, which are compiled together, then
//! to build what uses them.

use crate::content::Media;
use crate::dialect::Direction;
use crate::operation::{Body, Operation, Response, Status};
use crate::parameter::Parameter;
use crate::router::{Refused, Router};
use crate::schemas::{Bundle, Schema};
use crate::shape::{Kinds, Shape};
use crate::source::{At, Document, Problem, Problems, shorten};
use crate::style::Style;
use crate::text::MediaType;
use crate::violation::Place;
use crate::{Api, Version, size};

const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// Operations of one description.
const MAX_OPERATIONS: usize = 10_000;

pub(crate) fn load(text: &str) -> Result<Api, Vec<Problem>> {
    let document = Document::read(text)?;
    let version = version(&document)?;
    let mut problems = Problems::default();
    let mut bundle = Bundle::new(&document, version, Direction::Request);
    for (_, schema) in document.at("/components/schemas").iter().flat_map(At::entries) {
        bundle.add(&schema);
    }
    let mut used: Vec<String> = Vec::new();
    let mut gather = |direction, at: &At<'_>| {
        if direction == Direction::Response {
            used.push(at.pointer.clone());
        }
        bundle.add(at);
        None
    };
    Builder { document: &document, problems: &mut problems, schema: &mut gather }.operations();
    // Most descriptions say the same of both directions.
    let answers = bundle.is_directed().then(|| {
        let mut answers = Bundle::new(&document, version, Direction::Response);
        used.iter().filter_map(|pointer| document.at(pointer)).for_each(|at| answers.add(&at));
        answers
    });
    let mut warnings = Problems::default();
    let mut compile = |bundle: Bundle<'_>| match bundle.finish(&mut warnings) {
        Ok(compiled) => Some(compiled),
        Err(found) => {
            found.into_iter().for_each(|problem| problems.push(problem));
            None
        }
    };
    let Some(requests) = compile(bundle) else { return Err(problems.0) };
    let answers = match answers {
        Some(answers) => Some(compile(answers).ok_or_else(|| std::mem::take(&mut problems.0))?),
        None => None,
    };
    let mut find = |direction, at: &At<'_>| match (direction, &answers) {
        (Direction::Response, Some(answers)) => answers.get(&document, at),
        _ => requests.get(&document, at),
    };
    let built = Builder { document: &document, problems: &mut problems, schema: &mut find }.operations();
    let mut router = Router::new();
    let mut operations = Vec::new();
    for (operation, bases) in built {
        for base in bases {
            let path = format!("{base}{}", operation.path);
            if let Err(refused) = router.add(&path, &operation.method, operations.len()) {
                let message = match refused {
                    Refused::Template => "the braces of this path are broken",
                    Refused::Same => "another path is the same but for the names in braces",
                };
                problems.push(document.problem(&operation.pointer, message));
            }
        }
        operations.push(operation);
    }
    if operations.is_empty() {
        warnings.push(document.problem("/paths", "this description has no operations: nothing is known"));
    }
    if problems.0.is_empty() { Ok(Api { router, operations, warnings: warnings.0 }) } else { Err(problems.0) }
}

fn version(document: &Document) -> Result<Version, Vec<Problem>> {
    let top = document.top();
    let stated = match top.value.get("openapi") {
        Some(serde_json::Value::String(text)) => text.clone(),
        // YAML reads `3.1` as a number.
        Some(serde_json::Value::Number(number)) => number.to_string(),
        _ if top.value.get("swagger").is_some() => {
            let message = "this is Swagger 2.0: convert it to OpenAPI 3.0 first";
            return Err(vec![document.problem("/swagger", message)]);
        }
        _ => return Err(vec![document.problem("", "a description begins with `openapi: 3.1.0` or `3.0.x`")]),
    };
    match stated.split('.').take(2).collect::<Vec<_>>().as_slice() {
        ["3", "0"] => Ok(Version::V30),
        ["3", "1"] => Ok(Version::V31),
        _ => {
            let message = format!("OpenAPI 3.0 and 3.1 are read, not {}", shorten(&stated));
            Err(vec![document.problem("/openapi", message)])
        }
    }
}

type Find<'f> = &'f mut dyn FnMut(Direction, &At<'_>) -> Option<Schema>;

struct Builder<'b, 'd> {
    document: &'d Document,
    problems: &'b mut Problems,
    schema: Find<'b>,
}

impl<'d> Builder<'_, 'd> {
    fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        self.problems.push(self.document.problem(pointer, message));
    }

    /// What a node or its reference is; what is wrong with it is noted.
    fn resolve(&mut self, at: At<'d>) -> Option<At<'d>> {
        match self.document.resolve(at) {
            Ok(at) => Some(at),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// All operations, each with the base paths that it is found below.
    fn operations(mut self) -> Vec<(Operation, Vec<String>)> {
        let top = self.document.top();
        let top_bases = self.bases(&top).unwrap_or_else(|| vec![String::new()]);
        let keys = self.keys();
        let mut out = Vec::new();
        for (path, item) in top.get("paths").iter().flat_map(At::entries) {
            if !path.starts_with('/') {
                self.problem(&item.pointer, "a path begins with a slash");
                continue;
            }
            let place = item.pointer.clone();
            let Some(item) = self.resolve(item) else { continue };
            let item_bases = self.bases(&item);
            for method in METHODS {
                let Some(at) = item.get(method) else { continue };
                if out.len() >= MAX_OPERATIONS {
                    self.problem(&place, format!("more than {MAX_OPERATIONS} operations are not read"));
                    return out;
                }
                let bases =
                    self.bases(&at).or_else(|| item_bases.clone()).unwrap_or_else(|| top_bases.clone());
                let operation = self.operation(path, method, &item, &at, &keys);
                out.push((operation, bases));
            }
        }
        out
    }

    /// The paths of servers, with the defaults of their variables.
    fn bases(&mut self, at: &At<'d>) -> Option<Vec<String>> {
        let servers = at.get("servers")?;
        let mut out: Vec<String> = Vec::new();
        for server in servers.items() {
            let mut url = server.text("url").unwrap_or("/").to_owned();
            for (name, variable) in server.get("variables").iter().flat_map(At::entries) {
                url = url.replace(&format!("{{{name}}}"), variable.text("default").unwrap_or_default());
            }
            let path = match url.split_once("://") {
                Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
                None => url.as_str(),
            };
            let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
            if path.contains(['{', '}']) || !(path.is_empty() || path.starts_with('/')) {
                self.problem(
                    &server.pointer,
                    "the path of a server begins with a slash, and its variables have defaults",
                );
            } else if !out.iter().any(|known| known == path) {
                out.push(path.to_owned());
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// Names of API keys that stand in queries: known wherever they come.
    fn keys(&self) -> Vec<Box<str>> {
        let schemes = self.document.at("/components/securitySchemes");
        let schemes =
            schemes.iter().flat_map(At::entries).filter_map(|(_, at)| self.document.resolve(at).ok());
        let in_query =
            schemes.filter(|at| at.text("type") == Some("apiKey") && at.text("in") == Some("query"));
        in_query.filter_map(|at| at.text("name").map(Into::into)).collect()
    }

    fn operation(
        &mut self,
        path: &str,
        method: &str,
        item: &At<'d>,
        at: &At<'d>,
        keys: &[Box<str>],
    ) -> Operation {
        let mut operation = Operation {
            method: method.to_ascii_uppercase().into(),
            path: path.into(),
            path_parameters: Vec::new(),
            query: Vec::new(),
            headers: Vec::new(),
            cookies: Vec::new(),
            keys: keys.into(),
            body: None,
            responses: Vec::new(),
            pointer: at.pointer.as_str().into(),
        };
        // Those of the operation win over those of the path.
        let mut all: Vec<Parameter> = Vec::new();
        for (own, parameters) in [(true, at.get("parameters")), (false, item.get("parameters"))] {
            let mut here: Vec<Parameter> = Vec::new();
            for parameter in parameters.iter().flat_map(At::items) {
                let Some(parameter) = self.parameter(parameter) else { continue };
                let same = |p: &Parameter| p.name == parameter.name && p.place == parameter.place;
                if here.iter().any(same) {
                    self.problem(
                        &parameter.pointer,
                        format!("{} is declared twice", shorten(&parameter.name)),
                    );
                } else if own || !all.iter().any(same) {
                    here.push(parameter);
                }
            }
            all.extend(here);
        }
        for parameter in all {
            match parameter.place {
                Place::Path if !path.contains(&format!("{{{}}}", parameter.name)) => {
                    let message = format!("the path has no {}", shorten(&format!("{{{}}}", parameter.name)));
                    self.problem(&parameter.pointer, message);
                }
                Place::Path => operation.path_parameters.push(parameter),
                Place::Query => operation.query.push(parameter),
                Place::Cookie => operation.cookies.push(parameter),
                _ => operation.headers.push(parameter),
            }
        }
        if let Some(body) = at.get("requestBody")
            && let Some(body) = self.resolve(body)
        {
            operation.body = Some(Body {
                required: body.flag("required").unwrap_or(false),
                content: self.content(&body, Direction::Request),
                pointer: body.pointer.as_str().into(),
            });
        }
        for (status, response) in at.get("responses").iter().flat_map(At::entries) {
            let parsed = match status.as_bytes() {
                b"default" => Some(Status::Default),
                [class @ b'1'..=b'5', b'X' | b'x', b'X' | b'x'] => {
                    Some(Status::Class(u16::from(class - b'0')))
                }
                _ => status.parse().ok().filter(|status| (100..600).contains(status)).map(Status::One),
            };
            let Some(parsed) = parsed else {
                self.problem(&response.pointer, "a status is a number, a class such as `2XX`, or `default`");
                continue;
            };
            let Some(response) = self.resolve(response) else { continue };
            let headers = response.get("headers");
            let headers = headers.iter().flat_map(At::entries);
            let headers: Vec<Parameter> = headers
                .filter(|(name, _)| !name.eq_ignore_ascii_case("content-type"))
                .filter_map(|(name, at)| {
                    let at = self.resolve(at)?;
                    self.described(name, Place::Header, &at, Direction::Response)
                })
                .collect();
            let content = self.content(&response, Direction::Response);
            let pointer = response.pointer.as_str().into();
            operation.responses.push(Response { status: parsed, headers, content, pointer });
        }
        operation
    }

    fn parameter(&mut self, at: At<'d>) -> Option<Parameter> {
        let at = self.resolve(at)?;
        let Some(name) = at.text("name").filter(|name| !name.is_empty()) else {
            self.problem(&at.pointer, "a parameter has a name");
            return None;
        };
        let place = match at.text("in") {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") => Place::Header,
            Some("cookie") => Place::Cookie,
            _ => {
                self.problem(&at.pointer, "a parameter is in: path, query, header or cookie");
                return None;
            }
        };
        let others = ["accept", "content-type", "authorization"];
        if place == Place::Header && others.contains(&name.to_ascii_lowercase().as_str()) {
            // By the specification these are declared otherwise, and ignored here.
            return None;
        }
        if place == Place::Path && at.flag("required") != Some(true) {
            self.problem(&at.pointer, "a parameter of the path is `required: true`");
        }
        self.described(name, place, &at, Direction::Request)
    }

    /// A parameter, or a header of a response, which is described alike.
    fn described(
        &mut self,
        name: &str,
        place: Place,
        at: &At<'d>,
        direction: Direction,
    ) -> Option<Parameter> {
        let default = if matches!(place, Place::Path | Place::Header) { Style::Simple } else { Style::Form };
        let style = match at.text("style").map(Style::named) {
            None => default,
            Some(Some(style)) if fits(style, place) => style,
            Some(_) => {
                self.problem(&at.pointer, "there is no such style for this place");
                return None;
            }
        };
        let explode = at.flag("explode").unwrap_or(style == Style::Form);
        let mut parameter = Parameter {
            name: name.into(),
            place,
            required: at.flag("required").unwrap_or(false),
            allow_empty: place == Place::Query && at.flag("allowEmptyValue").unwrap_or(false),
            style,
            explode,
            shape: Shape::text(),
            schema: None,
            json: false,
            pointer: at.pointer.as_str().into(),
        };
        let content = at.get("content");
        if let Some((range, media)) = content.as_ref().and_then(|content| content.entries().next()) {
            if content.as_ref().is_some_and(|content| content.entries().count() > 1) {
                self.problem(&at.pointer, "the content of a parameter has one type");
            }
            if let Some(schema) = media.get("schema") {
                parameter.json = MediaType::parse(range.as_bytes()).is_some_and(|media| {
                    crate::content::Form::of(&media.essence) == crate::content::Form::Json
                });
                parameter.shape = if parameter.json { Shape::default() } else { Shape::text() };
                parameter.schema = (self.schema)(direction, &schema);
            }
        } else if let Some(schema) = at.get("schema") {
            parameter.shape = Shape::of(self.document, &schema);
            parameter.schema = (self.schema)(direction, &schema);
        } else {
            self.problem(&at.pointer, "a parameter has a schema or a content");
        }
        Some(parameter)
    }

    fn content(&mut self, at: &At<'d>, direction: Direction) -> Vec<Media> {
        let content = at.get("content");
        let mut out = Vec::new();
        for (range, media) in content.iter().flat_map(At::entries) {
            let known = MediaType::parse(range.as_bytes()).map(|media| media.essence);
            let Some(known) = known.or_else(|| (range == "*/*").then(|| range.to_owned())) else {
                self.problem(&media.pointer, "this is no content type");
                continue;
            };
            out.push(self.media(known, &media, direction));
        }
        out
    }

    fn media(&mut self, range: String, at: &At<'d>, direction: Direction) -> Media {
        let schema = at.get("schema");
        let shape = schema.as_ref().map_or_else(Shape::default, |schema| Shape::of(self.document, schema));
        let mut media = Media {
            range: range.into(),
            schema: None,
            fields: Vec::new(),
            parts: Vec::new(),
            longest: schema.as_ref().and_then(|schema| size::of_json(self.document, schema)),
            shape,
            pointer: at.pointer.as_str().into(),
        };
        media.schema = schema.and_then(|schema| (self.schema)(direction, &schema));
        let encoding = at.get("encoding");
        for (name, shape) in &media.shape.properties {
            let own = encoding.as_ref().and_then(|encoding| encoding.get(name));
            if let Some(types) = own.as_ref().and_then(|own| own.text("contentType")) {
                let types = types.split(',').map(|text| text.trim().to_ascii_lowercase().into());
                media.parts.push((name.clone(), types.collect()));
            }
            let stated = own.as_ref().and_then(|own| own.text("style"));
            let style = stated.and_then(Style::named).unwrap_or(Style::Form);
            if stated.is_some() && !fits(style, Place::Query) {
                let pointer = own.as_ref().map_or(&at.pointer, |own| &own.pointer);
                self.problem(pointer, "there is no such style for a form");
            }
            let explode = own.as_ref().and_then(|own| own.flag("explode"));
            // Without a style, what is no plain value is JSON, but for lists of plain values.
            let styled = stated.is_some() || explode.is_some();
            let plain = shape.kinds.is_plain()
                || (shape.kinds.has(Kinds::ARRAY)
                    && shape.items.as_ref().is_none_or(|items| items.kinds.is_plain()));
            media.fields.push(Parameter {
                name: name.clone(),
                place: Place::Body,
                required: false,
                allow_empty: false,
                style,
                explode: explode.unwrap_or(style == Style::Form),
                shape: shape.clone(),
                schema: None,
                json: !styled && !plain,
                pointer: at.pointer.as_str().into(),
            });
        }
        media
    }
}

fn fits(style: Style, place: Place) -> bool {
    match place {
        Place::Path => matches!(style, Style::Simple | Style::Label | Style::Matrix),
        Place::Header => style == Style::Simple,
        Place::Cookie => style == Style::Form,
        _ => matches!(style, Style::Form | Style::SpaceDelimited | Style::PipeDelimited | Style::DeepObject),
    }
}
