//! SQL where a client should send data, in every place and form in which a service may read it.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::drill::stage::Stage;
use crate::drill::target::Target;
use crate::drill::watch::{Watch, rule};
use crate::drill::wire::{self, Speak};
use crate::drill::{Outcome, Unable};

/// What a route needs for it, in a fence that says `waf: off`.
const WAF: &str = ", waf: enforce";
const SQL: &str = "1' UNION SELECT name, password FROM users -- ";
const ENCODED: &str = "1%27%20UNION%20SELECT%20name,%20password%20FROM%20users%20--%20";

/// One attack: its name, method and path, fields and body.
struct Attack {
    name: &'static str,
    target: String,
    fields: String,
    body: Vec<u8>,
}

pub(super) fn sql(target: &Target) -> Result<Outcome, Unable> {
    if target.stand_in().is_some() {
        return Err(Unable::new("it attacks a fence of its own"));
    }
    let mut stage = Stage::raise_with(&target.lenient(WAF))?;
    stage.wait_for("/")?;
    let mut watch = Watch::begin(&stage.events())?;
    let send = |attack: &Attack| {
        let mut bytes = format!(
            "{} HTTP/1.1\r\nHost: drill\r\nUser-Agent: drill\r\nAccept: */*\r\n{}Connection: close\r\n",
            attack.target, attack.fields
        );
        if !attack.body.is_empty() && !attack.fields.contains("chunked") {
            bytes.push_str(&format!("Content-Length: {}\r\n", attack.body.len()));
        }
        let bytes = [format!("{bytes}\r\n").as_bytes(), &attack.body].concat();
        let answer = wire::exchange(stage.gateway, &Speak::Plain, &bytes);
        let answer = answer.map_err(|e| Unable::new(format!("{}: {e}", stage.gateway)))?;
        Ok::<_, Unable>(wire::status(&answer.bytes))
    };
    let honest =
        post("honest", "application/json", r#"{"name": "O'Brien", "note": "select the union of both"}"#);
    if send(&honest)? != Some(200) {
        return Err(Unable::new("an honest request was not answered"));
    }
    let attacks = attacks()?;
    let (mut passed, mut untold) = (Vec::new(), Vec::new());
    for attack in &attacks {
        if send(attack)? != Some(403) {
            passed.push(attack.name);
        }
        let told = watch.wait(|e| e.kind() == "call" && e.denied() && rule(e).starts_with("waf.")).is_some();
        if !told {
            untold.push(attack.name);
        }
    }
    let detail = format!("{} of {} attacks refused", attacks.len() - passed.len(), attacks.len());
    Ok(Outcome::listed(detail, &passed, &untold))
}

fn post(name: &'static str, kind: &str, body: impl Into<Vec<u8>>) -> Attack {
    Attack { name, target: "POST /".into(), fields: format!("Content-Type: {kind}\r\n"), body: body.into() }
}

fn attacks() -> Result<Vec<Attack>, Unable> {
    let get = |name, target: String| Attack { name, target, fields: String::new(), body: Vec::new() };
    let form = "application/x-www-form-urlencoded";
    let coded = |name, fields: &str, body: Vec<u8>| {
        let attack = post(name, form, body);
        Attack { fields: attack.fields + fields, ..attack }
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let packed = gzip.write_all(format!("q={ENCODED}").as_bytes()).and_then(|()| gzip.finish());
    let packed = packed.map_err(|e| Unable::new(format!("cannot compress: {e}")))?;
    let chunks: String = format!("q={ENCODED}").chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    Ok(vec![
        get("query", format!("GET /?q={ENCODED}")),
        get("query, encoded twice", format!("GET /?q={}", ENCODED.replace('%', "%25"))),
        get("name of an argument", format!("GET /?{ENCODED}=1")),
        post("form", form, format!("a=1&q={ENCODED}")),
        post("JSON", "application/json", format!(r#"{{"a":[{{"q":"{SQL}"}}]}}"#)),
        post("JSON, escaped", "application/json", r#"{"q":"1\u0027 \u0055NION SELECT name FROM users -- "}"#),
        post(
            "multipart",
            "multipart/form-data; boundary=drill",
            format!("--drill\r\nContent-Disposition: form-data; name=\"q\"\r\n\r\n{SQL}\r\n--drill--\r\n"),
        ),
        post("XML", "application/xml", format!("<a><q>{SQL}</q></a>")),
        coded("compressed form", "Content-Encoding: gzip\r\n", packed),
        coded("form in small pieces", "Transfer-Encoding: chunked\r\n", (chunks + "0\r\n\r\n").into()),
        Attack { fields: format!("Cookie: q={ENCODED}\r\n"), ..get("cookie", "GET /".into()) },
    ])
}
