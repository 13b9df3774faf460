//! How large a body can be at most, where its schema says so: what is larger is refused before it is read.

use serde_json::Value;

use crate::source::{At, Document};

/// Room for white space between the parts of JSON, beside as much again as the longest compact form takes.
const SLACK: u64 = 1024;
/// A character, written as two `\uXXXX`.
const CHARACTER: u64 = 12;
/// A number with all the digits that somebody may write.
const NUMBER: u64 = 400;
const MAX_DEPTH: usize = 24;

/// The most bytes of JSON that can hold to the schema at a place.
pub(crate) fn of_json(document: &Document, at: &At<'_>) -> Option<u64> {
    let mut steps = 2_000;
    Some(longest(document, at, 0, &mut steps)?.saturating_mul(2).saturating_add(SLACK))
}

fn longest(document: &Document, at: &At<'_>, depth: usize, steps: &mut usize) -> Option<u64> {
    *steps = steps.checked_sub(1)?;
    if depth > MAX_DEPTH {
        return None;
    }
    let target = document.resolve(at.clone()).ok()?;
    let object = target.value.as_object()?;
    let mut bounds: Vec<u64> = Vec::new();
    // Siblings of a reference can only make it smaller.
    if let Some(Value::Array(values)) = object.get("enum") {
        bounds.extend(values.iter().map(written).max());
    }
    bounds.extend(object.get("const").map(written));
    for part in target.get("allOf").iter().flat_map(At::items) {
        bounds.extend(longest(document, &part, depth + 1, steps));
    }
    for key in ["anyOf", "oneOf"] {
        let Some(choice) = target.get(key) else { continue };
        let parts: Option<Vec<u64>> =
            choice.items().map(|part| longest(document, &part, depth + 1, steps)).collect();
        bounds.extend(parts.and_then(|parts| parts.into_iter().max()));
    }
    let kinds: Vec<&str> = match object.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() {
        let each: Option<Vec<u64>> =
            kinds.iter().map(|kind| of_kind(document, &target, kind, depth, steps)).collect();
        // `nullable` adds four characters, which every bound has room for.
        bounds.extend(each.and_then(|each| each.into_iter().max()));
    }
    bounds.into_iter().min()
}

fn of_kind(document: &Document, at: &At<'_>, kind: &str, depth: usize, steps: &mut usize) -> Option<u64> {
    let limit = |key: &str| at.value.get(key).and_then(Value::as_u64);
    Some(match kind {
        "null" | "boolean" => 5,
        "integer" | "number" => NUMBER,
        "string" => limit("maxLength")?.saturating_mul(CHARACTER).saturating_add(2),
        "array" => {
            let item = longest(document, &at.get("items")?, depth + 1, steps)?;
            limit("maxItems")?.saturating_mul(item.saturating_add(1)).saturating_add(2)
        }
        "object" => {
            if at.value.get("additionalProperties") != Some(&Value::Bool(false))
                || at.value.get("patternProperties").is_some()
            {
                return None;
            }
            let mut sum = 2_u64;
            for (name, value) in at.value.get("properties")?.as_object()? {
                let pointer = crate::source::join(&crate::source::join(&at.pointer, "properties"), name);
                let value = longest(document, &At { value, pointer }, depth + 1, steps)?;
                let name = u64::try_from(name.chars().count()).ok()?.saturating_mul(CHARACTER);
                sum = sum.saturating_add(value).saturating_add(name).saturating_add(4);
            }
            sum
        }
        _ => return None,
    })
}

/// The longest way to write a value: each character escaped.
fn written(value: &Value) -> u64 {
    if value.is_number() {
        return NUMBER;
    }
    u64::try_from(value.to_string().chars().count()).unwrap_or(u64::MAX).saturating_mul(CHARACTER)
}
