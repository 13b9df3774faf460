//! Which types entity data has: read off the data, so that `"treats": ["7"]` is all that has to be written.
//!
//! A set that an entity lacks is empty for it, so a policy may ask `principal.treats.contains(…)` of everybody. Anything
//! else that not all have is optional, and a policy asks `principal has …` first; the validator insists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use serde_json::Value;

use crate::data::{Data, Raw, Uid};
use crate::names;

/// A type of Cedar's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// The elements of an empty list.
    Unknown,
    Bool,
    Long,
    String,
    Extension(&'static str),
    Entity(String),
    Set(Box<Self>),
    Record(BTreeMap<String, (Self, bool)>),
}

/// The attributes of a kind of entity, and what it lies in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) attrs: BTreeMap<String, Attribute>,
    pub(crate) parents: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Attribute {
    pub(crate) kind: Type,
    pub(crate) required: bool,
}

/// The kinds of entities in data, and those that it only points to.
pub(crate) fn shapes(data: &Data) -> Result<BTreeMap<String, Shape>, String> {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let mut holders: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut pointed = BTreeSet::new();
    for entity in &data.entities {
        *count.entry(&entity.uid.kind).or_default() += 1;
        let shape = shapes.entry(entity.uid.kind.clone()).or_default();
        add(shape, entity, &mut pointed)?;
        for name in entity.attrs.keys() {
            *holders.entry((&entity.uid.kind, name)).or_default() += 1;
        }
    }
    for (kind, shape) in &mut shapes {
        let all = count.get(kind.as_str()).copied().unwrap_or(0);
        // Users and services that the data does not know exist too.
        let generated = names::GENERATED.contains(&kind.as_str());
        for (name, attribute) in &mut shape.attrs {
            let everybody = holders.get(&(kind.as_str(), name.as_str())) == Some(&all);
            attribute.required = matches!(attribute.kind, Type::Set(_)) || (everybody && !generated);
        }
    }
    for kind in pointed {
        shapes.entry(kind).or_default();
    }
    Ok(shapes)
}

fn add(shape: &mut Shape, entity: &Raw, pointed: &mut BTreeSet<String>) -> Result<(), String> {
    for parent in &entity.parents {
        shape.parents.insert(parent.kind.clone());
        pointed.insert(parent.kind.clone());
    }
    for (name, value) in &entity.attrs {
        let told = |problem: String| format!("{}, attribute {name:?}: {problem}", entity.uid);
        if name.len() > 64 || name.starts_with("__") {
            return Err(told(
                "an attribute has a name of at most 64 bytes that does not begin with `__`".into(),
            ));
        }
        let kind = Type::of(value, pointed).map_err(told)?;
        let known = shape
            .attrs
            .entry(name.clone())
            .or_insert_with(|| Attribute { kind: Type::Unknown, required: false });
        let both = known.kind.clone().with(kind.clone());
        known.kind = both.ok_or_else(|| told(format!("it is {kind} here and {} elsewhere", known.kind)))?;
    }
    Ok(())
}

impl Shape {
    /// The attributes that are sets.
    pub(crate) fn sets(&self) -> Vec<String> {
        let sets = self.attrs.iter().filter(|(_, attribute)| matches!(attribute.kind, Type::Set(_)));
        sets.map(|(name, _)| name.clone()).collect()
    }
}

impl Type {
    fn of(value: &Value, pointed: &mut BTreeSet<String>) -> Result<Self, String> {
        Ok(match value {
            Value::Null => return Err("null is no value: leave it out".into()),
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Long,
            Value::Number(_) => return Err("a number is a whole number of 64 bits".into()),
            Value::String(_) => Self::String,
            Value::Array(items) => {
                let mut kind = Self::Unknown;
                for item in items {
                    let one = Self::of(item, pointed)?;
                    let told = format!("a list has elements of one kind, not {kind} and {one}");
                    kind = kind.with(one).ok_or(told)?;
                }
                Self::Set(Box::new(kind))
            }
            Value::Object(members) => {
                if let Some(Value::Object(call)) = members.get("__extn") {
                    let name = call.get("fn").and_then(Value::as_str).unwrap_or("");
                    Self::Extension(match name {
                        "ip" => "ipaddr",
                        "decimal" => "decimal",
                        "datetime" => "datetime",
                        "duration" => "duration",
                        _ => return Err("`__extn` has `fn`: ip, decimal, datetime or duration".into()),
                    })
                } else if let Some(uid) = Uid::of(value) {
                    if !names::is_identifier(&uid.kind) || uid.kind == names::ACTION {
                        return Err(format!("`{}` is no type of entity", uid.kind.escape_debug()));
                    }
                    pointed.insert(uid.kind.clone());
                    Self::Entity(uid.kind)
                } else {
                    let mut record = BTreeMap::new();
                    for (name, member) in members {
                        if name.starts_with("__") {
                            return Err("a member's name does not begin with `__`".into());
                        }
                        record.insert(name.clone(), (Self::of(member, pointed)?, true));
                    }
                    Self::Record(record)
                }
            }
        })
    }

