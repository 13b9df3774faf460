//! The tests of the OWASP Core Rule Set, asked of the running gateway: `ringfence up` with a fence that names the rule set, a back end of our
//! own behind it, the very bytes of each test on a socket, and the verdict read from Ringfence's own events.
//!
//! `conformance/crs.toml` lists the tests that end otherwise here and why, `conformance/crs-enforce.toml` those of the mode that refuses.

mod backend;
mod exchange;
#[path = "../../../crates/waf/tests/ftw/mod.rs"]
pub(super) mod ftw;
mod gateway;
mod verdict;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use exchange::Answer;
use gateway::Gateway;

/// Requests under way at once.
const AT_ONCE: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// crs: the folder with `rules/` and `crs-setup.conf.example`
    #[arg(long)]
    rules: Option<PathBuf>,
    /// crs: the folder with the tests
    #[arg(long)]
    tests: Option<PathBuf>,
    /// crs: whether attacks are told, or refused
    #[arg(long, value_enum, default_value_t = Mode::Observe)]
    mode: Mode,
    /// crs: this binary instead of one that is built now
    #[arg(long)]
    binary: Option<PathBuf>,
    /// modsecurity: how many requests are compared, a quarter of them honest
    #[arg(long, default_value_t = 200_000)]
    pub(crate) requests: usize,
    /// modsecurity: other numbers make other requests
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// modsecurity: how many processes of libmodsecurity are asked at once
    #[arg(long, default_value_t = 1)]
    pub(crate) at_once: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Observe,
    Enforce,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviations {
    #[serde(default)]
    deviation: Vec<Deviation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    cases: Vec<String>,
    reason: String,
}

/// Runs all tests and prints how they ended.
pub(crate) fn run(options: &Options, golden: &Path, repository: &Path) -> Result<ExitCode, String> {
    let rules = options.rules.clone().unwrap_or_else(|| golden.join("crs"));
    let tests = options.tests.clone().unwrap_or_else(|| golden.join("crs/tests"));
    let cases = ftw::load(&tests)?;
    if cases.is_empty() {
        return Err(format!("{} has no tests", tests.display()));
    }
    let list = match options.mode {
        Mode::Observe => "crs.toml",
        Mode::Enforce => "crs-enforce.toml",
    };
    // Other people's tests have other numbers: what is listed for ours says nothing of them.
    let ours = options.tests.is_none() && options.rules.is_none();
    let deviations = if ours { listed(&repository.join("conformance").join(list))? } else { BTreeMap::new() };
    let elsewhere = ftw::statuses_elsewhere(&rules)?;
    let gateway = Gateway::start(&rules, &tests, options.mode, options.binary.as_deref())?;
    let answers = ask_all(&cases, gateway.port);
    let events = gateway.events()?;
    gateway.stop();
    let mut stages = 0;
    let mut failed = BTreeMap::new();
    for case in &cases {
        for stage in &case.stages {
            let answer = &answers[stages];
            let told = events.get(&source(stages));
            stages += 1;
            let elsewhere = elsewhere.get(&case.id).copied();
            if let Err(why) = verdict::judge(options.mode, &stage.expect, elsewhere, answer, told) {
                failed.entry(case.id.as_str()).or_insert(why);
            }
        }
    }
    Ok(report(&cases, &failed, deviations))
}

/// Tells what failed. A failure that is listed is no surprise, and no pass either.
fn report(
    cases: &[ftw::Case],
    failed: &BTreeMap<&str, String>,
    mut deviations: BTreeMap<String, String>,
) -> ExitCode {
    let mut ok = true;
    for (id, why) in failed {
        match deviations.remove(*id) {
            Some(reason) => println!("differs  {id}: {why} ({reason})"),
            None => {
                ok = false;
                println!("FAILED   {id}: {why}");
            }
        }
    }
    for id in deviations.keys() {
        ok = false;
        println!("FAILED   {id}: listed as a deviation, but there is none");
    }
    println!("crs: {}/{}", cases.len() - failed.len(), cases.len());
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn listed(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let list: Deviations = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut by_case = BTreeMap::new();
    for Deviation { cases, reason } in list.deviation {
        if reason.trim().is_empty() {
            return Err(format!("{}: {cases:?} are listed without a reason", path.display()));
        }
        for case in cases {
            if by_case.insert(case.clone(), reason.clone()).is_some() {
                return Err(format!("{}: {case} is listed twice", path.display()));
            }
        }
    }
    Ok(by_case)
}

/// Sends every stage, each from an address of its own, by which its event is found.
fn ask_all(cases: &[ftw::Case], port: u16) -> Vec<Answer> {
    let requests: Vec<&[u8]> =
        cases.iter().flat_map(|case| &case.stages).map(|stage| stage.request.as_slice()).collect();
    let next = AtomicUsize::new(0);
    let mut answers: Vec<Answer> = Vec::new();
    answers.resize_with(requests.len(), || Answer::None);
    let mut parts: Vec<(usize, Answer)> = Vec::new();
    thread::scope(|scope| {
        let worker = || {
            let mut own = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(at) else { return own };
                own.push((at, exchange::ask(source(at), port, request)));
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            parts.extend(worker.join().unwrap_or_default());
        }
    });
    for (at, answer) in parts {
        answers[at] = answer;
    }
    answers
}

/// The loopback address from which request number `at` comes.
fn source(at: usize) -> Ipv4Addr {
    let [_, high, middle, low] = (at as u32 + 1).to_be_bytes();
    Ipv4Addr::new(127, 10 + high, middle, low)
}
