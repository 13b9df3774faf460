//! One schema of a description, brought to JSON Schema 2020-12 for one direction.
//!
//! OpenAPI 3.0 has a dialect of its own (`nullable`, boolean `exclusiveMinimum`, siblings of `$ref` without meaning); 3.1 is
//! 2020-12 already. In both, `readOnly`, `writeOnly`, `discriminator` and the formats of OpenAPI get meaning here.

use serde_json::{Map, Value, json};

use crate::Version;
use crate::source::{At, Document, Problems, fragment, shorten};

/// Which way a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// Keywords whose value is one schema.
const ONE: &[&str] = &[
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value holds schemas by name.
const NAMED: &[&str] = &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
/// What a schema of OpenAPI 3.0 may say and is taken over as it is.
const PLAIN_30: &[&str] = &[
    "enum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "type",
    "uniqueItems",
];
/// What has no part in judging.
const NOTES: &[&str] = &[
    "default",
    "deprecated",
    "description",
    "discriminator",
    "example",
    "examples",
    "externalDocs",
    "readOnly",
    "title",
    "writeOnly",
    "xml",
    "$comment",
];
/// Schemas within schemas.
const MAX_DEPTH: usize = 100;

/// Brings schemas to the common form; notes where their references lead and what is wrong in them.
pub(crate) struct Translator<'d> {
    pub(crate) document: &'d Document,
    pub(crate) version: Version,
    pub(crate) direction: Direction,
    /// Whether anything was found that differs between the directions.
    pub(crate) directed: bool,
    pub(crate) problems: Problems,
    pub(crate) warnings: Problems,
}

/// Where references of a schema lead: a pointer in the document, to be replaced by the place in the bundle.
pub(crate) type Link<'l> = &'l mut dyn FnMut(&str) -> String;

impl<'d> Translator<'d> {
    pub(crate) fn new(document: &'d Document, version: Version, direction: Direction) -> Self {
        Self {
            document,
            version,
            direction,
            directed: false,
            problems: Problems::default(),
            warnings: Problems::default(),
        }
    }

    /// The schema in the common form.
    pub(crate) fn schema(&mut self, at: &At<'_>, link: Link<'_>) -> Value {
        self.convert(at, link, false, 0)
    }

    fn problem(&mut self, pointer: &str, message: impl Into<String>) {
        self.problems.push(self.document.problem(pointer, message));
    }

    fn warn(&mut self, pointer: &str, message: impl Into<String>) {
        self.warnings.push(self.document.problem(pointer, message));
    }

    /// `own_base`: below an `$id`, where references are not relative to the document.
    fn convert(&mut self, at: &At<'_>, link: Link<'_>, own_base: bool, depth: usize) -> Value {
        if depth > MAX_DEPTH {
            self.problem(&at.pointer, format!("schemas are nested more than {MAX_DEPTH} levels deep"));
            return Value::Bool(true);
        }
        let object = match at.value {
            Value::Object(object) => object,
            Value::Bool(truth) if self.version == Version::V31 => return Value::Bool(*truth),
            _ => {
                self.problem(&at.pointer, "a schema is a mapping");
                return Value::Bool(true);
            }
        };
        let own_base = own_base || object.contains_key("$id");
        if self.version == Version::V30
            && let Some(reference) = object.get("$ref")
        {
            return match self.reference(at, reference, link, own_base) {
                Some(reference) => json!({ "$ref": reference }),
                None => Value::Bool(true),
            };
        }
        let chosen = self.discriminated(at, object, link, own_base);
        let mut out = Map::with_capacity(object.len());
        for (key, value) in object {
            let inner = || At { value, pointer: crate::source::join(&at.pointer, key) };
            match key.as_str() {
                "$ref" | "$dynamicRef" => {
                    if let Some(reference) = self.reference(&inner(), value, link, own_base) {
                        out.insert(key.clone(), Value::String(reference));
                    }
                }
                "oneOf" | "anyOf" if chosen.is_some() => {}
                key if NOTES.contains(&key) || key.starts_with("x-") => {}
                key if ONE.contains(&key) && self.knows(key) => {
                    let schema = self.sub(&inner(), link, own_base, depth);
                    out.insert(key.to_owned(), schema);
                }
                key if LIST.contains(&key) && self.knows(key) => {
                    if !value.is_array() {
                        self.problem(&inner().pointer, format!("`{key}` is a list of schemas"));
                    }
                    let items: Vec<Value> =
                        inner().items().map(|item| self.convert(&item, link, own_base, depth + 1)).collect();
                    out.insert(key.to_owned(), Value::Array(items));
                }
                key if NAMED.contains(&key) && self.knows(key) => {
                    if !value.is_object() {
                        self.problem(&inner().pointer, format!("`{key}` holds schemas by name"));
                    }
                    let mut named = Map::new();
                    for (name, schema) in value.as_object().into_iter().flatten() {
                        let pointer = crate::source::join(&inner().pointer, name);
                        let schema = self.convert(&At { value: schema, pointer }, link, own_base, depth + 1);
                        named.insert(name.clone(), schema);
                    }
                    out.insert(key.to_owned(), Value::Object(named));
                }
                "nullable" | "exclusiveMinimum" | "exclusiveMaximum" if self.version == Version::V30 => {
                    if !value.is_boolean() {
                        self.problem(&inner().pointer, format!("in OpenAPI 3.0 `{key}` is true or false"));
                    }
                }
                "$schema" if value.as_str().is_some_and(|uri| uri.contains("spec.openapis.org")) => {}
                key if self.version == Version::V30 && !PLAIN_30.contains(&key) => {
                    let message = format!(
                        "{} is no keyword of OpenAPI 3.0 and has no effect; 3.1 has all of JSON Schema",
                        shorten(key)
                    );
                    self.warn(&inner().pointer, message);
                }
                key => {
                    if key == "nullable" {
                        let message = "`nullable` has no effect in OpenAPI 3.1: write `type: [T, \"null\"]`";
                        self.warn(&inner().pointer, message);
                    }
                    out.insert(key.to_owned(), value.clone());
                }
            }
        }
        if let Some(chosen) = chosen {
            push_all_of(&mut out, chosen);
        }
        self.formats(object, &mut out);
        self.directions(at, object, &mut out);
        if self.version == Version::V30 { self.finish_30(object, out) } else { Value::Object(out) }
    }

