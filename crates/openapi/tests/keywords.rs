//! Every keyword of JSON Schema 2020-12 that a description may use: a value that holds, and one that does not.

use ringfence_openapi::{Api, Found, Length, Plan, Report};
use serde_json::{Value, json};

/// A description with one operation that takes a body of this schema.
fn api(version: &str, schema: &Value, more: &Value) -> Api {
    let description = json!({
        "openapi": version,
        "info": { "title": "t", "version": "1" },
        "paths": { "/x": { "post": {
            "requestBody": { "required": true, "content": { "application/json": { "schema": schema } } },
            "responses": { "200": { "description": "ok", "content": { "application/json": { "schema": schema } } } },
        } } },
        "components": { "schemas": more },
    });
    Api::load(&description.to_string()).unwrap_or_else(|e| panic!("{schema}: {e:?}"))
}

fn report(api: &Api, body: &str) -> Report {
    let Found::Operation(found) = api.find("POST", "/x") else { panic!("no operation") };
    let mut report = Report::default();
    let fields: &[(&str, &str)] = &[("content-type", "application/json")];
    let plan = found.head(None, fields, Length::Known(body.len() as u64), &mut report);
    if report.is_empty() {
        assert!(matches!(plan, Plan::Hold { .. }), "{plan:?}");
        found.operation().body(Some(b"application/json"), body.as_bytes(), false, &mut report);
    }
    report
}

#[track_caller]
fn case(version: &str, schema: &Value, good: &[Value], bad: &[Value]) {
    let api = api(version, schema, &json!({}));
    for value in good {
        let report = report(&api, &value.to_string());
        assert!(report.is_empty(), "{schema} must take {value}: {report:?}");
    }
    for value in bad {
        assert!(!report(&api, &value.to_string()).is_empty(), "{schema} must refuse {value}");
    }
}

#[track_caller]
fn new(schema: &Value, good: &[Value], bad: &[Value]) {
    case("3.1.0", schema, good, bad);
}

#[track_caller]
fn old(schema: &Value, good: &[Value], bad: &[Value]) {
    case("3.0.3", schema, good, bad);
}

#[test]
fn types_and_values() {
    new(
        &json!({ "type": "integer" }),
        &[json!(1), json!(1.0), json!(-7)],
        &[json!(1.5), json!("1"), json!(null)],
    );
    new(&json!({ "type": "number" }), &[json!(1), json!(1.5)], &[json!("1"), json!(true)]);
    new(&json!({ "type": "string" }), &[json!("")], &[json!(1), json!([]), json!({})]);
    new(&json!({ "type": "boolean" }), &[json!(true)], &[json!(0), json!("true")]);
    new(&json!({ "type": "null" }), &[json!(null)], &[json!(0), json!("")]);
    new(&json!({ "type": "array" }), &[json!([])], &[json!({})]);
    new(&json!({ "type": "object" }), &[json!({})], &[json!([])]);
    new(&json!({ "type": ["string", "null"] }), &[json!("a"), json!(null)], &[json!(1)]);
    new(
        &json!({ "enum": ["a", 1, null, { "b": 2 }] }),
        &[json!("a"), json!(1.0), json!(null), json!({ "b": 2 })],
        &[json!("b"), json!({})],
    );
    new(&json!({ "const": { "a": [1] } }), &[json!({ "a": [1] })], &[json!({ "a": [2] }), json!(null)]);
    new(&json!(true), &[json!(1), json!(null)], &[]);
    new(&json!(false), &[], &[json!(1), json!(null)]);
    new(&json!({}), &[json!(1), json!({ "a": [] })], &[]);
}

#[test]
fn numbers_and_texts() {
    new(&json!({ "multipleOf": 0.01 }), &[json!(0.07), json!(3), json!("x")], &[json!(0.075)]);
    new(&json!({ "maximum": 3 }), &[json!(3)], &[json!(3.1)]);
    new(&json!({ "exclusiveMaximum": 3 }), &[json!(2.9)], &[json!(3)]);
    new(&json!({ "minimum": -2 }), &[json!(-2)], &[json!(-2.5)]);
    new(&json!({ "exclusiveMinimum": -2 }), &[json!(-1)], &[json!(-2)]);
    new(&json!({ "maxLength": 2 }), &[json!("äö"), json!("💩💩")], &[json!("abc")]);
    new(&json!({ "minLength": 2 }), &[json!("ab")], &[json!("a"), json!("💩")]);
    new(&json!({ "pattern": "^a+$" }), &[json!("aaa"), json!(1)], &[json!("aab"), json!("")]);
    new(&json!({ "pattern": "(?=.*[0-9])(?=.*[a-z])" }), &[json!("a1")], &[json!("a"), json!("1")]);
    new(&json!({ "pattern": "^\\p{Letter}+$" }), &[json!("aé")], &[json!("a1")]);
}

