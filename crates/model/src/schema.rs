//! The JSON Schema of `ringfence.yaml`, for editors and for pipelines that check files they do not run.
//!
//! Written by hand, since descriptions are what an editor shows; a test keeps its keys those of the decoder. It says
//! what one file may look like; what only the whole fence knows (names that must exist, ways that collide) `check` says.

/// The schema, draft 2020-12, as text.
#[must_use]
pub const fn json_schema() -> &'static str {
    include_str!("schema.json")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::decode::spec::OBJECTS;
    use crate::yaml::{self, Dialect, Node};

    fn schema() -> Value {
        serde_json::from_str(json_schema()).unwrap()
    }

    /// A YAML tree as an editor's schema checker sees it.
    fn plain(node: &Node) -> Value {
        match &node.value {
            yaml::Value::Null | yaml::Value::Refused => Value::Null,
            yaml::Value::Scalar { text, plain: true } => {
                serde_json::from_str(text).unwrap_or_else(|_| text.clone().into())
            }
            yaml::Value::Scalar { text, .. } => text.clone().into(),
            yaml::Value::List(items) => items.iter().map(plain).collect(),
            yaml::Value::Map(entries) => {
                Value::Object(entries.iter().map(|e| (e.key.clone(), plain(&e.value))).collect())
            }
        }
    }

    fn valid(text: &str) -> bool {
        let parsed = yaml::parse(text, Dialect::Strict);
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        jsonschema::draft202012::is_valid(&schema(), &plain(&parsed.documents[0]))
    }

    #[test]
    fn the_schema_has_the_keys_of_the_decoder_and_no_others() {
        let schema = schema();
        assert!(jsonschema::draft202012::meta::is_valid(&schema));
        let defs = schema["$defs"].as_object().unwrap();
        for object in OBJECTS {
            let def = &defs[object.name];
            assert_eq!(def["additionalProperties"], false, "{}", object.name);
            let there: BTreeSet<&str> =
                def["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            let here: BTreeSet<&str> = object.keys.iter().copied().collect();
            assert_eq!(there, here, "{}", object.name);
        }
        let closed = defs.iter().filter(|(_, def)| def.get("properties").is_some()).count();
        assert_eq!(closed, OBJECTS.len(), "an object of the schema that the decoder does not know");
    }

    #[test]
    fn what_the_decoder_accepts_the_schema_accepts() {
        for text in [include_str!("../tests/data/clinic.yaml"), include_str!("../tests/data/everything.yaml")]
        {
            crate::Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
            let parsed = yaml::parse(text, Dialect::Strict);
            let value = plain(&parsed.documents[0]);
            let schema = schema();
            let validator = jsonschema::draft202012::new(&schema).unwrap();
            let errors: Vec<String> =
                validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{errors:#?}");
        }
    }

    #[test]
    fn every_key_of_the_decoder_stands_in_the_full_example() {
        fn keys(node: &Node, into: &mut BTreeSet<String>) {
            node.items().iter().for_each(|item| keys(item, into));
            for entry in node.entries() {
                into.insert(entry.key.clone());
                keys(&entry.value, into);
            }
        }
        let parsed = yaml::parse(include_str!("../tests/data/everything.yaml"), Dialect::Strict);
        let mut found = BTreeSet::new();
        keys(&parsed.documents[0], &mut found);
        for key in OBJECTS.iter().flat_map(|object| object.keys) {
            assert!(found.contains(*key), "{key} is missing in everything.yaml");
        }
    }

    #[test]
    fn an_editor_sees_the_slips_that_one_file_shows() {
        let clinic = include_str!("../tests/data/clinic.yaml");
        for (good, bad) in [
            ("listen: 9001", "lisen: 9001"),
            ("listen: 9001", "listen: 70000"),
            ("listen: 127.0.0.1:8443", "listen: localhost"),
            ("protocol: grpc", "protocol: grcp"),
            ("  mailer:", "  Mailer:"),
            ("paths: [/patients/*]", "paths: []"),
            ("trust_domain: clinic.example", "trust_domain: spiffe://clinic"),
        ] {
            assert!(clinic.contains(good) && valid(clinic));
            assert!(!valid(&clinic.replacen(good, bad, 1)), "{bad}");
        }
    }
}
