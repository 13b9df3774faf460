//! What it costs to inspect requests by the OWASP Core Rule Set: Ringfence beside nginx with ModSecurity, on the same rules.
//!
//! Both also run without rules, so that what is compared is given twice: the whole proxy, and what inspecting adds to it.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::case::Case;
use crate::certs::Certs;
use crate::contenders;
use crate::load::{self, Pace, Target};
use crate::machine::{self, Cores};
use crate::run::{self, Place, Running, per_request};
use crate::stats::median;
use crate::tokens::Tokens;
use crate::typed::{self, DIFFERENT, Words};
use crate::upstream::Upstream;

/// A kind of request: its name, such requests, and how each is answered when it is inspected.
struct Probe {
    name: &'static str,
    what: &'static str,
    requests: Vec<Vec<u8>>,
    status: u16,
}

/// In the order in which they are asked.
const WHO: [&str; 4] = ["nginx", "ringfence without rules", "modsecurity", "ringfence"];

/// One proxy with one kind of request; CPU microseconds per request, MiB.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) probe: &'static str,
    pub(crate) paranoia: u8,
    /// nginx and Ringfence without rules.
    pub(crate) nginx: f64,
    pub(crate) plain: f64,
    /// The same with them.
    pub(crate) modsecurity: f64,
    pub(crate) ringfence: f64,
    /// Resident after it.
    pub(crate) modsecurity_mib: f64,
    pub(crate) ringfence_mib: f64,
}

/// Everything at once, beside what others cost for less; CPU microseconds per request.
#[derive(Debug, Serialize)]
pub(crate) struct Whole {
    pub(crate) probe: &'static str,
    /// nginx with TLS 1.3 and nothing else.
    pub(crate) nginx_tls: f64,
    /// nginx with ModSecurity, without TLS.
    pub(crate) modsecurity: f64,
    /// Ringfence with all of it.
    pub(crate) ringfence: f64,
}

impl Row {
    /// How many times as much inspecting costs there; nothing where it costs us too little to tell.
    pub(crate) fn factor(&self) -> Option<f64> {
        let ours = self.ringfence - self.plain;
        (ours > self.plain / 10.0).then(|| (self.modsecurity - self.nginx) / ours)
    }
}

/// What inspecting costs, and the whole chain.
pub(crate) fn measure(folder: &Path, rounds: u32, window: Duration) -> io::Result<(Vec<Row>, Vec<Whole>)> {
    let rules = rules()?;
    let cores = Cores::of_this_machine()?;
    machine::open_files()?;
    let certs = Arc::new(Certs::make(&folder.join("certs"))?);
    let upstream = Upstream::start(&certs, cores.upstream)?;
    machine::pin(cores.load)?;
    let tokens = Tokens::make()?;
    let place = |rules| Place { folder, certs: &certs, tokens: &tokens, upstream: &upstream, cores, rules };
    let [nginx, modsecurity, ringfence] = contenders::firewalls();
    let off = |contender| run::start(contender, Case::Plain, place(None), false);
    let (bare, plain) = (off(&*nginx)?, off(&*ringfence)?);
    let mut rows = Vec::new();
    for case in [Case::Waf, Case::WafStrict] {
        eprintln!("bench: {}", case.title());
        let on = |contender| run::start(contender, case, place(Some(&rules)), false);
        let (modsecurity, ringfence) = (on(&*modsecurity)?, on(&*ringfence)?);
        for probe in probes() {
            eprintln!("bench: {}", probe.what);
            let mut cpu = [(); 4].map(|()| Vec::new());
            for _ in 0..rounds {
                let all =
                    [(&bare, 200), (&plain, 200), (&modsecurity, probe.status), (&ringfence, probe.status)];
                for (at, ((running, status), cpu)) in all.into_iter().zip(&mut cpu).enumerate() {
                    let failed = |e| io::Error::other(format!("{}: {e}", WHO[at]));
                    cpu.push(one(running, &probe.requests, status, window).map_err(failed)?);
                }
            }
            let [nginx, plain, modsecurity_us, ringfence_us] = cpu.map(median);
            rows.push(Row {
                probe: probe.name,
                paranoia: case.paranoia().unwrap_or_default(),
                nginx,
                plain,
                modsecurity: modsecurity_us,
                ringfence: ringfence_us,
                modsecurity_mib: modsecurity.family.resident()?,
                ringfence_mib: ringfence.family.resident()?,
            });
        }
    }
    // Minutes of figures are not lost when what follows fails.
    eprint!("{}", table(&rows, &[]));
    eprintln!("bench: {}", Case::Chain.title());
    let before = run::start(&*nginx, Case::Tls, place(None), false)?;
    let alone = run::start(&*modsecurity, Case::Waf, place(Some(&rules)), false)?;
    let all = run::start(&*ringfence, Case::Chain, place(Some(&rules)), false)?;
    let token = format!("Authorization: Bearer {}\r\n", tokens.good[0]);
    let mut wholes = Vec::new();
    for probe in probes().into_iter().filter(|probe| matches!(probe.name, "get" | "json")) {
        let requests: Vec<_> = probe.requests.iter().map(|request| with_field(request, &token)).collect();
        let mut cpu = [(); 3].map(|()| Vec::new());
        for _ in 0..rounds {
            for (running, cpu) in [&before, &alone, &all].into_iter().zip(&mut cpu) {
                cpu.push(one(running, &requests, 200, window)?);
            }
        }
        let [nginx_tls, modsecurity, ringfence] = cpu.map(median);
        wholes.push(Whole { probe: probe.name, nginx_tls, modsecurity, ringfence });
    }
    Ok((rows, wholes))
}