#[test]
fn lists() {
    new(&json!({ "items": { "type": "integer" } }), &[json!([1, 2]), json!([])], &[json!([1, "2"])]);
    new(
        &json!({ "prefixItems": [{ "type": "integer" }, {}], "items": false }),
        &[json!([1]), json!([1, "a"])],
        &[json!(["a"]), json!([1, 2, 3])],
    );
    new(
        &json!({ "contains": { "const": 1 }, "minContains": 2, "maxContains": 3 }),
        &[json!([1, 0, 1])],
        &[json!([1]), json!([1, 1, 1, 1])],
    );
    new(&json!({ "contains": { "const": 1 } }), &[json!([0, 1]), json!("x")], &[json!([]), json!([0])]);
    new(&json!({ "contains": { "const": 1 }, "minContains": 0 }), &[json!([]), json!([0])], &[]);
    new(&json!({ "minContains": 2, "maxContains": 2 }), &[json!([]), json!([1, 2, 3])], &[]);
    new(&json!({ "maxItems": 1 }), &[json!([1])], &[json!([1, 2])]);
    new(&json!({ "minItems": 1 }), &[json!([1])], &[json!([])]);
    new(
        &json!({ "uniqueItems": true }),
        &[json!([1, true, "1"])],
        &[json!([1, 1.0]), json!([{ "a": 1, "b": 2 }, { "b": 2, "a": 1 }])],
    );
    new(
        &json!({ "allOf": [{ "prefixItems": [true] }], "unevaluatedItems": false }),
        &[json!([1])],
        &[json!([1, 2])],
    );
    // What `contains` looked at counts as looked at.
    new(
        &json!({ "contains": { "type": "string" }, "unevaluatedItems": { "type": "integer" } }),
        &[json!(["a", 1])],
        &[json!(["a", true])],
    );
}

#[test]
fn objects() {
    new(
        &json!({ "properties": { "a": { "type": "integer" } } }),
        &[json!({ "a": 1 }), json!({ "b": "x" })],
        &[json!({ "a": "x" })],
    );
    new(
        &json!({ "patternProperties": { "^n_": { "type": "integer" } } }),
        &[json!({ "n_x": 1, "o": "x" })],
        &[json!({ "n_x": "1" })],
    );
    new(
        &json!({ "properties": { "a": {} }, "patternProperties": { "^b": {} }, "additionalProperties": false }),
        &[json!({ "a": 1, "bb": 1 })],
        &[json!({ "c": 1 })],
    );
    new(
        &json!({ "additionalProperties": { "type": "integer" } }),
        &[json!({ "c": 1 })],
        &[json!({ "c": "1" })],
    );
    new(&json!({ "propertyNames": { "maxLength": 2 } }), &[json!({ "ab": 1 })], &[json!({ "abc": 1 })]);
    new(&json!({ "required": ["a"] }), &[json!({ "a": null })], &[json!({ "b": 1 })]);
    new(&json!({ "maxProperties": 1 }), &[json!({ "a": 1 })], &[json!({ "a": 1, "b": 1 })]);
    new(&json!({ "minProperties": 1 }), &[json!({ "a": 1 })], &[json!({})]);
    new(
        &json!({ "dependentRequired": { "a": ["b"] } }),
        &[json!({ "a": 1, "b": 1 }), json!({})],
        &[json!({ "a": 1 })],
    );
    new(
        &json!({ "dependentSchemas": { "a": { "maxProperties": 1 } } }),
        &[json!({ "a": 1 })],
        &[json!({ "a": 1, "b": 1 })],
    );
    new(
        &json!({ "allOf": [{ "properties": { "a": {} } }], "properties": { "b": {} }, "unevaluatedProperties": false }),
        &[json!({ "a": 1, "b": 1 })],
        &[json!({ "a": 1, "c": 1 })],
    );
    new(
        &json!({
            "patternProperties": { "^x-": true }, "dependentSchemas": { "k": { "properties": { "l": true, "k": true } } },
            "if": { "required": ["m"] }, "then": { "properties": { "m": true } }, "unevaluatedProperties": { "type": "integer" },
        }),
        &[json!({ "x-a": "" }), json!({ "k": "", "l": "" }), json!({ "m": "" }), json!({ "other": 1 })],
        &[json!({ "l": "" }), json!({ "other": "" })],
    );
    // A schema inside does not see what its neighbours looked at.
    new(
        &json!({ "properties": { "a": true }, "allOf": [{ "unevaluatedProperties": false }] }),
        &[json!({})],
        &[json!({ "a": 1 })],
    );
}