    fn knows(&self, key: &str) -> bool {
        self.version == Version::V31
            || matches!(
                key,
                "additionalProperties" | "allOf" | "anyOf" | "items" | "not" | "oneOf" | "properties"
            )
    }

    fn sub(&mut self, at: &At<'_>, link: Link<'_>, own_base: bool, depth: usize) -> Value {
        match at.value {
            // Both versions have these two as they are.
            Value::Bool(truth) if at.pointer.ends_with("/additionalProperties") => Value::Bool(*truth),
            _ => self.convert(at, link, own_base, depth + 1),
        }
    }

    fn reference(&mut self, at: &At<'_>, value: &Value, link: Link<'_>, own_base: bool) -> Option<String> {
        let Some(reference) = value.as_str() else {
            self.problem(&at.pointer, "a reference is a text");
            return None;
        };
        if own_base {
            return Some(reference.to_owned());
        }
        if let Some(pointer) = fragment(reference) {
            if self.document.at(&pointer).is_none() {
                self.problem(&at.pointer, format!("the reference {} leads nowhere", shorten(reference)));
                return None;
            }
            return Some(link(&pointer));
        }
        // Anchors, and other schemas by their `$id`: what they name shows when the bundle is compiled.
        if self.version == Version::V31 {
            return Some(reference.to_owned());
        }
        let message = format!(
            "the reference {} leads out of the document: bundle the description into one file",
            shorten(reference)
        );
        self.problem(&at.pointer, message);
        None
    }

