//! A release of a rule set is brought over a local server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use ringfence_snapshot::Digest;
use serde_json::Value;
use tar::{Builder, EntryType, Header};

use crate::RULE;
use crate::running::text;

/// A release with these files.
fn release(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in files {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(EntryType::Regular);
        builder.append_data(&mut header, format!("coreruleset-9/{name}"), text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

/// Serves some answers, one after the other: a path and what is answered.
fn serve(answers: Vec<(&'static str, Vec<u8>)>) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        for (path, answer) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            assert_eq!(head[0], format!("GET {path} HTTP/1.1"));
            stream.write_all(&answer).unwrap();
        }
    });
    (format!("http://{address}"), serving)
}

fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn ringfence(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_release_is_brought_checked_by_its_digest_and_in_use_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(
        path.join("ringfence.yaml"),
        "fence: t\ntrust_domain: t.example\ngateway: { listen: 127.0.0.1:1 }\nwaf: { crs: rules/crs }\nservices: { a: { listen: 1, routes: [{ path: / }] } }\n",
    )
    .unwrap();
    let missing = ringfence(path, &["check"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("content fetch crs"), "{}", text(&missing.stderr));

    let first = release(&[
        ("rules/words.conf", RULE),
        ("rules/words.data", "evil\n"),
        ("crs-setup.conf.example", "SecAction \"id:900990,phase:1,pass,nolog\"\n"),
        ("LICENSE", "free"),
        ("tests/huge.yaml", "x"),
    ]);
    let digest = Digest::of(&first).to_string();
    let fetch = |address: &str, more: &[&str]| {
        ringfence(path, &[&["content", "fetch", "crs", "--from", address], more].concat())
    };
    let (server, served) = serve(vec![
        ("/crs.tar.gz", ok(&first)),
        ("/crs.tar.gz", ok(&first)),
        ("/latest", b"HTTP/1.1 302 Found\r\nlocation: /crs.tar.gz\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ("/crs.tar.gz", ok(&first)),
        ("/gone", b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
    ]);
    let at = |name: &str| format!("{server}/{name}");
    for more in [&[][..], &["--sha256", &"0".repeat(64)]] {
        let other = fetch(&at("crs.tar.gz"), more);
        assert_eq!(other.status.code(), Some(1), "these are not the bytes that are known");
        assert!(text(&other.stderr).contains(&digest), "{}", text(&other.stderr));
        assert!(!path.join("rules").exists(), "nothing is written");
    }
    let brought = fetch(&at("latest"), &["--sha256", &digest, "--json"]);
    assert_eq!(brought.status.code(), Some(0), "{}", text(&brought.stderr));
    let told: Value = serde_json::from_slice(&brought.stdout).unwrap();
    assert_eq!((told["files"].as_u64(), told["sha256"].as_str()), (Some(4), Some(&*digest)));
    assert!(told["rules"].as_u64().unwrap() >= 2);
    assert!(path.join("rules/crs/rules/words.data").exists() && !path.join("rules/crs/tests").exists());
    assert_eq!(fetch(&at("gone"), &["--sha256", &digest]).status.code(), Some(3));
    served.join().unwrap();

    let check = ringfence(path, &["check"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    assert!(text(&check.stdout).contains("3 files of rules"), "{}", text(&check.stdout));
    let cost = ringfence(path, &["waf", "cost", "--time", "50ms", "--json"]);
    assert_eq!(cost.status.code(), Some(0), "{}", text(&cost.stderr));
    let cost: Value = serde_json::from_slice(&cost.stdout).unwrap();
    assert!(cost["us_per_request"].as_f64().unwrap() > 0.0 && cost["rounds"].as_u64().unwrap() > 0);
    let named = |rule: u64| cost["costs"].as_array().unwrap().iter().any(|cost| cost["rule"] == rule);
    assert!(named(1001) || named(0), "{cost}");
    std::fs::write(path.join("requests"), "{\"target\":\"/?q=evil\"}\n").unwrap();
    let table = ringfence(path, &["waf", "cost", "--time", "20ms", "--requests", "requests"]);
    assert!(text(&table.stdout).contains("µs each"), "{}", text(&table.stdout));
    std::fs::write(path.join("requests"), "nonsense\n").unwrap();
    assert_eq!(ringfence(path, &["waf", "cost", "--requests", "requests"]).status.code(), Some(2));

    // The next release, from a file; what the operator wrote stays.
    std::fs::write(path.join("rules/crs/crs-setup.conf"), "# mine\n").unwrap();
    let next = release(&[("rules/words.conf", RULE), ("rules/words.data", "wicked\n")]);
    std::fs::write(path.join("next.tar.gz"), &next).unwrap();
    let next = Digest::of(&next).to_string();
    let replaced = fetch("next.tar.gz", &["--sha256", &next]);
    assert_eq!(replaced.status.code(), Some(0), "{}", text(&replaced.stderr));
    assert!(text(&replaced.stdout).contains("crs-setup.conf is as it was"), "{}", text(&replaced.stdout));
    assert_eq!(std::fs::read_to_string(path.join("rules/crs/rules/words.data")).unwrap(), "wicked\n");
    assert!(!path.join("rules/crs/LICENSE").exists());

    // What the engine cannot read does not take the place of what it can.
    let broken =
        release(&[("rules/a.conf", "SecRule ARGS \"@pmFromFile lost.data\" \"id:1,phase:2,deny\"\n")]);
    std::fs::write(path.join("broken.tar.gz"), &broken).unwrap();
    let refused = fetch("broken.tar.gz", &["--sha256", &Digest::of(&broken).to_string()]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("a.conf:1:"), "{}", text(&refused.stderr));
    assert!(path.join("rules/crs/rules/words.conf").exists());
}

#[test]
fn nothing_is_fetched_in_the_clear_from_elsewhere_or_over_what_is_no_rule_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let clear = ringfence(path, &["content", "fetch", "crs", "--from", "http://192.0.2.1/crs.tar.gz"]);
    assert_eq!(clear.status.code(), Some(3));
    assert!(text(&clear.stderr).contains("neither https"), "{}", text(&clear.stderr));
    let ftp = ringfence(path, &["content", "fetch", "crs", "--from", "ftp://127.0.0.1/crs.tar.gz"]);
    assert_eq!(ftp.status.code(), Some(3));
    std::fs::create_dir(path.join("thesis")).unwrap();
    std::fs::write(path.join("thesis/chapter.tex"), "").unwrap();
    let over = ringfence(path, &["content", "fetch", "crs", "--into", "thesis", "--from", "none.tar.gz"]);
    assert_eq!(over.status.code(), Some(2));
    let digest = ringfence(path, &["content", "fetch", "crs", "--sha256", "abc"]);
    assert_eq!(digest.status.code(), Some(2));
}
