//! Tests of the Core Rule Set as go-ftw reads them: each stage becomes the very bytes that are sent, and what has to be told of them.
//!
//! Shared by the test of the engine and by `cargo xtask conform crs`, which asks the running gateway.

mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use yaml::Value;

/// One test: `942100-7`.
#[derive(Debug)]
pub(crate) struct Case {
    pub id: String,
    pub stages: Vec<Stage>,
}

/// One request of a test.
#[derive(Debug)]
pub(crate) struct Stage {
    pub request: Vec<u8>,
    pub expect: Expect,
}

/// What has to come of a request.
#[derive(Debug, Default)]
pub(crate) struct Expect {
    /// Rules that have to match.
    pub ids: Vec<u64>,
    /// Rules that must not.
    pub no_ids: Vec<u64>,
    /// An expression that some line of the log has to match.
    pub log: Option<String>,
    pub status: Option<u16>,
    /// No answer, or one that is not HTTP.
    pub error: bool,
}

/// Reads every test below `folder`, in the order of their names.
pub(crate) fn load(folder: &Path) -> Result<Vec<Case>, String> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        read(&text, &mut cases).map_err(|problem| format!("{}: {problem}", file.display()))?;
    }
    Ok(cases)
}

/// What other front ends answer instead, by the `*-overrides.yaml` beside the rules: a status for a test.
pub(crate) fn statuses_elsewhere(folder: &Path) -> Result<BTreeMap<String, u16>, String> {
    let mut statuses = BTreeMap::new();
    for entry in std::fs::read_dir(folder)
        .map_err(|error| format!("cannot read {}: {error}", folder.display()))?
        .flatten()
    {
        let path = entry.path();
        if !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-overrides.yaml")) {
            continue;
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let document = yaml::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))?;
        for test in document.iter().flat_map(|d| d.field("test_overrides").map_or(&[][..], Value::items)) {
            let rule = test.field("rule_id").and_then(Value::text).unwrap_or_default();
            let Some(status) = test.field("output").and_then(|output| output.field("status")) else {
                continue;
            };
            for id in test.field("test_ids").map_or(&[][..], Value::items).iter().filter_map(Value::text) {
                let status: u16 = number(status)?;
                statuses.entry(format!("{rule}-{id}")).and_modify(|s| *s = status.max(*s)).or_insert(status);
            }
        }
    }
    Ok(statuses)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    Ok(())
}

fn read(text: &str, cases: &mut Vec<Case>) -> Result<(), String> {
    let Some(document) = yaml::parse(text)? else { return Ok(()) };
    let rule = document.field("rule_id").and_then(Value::text).ok_or("a file without rule_id")?;
    for test in document.field("tests").map_or(&[][..], Value::items) {
        let number = test.field("test_id").and_then(Value::text).ok_or("a test without test_id")?;
        let id = format!("{rule}-{number}");
        let stages = test.field("stages").map_or(&[][..], Value::items);
        let stages: Result<Vec<_>, String> = stages.iter().map(stage).collect();
        let stages = stages.map_err(|problem| format!("{id}: {problem}"))?;
        if stages.is_empty() {
            return Err(format!("{id}: no stages"));
        }
        cases.push(Case { id, stages });
    }
    Ok(())
}

fn stage(stage: &Value) -> Result<Stage, String> {
    // Older files wrap each stage once more.
    let stage = stage.field("stage").unwrap_or(stage);
    let input = stage.field("input").ok_or("a stage without input")?;
    let output = stage.field("output").ok_or("a stage without output")?;
    Ok(Stage { request: request(input)?, expect: expect(output)? })
}