/// A request with one field more.
fn with_field(request: &[u8], field: &str) -> Vec<u8> {
    let end = memchr::memchr(b'\n', request).map_or(0, |at| at + 1);
    [&request[..end], field.as_bytes(), &request[end..]].concat()
}

/// CPU microseconds per request. Requests that take longer than the window make it longer.
fn one(running: &Running, requests: &[Vec<u8>], status: u16, window: Duration) -> io::Result<f64> {
    let target: Target = running.target.asked(requests, status);
    let mut window = window;
    loop {
        let sample = load::run(&target, Pace::Saturate, window, &running.family)?;
        if sample.errors > 0 {
            return Err(io::Error::other(format!("{} requests failed", sample.errors)));
        }
        if sample.requests >= 20 {
            return Ok(per_request(&sample));
        }
        window *= 2;
    }
}

/// Where the Core Rule Set lies.
#[expect(
    clippy::disallowed_methods,
    reason = "where external data lies is said by the caller's environment, as to xtask"
)]
fn rules() -> io::Result<PathBuf> {
    let golden = std::env::var_os("RINGFENCE_GOLDEN")
        .ok_or_else(|| io::Error::other("RINGFENCE_GOLDEN names no folder with crs/rules"))?;
    let rules = PathBuf::from(golden).join("crs");
    if rules.join("rules").is_dir() {
        rules.canonicalize()
    } else {
        Err(io::Error::other("no crs/rules there"))
    }
}

const HEAD: &str = "Host: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) ringfence-bench\r\nAccept: application/json\r\n\
Accept-Language: en\r\n";

fn post(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\n{HEAD}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn probes() -> Vec<Probe> {
    let boundary = "----ringfence-bench";
    let mut upload = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nan image\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"scan\"; filename=\"scan.png\"\r\nContent-Type: image/png\r\n\r\n"
    )
    .into_bytes();
    let mut words = Words(0);
    // Four at once fit into what a thread may hold of bodies before those that wait give way.
    while upload.len() < 12_000_000 {
        upload.extend_from_slice(&words.next().to_le_bytes());
    }
    upload.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let each = |request: &dyn Fn(Words) -> Vec<u8>| (0..DIFFERENT).map(|n| request(Words(n))).collect();
    let form = "application/x-www-form-urlencoded";
    vec![
        Probe {
            name: "get",
            what: "GET with 4 arguments",
            requests: each(&|words| {
                format!("GET {} HTTP/1.1\r\n{HEAD}\r\n", typed::search(words)).into_bytes()
            }),
            status: 200,
        },
        Probe {
            name: "json",
            what: "POST of 2 KB of JSON",
            requests: each(&|words| post("/patients", "application/json", typed::json(words).as_bytes())),
            status: 200,
        },
        Probe {
            name: "sqli",
            what: "form with an SQL injection",
            requests: each(&|words| post("/search", form, typed::injection(words).as_bytes())),
            status: 403,
        },
        Probe {
            name: "form",
            what: "form of 10 KB",
            requests: each(&|words| post("/notes", form, typed::prose(words).as_bytes())),
            status: 200,
        },
        Probe {
            name: "upload",
            what: "upload of 12 MB",
            requests: vec![post("/scans", &format!("multipart/form-data; boundary={boundary}"), &upload)],
            status: 200,
        },
    ]
}

pub(crate) fn table(rows: &[Row], wholes: &[Whole]) -> String {
    let mut text = String::from(
        "| request | paranoia | nginx | nginx + ModSecurity | Ringfence, no rules | Ringfence | inspecting: ModSecurity | Ringfence | × less | \
         MiB: ModSecurity | Ringfence |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        writeln!(
            text,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | **{}** | {:.0} | {:.0} |",
            row.probe,
            row.paranoia,
            row.nginx,
            row.modsecurity,
            row.plain,
            row.ringfence,
            row.modsecurity - row.nginx,
            row.ringfence - row.plain,
            row.factor().map_or_else(|| "–".to_owned(), |factor| format!("{factor:.0}")),
            row.modsecurity_mib,
            row.ringfence_mib
        )
        .expect("invariant: writing to a string does not fail");
    }
    text.push_str(
        "\n| everything at once | nginx, TLS 1.3 alone | nginx + ModSecurity, no TLS | Ringfence, all of it | × nginx TLS | × less than ModSecurity |\n\
         |---|---:|---:|---:|---:|---:|\n",
    );
    for whole in wholes {
        writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | **{:.2}** | **{:.0}** |",
            whole.probe,
            whole.nginx_tls,
            whole.modsecurity,
            whole.ringfence,
            whole.ringfence / whole.nginx_tls,
            whole.modsecurity / whole.ringfence
        )
        .expect("invariant: writing to a string does not fail");
    }
    text
}

pub(crate) fn markdown(rows: &[Row], wholes: &[Whole], facts: &str) -> String {
    format!(
        "## What inspecting costs\n\n    cargo xtask bench -- waf --write\n\nCPU microseconds per request of one worker, medians of rounds in turn, \
         plain HTTP/1.1 on both hops, the Core Rule Set unmodified and blocking. What was typed differs in each of 2,048 requests; \
         names of fields and headers do not. The upload is one file of 12 MB in a form; both read it whole. \
         Everything at once is TLS 1.3, a token that was verified before, a limit per user, a description of the API, the rule set at paranoia \
         level 1 and a policy. {facts}\n\n{}",
        table(rows, wholes)
    )
}
