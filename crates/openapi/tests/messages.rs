//! Whole messages: bodies by content type, sizes, answers, and descriptions that cannot be read.

use ringfence_openapi::{Api, Found, Length, Place, Plan, Report};

const DESCRIPTION: &str = r##"
openapi: 3.1.0
info: { title: Files, version: "1" }
servers: [{ url: "https://api.example.com/{v}/", variables: { v: { default: v1 } } }]
components:
  securitySchemes:
    key: { type: apiKey, in: query, name: api_key }
  schemas:
    Note:
      type: object
      required: [title]
      properties:
        title: { type: string, maxLength: 20 }
        tags: { type: array, items: { type: string } }
        size: { type: object, properties: { w: { type: integer } } }
paths:
  /notes:
    post:
      requestBody:
        required: true
        content:
          application/json: { schema: { $ref: "#/components/schemas/Note" } }
          application/x-www-form-urlencoded: { schema: { $ref: "#/components/schemas/Note" } }
          multipart/form-data:
            schema:
              type: object
              required: [meta, file]
              additionalProperties: false
              properties:
                meta: { $ref: "#/components/schemas/Note" }
                count: { type: integer }
                file: { type: string, contentMediaType: image/png, maxLength: 5 }
                more: { type: array, items: { type: string, contentMediaType: application/octet-stream } }
            encoding:
              file: { contentType: "image/png, image/*" }
          text/plain: { schema: { type: string, pattern: "^[a-z ]+$", maxLength: 10 } }
          image/*: { schema: { maxLength: 8 } }
          application/vnd.small+json: { schema: { type: object, additionalProperties: false, properties: { a: { type: string, maxLength: 4 } } } }
      responses:
        "201":
          description: made
          headers: { Location: { required: true, schema: { type: string, format: uri-reference } } }
          content: { application/json: { schema: { $ref: "#/components/schemas/Note" } } }
        4XX: { description: wrong, content: { application/problem+json: {} } }
    get:
      parameters: [{ name: limit, in: query, schema: { type: integer, maximum: 100 } }]
      responses: { default: { description: any } }
"##;

fn api() -> Api {
    Api::load(DESCRIPTION).unwrap_or_else(|e| panic!("{e:?}"))
}

fn post(media: &str, body: &[u8]) -> Report {
    let api = api();
    let Found::Operation(found) = api.find("POST", "/v1/notes") else { panic!("no operation") };
    let mut report = Report::default();
    let fields = [("Content-Type", media)];
    let plan = found.head(None, &fields[..], Length::Known(body.len() as u64), &mut report);
    if report.is_empty() && matches!(plan, Plan::Hold { .. }) {
        found.operation().body(Some(media.as_bytes()), body, true, &mut report);
    }
    report
}

fn told(media: &str, body: &[u8]) -> Vec<String> {
    post(media, body).violations.iter().map(|v| format!("{} {}", v.pointer, v.rule)).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn json_bodies() {
    assert_eq!(told("application/json; charset=utf-8", br#"{"title":"a","tags":["x"]}"#), NOTHING);
    assert_eq!(told("application/json", br#"{"title":"a","title":"b"}"#), [" syntax"]);
    assert_eq!(told("application/json", br#"{"title":1}"#), ["/title type"]);
    assert_eq!(told("application/json;charset=utf-16", br#"{"title":"a"}"#), [" media-type"]);
    // Fields that are not forbidden and not known.
    let report = post("application/json", br#"{"title":"a","extra":1,"size":{"w":1,"h":2}}"#);
    let unknown: Vec<&str> =
        report.violations.iter().filter(|v| v.unknown).map(|v| v.pointer.as_str()).collect();
    assert_eq!((unknown.as_slice(), report.violations.len()), (&["/extra", "/size/h"][..], 2));
}

#[test]
fn forms() {
    let media = "application/x-www-form-urlencoded";
    assert_eq!(told(media, b"title=a+b&tags=x&tags=y"), NOTHING);
    assert_eq!(told(media, b"title=a&size=%7B%22w%22%3A1%7D"), NOTHING);
    assert_eq!(told(media, b"title=a&size=%7B%22w%22%3A%22x%22%7D"), ["/size/w type"]);
    assert_eq!(told(media, b"tags=x"), ["/title required"]);
    assert_eq!(told(media, b"title=a&title=b")[0], "/title repeated");
    assert_eq!(told(media, b"title=%zz")[0], "/title syntax");
    assert_eq!(told(media, b"title=aaaaaaaaaaaaaaaaaaaaaaaaaaa"), ["/title maxLength"]);
    assert_eq!(told(media, b"title=a&x=1"), ["/x unknown"]);
}

#[test]
fn parts() {
    let media = "multipart/form-data; boundary=XX";
    let part =
        |head: &str, body: &str| format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{body}\r\n");
    let png = "name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png";
    let meta = part("name=\"meta\"\r\nContent-Type: application/json", r#"{"title":"a"}"#);
    let whole = |parts: &[&str]| (parts.concat() + "--XX--\r\n").into_bytes();
    let file = part(png, "12345");
    assert_eq!(told(media, &whole(&[&meta, &file, &part("name=count", "3")])), NOTHING);
    let mut bytes = whole(&[&meta, &part(png, "1234X")]);
    let at = bytes.windows(5).position(|w| w == b"1234X").unwrap();
    bytes[at..at + 5].copy_from_slice(&[0xff, 0, 0xfe, 0, 1]);
    assert_eq!(told(media, &bytes), NOTHING);
    let two = part("name=\"more\"; filename=\"1\"", "a") + &part("name=\"more\"; filename=\"2\"", "b");
    assert_eq!(told(media, &whole(&[&meta, &file, &two])), NOTHING);
    assert_eq!(told(media, &whole(&[&meta, &part(png, "123456")])), ["/file maxLength"]);
    assert_eq!(
        told(media, &whole(&[&meta, &part(&png.replace("image/png", "text/html"), "1")])),
        ["/file media-type"]
    );
    assert_eq!(told(media, &whole(&[&meta, &file, &part("name=count", "x")])), ["/count type"]);
    assert_eq!(told(media, &whole(&[&meta, &file, &part("name=evil", "x")])), ["/evil additionalProperties"]);
    assert_eq!(told(media, &whole(&[&meta, &meta, &file])), ["/meta repeated"]);
    assert_eq!(
        told(media, &whole(&[&part("name=\"meta\"", "{"), &file])),
        ["/meta syntax", "/meta required"]
    );
    assert_eq!(told("multipart/form-data", &whole(&[&meta])), [" syntax"]);
    assert_eq!(told(media, b"--XX\r\n"), [" syntax"]);
}

#[test]
fn text_and_bytes_are_judged_by_size_before_they_are_read() {
    assert_eq!(told("text/plain", b"abc def"), NOTHING);
    assert_eq!(told("text/plain", b"ABC"), [" pattern"]);
    assert_eq!(told("text/plain", &[0xff]), [" syntax"]);
    assert_eq!(told("text/plain", &[b'a'; 41]), [" size"]);
    assert_eq!(told("image/png", &[0xff; 8]), NOTHING);
    assert_eq!(told("image/png", &[0xff; 9]), [" size"]);
    assert_eq!(
        told("application/vnd.small+json", format!("{{\"a\":\"{}\"}}", "a".repeat(9_000)).as_bytes()),
        [" size"]
    );
    let api = api();
    let Found::Operation(found) = api.find("POST", "/v1/notes") else { panic!("no operation") };
    let mut report = Report::default();
    let fields = [("content-type", "image/png")];
    assert_eq!(found.head(None, &fields[..], Length::Unknown, &mut report), Plan::Pass { most: Some(8) });
    assert!(report.is_empty());
}

#[test]
fn what_has_no_place_is_told_with_its_status() {
    let api = api();
    assert!(matches!(api.find("GET", "/notes"), Found::Nothing));
    let Found::Method { allow } = api.find("DELETE", "/v1/notes") else { panic!("a method") };
    assert_eq!(allow, "GET, POST");
    let status = |found: Found<'_>| {
        let mut report = Report::default();
        report.append(Report { violations: found.violation().into_iter().collect(), more: false });
        report.status()
    };
    assert_eq!((status(api.find("GET", "/x")), status(api.find("PUT", "/v1/notes"))), (404, 405));
    assert_eq!(post("application/xml", b"<a/>").status(), 415);
    assert_eq!(post("image/png", &[0; 9]).status(), 413);
    assert_eq!(post("application/json", b"{").status(), 400);
    let Found::Operation(get) = api.find("GET", "/v1/notes") else { panic!("no operation") };
    let mut report = Report::default();
    get.head(Some("limit=101&api_key=k&other=1"), &[][..], Length::Known(3), &mut report);
    let told: Vec<(Place, &str, &str, bool)> =
        report.violations.iter().map(|v| (v.place, &*v.name, v.rule.as_ref(), v.unknown)).collect();
    assert_eq!(
        told,
        [
            (Place::Query, "limit", "maximum", false),
            (Place::Query, "other", "unknown", true),
            (Place::Body, "", "unknown", true),
        ]
    );
    let Found::Operation(post) = api.find("POST", "/v1/notes") else { panic!("no operation") };
    let mut report = Report::default();
    post.head(None, &[][..], Length::Empty, &mut report);
    assert_eq!(report.violations[0].rule, "missing");
    // Without a length, that there is none shows at its end.
    let mut report = Report::default();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let plan = post.head(None, &[form][..], Length::Unknown, &mut report);
    assert!(report.is_empty() && matches!(plan, Plan::Hold { .. }));
    post.operation().body(Some(form.1.as_bytes()), b"", false, &mut report);
    assert_eq!(report.violations[0].rule, "missing");
}

#[test]
fn answers() {
    let api = api();
    let Found::Operation(found) = api.find("POST", "/v1/notes") else { panic!("no operation") };
    let operation = found.operation();
    let head = |status: u16, fields: &[(&str, &str)]| {
        let mut report = Report::default();
        let plan = operation.response_head(status, fields, Length::Unknown, &mut report);
        (plan, report.violations.iter().map(|v| format!("{} {}", v.name, v.rule)).collect::<Vec<_>>())
    };
    let json = ("content-type", "application/json");
    assert_eq!(head(201, &[json, ("location", "/notes/1")]), (Plan::Hold { most: None }, vec![]));
    assert_eq!(head(201, &[json]).1, ["Location missing"]);
    assert_eq!(head(201, &[("content-type", "text/html"), ("location", "/1")]).1, [" media-type"]);
    assert_eq!(head(200, &[json]).1, [" unknown"]);
    assert_eq!(head(404, &[("content-type", "application/problem+json")]).1, NOTHING);
    let mut report = Report::default();
    operation.response_body(201, Some(b"application/json"), br#"{"titel":"a"}"#, false, &mut report);
    assert_eq!(report.violations[0].pointer, "/title");
}

#[test]
fn what_is_wrong_in_a_description_is_told_with_its_place() {
    let wrong = |from: &str, to: &str| -> Vec<String> {
        let text = DESCRIPTION.replacen(from, to, 1);
        assert_ne!(text, DESCRIPTION, "{from}");
        Api::load(&text).expect_err(to).iter().map(ToString::to_string).collect()
    };
    for (from, to, told) in [
        ("openapi: 3.1.0", "openapi: 4.0.0", "2:1: OpenAPI 3.0 and 3.1 are read, not `4.0.0`"),
        ("openapi: 3.1.0", "swagger: '2.0'", "2:1: this is Swagger 2.0: convert it to OpenAPI 3.0 first"),
        (
            "#/components/schemas/Note\" } }\n          application/x",
            "#/components/schemas/Nope\" } }\n          application/x",
            "22:41: the reference `#/components/schemas/Nope` leads nowhere",
        ),
        (
            "#/components/schemas/Note\" } }\n          application/x",
            "https://example.com/n\" } }\n          application/x",
            "its schemas",
        ),
        ("maximum: 100", "maximum: many", "this is no valid schema"),
        ("in: query, schema", "in: qery, schema", "a parameter is in: path, query, header or cookie"),
        ("^[a-z ]+$", "^[a-z+$", "36:49:"),
        ("/notes:", "notes:", "a path begins with a slash"),
        ("4XX", "teapot", "a status is a number"),
        ("title: Files", "title: Files, title: Files", "stands here twice"),
    ] {
        let found = wrong(from, to);
        assert!(found.iter().any(|line| line.contains(told)), "{to}: {found:?}");
    }
    let json = r##"{ "openapi": "3.0.0",
  "paths": { "/a": { "get": { "responses": { "200":
    { "$ref": "#/nowhere" } } } } } }"##;
    assert_eq!(Api::load(json).unwrap_err()[0].to_string(), "2:46: the reference `#/nowhere` leads nowhere");
    let circle = r##"{ "openapi": "3.0.0", "paths": { "/a": { "$ref": "#/paths/~1a" } } }"##;
    assert!(Api::load(circle).unwrap_err()[0].message.contains("circle"));
    assert!(Api::load("{ \"openapi\": \"3.0.0\", \"openapi\": \"3.0.0\" }").is_err());
    for text in ["", "[]", "a", "{", "openapi", "\0"] {
        assert!(Api::load(text).is_err(), "{text:?}");
    }
    let same = DESCRIPTION.replace("  /notes:", "  /a/{x}: { get: { responses: {}, parameters: [{name: x, in: path, required: true, schema: {}}] } }\n  /a/{y}: { put: { responses: {}, parameters: [{name: y, in: path, required: true, schema: {}}] } }\n  /notes:");
    assert!(Api::load(&same).unwrap_err()[0].message.contains("the same but for the names"));
}
