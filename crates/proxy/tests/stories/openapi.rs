//! Services that are held to the description of their API: what is refused, what is only told, what is learned.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringfence_event::Record;
use serde_json::Value;

use crate::patience::HELP;
use crate::rig::{Rig, eventually, field, get, local, raw};

const DESCRIPTION: &str = r##"
openapi: 3.1.0
info: { title: Notes, version: "1" }
servers: [{ url: /v1 }]
paths:
  /notes:
    get:
      parameters: [{ name: limit, in: query, schema: { type: integer, maximum: 100 } }]
      responses: { "200": { description: all, content: { application/json: { schema: { type: array, items: { $ref: "#/components/schemas/Note" } } } } } }
    post:
      requestBody:
        required: true
        content:
          application/json: { schema: { $ref: "#/components/schemas/Note" } }
          image/png: { schema: { maxLength: 16 } }
      responses: { "201": { description: made, headers: { Location: { required: true, schema: { type: string } } } } }
  /notes/{id}:
    parameters: [{ name: id, in: path, required: true, schema: { type: integer, minimum: 1 } }]
    delete: { responses: { "204": { description: gone } } }
components:
  schemas:
    Note:
      type: object
      required: [title]
      properties:
        title: { type: string, maxLength: 20 }
        owner: { type: object, additionalProperties: false, properties: { name: { type: string } } }
"##;

/// A service that answers what the test says, and what it saw.
struct Service {
    port: u16,
    seen: Arc<AtomicUsize>,
    answer: Arc<Mutex<String>>,
}

impl Service {
    fn start() -> Self {
        let (listener, port) = local();
        let service = Self { port, seen: Arc::default(), answer: Arc::default() };
        service.answers("200 OK", "application/json", "[]");
        let (seen, answer) = (service.seen.clone(), service.answer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &seen, &answer));
            }
        });
        service
    }

    fn answers(&self, status: &str, media: &str, body: &str) {
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n", body.len());
        *self.answer.lock().unwrap() = format!("{head}\r\n{body}");
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, seen: &AtomicUsize, answer: &Mutex<String>) {
    stream.set_read_timeout(Some(HELP)).unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut length, mut chunked) = (String::new(), 0, false);
        while reader.read_line(&mut head).is_ok_and(|read| read > 2) {
            let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            chunked |= line.starts_with("transfer-encoding:");
        }
        if head.is_empty() {
            return;
        }
        seen.fetch_add(1, Ordering::SeqCst);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        while chunked {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).unwrap();
            chunked = size > 0;
        }
        let answer = answer.lock().unwrap().clone();
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn fence(port: u16, openapi: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
external:
  notes:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ path: / }}]
    openapi: {openapi}
"
    )
}

fn start(service: &Service, openapi: &str) -> Rig {
    let rig = Rig::bare(tempfile::tempdir().unwrap());
    rig.connect_control();
    rig.give("notes.yaml", DESCRIPTION.as_bytes());
    rig.apply(&fence(service.port, openapi));
    rig
}

fn dial(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.gateway).unwrap()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

fn ask(rig: &Rig, method: &str, path: &str, media: &str, body: &str) -> String {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    let media = if media.is_empty() { String::new() } else { format!("Content-Type: {media}\r\n") };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    raw(dial(rig), format!("{head}{media}{length}\r\n{body}").as_bytes())
}

fn post(rig: &Rig, body: &str) -> String {
    ask(rig, "POST", "/v1/notes", "application/json", body)
}

/// What a refused client was told.
fn violations(answer: &str) -> Vec<String> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{head}");
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
    assert_eq!(problem["status"], u64::from(status(answer)));
    assert!(problem["instance"].as_str().unwrap().starts_with("urn:uuid:"));
    let word = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let told = problem["violations"].as_array().unwrap();
    let keys = ["in", "name", "pointer", "rule"];
    told.iter().map(|v| keys.map(|key| word(v, key)).join(" ").replace("  ", " ")).collect()
}

/// The event of a refusal by this rule.
fn refusal(rig: &Rig, rule: &str) -> Record {
    rig.event(rule, |r| field(r, "/firewall_rule/uid") == rule)
}

