//! The schemas of a description, compiled: one bundle per direction, one validator per place that uses a schema.

use std::collections::HashMap;
use std::sync::Arc;

use jsonschema::{PatternOptions, Registry, Validator};
use serde_json::{Map, Value, json};

use crate::Version;
use crate::dialect::{Direction, Translator};
use crate::source::{At, Document, Problem, Problems};

/// Base of references within a bundle.
const BASE: &str = "urn:ringfence:openapi";
/// Schemas of one description.
const MAX_SCHEMAS: usize = 50_000;

/// A schema that values are judged by.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) validator: Arc<Validator>,
    /// Where it stands in the description.
    pub(crate) pointer: Arc<str>,
    /// Whether it leads to itself, or to a schema that does.
    pub(crate) recursive: bool,
}

/// A bundle under construction.
pub(crate) struct Bundle<'d> {
    translator: Translator<'d>,
    keys: HashMap<String, usize>,
    defs: Map<String, Value>,
    pointers: Vec<String>,
}

/// A finished bundle.
pub(crate) struct Compiled {
    registry: Registry<'static>,
    keys: HashMap<String, usize>,
    built: HashMap<usize, Schema>,
}

impl<'d> Bundle<'d> {
    pub(crate) fn new(document: &'d Document, version: Version, direction: Direction) -> Self {
        Self {
            translator: Translator::new(document, version, direction),
            keys: HashMap::new(),
            defs: Map::new(),
            pointers: Vec::new(),
        }
    }

    /// Adds the schema at a place, and all that it refers to.
    pub(crate) fn add(&mut self, at: &At<'_>) {
        key(&mut self.keys, &mut self.pointers, &canonical(self.translator.document, at));
        while self.defs.len() < self.pointers.len() {
            let index = self.defs.len();
            let pointer = self.pointers[index].clone();
            if index >= MAX_SCHEMAS {
                let message = format!("a description of more than {MAX_SCHEMAS} schemas is not read");
                let problem = self.translator.document.problem(&pointer, message);
                return self.translator.problems.push(problem);
            }
            let document = self.translator.document;
            let Some(at) = document.at(&pointer) else { return };
            let (keys, pointers) = (&mut self.keys, &mut self.pointers);
            let mut link = |target: &str| format!("{BASE}#/$defs/{}", key(keys, pointers, target));
            let schema = self.translator.schema(&at, &mut link);
            if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
                let (place, why) = (error.instance_path().as_str(), error.to_string());
                let message =
                    format!("this is no valid schema: {}", why.chars().take(200).collect::<String>());
                let problem = document.problem(&format!("{pointer}{place}"), message);
                self.translator.problems.push(problem);
            }
            self.defs.insert(index.to_string(), schema);
        }
    }

    /// Whether the other direction needs a bundle of its own.
    pub(crate) fn is_directed(&self) -> bool {
        self.translator.directed
    }

    /// Compiles what was added.
    pub(crate) fn finish(self, warnings: &mut Problems) -> Result<Compiled, Vec<Problem>> {
        let Translator { document, problems, warnings: own, .. } = self.translator;
        for warning in own.0 {
            warnings.push(warning);
        }
        if !problems.0.is_empty() {
            return Err(problems.0);
        }
        let dialect = document.root.get("jsonSchemaDialect").and_then(Value::as_str);
        let dialect = dialect
            .filter(|uri| uri.contains("json-schema.org"))
            .unwrap_or("https://json-schema.org/draft/2020-12/schema");
        let recursive = recursive(&self.defs);
        let bundle = json!({ "$schema": dialect, "$id": BASE, "$defs": self.defs });
        let failed = |e: &dyn std::fmt::Display| vec![document.problem("", format!("its schemas: {e}"))];
        let registry = Registry::new().add(BASE, bundle).map_err(|e| failed(&e))?;
        let registry = registry.prepare().map_err(|e| failed(&e))?;
        let mut compiled = Compiled { registry, keys: self.keys, built: HashMap::new() };
        let mut problems = Problems::default();
        for (index, pointer) in self.pointers.iter().enumerate() {
            match build(&compiled.registry, index) {
                Ok(validator) => {
                    let schema = Schema {
                        validator: Arc::new(validator),
                        pointer: pointer.as_str().into(),
                        recursive: recursive.get(index).copied().unwrap_or(true),
                    };
                    compiled.built.insert(index, schema);
                }
                Err((message, within)) => {
                    let within =
                        within.strip_prefix(&format!("/$defs/{index}")).unwrap_or(&within).to_owned();
                    problems.push(document.problem(&format!("{pointer}{within}"), message));
                }
            }
        }
        if problems.0.is_empty() { Ok(compiled) } else { Err(problems.0) }
    }
}