#[test]
fn what_only_describes_refuses_nothing() {
    let words = json!({
        "title": "t", "description": "d", "$comment": "c", "default": 1, "examples": [1], "example": 1, "deprecated": true,
        "contentEncoding": "base64", "contentMediaType": "application/json", "contentSchema": { "type": "integer" },
        "externalDocs": { "url": "https://example.com" }, "xml": { "name": "x" }, "x-own": { "type": "null" }, "unknown": false,
    });
    new(&words, &[json!("no base64"), json!({ "a": 1 }), json!(null), json!([1])], &[]);
}

#[test]
fn combinations() {
    new(&json!({ "allOf": [{ "minimum": 1 }, { "maximum": 3 }] }), &[json!(2)], &[json!(0), json!(4)]);
    new(&json!({ "anyOf": [{ "type": "string" }, { "minimum": 3 }] }), &[json!("a"), json!(3)], &[json!(1)]);
    new(
        &json!({ "oneOf": [{ "multipleOf": 3 }, { "multipleOf": 5 }] }),
        &[json!(3), json!(5)],
        &[json!(15), json!(1)],
    );
    new(&json!({ "not": { "type": "string" } }), &[json!(1)], &[json!("a")]);
    new(
        &json!({ "if": { "properties": { "k": { "const": 1 } } }, "then": { "required": ["a"] }, "else": { "required": ["b"] } }),
        &[json!({ "k": 1, "a": 1 }), json!({ "k": 2, "b": 1 })],
        &[json!({ "k": 1, "b": 1 }), json!({ "k": 2, "a": 1 })],
    );
}

#[test]
fn references() {
    new(
        &json!({ "$defs": { "n": { "type": "integer" } }, "properties": { "a": { "$ref": "#/paths/~1x/post/requestBody/content/application~1json/schema/$defs/n" } } }),
        &[json!({ "a": 1 })],
        &[json!({ "a": "1" })],
    );
    new(
        &json!({ "$anchor": "tree", "properties": { "sub": { "$ref": "#tree" } }, "required": ["v"] }),
        &[json!({ "v": 1, "sub": { "v": 1 } })],
        &[json!({ "v": 1, "sub": {} })],
    );
    new(
        &json!({ "$id": "https://example.com/own", "$defs": { "n": { "type": "integer" } }, "items": { "$ref": "#/$defs/n" } }),
        &[json!([1])],
        &[json!(["a"])],
    );
    new(
        &json!({
            "$id": "https://example.com/strict-tree", "$dynamicAnchor": "node", "$ref": "tree", "unevaluatedProperties": false,
            "$defs": { "tree": { "$id": "tree", "$dynamicAnchor": "node", "properties": { "data": true, "children": { "items": { "$dynamicRef": "#node" } } } } },
        }),
        &[json!({ "children": [{ "data": 1 }] })],
        &[json!({ "children": [{ "daat": 1 }] })],
    );
    // Siblings of a reference hold, as in 2020-12.
    let named = json!({ "N": { "type": "integer" } });
    let api = api("3.1.0", &json!({ "$ref": "#/components/schemas/N", "maximum": 3 }), &named);
    assert!(
        report(&api, "3").is_empty() && !report(&api, "4").is_empty() && !report(&api, "\"a\"").is_empty()
    );
}

#[test]
fn a_reference_that_leads_in_a_circle_is_followed_as_deep_as_the_value_goes() {
    let tree = json!({ "T": { "type": "object", "required": ["v"], "additionalProperties": false, "properties": {
        "v": { "type": "integer" }, "l": { "$ref": "#/components/schemas/T" }, "r": { "$ref": "#/components/schemas/T" },
    } } });
    for version in ["3.0.3", "3.1.0"] {
        let api = api(version, &json!({ "$ref": "#/components/schemas/T" }), &tree);
        let deep = "{\"v\":1,\"l\":".repeat(60) + "{\"v\":1}" + &"}".repeat(60);
        assert!(report(&api, &deep).is_empty());
        let deeper = "{\"v\":1,\"l\":".repeat(70) + "{\"v\":1}" + &"}".repeat(70);
        assert_eq!(report(&api, &deeper).violations[0].rule, "syntax");
        let wrong = deep.replace("{\"v\":1}", "{\"v\":\"1\"}");
        let report = report(&api, &wrong);
        assert_eq!(report.violations[0].pointer, "/l".repeat(60) + "/v");
    }
}