fn expect(output: &Value) -> Result<Expect, String> {
    let mut expect = Expect::default();
    for (name, value) in output.fields() {
        match name.as_str() {
            "status" => expect.status = Some(number(value)?),
            "expect_error" => expect.error = value.is_true(),
            // Others wait for a log file; nothing here does.
            "retry_once" => {}
            "log" => {
                for (name, value) in value.fields() {
                    let ids = || value.items().iter().map(number).collect::<Result<Vec<u64>, _>>();
                    match name.as_str() {
                        "expect_ids" => expect.ids = ids()?,
                        "no_expect_ids" => expect.no_ids = ids()?,
                        "match_regex" => expect.log = value.text().map(str::to_owned),
                        unknown => return Err(format!("unknown expectation `log.{unknown}`")),
                    }
                }
            }
            unknown => return Err(format!("unknown expectation `{unknown}`")),
        }
    }
    Ok(expect)
}

fn number<N: std::str::FromStr>(value: &Value) -> Result<N, String> {
    value
        .text()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "something else where a number has to stand".to_owned())
}

/// The bytes of a request, completed as go-ftw completes them.
fn request(input: &Value) -> Result<Vec<u8>, String> {
    const KNOWN: [&str; 11] = [
        "dest_addr",
        "port",
        "protocol",
        "method",
        "uri",
        "version",
        "headers",
        "data",
        "encoded_request",
        "autocomplete_headers",
        "follow_redirect",
    ];
    if let Some((unknown, _)) = input.fields().iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
        return Err(format!("unknown input `{unknown}`"));
    }
    let text = |name: &str| input.field(name).and_then(Value::text);
    if let Some(encoded) = text("encoded_request") {
        return base64(encoded).ok_or_else(|| "encoded_request is not Base64".to_owned());
    }
    let method = text("method").unwrap_or("GET");
    let complete = input.field("autocomplete_headers").is_none_or(Value::is_true);
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in input.field("headers").map_or(&[][..], Value::fields) {
        headers.push((name.clone(), value.text().unwrap_or_default().to_owned()));
    }
    let has = |headers: &[(String, String)], wanted: &str| {
        headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    let mut data = text("data").unwrap_or_default().to_owned();
    if complete && !data.is_empty() {
        if !has(&headers, "content-type") {
            headers.push(("Content-Type".into(), FORM.into()));
        }
        if headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("content-type") && value == FORM) {
            data = encoded_form(data);
        }
    }
    let is_multipart = |(name, value): &(String, String)| {
        name.eq_ignore_ascii_case("content-type") && value.contains("multipart/form-data;")
    };
    if headers.iter().any(is_multipart) {
        data = data.replace('\n', "\r\n");
    }
    if complete {
        if !has(&headers, "connection") {
            headers.push(("Connection".into(), "close".into()));
        }
        let sends = method.starts_with("POST")
            || method.contains("PUT")
            || method.contains("PATCH")
            || method.ends_with("DELETE");
        if !has(&headers, "content-length") && (sends || !data.is_empty()) {
            headers.push(("Content-Length".into(), data.len().to_string()));
        }
    }
    let mut raw =
        format!("{method} {} {}\r\n", text("uri").unwrap_or("/"), text("version").unwrap_or("HTTP/1.1"));
    for (name, value) in &headers {
        raw += &format!("{name}: {value}\r\n");
    }
    raw += "\r\n";
    raw += &data;
    Ok(raw.into_bytes())
}

const FORM: &str = "application/x-www-form-urlencoded";

/// A form that looks as if nobody had encoded it is encoded, name by name and value by value.
fn encoded_form(data: String) -> String {
    if data.contains(['%', '+']) {
        return data;
    }
    let escape = |text: &str| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte))
                }
                b' ' => out.push('+'),
                other => out += &format!("%{other:02X}"),
            }
        }
        out
    };
    // A separator at the end is dropped.
    let pieces =
        data.strip_suffix('&').unwrap_or(&data).split('&').map(|piece| match piece.split_once('=') {
            Some((name, value)) => format!("{}={}", escape(name), escape(value)),
            None => escape(piece),
        });
    pieces.collect::<Vec<_>>().join("&")
}

pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = ALPHABET.iter().position(|known| *known == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}