impl Compiled {
    /// The schema at a place that was added.
    pub(crate) fn get(&self, document: &Document, at: &At<'_>) -> Option<Schema> {
        self.built.get(self.keys.get(&canonical(document, at))?).cloned()
    }
}

fn key(keys: &mut HashMap<String, usize>, pointers: &mut Vec<String>, pointer: &str) -> usize {
    if let Some(key) = keys.get(pointer) {
        return *key;
    }
    let key = pointers.len();
    keys.insert(pointer.to_owned(), key);
    pointers.push(pointer.to_owned());
    key
}

/// Of each schema of a bundle, whether it leads to itself, or to one that does.
fn recursive(defs: &Map<String, Value>) -> Vec<bool> {
    let mut leads: Vec<Vec<usize>> = vec![Vec::new(); defs.len()];
    for (key, schema) in defs {
        if let Some(to) = key.parse::<usize>().ok().and_then(|at| leads.get_mut(at)) {
            references(schema, to);
        }
    }
    // Those that lead only to such as lead nowhere are taken away until there are no more.
    let mut leading = vec![Vec::new(); leads.len()];
    let mut open: Vec<usize> = leads.iter().map(Vec::len).collect();
    for (from, all) in leads.iter().enumerate() {
        for to in all {
            match leading.get_mut(*to) {
                Some(callers) => callers.push(from),
                // It leads out of the bundle, whose end is not known.
                None => return vec![true; leads.len()],
            }
        }
    }
    let mut ended: Vec<usize> = (0..open.len()).filter(|at| open[*at] == 0).collect();
    while let Some(at) = ended.pop() {
        for from in std::mem::take(&mut leading[at]) {
            open[from] -= 1;
            if open[from] == 0 {
                ended.push(from);
            }
        }
    }
    let recursive: Vec<bool> = open.into_iter().map(|left| left > 0).collect();
    // Where nothing asks of one value twice, what a value costs grows with it and no faster.
    let is_recursive = |key: &str| key.parse().ok().and_then(|at: usize| recursive.get(at)) == Some(&true);
    let branches = defs.iter().any(|(key, schema)| is_recursive(key) && branches(schema));
    if branches { recursive } else { vec![false; recursive.len()] }
}

/// Whether a schema may ask several schemas about the same value.
fn branches(schema: &Value) -> bool {
    const WORDS: [&str; 9] =
        ["anyOf", "oneOf", "allOf", "not", "if", "then", "else", "dependentSchemas", "$dynamicRef"];
    match schema {
        Value::Array(items) => items.iter().any(branches),
        // A reference beside other keywords is one more.
        Value::Object(entries) => {
            let beside = entries.contains_key("$ref") && entries.len() > 1;
            beside || entries.iter().any(|(key, value)| WORDS.contains(&key.as_str()) || branches(value))
        }
        _ => false,
    }
}

/// Adds which schemas of its bundle a schema refers to. Any other reference counts as one that leads nowhere good.
fn references(schema: &Value, to: &mut Vec<usize>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| references(item, to)),
        Value::Object(entries) => {
            for (key, value) in entries {
                match value.as_str().filter(|_| matches!(key.as_str(), "$ref" | "$dynamicRef")) {
                    Some(target) => {
                        let index = target.strip_prefix(&format!("{BASE}#/$defs/"));
                        let index = index.and_then(|index| index.parse().ok());
                        to.push(index.unwrap_or(usize::MAX));
                    }
                    None => references(value, to),
                }
            }
        }
        _ => {}
    }
}

/// A schema that is nothing but a reference is the one that it names: they share what is compiled.
fn canonical(document: &Document, at: &At<'_>) -> String {
    let alone = at.value.as_object().is_some_and(|o| o.len() == 1 && o.contains_key("$ref"));
    match alone.then(|| document.resolve(at.clone())) {
        Some(Ok(target)) => target.pointer,
        _ => at.pointer.clone(),
    }
}

/// Patterns with look-around backtrack, so their steps are bounded; all others run in time linear in the text.
fn patterns() -> PatternOptions<jsonschema::FancyRegex> {
    PatternOptions::fancy_regex().backtrack_limit(10_000).size_limit(1 << 20).dfa_size_limit(1 << 20)
}

fn build(registry: &Registry<'static>, index: usize) -> Result<Validator, (String, String)> {
    jsonschema::options()
        .with_registry(registry)
        .offline()
        .with_pattern_options(patterns())
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        .with_format("byte", crate::formats::is_base64)
        .build(&json!({ "$ref": format!("{BASE}#/$defs/{index}") }))
        .map_err(|e| (e.to_string().chars().take(300).collect(), e.schema_path().as_str().to_owned()))
}
