//! JSON as tokens need it: one object, no member twice, bounded depth.
//!
//! A token that two readers understand differently is refused.

use serde_json::{Map, Value};

/// Nesting that any claim we know stays far below.
const MAX_DEPTH: usize = 8;

/// Parses an object; `None` for anything that is not exactly one strict object.
pub(crate) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match ringfence_json::parse(text, MAX_DEPTH) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_strict_object_is_read_and_nothing_else() {
        assert_eq!(object(br#"{"a":[1,{"b":null}],"c":"d"}"#).unwrap().len(), 2);
        for bad in [
            "",
            "[]",
            "1",
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"a":1} {"a":1}"#,
            r#"{"a":1e999}"#,
            &format!("{{\"a\":{}1{}}}", "[".repeat(8), "]".repeat(8)),
        ] {
            assert!(object(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none());
    }
}
