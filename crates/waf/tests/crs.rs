//! The tests of the Core Rule Set against the engine alone: whether exactly the expected rules are told.

#![expect(clippy::unwrap_used, reason = "a test whose files cannot be read fails")]

mod ftw;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringfence_waf::{Files, Options, Rules, Scratch, Source, Transaction};

/// Tests that say what a web server answers before any rule is asked, and nothing of rules.
const FRONT_END: &str = "judged by the front end, before the rules";

/// What is expected otherwise than it turns out here, and why.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "920181-1",
        "the test expects a front end that drops Content-Length beside Transfer-Encoding; ours refuses both",
    ),
    (
        "920620-1",
        "the test expects a front end that joins two Content-Type headers; the rule sees them apart, which is its purpose",
    ),
];

/// The folder of the rule set: `RINGFENCE_GOLDEN`, which the test runner sets.
fn golden() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test is told by its environment where the reference data lies"
    )]
    let root = std::env::var_os("RINGFENCE_GOLDEN");
    let path = root.map(|root| PathBuf::from(root).join("crs")).filter(|path| path.is_dir());
    if path.is_none() {
        // Past the capture of the test harness: what has not been checked is said.
        let _ =
            writeln!(std::io::stderr(), "ABSENT: crs under RINGFENCE_GOLDEN: its test has checked nothing");
    }
    path
}

struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, _: &str, path: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(path)).ok()
    }
}

/// The rules with the settings that the tests' own instructions ask for.
fn rules(folder: &Path) -> Arc<Rules> {
    let text = |path: PathBuf| std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut sources = vec![
        Source::base(),
        Source::new("crs-setup.conf", text(folder.join("crs-setup.conf.example"))),
        Source::new("tests.conf", settings(&folder.join("tests/README.md"))),
    ];
    let rules = folder.join("rules");
    let mut files: Vec<_> = std::fs::read_dir(&rules).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    assert!(files.len() > 20, "{} has no rules", rules.display());
    sources.extend(files.into_iter().map(|file| Source::new(file.display().to_string(), text(file))));
    Arc::new(
        Rules::load(&sources, &Folder(rules), &Options::default())
            .unwrap_or_else(|errors| panic!("{errors:#?}")),
    )
}

/// The rule that the instructions give, and that responses are looked at.
fn settings(readme: &Path) -> String {
    let text = std::fs::read_to_string(readme).unwrap();
    let start = text.find("SecAction \"id:900005").expect("the instructions give rule 900005");
    let length = text[start..].find("```").unwrap();
    format!(
        "SecResponseBodyAccess On\nSecResponseBodyMimeType text/plain text/html text/xml application/json\n{}",
        &text[start..start + length]
    )
}

/// What one request made the rules tell.
struct Told {
    ids: Vec<u64>,
    lines: Vec<String>,
}

fn ask(rules: &Arc<Rules>, scratch: Scratch, request: &[u8]) -> (Told, Scratch) {
    let end = request.windows(4).position(|w| w == b"\r\n\r\n").map_or(request.len(), |at| at + 2);
    let mut lines =
        request[..end].split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next().unwrap_or_default();
    let (method, rest) = split(line, line.iter().position(|b| *b == b' '));
    let (uri, protocol) = split(rest, rest.iter().rposition(|b| *b == b' '));
    // A line without a version is of the first HTTP there was.
    let protocol = if protocol.is_empty() { b"HTTP/0.9" } else { protocol };
    let mut transaction = Transaction::new(rules, scratch);
    transaction.connection(([127, 0, 0, 1].into(), 40_000), ([127, 0, 0, 1].into(), 80));
    transaction.request_line(method, uri, protocol);
    let (mut chunked, mut length) = (false, 0);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = split(line, line.iter().position(|b| *b == b':'));
        chunked |=
            name.eq_ignore_ascii_case(b"transfer-encoding") && value.trim_ascii().ends_with(b"chunked");
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value.trim_ascii())
                .ok()
                .and_then(|l| l.parse().ok())
                .unwrap_or(usize::MAX);
        }
        transaction.request_header(name, value.trim_ascii());
    }
    let body = request.get(end + 2..).unwrap_or_default();
    let body = if chunked { dechunked(body) } else { body[..body.len().min(length)].to_vec() };
    let _ = transaction.phase1();
    if transaction.interest() == ringfence_waf::Interest::All {
        transaction.request_body(&body);
    }
    let _ = transaction.phase2();
    let (status, headers, response) = reflected(uri, &body);
    transaction.response_head(status, b"HTTP/1.1");
    for (name, value) in &headers {
        transaction.response_header(name.as_bytes(), value.as_bytes());
    }
    let _ = transaction.phase3();
    if transaction.wants_response_body() {
        transaction.response_body(&response);
        let _ = transaction.phase4();
    }
    transaction.phase5();
    let mut told = Told { ids: Vec::new(), lines: Vec::new() };
    for hit in transaction.matches() {
        let at = hit.variables.first().map_or("", |variable| variable.name.as_str());
        told.ids.push(hit.rule.id);
        let line =
            format!("at {at}. [id \"{}\"] [msg \"{}\"] [data \"{}\"]", hit.rule.id, hit.message, hit.data);
        // A log has each on one line.
        told.lines.push(line.replace(char::is_control, "."));
    }
    (told, transaction.into_scratch())
}

