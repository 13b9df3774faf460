//! Parameters as the specification writes them (OpenAPI 3.1.1, section 4.8.12.3; RFC 6570): written by a writer of our own and read back,
//! and the specification's own table.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use ringfence_openapi::{Api, Found, Length, Report};
use serde_json::{Map, Value, json};

/// A description with one parameter that must be exactly this value.
fn api(place: &str, style: &str, explode: bool, schema: &Value) -> Api {
    let path = if place == "path" { "/p/{color}" } else { "/p" };
    let mut parameter =
        json!({ "name": "color", "in": place, "style": style, "explode": explode, "schema": schema });
    parameter["required"] = json!(true);
    let description = json!({
        "openapi": "3.1.0",
        "info": { "title": "t", "version": "1" },
        "paths": { path: { "get": { "parameters": [parameter], "responses": { "200": { "description": "ok" } } } } },
    });
    Api::load(&description.to_string()).unwrap_or_else(|e| panic!("{description}: {e:?}"))
}

fn judge(api: &Api, place: &str, written: &str) -> Report {
    let path = if place == "path" { format!("/p/{written}") } else { "/p".to_owned() };
    let Found::Operation(found) = api.find("GET", &path) else { panic!("no operation for {path}") };
    let fields: Vec<(&str, &str)> = match place {
        "header" => vec![("Color", written)],
        "cookie" => vec![("cookie", written)],
        _ => vec![],
    };
    let query = (place == "query").then_some(written);
    let mut report = Report::default();
    found.head(query, fields.as_slice(), Length::Empty, &mut report);
    report
}

/// The schema that only this value holds to, with the types that a description would state.
fn only(value: &Value) -> Value {
    let typed = |value: &Value| match value {
        Value::Number(_) => json!({ "type": "integer" }),
        _ => json!({ "type": "string" }),
    };
    match value {
        Value::Array(items) => {
            json!({ "type": "array", "items": items.first().map_or(json!({}), typed), "const": value })
        }
        Value::Object(fields) => {
            let properties: Map<String, Value> = fields.iter().map(|(k, v)| (k.clone(), typed(v))).collect();
            json!({ "type": "object", "properties": properties, "additionalProperties": false, "const": value })
        }
        plain => {
            let mut schema = typed(plain);
            schema["const"] = plain.clone();
            schema
        }
    }
}

#[track_caller]
fn reads(place: &str, style: &str, explode: bool, written: &str, value: &Value) {
    let report = judge(&api(place, style, explode, &only(value)), place, written);
    assert!(report.is_empty(), "{place} {style} explode={explode} {written} is not {value}: {report:?}");
}

#[track_caller]
fn refuses(place: &str, style: &str, explode: bool, written: &str, value: &Value) {
    let report = judge(&api(place, style, explode, &only(value)), place, written);
    assert!(!report.is_empty(), "{place} {style} explode={explode} {written} is {value}");
}

