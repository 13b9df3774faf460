//! Entity data: what is known of users, groups and things beyond the fence, in Cedar's JSON form.
//!
//! Read here and not by Cedar, because it comes from others: bounded in size, count and depth, and a member that stands
//! twice is refused instead of won by the last.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use ringfence_model::{Diagnostic, Diagnostics, Position};
use serde_json::{Map, Value};

use crate::names;

/// Bytes of entity data.
pub const MAX_DATA_BYTES: usize = 64 << 20;
/// Entities in it.
pub const MAX_ENTITIES: usize = 500_000;
/// How deep a value may be.
const MAX_DEPTH: usize = 8;
/// How deep a text may be.
pub(crate) const JSON_DEPTH: usize = 64;
/// Attributes of one entity.
const MAX_ATTRIBUTES: usize = 64;
/// Entities that one entity lies in directly.
const MAX_PARENTS: usize = 1_000;
/// Bytes of an id.
const MAX_ID_BYTES: usize = 512;

/// All entities of a file or an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    pub(crate) entities: Vec<Raw>,
}

/// An entity as it stands there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) uid: Uid,
    pub(crate) attrs: BTreeMap<String, Value>,
    pub(crate) parents: Vec<Uid>,
}

/// Type and id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Uid {
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl Data {
    /// Reads entity data; `name` is what it is called in messages.
    pub(crate) fn parse(name: &Arc<str>, text: &[u8]) -> Result<Self, Diagnostics> {
        let refuse = |position: Position, message: String| {
            let mut out = Diagnostics::default();
            out.push(Diagnostic::error("entities", position, message));
            out
        };
        let whole = || Position::whole(Arc::clone(name));
        if text.len() > MAX_DATA_BYTES {
            return Err(refuse(whole(), format!("entity data has at most {} MiB", MAX_DATA_BYTES >> 20)));
        }
        let value = ringfence_json::parse(text, JSON_DEPTH).map_err(|error| {
            let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let position = Position::new(Arc::clone(name), small(error.line), small(error.column).max(1));
            refuse(position, format!("this is no entity data: {error}"))
        })?;
        Self::from_value(value).map_err(|message| refuse(whole(), message))
    }

    fn from_value(value: Value) -> Result<Self, String> {
        let Value::Array(items) = value else {
            return Err("entity data is a list of `{ \"uid\": …, \"attrs\": …, \"parents\": … }`".into());
        };
        if items.len() > MAX_ENTITIES {
            return Err(format!("there are more than {MAX_ENTITIES} entities"));
        }
        let mut seen = HashSet::new();
        let mut entities = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let entity =
                Raw::from_value(item).map_err(|problem| format!("entity number {}: {problem}", at + 1))?;
            if !seen.insert(entity.uid.clone()) {
                return Err(format!("{} stands there twice", entity.uid));
            }
            entities.push(entity);
        }
        Ok(Self { entities })
    }
}

impl Raw {
    fn from_value(value: Value) -> Result<Self, String> {
        let Value::Object(mut members) = value else { return Err("it is no object".into()) };
        let uid =
            members.remove("uid").as_ref().and_then(Uid::of).ok_or("it has no `uid` with `type` and `id`")?;
        let told = |problem: String| format!("{uid}: {problem}");
        uid.check().map_err(told)?;
        let attrs = match members.remove("attrs") {
            None => Map::new(),
            Some(Value::Object(attrs)) => attrs,
            Some(_) => return Err(told("`attrs` is an object".into())),
        };
        let parents = match members.remove("parents") {
            None => Vec::new(),
            Some(Value::Array(parents)) => parents,
            Some(_) => return Err(told("`parents` is a list".into())),
        };
        if let Some(unknown) = members.keys().next() {
            return Err(told(format!("it has a member {unknown:?}; there are `uid`, `attrs`, `parents`")));
        }
        if attrs.len() > MAX_ATTRIBUTES || parents.len() > MAX_PARENTS {
            return Err(told(format!(
                "it has more than {MAX_ATTRIBUTES} attributes or {MAX_PARENTS} parents"
            )));
        }
        let parents = parents
            .iter()
            .map(|parent| {
                let parent = Uid::of(parent).ok_or("a parent has `type` and `id`")?;
                parent.check().map(|()| parent)
            })
            .collect::<Result<Vec<_>, String>>()
            .map_err(told)?;
        if let Some((name, _)) = attrs.iter().find(|(_, value)| depth(value) > MAX_DEPTH) {
            return Err(told(format!("{name:?} is nested deeper than {MAX_DEPTH}")));
        }
        Ok(Self { attrs: attrs.into_iter().collect(), parents, uid })
    }
}

