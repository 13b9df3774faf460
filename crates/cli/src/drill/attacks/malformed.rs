//! Requests that are not as a service's description says: none of them may reach it.

use std::sync::atomic::Ordering;

use crate::drill::stage::Stage;
use crate::drill::target::Target;
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, Speak};
use crate::drill::{Outcome, Unable};

/// What the service of its fence is held to.
const OPENAPI: &str = "openapi: { file: openapi/notes.yaml, responses: off }";
const JSON: &str = "application/json";

/// Name, first line, content type and body; `secret` is no field of the description.
const ATTACKS: &[(&str, &str, &str, &str)] = &[
    ("a field that is not described", "POST /notes", JSON, r#"{"title":"a","admin":true}"#),
    ("a field of another type", "POST /notes", JSON, r#"{"title":{"$ne":""}}"#),
    ("a field that is too long", "POST /notes", JSON, r#"{"title":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#),
    ("a field that stands twice", "POST /notes", JSON, r#"{"title":"a","title":"b"}"#),
    ("half a body", "POST /notes", JSON, r#"{"title":"a"#),
    ("no body", "POST /notes", JSON, ""),
    ("another content type", "POST /notes", "application/xml", "<title>a</title>"),
    ("a parameter of another type", "GET /notes?limit=1%20or%201", "", ""),
    ("a parameter that stands twice", "GET /notes?limit=1&limit=2", "", ""),
    ("a parameter that is not described", "GET /notes?debug=true", "", ""),
    ("a method that is not described", "DELETE /notes", "", ""),
    ("a path that is not described", "GET /actuator/env", "", ""),
];

pub(super) fn body(target: &Target) -> Result<Outcome, Unable> {
    if target.stand_in().is_some() {
        return Err(Unable::new("it attacks a fence of its own"));
    }
    let (mut stage, seen) = Stage::described(&target.lenient(OPENAPI))?;
    stage.wait_for("/notes")?;
    let mut watch = Watch::begin(&stage.events())?;
    let send = |line: &str, media: &str, body: &str| {
        let media = if media.is_empty() { String::new() } else { format!("Content-Type: {media}\r\n") };
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request =
            format!("{line} HTTP/1.1\r\nHost: drill\r\n{media}{length}Connection: close\r\n\r\n{body}");
        let answer = wire::exchange(stage.gateway, &Speak::Plain, request.as_bytes());
        let answer = answer.map_err(|e| Unable::new(format!("{}: {e}", stage.gateway)))?;
        Ok::<_, Unable>(wire::status(&answer.bytes))
    };
    if send("POST /notes", JSON, r#"{"title":"honest"}"#)? != Some(200) {
        return Err(Unable::new("an honest request was not answered"));
    }
    let (mut passed, mut untold) = (Vec::new(), Vec::new());
    for (name, line, media, text) in ATTACKS {
        let before = seen.load(Ordering::SeqCst);
        let refused = send(line, media, text)?.is_some_and(|status| (400..500).contains(&status));
        if !refused || seen.load(Ordering::SeqCst) != before {
            passed.push(*name);
        }
        let told =
            watch.wait(|e| e.kind() == "call" && e.denied() && rule(e).starts_with("openapi.")).is_some();
        if !told {
            untold.push(*name);
        }
    }
    let detail = format!("{} of {} requests refused", ATTACKS.len() - passed.len(), ATTACKS.len());
    Ok(Outcome::listed(detail, &passed, &untold))
}