#[test]
fn a_choice_that_leads_in_a_circle_costs_what_the_value_does() {
    let call = |name: &str| {
        json!({ "type": "object", "properties": {
        "op": { "const": name }, "args": { "type": "array", "items": { "$ref": "#/components/schemas/E" } } } })
    };
    let choice = json!({ "E": { "anyOf": [call("and"), call("or"), { "type": "string" }] } });
    let api = api("3.1.0", &json!({ "$ref": "#/components/schemas/E" }), &choice);
    let deep = |innermost: &str| {
        (0..30).fold(innermost.to_owned(), |inner, _| format!("{{\"op\":\"and\",\"args\":[{inner}]}}"))
    };
    assert!(report(&api, &deep("\"x\"")).is_empty());
    // Told branch by branch, this is a thousand million errors.
    let report = report(&api, &deep("5"));
    assert_eq!((report.violations.len(), report.violations[0].rule.as_ref()), (1, "schema"));
}

#[test]
fn formats_are_judged() {
    for (format, good, bad) in [
        ("date", "2024-02-29", "2023-02-29"),
        ("date-time", "2024-02-29T00:00:00Z", "2024-02-29 00:00"),
        ("time", "12:00:00Z", "25:00:00Z"),
        ("duration", "P1D", "1D"),
        ("email", "a@example.com", "a@"),
        ("hostname", "a.example", "-a"),
        ("ipv4", "192.0.2.1", "192.0.2.256"),
        ("ipv6", "2001:db8::1", "2001:db8::1::"),
        ("uri", "https://example.com/", "/a"),
        ("uri-reference", "/a", "\\a"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ("json-pointer", "/a~1b", "a"),
        ("regex", "^a", "("),
        ("iri", "https://example.com/ä", "/ä"),
        ("iri-reference", "/ä", "\\ä"),
        ("uri-template", "/a/{b}", "/a/{b"),
        ("relative-json-pointer", "1/a", "/a"),
        ("byte", "TQ==", "TQ"),
    ] {
        let schema = json!({ "type": "string", "format": format });
        new(&schema, &[json!(good)], &[json!(bad)]);
    }
    // Internationalized names would need tables of Unicode: these two only describe.
    for format in ["made-up", "idn-email", "idn-hostname"] {
        new(&json!({ "type": "string", "format": format }), &[json!("anything")], &[]);
    }
    for version in ["3.0.3", "3.1.0"] {
        case(
            version,
            &json!({ "type": "integer", "format": "int32" }),
            &[json!(2_147_483_647)],
            &[json!(2_147_483_648_i64)],
        );
        case(
            version,
            &json!({ "type": "integer", "format": "int64" }),
            &[json!(i64::MAX)],
            &[json!(u64::MAX), json!(1e30)],
        );
    }
}

#[test]
fn the_dialect_of_3_0() {
    old(
        &json!({ "type": "string", "nullable": true, "maxLength": 1 }),
        &[json!(null), json!("a")],
        &[json!(1), json!("ab")],
    );
    old(
        &json!({ "type": "string", "nullable": true, "enum": ["a", null] }),
        &[json!(null), json!("a")],
        &[json!("b")],
    );
    old(&json!({ "type": "string", "nullable": true, "enum": ["a"] }), &[json!("a")], &[json!(null)]);
    old(
        &json!({ "type": "integer", "minimum": 1, "exclusiveMinimum": true, "maximum": 3, "exclusiveMaximum": false }),
        &[json!(2), json!(3)],
        &[json!(1), json!(4)],
    );
    // `const` is none of its keywords, `$ref` stands alone.
    old(&json!({ "const": 1 }), &[json!(2)], &[]);
    let named = json!({ "N": { "type": "integer" } });
    let one = api("3.0.3", &json!({ "$ref": "#/components/schemas/N", "maximum": 3 }), &named);
    assert!(report(&one, "4").is_empty());
    let nullable = json!({ "nullable": true, "allOf": [{ "$ref": "#/components/schemas/N" }] });
    let one = api("3.0.3", &nullable, &named);
    assert!(report(&one, "null").is_empty() && report(&one, "1").is_empty());
    let wrong = report(&one, "\"x\"");
    assert_eq!(
        (wrong.violations[0].rule.as_ref(), wrong.violations[0].expected.as_str()),
        ("type", "integer")
    );
    assert_eq!(one.warnings(), []);
    let told = api("3.0.3", &json!({ "type": "object", "patternProperties": {} }), &json!({}));
    assert!(told.warnings()[0].message.contains("patternProperties"));
}

#[test]
fn read_only_is_for_answers_and_write_only_for_requests() {
    let user = json!({ "U": { "type": "object", "required": ["id", "name", "password"], "properties": {
        "id": { "$ref": "#/components/schemas/Id" }, "name": { "type": "string" }, "password": { "type": "string", "writeOnly": true },
    } }, "Id": { "type": "integer", "readOnly": true } });
    for version in ["3.0.3", "3.1.0"] {
        let api = api(version, &json!({ "$ref": "#/components/schemas/U" }), &user);
        assert!(report(&api, r#"{"name":"a","password":"b"}"#).is_empty());
        assert_eq!(report(&api, r#"{"id":1,"name":"a","password":"b"}"#).violations[0].pointer, "/id");
        let Found::Operation(found) = api.find("POST", "/x") else { panic!("no operation") };
        let answer = |body: &str| {
            let mut report = Report::default();
            found.operation().response_body(
                200,
                Some(b"application/json"),
                body.as_bytes(),
                false,
                &mut report,
            );
            report
        };
        assert!(answer(r#"{"id":1,"name":"a"}"#).is_empty());
        assert_eq!(answer(r#"{"name":"a"}"#).violations[0].rule, "required");
        assert_eq!(answer(r#"{"id":1,"name":"a","password":"b"}"#).violations[0].pointer, "/password");
    }
}

#[test]
fn a_discriminator_chooses_the_one_schema_that_must_hold() {
    let named = json!({
        "Cat": { "type": "object", "required": ["kind", "lives"], "properties": { "kind": { "type": "string" }, "lives": { "type": "integer" } } },
        "Dog": { "type": "object", "required": ["kind"], "properties": { "kind": { "type": "string" }, "bark": { "type": "boolean" } } },
    });
    let schema = json!({
        "oneOf": [{ "$ref": "#/components/schemas/Cat" }, { "$ref": "#/components/schemas/Dog" }],
        "discriminator": { "propertyName": "kind", "mapping": { "puppy": "#/components/schemas/Dog", "kitten": "Cat" } },
    });
    for version in ["3.0.3", "3.1.0"] {
        let api = api(version, &schema, &named);
        for good in [
            r#"{"kind":"Cat","lives":9}"#,
            r#"{"kind":"kitten","lives":9}"#,
            r#"{"kind":"puppy","bark":true}"#,
            r#"{"kind":"Dog","lives":9}"#,
        ] {
            assert!(report(&api, good).is_empty(), "{good}");
        }
        for (bad, pointer) in [
            (r#"{"kind":"Cat"}"#, "/lives"),
            (r#"{"kind":"Cow"}"#, "/kind"),
            (r#"{"lives":9}"#, "/kind"),
            (r#"{"kind":"puppy","bark":1}"#, "/bark"),
        ] {
            assert_eq!(report(&api, bad).violations[0].pointer, pointer, "{bad}");
        }
    }
}

#[test]
fn what_is_wrong_is_told_without_the_value() {
    let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": false, "properties": {
        "a": { "type": "array", "items": { "enum": ["topsecret", "x"] } }, "b": { "type": "string", "maxLength": 3, "pattern": "^[a-z]*$" },
    } });
    let api = api("3.1.0", &schema, &json!({}));
    let wrong = report(&api, r#"{"a":["x","v4lue"],"b":"v4lue","other":"v4lue"}"#);
    let told = wrong.for_client();
    let pairs: Vec<(&str, &str)> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["pointer"].as_str().unwrap(), v["rule"].as_str().unwrap()))
        .collect();
    for pair in [("/a/1", "enum"), ("/b", "maxLength"), ("/b", "pattern"), ("/other", "additionalProperties")]
    {
        assert!(pairs.contains(&pair), "{pairs:?}");
    }
    for text in [told.to_string(), wrong.summary(9), format!("{wrong:?}")] {
        assert!(!text.contains("v4lue") && !text.contains("topsecret"), "{text}");
    }
    assert!(!told.to_string().contains("a-z"));
    // Many are bounded, and a huge value is told little of.
    let many = format!("{{\"a\":[{}]}}", vec!["1"; 1_000].join(","));
    let report_of = report(&api, &many);
    assert_eq!((report_of.violations.len(), report_of.more), (32, true));
    let huge = format!("{{\"a\":[{}]}}", vec!["1"; 100_000].join(","));
    assert_eq!(report(&api, &huge).violations.len(), 1);
}
