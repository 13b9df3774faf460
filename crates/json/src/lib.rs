//! JSON as it may come in: one reading for everybody. A key that stands twice is refused, and depth is bounded.
//!
//! serde_json keeps the last of two equal keys; another reader may keep the first. What two readers understand differently is refused
//! instead, be it a token, a request or data about users.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is not such JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at line {line} column {column}")]
pub struct Error {
    /// From 1.
    pub line: usize,
    /// From 1; 0 at the very end of a line.
    pub column: usize,
    /// Never holds a part of the text.
    pub message: &'static str,
}

/// Reads a text, nested so deep at most.
///
/// # Errors
/// It is no JSON, has a key twice in one object, or is nested deeper (120 at most).
pub fn parse(text: &[u8], depth: usize) -> Result<Value, Error> {
    let why = Cell::new("not JSON");
    let mut reader = serde_json::Deserializer::from_slice(text);
    // Lower than that of serde_json, so that it is ours that tells.
    let read = Strict { depth: depth.min(120), why: &why }.deserialize(&mut reader).and_then(|value| {
        why.set("text after the end of the value");
        reader.end().map(|()| value)
    });
    read.map_err(|error| {
        let message = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            _ => why.get(),
        };
        Error { line: error.line(), column: error.column(), message }
    })
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    why: &'a Cell<&'static str>,
}

impl Strict<'_> {
    fn fail<E: serde::de::Error>(&self, why: &'static str) -> E {
        self.why.set(why);
        E::custom(why)
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, why: self.why }),
            None => Err(self.fail("it is nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| self.fail("a number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if map.insert(key, value).is_some() {
                return Err(self.fail("a key stands twice in one object"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_however_it_is_spelled() {
        assert_eq!(parse(br#"{"a":1,"b":{"a":2}}"#, 8).unwrap()["b"]["a"], 2);
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"x":[{"k":0,"k":0}]}]"#] {
            assert_eq!(parse(text.as_bytes(), 8).unwrap_err().message, "a key stands twice in one object");
        }
    }

    #[test]
    fn depth_is_bounded_and_nothing_may_follow() {
        assert!(parse(b"[[[]]]", 3).is_ok());
        assert_eq!(parse(b"[[[]]]", 2).unwrap_err().message, "it is nested too deep");
        let deep = "[".repeat(100_000);
        assert_eq!(parse(deep.as_bytes(), 64).unwrap_err().message, "it is nested too deep");
        assert_eq!(parse(b"{} {}", 3).unwrap_err().message, "text after the end of the value");
        assert_eq!(parse(b"{\"a\":", 3).unwrap_err().message, "it ends too early");
        for wrong in [&b"{'a':1}"[..], b"NaN", b"01", b"\"\xff\"", b"1e999", b"[1,]", b"\"\x01\""] {
            assert!(parse(wrong, 3).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_everybody_reads(text in r#"[\[{]?("[ab]"|[0-9]{1,3}|[\[\]{}:, -]|true|null|"\\u0061"){0,24}[\]}]?"#) {
            if let Ok(value) = parse(text.as_bytes(), 64) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