    /// What `discriminator` says of a choice among named schemas: the property chooses one, which alone must hold. An attacker gets no
    /// say in which one that is beyond the declared names, and errors are about the schema that was meant.
    fn discriminated(
        &mut self,
        at: &At<'_>,
        object: &Map<String, Value>,
        link: Link<'_>,
        own_base: bool,
    ) -> Option<Value> {
        let discriminator = object.get("discriminator")?;
        let Some(property) = discriminator.get("propertyName").and_then(Value::as_str) else {
            self.problem(&at.pointer, "a discriminator names its property: `propertyName`");
            return None;
        };
        let branches = object.get("oneOf").or_else(|| object.get("anyOf"))?.as_array()?;
        // An inline schema has no name that could be chosen; then the choice is judged without the hint.
        let references: Vec<&str> =
            branches.iter().map(|branch| branch.get("$ref")?.as_str()).collect::<Option<_>>()?;
        if own_base || references.is_empty() {
            return None;
        }
        let mut cases: Vec<(String, &str)> = Vec::new();
        let mapping = discriminator.get("mapping").and_then(Value::as_object);
        for (value, target) in mapping.into_iter().flatten() {
            let target = target.as_str().unwrap_or_default();
            let meant = references.iter().find(|r| **r == target || r.rsplit('/').next() == Some(target));
            match meant {
                Some(reference) => cases.push((value.clone(), reference)),
                None => {
                    let pointer = format!("{}/discriminator/mapping", at.pointer);
                    self.problem(
                        &pointer,
                        format!("{} is none of the schemas to choose from", shorten(target)),
                    );
                }
            }
        }
        for reference in references {
            let name = reference.rsplit('/').next().unwrap_or_default();
            if !cases.iter().any(|(value, _)| value == name) {
                cases.push((name.to_owned(), reference));
            }
        }
        let mut rules = Vec::new();
        for (value, reference) in &cases {
            let target = self.reference(at, &Value::String((*reference).to_owned()), link, own_base)?;
            rules.push(json!({
                "if": { "required": [property], "properties": { property: { "const": value } } },
                "then": { "$ref": target },
            }));
        }
        let values: Vec<&String> = cases.iter().map(|(value, _)| value).collect();
        Some(json!({
            "type": "object",
            "required": [property],
            "properties": { property: { "enum": values } },
            "allOf": rules,
        }))
    }

    /// The formats of OpenAPI that JSON Schema does not know.
    fn formats(&mut self, object: &Map<String, Value>, out: &mut Map<String, Value>) {
        let bounds = match object.get("format").and_then(Value::as_str) {
            Some("int32") => json!({ "minimum": i32::MIN, "maximum": i32::MAX }),
            Some("int64") => json!({ "minimum": i64::MIN, "maximum": i64::MAX }),
            _ => return,
        };
        push_all_of(out, bounds);
    }

    /// `readOnly` in what is sent to a service is refused and not required, and `writeOnly` in what it answers.
    fn directions(&mut self, at: &At<'_>, object: &Map<String, Value>, out: &mut Map<String, Value>) {
        let Some(properties) = object.get("properties").and_then(Value::as_object) else { return };
        let mut hidden: Vec<&str> = Vec::new();
        for (name, schema) in properties {
            let pointer = crate::source::join(&at.pointer, "properties");
            let pointer = crate::source::join(&pointer, name);
            // Without siblings of `$ref` in 3.0, what is referred to says it.
            let target = self.document.resolve(At { value: schema, pointer });
            let says = |key: &str| {
                let of = |value: &Value| value.get(key).and_then(Value::as_bool).unwrap_or(false);
                of(schema) || target.as_ref().is_ok_and(|target| of(target.value))
            };
            let (read, write) = (says("readOnly"), says("writeOnly"));
            self.directed |= read || write;
            if (self.direction == Direction::Request && read)
                || (self.direction == Direction::Response && write)
            {
                hidden.push(name);
            }
        }
        if hidden.is_empty() {
            return;
        }
        if let Some(Value::Object(properties)) = out.get_mut("properties") {
            for name in &hidden {
                properties.insert((*name).to_owned(), Value::Bool(false));
            }
        }
        if let Some(Value::Array(required)) = out.get_mut("required") {
            required.retain(|name| name.as_str().is_none_or(|name| !hidden.contains(&name)));
        }
    }

    /// `nullable` and boolean exclusive bounds.
    fn finish_30(&mut self, object: &Map<String, Value>, mut out: Map<String, Value>) -> Value {
        for (flag, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
            if object.get(flag).and_then(Value::as_bool) == Some(true)
                && let Some(limit) = out.shift_remove(bound)
            {
                out.insert(flag.to_owned(), limit);
            }
        }
        if object.get("nullable").and_then(Value::as_bool) != Some(true) {
            return Value::Object(out);
        }
        let chooses = ["allOf", "anyOf", "oneOf", "not"].iter().any(|key| object.contains_key(*key));
        let Some(Value::String(kind)) = out.get("type").cloned() else {
            return json!({ "anyOf": [{ "type": "null" }, out] });
        };
        if chooses {
            return json!({ "anyOf": [{ "type": "null" }, out] });
        }
        // Where values are listed, `null` has to be one of them (proposal "clarify semantics of nullable" of 3.0.3).
        out.insert("type".to_owned(), json!([kind, "null"]));
        Value::Object(out)
    }
}

fn push_all_of(out: &mut Map<String, Value>, schema: Value) {
    match out.get_mut("allOf") {
        Some(Value::Array(all)) => all.push(schema),
        _ => {
            out.insert("allOf".to_owned(), Value::Array(vec![schema]));
        }
    }
}