impl Uid {
    pub(crate) fn new(kind: &str, id: &str) -> Self {
        Self { kind: kind.to_owned(), id: id.to_owned() }
    }

    /// Reads `{ type, id }` or `{ __entity: { type, id } }`.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        let members = match members.get("__entity") {
            Some(inner) if members.len() == 1 => inner.as_object()?,
            _ => members,
        };
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        (members.len() == 2).then_some(())?;
        Some(Self::new(text("type")?, text("id")?))
    }

    pub(crate) fn to_value(&self) -> Value {
        serde_json::json!({ "type": self.kind, "id": self.id })
    }

    fn check(&self) -> Result<(), String> {
        if !names::is_identifier(&self.kind) {
            return Err("a type is a name of letters, digits and `_`".into());
        }
        if self.kind == names::ACTION || self.kind == names::ANONYMOUS {
            return Err(format!("`{}` is no type that data can add to", self.kind));
        }
        if self.id.len() > MAX_ID_BYTES {
            return Err(format!("an id has at most {MAX_ID_BYTES} bytes"));
        }
        Ok(())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id: String = self.id.chars().take(64).collect();
        let kind: String = self.kind.chars().take(64).collect();
        write!(f, "{}::{}", kind.escape_debug(), names::literal(&id))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Data::parse(&"entities.json".into(), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn entities_are_read_in_both_forms_of_uid() {
        let text = r#"[{ "uid": { "type": "User", "id": "staff/a" }, "attrs": { "treats": ["7"] },
            "parents": [{ "__entity": { "type": "Group", "id": "staff/nurse" } }] }]"#;
        let data = Data::parse(&"e".into(), text.as_bytes()).unwrap();
        assert_eq!(data.entities[0].uid, Uid::new("User", "staff/a"));
        assert_eq!(data.entities[0].parents, [Uid::new("Group", "staff/nurse")]);
    }

    #[test]
    fn what_is_ambiguous_or_without_bound_is_refused_with_its_place() {
        assert!(problem("[\n  {,").contains("entities.json:2:"));
        assert!(problem(r#"[{"uid":{"type":"A","id":"1"},"attrs":{"x":1,"x":2}}]"#).contains("stands twice"));
        assert!(
            problem(r#"[{"uid":{"type":"A","id":"1"}},{"uid":{"type":"A","id":"1"}}]"#).contains("A::\"1\"")
        );
        assert!(
            problem(r#"[{"uid":{"type":"Action","id":"GET"}}]"#).contains("no type that data can add to")
        );
        assert!(problem(r#"[{"uid":{"type":"A b","id":"1"}}]"#).contains("a type is a name"));
        assert!(problem(r#"[{"uid":{"type":"A","id":"1"},"atrs":{}}]"#).contains("atrs"));
        assert!(problem("{}").contains("is a list"));
        let deep = format!(
            r#"[{{"uid":{{"type":"A","id":"1"}},"attrs":{{"x":{}1{}}}}}]"#,
            "[".repeat(9),
            "]".repeat(9)
        );
        assert!(problem(&deep).contains("deeper"));
        assert!(problem(&"[".repeat(100_000)).contains("nested too deep"));
    }
}