#[test]
fn the_table_of_the_specification() {
    let (text, list) = (json!("blue"), json!(["blue", "black", "brown"]));
    let object = json!({ "R": 100, "G": 200, "B": 150 });
    for (style, explode, of_text, of_list, of_object) in [
        ("matrix", false, ";color=blue", ";color=blue,black,brown", ";color=R,100,G,200,B,150"),
        ("matrix", true, ";color=blue", ";color=blue;color=black;color=brown", ";R=100;G=200;B=150"),
        ("label", false, ".blue", ".blue,black,brown", ".R,100,G,200,B,150"),
        ("label", true, ".blue", ".blue.black.brown", ".R=100.G=200.B=150"),
        ("simple", false, "blue", "blue,black,brown", "R,100,G,200,B,150"),
        ("simple", true, "blue", "blue,black,brown", "R=100,G=200,B=150"),
    ] {
        reads("path", style, explode, of_text, &text);
        reads("path", style, explode, of_list, &list);
        reads("path", style, explode, of_object, &object);
    }
    // As 3.0.0 and 3.1.0 had it.
    reads("path", "label", false, ".blue.black.brown", &list);
    reads("path", "label", false, ".R.100.G.200.B.150", &object);
    for (explode, of_text, of_list, of_object) in [
        (false, "blue", "blue,black,brown", "R,100,G,200,B,150"),
        (true, "blue", "blue,black,brown", "R=100,G=200,B=150"),
    ] {
        reads("header", "simple", explode, of_text, &text);
        reads("header", "simple", explode, of_list, &list);
        reads("header", "simple", explode, of_object, &object);
    }
    reads("header", "simple", false, "blue, black ,brown", &list);
    for place in ["query", "cookie"] {
        reads(place, "form", false, "color=blue", &text);
        reads(place, "form", true, "color=blue", &text);
        reads(place, "form", false, "color=blue,black,brown", &list);
        reads(place, "form", true, "color=blue&color=black&color=brown", &list);
        reads(place, "form", false, "color=R,100,G,200,B,150", &object);
        reads(place, "form", true, "R=100&G=200&B=150", &object);
    }
    for space in ["%20", "+"] {
        reads("query", "spaceDelimited", false, &format!("color=blue{space}black{space}brown"), &list);
        reads(
            "query",
            "spaceDelimited",
            false,
            &format!("color=R{space}100{space}G{space}200{space}B{space}150"),
            &object,
        );
    }
    for pipe in ["|", "%7C", "%7c"] {
        reads("query", "pipeDelimited", false, &format!("color=blue{pipe}black{pipe}brown"), &list);
        reads(
            "query",
            "pipeDelimited",
            false,
            &format!("color=R{pipe}100{pipe}G{pipe}200{pipe}B{pipe}150"),
            &object,
        );
    }
    for style in ["spaceDelimited", "pipeDelimited"] {
        reads("query", style, true, "color=blue&color=black&color=brown", &list);
    }
    reads("query", "deepObject", true, "color[R]=100&color[G]=200&color[B]=150", &object);
    reads("query", "deepObject", true, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150", &object);
    reads("path", "matrix", false, ";color", &json!(""));
    // Clients that encode the separators as well.
    reads("query", "form", false, "color=blue%2Cblack%2Cbrown", &list);
    reads("path", "simple", false, "blue%2Cblack%2Cbrown", &list);
}

#[test]
fn what_is_written_otherwise_is_refused() {
    let (text, list, object) = (json!("blue"), json!(["blue", "black"]), json!({ "R": 100, "G": 200 }));
    refuses("path", "label", false, "blue", &text);
    refuses("path", "matrix", false, ";colour=blue", &text);
    refuses("path", "matrix", false, ";colorblue", &text);
    refuses("path", "matrix", true, ";color=blue;x=black", &list);
    refuses("query", "form", true, "color=blue&color=blue", &text);
    refuses("query", "form", false, "color=blue&color=black", &list);
    refuses("query", "form", false, "color=R,100,G", &object);
    refuses("query", "form", true, "R=100&G=200&R=100", &object);
    refuses("query", "form", true, "color=%zz", &text);
    refuses("query", "form", true, "color=%ff", &text);
    refuses("query", "form", true, "", &text);
    refuses("query", "deepObject", true, "color[R]=100&color[R]=100&color[G]=200", &object);
    refuses("query", "deepObject", true, "color[R=100&color[G]=200", &object);
    refuses("query", "deepObject", true, "color[a][b][c][d][e][f]=1", &object);
    refuses("query", "form", true, "color=01", &json!(1));
    refuses("query", "form", true, "color=1e0", &json!(1));
    refuses("cookie", "form", false, "color=blue; color=blue", &text);
    // What the description does not know is told apart.
    let report = judge(&api("query", "form", true, &only(&text)), "query", "color=blue&colour=blue");
    assert_eq!((report.violations.len(), report.violations[0].unknown), (1, true));
}

#[test]
fn content_allow_empty_value_and_types_that_are_ambiguous() {
    let description = json!({
        "openapi": "3.0.3", "info": { "title": "t", "version": "1" },
        "paths": { "/p": { "get": { "responses": {}, "parameters": [
            { "name": "filter", "in": "query", "content": { "application/json": { "schema": { "type": "object", "required": ["a"], "properties": { "a": { "type": "integer" } } } } } },
            { "name": "flag", "in": "query", "allowEmptyValue": true, "schema": { "type": "boolean" } },
            { "name": "either", "in": "query", "schema": { "oneOf": [{ "type": "integer" }, { "type": "string", "maxLength": 3 }] } },
            { "name": "word", "in": "query", "schema": { "anyOf": [{ "type": "integer", "maximum": 9 }, { "type": "string", "maxLength": 3 }] } },
            { "name": "next", "in": "query", "allowReserved": true, "schema": { "type": "string", "pattern": "^/a\\?b=[c;:@]$" } },
            { "name": "X-Meta", "in": "header", "content": { "application/json": { "schema": { "type": "array" } } } },
        ] } } },
    });
    let api = Api::load(&description.to_string()).unwrap();
    let Found::Operation(found) = api.find("GET", "/p") else { panic!("no operation") };
    let rules = |query: &str, meta: &str| -> Vec<String> {
        let mut report = Report::default();
        let fields = [("x-meta", meta)];
        let fields = if meta.is_empty() { &fields[1..] } else { &fields[..] };
        found.head(Some(query), fields, Length::Empty, &mut report);
        report.violations.iter().map(|v| format!("{} {}", v.name, v.rule)).collect()
    };
    for good in [
        "filter=%7B%22a%22:1%7D",
        "flag=",
        "flag",
        "flag=true",
        "either=5",
        "either=abc",
        "word=999",
        "word=5",
        "next=/a?b=:",
        "next=%2Fa%3Fb=;",
    ] {
        assert_eq!(rules(good, ""), Vec::<String>::new(), "{good}");
    }
    assert_eq!(rules("", "[1]"), Vec::<String>::new());
    for (bad, meta, told) in [
        ("filter=%7B%7D", "", "filter required"),
        ("filter=%7B%22a%22:1,%22a%22:1%7D", "", "filter syntax"),
        ("filter={}&filter={}", "", "filter repeated"),
        ("flag=1", "", "flag type"),
        ("either=abcd", "", "either maxLength"),
        ("word=9999", "", "word maximum"),
        ("", "{}", "X-Meta type"),
    ] {
        assert_eq!(rules(bad, meta), [told], "{bad} {meta}");
    }
}

/// Everything but unreserved characters encoded.
fn encode(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_~".contains(&b);
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// RFC 6570 and the styles of OpenAPI beside it.
fn write(style: &str, explode: bool, value: &Value) -> String {
    let plain = |value: &Value| encode(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let first = match style {
        "label" => ".",
        "matrix" => ";",
        _ => "",
    };
    let named = matches!(style, "matrix" | "form" | "spaceDelimited" | "pipeDelimited");
    let name = if named { "color=" } else { "" };
    let (between, inner) = match style {
        "label" if explode => (".", "."),
        "matrix" if explode => (";color=", ";"),
        "form" | "spaceDelimited" | "pipeDelimited" if explode => ("&color=", "&"),
        "spaceDelimited" => ("%20", "%20"),
        "pipeDelimited" => ("%7C", "%7C"),
        _ => (",", ","),
    };
    match value {
        Value::Array(items) => {
            format!("{first}{name}{}", items.iter().map(plain).collect::<Vec<_>>().join(between))
        }
        Value::Object(fields) if style == "deepObject" => {
            let pair = |(k, v): (&String, &Value)| format!("color[{}]={}", encode(k), plain(v));
            fields.iter().map(pair).collect::<Vec<_>>().join("&")
        }
        Value::Object(fields) if explode => {
            let pair = |(k, v): (&String, &Value)| format!("{}={}", encode(k), plain(v));
            format!("{first}{}", fields.iter().map(pair).collect::<Vec<_>>().join(inner))
        }
        Value::Object(fields) => {
            let pair = |(k, v): (&String, &Value)| format!("{}{inner}{}", encode(k), plain(v));
            format!("{first}{name}{}", fields.iter().map(pair).collect::<Vec<_>>().join(inner))
        }
        value => format!("{first}{name}{}", plain(value)),
    }
}

/// Texts that say what they are: nothing that a separator is made of where the style encodes its separators.
fn texts() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß€/?&=;:@!$'()*+\\[\\]<>\"{}^`_~-]{1,8}"
}

fn plain() -> impl Strategy<Value = Value> {
    prop_oneof![texts().prop_map(Value::from), any::<i32>().prop_map(Value::from)]
}

fn lists() -> impl Strategy<Value = Value> {
    prop_oneof![
        vec(texts(), 2..5).prop_map(|items| json!(items)),
        vec(any::<i32>(), 2..5).prop_map(|items| json!(items)),
    ]
}

fn objects() -> impl Strategy<Value = Value> {
    btree_map("[a-z][a-zA-Z0-9äß_-]{0,5}", plain(), 1..5)
        .prop_filter("the parameter's own name", |o| !o.contains_key("color"))
        .prop_map(|o| json!(o))
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![plain(), lists(), objects()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read_back_in_paths(value in values(), explode: bool, style in prop::sample::select(vec!["simple", "label", "matrix"])) {
        reads("path", style, explode, &write(style, explode, &value), &value);
    }

    #[test]
    fn what_is_written_is_read_back_in_queries(value in values(), explode: bool, style in prop::sample::select(vec!["form", "spaceDelimited", "pipeDelimited"])) {
        // The other two have no exploded objects.
        prop_assume!(style == "form" || !explode || !value.is_object());
        reads("query", style, explode, &write(style, explode, &value), &value);
    }

    #[test]
    fn what_is_written_is_read_back_as_deep_objects_and_cookies(value in objects(), other in values(), explode: bool) {
        reads("query", "deepObject", true, &write("deepObject", true, &value), &value);
        reads("cookie", "form", explode, &write("form", explode, &other), &other);
    }

    #[test]
    fn no_query_makes_it_stumble(query in "[a-z=&%\\[\\],|+.;0-9]{0,60}", style in prop::sample::select(vec!["form", "spaceDelimited", "pipeDelimited", "deepObject"]), explode: bool) {
        for schema in [json!({ "type": "object" }), json!({ "type": "array", "items": { "type": "integer" } }), json!({})] {
            judge(&api("query", style, explode, &schema), "query", &query);
        }
    }
}