    /// The type that holds both.
    fn with(self, other: Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::Unknown, kind) | (kind, Self::Unknown) => kind,
            (Self::Set(a), Self::Set(b)) => Self::Set(Box::new(a.with(*b)?)),
            (Self::Record(mut a), Self::Record(mut b)) => {
                let names: BTreeSet<String> = a.keys().chain(b.keys()).cloned().collect();
                let mut record = BTreeMap::new();
                for name in names {
                    let member = match (a.remove(&name), b.remove(&name)) {
                        (Some((a, x)), Some((b, y))) => (a.with(b)?, x && y),
                        (Some((kind, _)), None) | (None, Some((kind, _))) => (kind, false),
                        (None, None) => continue,
                    };
                    record.insert(name, member);
                }
                Self::Record(record)
            }
            (a, b) if a == b => a,
            _ => return None,
        })
    }
}

/// In the syntax of a Cedar schema.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::Long => f.write_str("Long"),
            // Of an empty list nothing is known; texts are what it will most likely hold.
            Self::String | Self::Unknown => f.write_str("String"),
            Self::Extension(name) => f.write_str(name),
            Self::Entity(kind) => f.write_str(kind),
            Self::Set(element) => write!(f, "Set<{element}>"),
            Self::Record(members) => {
                f.write_char('{')?;
                for (at, (name, (kind, required))) in members.iter().enumerate() {
                    let (comma, mark) = (if at == 0 { " " } else { ", " }, if *required { "" } else { "?" });
                    write!(f, "{comma}{}{mark}: {kind}", names::literal(name))?;
                }
                f.write_str(" }")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(json: &str) -> Result<String, String> {
        let data = Data::parse(&"e".into(), json.as_bytes()).map_err(|e| e.to_string())?;
        let mut out = String::new();
        for (kind, shape) in shapes(&data)? {
            for (name, attribute) in shape.attrs {
                let mark = if attribute.required { "" } else { "?" };
                let _ = write!(out, "{kind}.{name}{mark}: {}; ", attribute.kind);
            }
            let _ = write!(out, "{kind} in {:?}; ", shape.parents);
        }
        Ok(out)
    }

    #[test]
    fn types_are_read_off_the_data() {
        let json = r#"[
            {"uid":{"type":"Patient","id":"7"},"attrs":{"ward":{"type":"Ward","id":"w"},"age":4,"of":{"a":1}}},
            {"uid":{"type":"Patient","id":"8"},"attrs":{"ward":{"type":"Ward","id":"w"},"of":{"b":true}}},
            {"uid":{"type":"User","id":"staff/a"},"attrs":{"treats":[],"badge":{"__extn":{"fn":"ip","arg":"::1"}}}},
            {"uid":{"type":"User","id":"staff/b"},"attrs":{"treats":["7"],"badge":{"__extn":{"fn":"ip","arg":"::1"}}}}
        ]"#;
        let want = "Patient.age?: Long; Patient.of: { \"a\"?: Long, \"b\"?: Bool }; Patient.ward: Ward; Patient in {}; \
            User.badge?: ipaddr; User.treats: Set<String>; User in {}; Ward in {}; ";
        assert_eq!(told(json).unwrap(), want);
    }

    #[test]
    fn data_that_contradicts_itself_is_refused() {
        let two = |a: &str, b: &str| {
            told(&format!(
                r#"[{{"uid":{{"type":"A","id":"1"}},"attrs":{{"x":{a}}}}},{{"uid":{{"type":"A","id":"2"}},"attrs":{{"x":{b}}}}}]"#
            ))
        };
        assert!(two("1", "2").is_ok() && two("[]", "[1]").is_ok());
        assert!(
            two("1", "\"a\"").unwrap_err().contains("A::\"2\", attribute \"x\": it is String here and Long")
        );
        for bad in ["null", "1.5", "[1, true]", r#"{"__extn":{"fn":"system"}}"#, r#"{"__x":1}"#] {
            assert!(two(bad, "1").is_err(), "{bad}");
        }
    }
}