#[test]
fn only_what_is_described_reaches_the_service_and_the_client_learns_which_fields_are_wrong() {
    let service = Service::start();
    let rig = start(&service, "notes.yaml");
    service.answers("201 Created", "text/plain", "");
    assert_eq!(status(&post(&rig, r#"{"title":"one"}"#)), 201);
    // In one form with what routes are chosen by.
    assert_eq!(status(&ask(&rig, "GET", "/v1/./%6Eotes?limit=3", "", "")), 201);
    assert_eq!(status(&ask(&rig, "HEAD", "/v1/notes", "", "")), 201);
    assert_eq!(status(&ask(&rig, "DELETE", "/v1/notes/7", "", "")), 201);
    let chunked = "POST /v1/notes HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let parts = |body: &str| {
        format!("{chunked}5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &body[..5], body.len() - 5, &body[5..])
    };
    assert_eq!(status(&raw(dial(&rig), parts(r#"{"title":"two"}"#).as_bytes())), 201);
    assert_eq!(service.seen(), 5);
    let long = format!(r#"{{"title":"{}"}}"#, "secret".repeat(9));
    let chunked_bad = parts(r#"{"title":17}"#);
    let chunked_none = format!("{chunked}0\r\n\r\n");
    for (answer, wanted, told) in [
        (post(&rig, &long), 400, "body /title maxLength"),
        (
            post(&rig, r#"{"owner":{"role":"admin"},"title":"x"}"#),
            400,
            "body /owner/role additionalProperties",
        ),
        (post(&rig, r#"{"title":"a","title":"b"}"#), 400, "body syntax"),
        (post(&rig, ""), 400, "body missing"),
        (raw(dial(&rig), chunked_bad.as_bytes()), 400, "body /title type"),
        (raw(dial(&rig), chunked_none.as_bytes()), 400, "body missing"),
        (ask(&rig, "GET", "/v1/notes?limit=999", "", ""), 400, "query limit maximum"),
        (ask(&rig, "GET", "/v1/notes?limit=9&limit=8", "", ""), 400, "query limit repeated"),
        (ask(&rig, "GET", "/v1/notes?debug=1", "", ""), 400, "query debug unknown"),
        (ask(&rig, "DELETE", "/v1/notes/0", "", ""), 400, "path id minimum"),
        (ask(&rig, "DELETE", "/v1/notes/x", "", ""), 400, "path id type"),
        (ask(&rig, "POST", "/v1/notes", "text/xml", "<a/>"), 415, "body media-type"),
        (ask(&rig, "POST", "/v1/notes", "image/png", "seventeen bytes.."), 413, "body size"),
        (ask(&rig, "PUT", "/v1/notes", "", ""), 405, "method unknown"),
        (get(dial(&rig), "a", "/v1/admin"), 404, "path unknown"),
        (get(dial(&rig), "a", "/notes"), 404, "path unknown"),
    ] {
        assert_eq!(status(&answer), wanted, "{answer}");
        let all = violations(&answer);
        assert!(all.iter().any(|one| one.replace("  ", " ").trim() == told), "{told}: {all:?}");
        let body = answer.split("\"violations\"").nth(1).unwrap();
        assert!(!answer.contains("secret") && !body.contains("999"), "no value is told: {answer}");
    }
    assert!(ask(&rig, "PUT", "/v1/notes", "", "").contains("\r\nallow: GET, POST\r\n"));
    assert_eq!(service.seen(), 5);
    let detail = "POST /notes: body /title: maxLength, expected at most 20 characters";
    let event = rig.event(detail, |r| field(r, "/status_detail") == detail);
    assert_eq!(field(&event, "/firewall_rule/uid"), "openapi.body");
    assert_eq!(field(&event, "/unmapped/stage"), "validate");
    assert_eq!(field(&event, "/unmapped/position"), "ringfence.yaml:9:14");
    assert_eq!(field(&event, "/unmapped/findings/0/rule"), "openapi.body");
    assert_eq!(field(&event, "/unmapped/findings/0/target"), "body /title");
    for rule in
        ["openapi.parameter", "openapi.content-type", "openapi.size", "openapi.method", "openapi.path"]
    {
        refusal(&rig, rule);
    }
    assert!(rig.events().iter().all(|event| !event.json.to_string().contains("secret")));
}

#[test]
fn what_is_longer_than_is_judged_does_not_pass() {
    let service = Service::start();
    let rig = start(&service, "notes.yaml");
    let open = "POST /v1/notes HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nContent-Type: ";
    // Bytes that nobody reads are bounded by the description all the same.
    let png = format!("{open}image/png\r\n\r\n11\r\nseventeen bytes..\r\n0\r\n\r\n");
    assert_eq!(status(&raw(dial(&rig), png.as_bytes())), 413);
    let huge = "x".repeat(1 << 20);
    let json = format!("{open}application/json\r\n\r\n100010\r\n\"{huge}\"              \r\n0\r\n\r\n");
    assert_eq!(status(&raw(dial(&rig), json.as_bytes())), 413);
    let coded = "POST /v1/notes HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(status(&raw(dial(&rig), coded.as_bytes())), 415);
    assert_eq!(service.seen(), 0);
    refusal(&rig, "openapi.size");
    refusal(&rig, "openapi.coding");
}

#[test]
fn observed_traffic_passes_and_each_difference_is_told_once() {
    let service = Service::start();
    let rig = start(&service, "{ file: notes.yaml, mode: observe, undocumented: observe, responses: off }");
    for n in 0..3 {
        assert_eq!(status(&post(&rig, r#"{"title":17}"#)), 200);
        assert_eq!(status(&get(dial(&rig), "a", &format!("/v1/admin/{n}"))), 200);
        assert_eq!(status(&post(&rig, r#"{"title":"x","colour":"red"}"#)), 200);
    }
    assert_eq!(service.seen(), 9);
    let calls = || rig.events().into_iter().filter(|r| field(r, "/src_endpoint/svc_name") == "outside");
    eventually("all calls", || (calls().count() == 9).then_some(()));
    let mut findings: Vec<String> = calls()
        .flat_map(|r| r.json["unmapped"]["findings"].as_array().cloned().unwrap_or_default())
        .map(|f| {
            format!("{} {} {}", f["rule"].as_str().unwrap(), f["target"].as_str().unwrap(), f["observed"])
        })
        .collect();
    // Threads tell side by side.
    findings.sort();
    assert_eq!(
        findings,
        ["openapi.body body /colour true", "openapi.body body /title true", "openapi.path path true"]
    );
    let would =
        |r: &Record| field(r, "/unmapped/observed/0").to_owned() + field(r, "/unmapped/observed_verdict");
    let mut observed: Vec<String> = calls().map(|r| would(&r)).filter(|text| !text.is_empty()).collect();
    observed.sort();
    assert_eq!(observed, [["openapi.bodydeny"; 3], ["openapi.pathdeny"; 3]].concat());
    // Parts of it may be enforced apart.
    rig.apply(&fence(service.port, "{ file: notes.yaml, mode: observe }"));
    assert_eq!(status(&get(dial(&rig), "a", "/v1/admin/1")), 404);
    assert_eq!(status(&post(&rig, r#"{"title":17}"#)), 200);
    rig.apply(&fence(service.port, "{ file: notes.yaml, mode: off, undocumented: off }"));
    assert_eq!(status(&get(dial(&rig), "a", "/v1/admin/1")), 200);
}

#[test]
fn answers_are_held_to_the_description_where_it_is_asked() {
    let service = Service::start();
    let rig = start(&service, "{ file: notes.yaml, responses: enforce }");
    let answer = |status_line: &str, media: &str, body: &str| {
        service.answers(status_line, media, body);
        get(dial(&rig), "a", "/v1/notes")
    };
    let good = answer("200 OK", "application/json", r#"[{"title":"a"}]"#);
    assert!(good.ends_with(r#"[{"title":"a"}]"#), "{good}");
    for (line, media, body) in [
        ("200 OK", "application/json", r#"[{"title":"a","owner":{"password":"secret"}}]"#),
        ("200 OK", "application/json", r#"[{"titel":"a"}]"#),
        ("200 OK", "text/html", "<h1>secret</h1>"),
        ("500 Oops", "text/plain", "secret stack trace"),
    ] {
        let refused = answer(line, media, body);
        assert_eq!(status(&refused), 502, "{refused}");
        assert!(!refused.contains("secret") && !refused.contains("violations"), "{refused}");
    }
    rig.event("the field that is told of nowhere", |r| {
        field(r, "/firewall_rule/uid") == "openapi.response"
            && field(r, "/status_detail").contains("/0/owner/password: additionalProperties")
    });
    refusal(&rig, "openapi.status");
    rig.apply(&fence(service.port, "{ file: notes.yaml, responses: observe }"));
    assert_eq!(status(&answer("500 Oops", "text/plain", "x")), 500);
    let told = rig.event("what is observed", |r| field(r, "/unmapped/observed/0") == "openapi.status");
    assert_eq!(field(&told, "/unmapped/findings/0/rule"), "openapi.status");
}

#[test]
fn a_wish_for_another_protocol_is_held_to_the_description_too() {
    let service = Service::start();
    let rig = start(&service, "notes.yaml");
    *service.answer.lock().unwrap() =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".into();
    for (path, expected) in [("/v1/notes", 101), ("/live", 404), ("/v1/notes?x=1%27--", 400)] {
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut stream = dial(&rig);
        stream.set_read_timeout(Some(HELP)).unwrap();
        stream.write_all(handshake.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(status(&line), expected, "{path}: {line}");
    }
}

#[test]
fn the_shape_of_observed_traffic_is_kept_and_no_value_of_it() {
    let service = Service::start();
    let rig = start(&service, "{ file: notes.yaml, mode: observe, undocumented: observe }");
    service.answers("201 Created", "application/json", r#"{"id":4711,"by":"secret@example.com"}"#);
    ask(
        &rig,
        "POST",
        "/v1/patients/4711/visits?word=secret",
        "application/json",
        r#"{"name":"secret","age":4711}"#,
    );
    let event = rig.event("a shape", |r| !field(r, "/unmapped/shape").is_empty());
    let shape = field(&event, "/unmapped/shape");
    assert!(!shape.contains("secret") && !shape.contains("4711"), "{shape}");
    let sample: Value = serde_json::from_str(shape).unwrap();
    assert_eq!(
        (sample["path"].as_str(), sample["status"].as_u64()),
        (Some("/v1/patients/{integer}/visits"), Some(201))
    );
    assert_eq!(sample["request"]["body"]["p"]["name"]["k"]["string"], 1);
    assert_eq!(sample["response"]["body"]["p"]["by"]["f"], "email");
    // Nothing is kept where the description is enforced.
    rig.apply(&fence(service.port, "notes.yaml"));
    post(&rig, r#"{"title":"enforced"}"#);
    let event = rig.event("the call", |r| field(r, "/http_request/url/path") == "/v1/notes");
    assert_eq!(field(&event, "/unmapped/shape"), "");
}

#[test]
fn a_description_that_cannot_be_enforced_is_never_in_force() {
    let service = Service::start();
    let rig = start(&service, "notes.yaml");
    rig.give("broken.yaml", b"openapi: 3.1.0\npaths: { /x: { get: { parameters: [{ in: query }] } } }\n");
    let (revision, snapshot) = rig.control.snapshot(&fence(service.port, "broken.yaml"));
    rig.send(&snapshot);
    let why = eventually("the refusal", || {
        let answers = rig.control.answers.lock().unwrap();
        answers.iter().find(|(of, _)| *of == revision).and_then(|(_, why)| why.clone())
    });
    assert!(why.contains("broken.yaml:2:") && why.contains("a parameter has a name"), "{why}");
    assert_eq!(status(&post(&rig, r#"{"title":17}"#)), 400, "the one before still holds");
}

#[test]
fn without_control_a_node_enforces_the_files_that_it_kept_and_lets_nobody_in_where_one_was_changed() {
    let service = Service::start();
    service.answers("201 Created", "text/plain", "");
    let rig = start(&service, "notes.yaml");
    let (good, bad) = (r#"{"title":"one"}"#, r#"{"title":17}"#);
    let again = |rig: Rig| {
        let control = rig.control.clone();
        control.answers.lock().unwrap().clear();
        Rig::with_control(rig.stop(), control)
    };
    let rig = again(rig);
    assert_eq!((status(&post(&rig, good)), status(&post(&rig, bad))), (201, 400), "control is away");
    // Whoever can write there cannot take the description away, or put another in its place.
    let digest = ringfence_snapshot::Digest::of(DESCRIPTION.as_bytes());
    let kept = rig.dir.path().join("proxy/content").join(digest.to_string());
    std::fs::write(&kept, DESCRIPTION.replace("type: string, maxLength: 20", "maxLength: 20")).unwrap();
    let rig = again(rig);
    let seen = service.seen();
    assert_ne!(status(&post(&rig, good)), 201);
    assert_ne!(status(&post(&rig, bad)), 201);
    assert_eq!(service.seen(), seen);
    let why = "the last good snapshot is not used: notes.yaml did not come, which the snapshot names";
    rig.event("what is missing", |r| r.json.to_string().contains(why));
    rig.connect_control();
    rig.give("notes.yaml", DESCRIPTION.as_bytes());
    rig.apply(&fence(service.port, "notes.yaml"));
    assert_eq!((status(&post(&rig, good)), status(&post(&rig, bad))), (201, 400), "control is back");
}