fn split(line: &[u8], at: Option<usize>) -> (&[u8], &[u8]) {
    at.map_or((line, &[]), |at| (&line[..at], &line[at + 1..]))
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let Some(chunk) =
            size.and_then(|size| rest.get(end + 2..end + 2 + size)).filter(|chunk| !chunk.is_empty())
        else {
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 2 + chunk.len() + 2..).unwrap_or_default();
    }
    body
}

/// The answer of the back end that the tests expect: at `/reflect` what the request asks for, else an empty one.
fn reflected(uri: &[u8], body: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let asked = uri
        .starts_with(b"/reflect")
        .then(|| serde_json::from_slice::<serde_json::Value>(body).ok())
        .flatten();
    let Some(asked) = asked else { return (200, Vec::new(), Vec::new()) };
    let status = asked["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
    let fields = asked["headers"].as_object().into_iter().flatten();
    let headers =
        fields.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let body = match (asked["body"].as_str(), asked["encodedBody"].as_str()) {
        (Some(body), _) => body.as_bytes().to_vec(),
        (None, Some(encoded)) => ftw::base64(encoded).expect("the tests encode bodies rightly"),
        (None, None) => Vec::new(),
    };
    (status, headers, body)
}

/// What is wrong with what the rules told, if anything.
fn judge(expect: &ftw::Expect, told: &Told) -> Result<(), String> {
    let missing: Vec<_> = expect.ids.iter().filter(|id| !told.ids.contains(id)).collect();
    let surplus: Vec<_> = expect.no_ids.iter().filter(|id| told.ids.contains(id)).collect();
    if !missing.is_empty() || !surplus.is_empty() {
        return Err(format!("missing {missing:?}, must not match {surplus:?}, matched {:?}", told.ids));
    }
    if let Some(pattern) = &expect.log {
        let regex = regex_automata::meta::Regex::new(pattern).expect("the tests' expressions are sound");
        if !told.lines.iter().any(|line| regex.is_match(line.as_str())) {
            return Err(format!("nothing told matches {pattern}: {:#?}", told.lines));
        }
    }
    Ok(())
}

#[test]
fn the_core_rule_set_matches_what_its_tests_expect() {
    let Some(folder) = golden() else { return };
    let rules = rules(&folder);
    let cases = ftw::load(&folder.join("tests")).unwrap();
    let elsewhere = ftw::statuses_elsewhere(&folder).unwrap();
    // Some are of tests that the reference data leaves out.
    assert!(elsewhere.keys().any(|id| cases.iter().any(|case| case.id == *id)));
    let mut scratch = Scratch::default();
    let (mut passed, mut front_end, mut failed) = (0, 0, BTreeMap::new());
    for case in &cases {
        let mut verdict = Ok(());
        let mut judged = false;
        for stage in &case.stages {
            let expect = &stage.expect;
            let (told, buffers) = ask(&rules, std::mem::take(&mut scratch), &stage.request);
            scratch = buffers;
            judged |= !(expect.ids.is_empty() && expect.no_ids.is_empty() && expect.log.is_none());
            verdict = verdict.and_then(|()| judge(expect, &told));
        }
        match verdict {
            _ if !judged => front_end += 1,
            Ok(()) => passed += 1,
            Err(why) => drop(failed.insert(case.id.as_str(), why)),
        }
    }
    let total = cases.len();
    println!("crs: {passed}/{} ({front_end} {FRONT_END})", total - front_end);
    for (id, why) in &failed {
        println!("{id}: {why}");
    }
    let listed: Vec<_> = DIFFERENT.iter().map(|(id, _)| *id).collect();
    assert_eq!(failed.keys().copied().collect::<Vec<_>>(), listed, "of {total}");
    assert!(front_end < 20 && passed * 1000 >= (total - front_end) * 995);
}
