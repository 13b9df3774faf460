//! Requests to measure with: some that every application sees, or what a file says.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::Deserialize;

/// Largest file of requests, and most of them.
const MAX_FILE: u64 = 16 << 20;
const MAX_REQUESTS: usize = 10_000;

/// A request, as a line of JSON says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sample {
    #[serde(default = "get")]
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) body: String,
}

fn get() -> String {
    "GET".to_owned()
}

/// The requests of a file, one JSON object per line.
pub(super) fn read(path: &Path) -> io::Result<Vec<Sample>> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    if text.len() as u64 > MAX_FILE {
        return wrong(format!("it is larger than {} MiB", MAX_FILE >> 20));
    }
    let mut samples = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(sample) if samples.len() < MAX_REQUESTS => samples.push(sample),
            Ok(_) => return wrong(format!("it has more than {MAX_REQUESTS} requests")),
            Err(e) => return wrong(format!("line {}: {e}", at + 1)),
        }
    }
    if samples.is_empty() { wrong("it has no requests".to_owned()) } else { Ok(samples) }
}

/// What an application sees on an ordinary day, and a little of what it should not see.
pub(super) fn usual() -> Vec<Sample> {
    let json = |items: usize| {
        let item = |n: usize| {
            format!(
                "{{\"id\":{n},\"name\":\"Item {n}\",\"note\":\"a few words, not many\",\"tags\":[\"a\",\"b\"],\"price\":12.5}}"
            )
        };
        format!("{{\"items\":[{}]}}", (0..items).map(item).collect::<Vec<_>>().join(","))
    };
    let sample = |method: &str, target: &str, kind: &str, body: String| {
        let mut headers: BTreeMap<String, String> = [
            ("Host", "app.example"),
            ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            ("Accept", "text/html,application/json;q=0.9,*/*;q=0.8"),
            ("Accept-Language", "en-GB,en;q=0.7"),
            ("Accept-Encoding", "gzip, deflate, br"),
            ("Cookie", "session=0192f3b07c1e7abc8def0123456789ab; theme=dark"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        if !body.is_empty() {
            headers.insert("Content-Type".to_owned(), kind.to_owned());
            headers.insert("Content-Length".to_owned(), body.len().to_string());
        }
        Sample { method: method.to_owned(), target: target.to_owned(), headers, body }
    };
    let form = "application/x-www-form-urlencoded";
    vec![
        sample("GET", "/", "", String::new()),
        sample("GET", "/static/app.3f2a.js?v=20261123", "", String::new()),
        sample("GET", "/search?q=blue+shoes+size+42&page=2&sort=price&lang=en", "", String::new()),
        sample("GET", "/api/people/17/notes?from=2026-01-01&to=2026-12-31", "", String::new()),
        sample(
            "POST",
            "/login",
            form,
            "user=ada%40example.org&password=correct+horse+battery&remember=on".to_owned(),
        ),
        sample(
            "POST",
            "/comments",
            form,
            format!("title=Hello&text={}", "It%27s+a+fine+day+%26+I%27d+say+so.+".repeat(20)),
        ),
        sample("POST", "/api/orders", "application/json", json(2)),
        sample("POST", "/api/orders/batch", "application/json", json(20)),
        sample("GET", "/search?q=1%27+OR+%271%27%3D%271+--+", "", String::new()),
        sample("GET", "/search?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E", "", String::new()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_requests_is_read_and_what_is_none_is_told_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path).map_err(|e| e.to_string())
        };
        let good = "{\"target\":\"/a?b=c\"}\n\n{\"method\":\"POST\",\"target\":\"/\",\"headers\":{\"Host\":\"a\"},\"body\":\"x\"}\n";
        let samples = read(good).unwrap();
        assert_eq!((samples.len(), samples[0].method.as_str(), samples[1].body.as_str()), (2, "GET", "x"));
        assert!(read("{\"target\":\"/\"}\n{\"path\":\"/\"}").unwrap_err().starts_with("line 2"));
        assert!(read("").is_err());
        assert!(usual().iter().all(|sample| sample.target.starts_with('/')));
    }
}
