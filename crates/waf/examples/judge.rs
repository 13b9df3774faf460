//! Asks the engine about requests: `judge FILES...` reads objects like those of `conformance/modsecurity/corpus.py`, one a line, and
//! answers each with the ids of the rules that matched, in order. With `--cost` it tells the mean time of a request instead.

use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence_waf::{Files, Options, Rules, Scratch, Source, Transaction};
use serde_json::Value;

/// Files beside the one that names them.
struct Beside;

impl Files for Beside {
    fn read(&self, from: &str, path: &str) -> Option<Vec<u8>> {
        std::fs::read(Path::new(from).parent()?.join(path)).ok()
    }
}

struct Request {
    method: String,
    uri: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let cost = files.iter().position(|file| file == "--cost").map(|at| files.remove(at)).is_some();
    let sources: Result<Vec<_>, _> = files.iter().map(PathBuf::from).map(source).collect();
    let options = Options { request_body_limit: 16 << 20, ..Options::default() };
    let rules = Rules::load(&sources?, &Beside, &options).map_err(|errors| format!("{errors:#?}"))?;
    let rules = Arc::new(rules);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut scratch = Scratch::default();
    let (mut time, mut count) = (Duration::ZERO, 0);
    for line in std::io::stdin().lock().lines() {
        let request = request(&line?).ok_or("a line that is not a request")?;
        let start = Instant::now();
        let mut transaction = Transaction::new(&rules, scratch);
        ask(&mut transaction, &request);
        time += start.elapsed();
        count += 1;
        if !cost {
            let ids: Vec<_> = transaction.matches().iter().map(|hit| hit.rule.id.to_string()).collect();
            writeln!(out, "{}", ids.join(" "))?;
        }
        scratch = transaction.into_scratch();
    }
    if cost {
        writeln!(out, "{:.1} us", time.as_secs_f64() * 1e6 / f64::from(count.max(1)))?;
    }
    Ok(())
}

fn source(path: PathBuf) -> Result<Source, String> {
    let text = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Source::new(path.display().to_string(), text))
}

fn ask(transaction: &mut Transaction, request: &Request) {
    transaction.connection(([127, 0, 0, 1].into(), 40_000), ([127, 0, 0, 1].into(), 80));
    transaction.request_line(request.method.as_bytes(), request.uri.as_bytes(), b"HTTP/1.1");
    for (name, value) in &request.headers {
        transaction.request_header(name.as_bytes(), value.as_bytes());
    }
    let _ = transaction.phase1();
    transaction.request_body(&request.body);
    let _ = transaction.phase2();
}

fn request(line: &str) -> Option<Request> {
    let asked: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let headers = asked["headers"].as_array()?.iter();
    Some(Request {
        method: text(&asked["method"])?,
        uri: text(&asked["uri"])?,
        headers: headers.map(|h| Some((text(&h[0])?, text(&h[1])?))).collect::<Option<_>>()?,
        body: base64(asked["body"].as_str()?)?,
    })
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.bytes().filter(|b| *b != b'=') {
        bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| *known == byte)?).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}
