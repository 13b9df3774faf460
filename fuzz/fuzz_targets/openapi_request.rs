//! Requests judged by a description that has every style and content type: no input makes it panic, and what is refused is bounded.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_openapi::{Api, Found, Length, MAX_VIOLATIONS, Report};

const DESCRIPTION: &str = r##"
openapi: 3.1.0
info: { title: Fuzz, version: "1" }
paths:
  /p/{simple}/{label}/{matrix}:
    parameters:
      - { name: simple, in: path, required: true, schema: { type: array, items: { type: integer } } }
      - { name: label, in: path, required: true, style: label, explode: true, schema: { type: object } }
      - { name: matrix, in: path, required: true, style: matrix, schema: { type: [string, integer], maxLength: 9 } }
      - { name: form, in: query, schema: { type: object, properties: { a: { type: integer } }, additionalProperties: { type: string } } }
      - { name: list, in: query, explode: false, schema: { type: array, items: { type: number }, maxItems: 3 } }
      - { name: space, in: query, style: spaceDelimited, explode: false, schema: { type: array, items: { type: string } } }
      - { name: pipe, in: query, style: pipeDelimited, explode: false, schema: { type: object } }
      - { name: deep, in: query, style: deepObject, schema: { type: object, properties: { l: { type: array, items: { type: boolean } } } } }
      - { name: json, in: query, content: { application/json: { schema: { type: object, required: [a] } } } }
      - { name: X-List, in: header, schema: { type: array, items: { type: integer } } }
      - { name: sid, in: cookie, schema: { type: array, items: { type: string } } }
    post:
      requestBody:
        content:
          application/json: { schema: { $ref: "#/components/schemas/T" } }
          application/x-www-form-urlencoded: { schema: { $ref: "#/components/schemas/T" } }
          multipart/form-data: { schema: { $ref: "#/components/schemas/T" }, encoding: { s: { contentType: text/plain } } }
          text/plain: { schema: { type: string, pattern: "^(a+)+$" } }
      responses: {}
components:
  schemas:
    T:
      type: object
      required: [v]
      additionalProperties: false
      properties: { v: { type: integer }, s: { type: string, format: date-time }, l: { type: array, uniqueItems: true, items: { $ref: "#/components/schemas/T" } } }
"##;

static API: LazyLock<Api> = LazyLock::new(|| Api::load(DESCRIPTION).expect("a description"));

fuzz_target!(|input: (String, String, String, String, u8, Vec<u8>)| {
    let (path, query, header, cookie, media, body) = input;
    let path = format!("/p/{path}");
    let Found::Operation(found) = API.find("POST", &path) else { return };
    let media = match media % 5 {
        0 => "application/json",
        1 => "application/x-www-form-urlencoded",
        2 => "multipart/form-data; boundary=b",
        3 => "text/plain",
        _ => &header,
    };
    let fields = [("content-type", media), ("x-list", header.as_str()), ("cookie", cookie.as_str())];
    let mut report = Report::default();
    found.head(Some(&query), &fields[..], Length::Known(body.len() as u64), &mut report);
    found.operation().body(Some(media.as_bytes()), &body, true, &mut report);
    assert!(report.violations.len() <= MAX_VIOLATIONS);
    let _ = (report.status(), report.for_client().to_string(), report.summary(5));
});
