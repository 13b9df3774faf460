//! What the Core Rule Set costs per request: `cargo bench -p ringfence-waf --bench crs -- DIR [CASE] [rules] [long] [same] [count=N]`, where DIR has
//! `rules/` and `crs-setup.conf.example`. What people type differs in each request, unless `same` is asked for. CASE is the number of one case, from zero; with `rules`, the costliest rules of each case follow; with
//! `count`, paranoia level 1 is asked so often and nothing is timed, for those who count instructions.

#![expect(clippy::unwrap_used, reason = "whoever measures reads the panic")]

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ringfence_waf::{Files, Options, Rules, Scratch, Source, Transaction};

struct Folder(HashMap<String, Vec<u8>>);

impl Files for Folder {
    fn read(&self, _: &str, path: &str) -> Option<Vec<u8>> {
        self.0.get(path).cloned()
    }
}

/// The sources of a rule set, and what lies beside them.
fn sources(folder: &Path, paranoia: u8) -> (Vec<Source>, Folder) {
    let mut files: Vec<_> =
        fs::read_dir(folder.join("rules")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut sources = vec![Source::base()];
    let setup = fs::read(folder.join("crs-setup.conf.example")).unwrap();
    sources.push(Source::new("crs-setup.conf", setup));
    sources.push(Source::levels(paranoia, 5, 4));
    let mut data = HashMap::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read(&file).unwrap();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("conf") => sources.push(Source::new(name, text)),
            Some("data") => drop(data.insert(name, text)),
            _ => {}
        }
    }
    (sources, Folder(data))
}

/// Requests of a kind before the first comes again: more than are remembered.
const DIFFERENT: usize = 4096;

struct Case {
    name: &'static str,
    method: &'static str,
    uri: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn headers(more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";
    [
        ("Host", "clinic.example"),
        ("User-Agent", agent),
        ("Accept", "application/json"),
        ("Accept-Language", "en-GB,en;q=0.8"),
    ]
    .iter()
    .chain(more)
    .map(|(name, value)| (*name, (*value).to_owned()))
    .collect()
}

fn post(name: &'static str, kind: &str, body: String) -> Case {
    let length = body.len().to_string();
    Case {
        name,
        method: "POST",
        uri: "/api/v1/appointments".into(),
        headers: headers(&[("Content-Type", kind), ("Content-Length", &length)]),
        body: body.into_bytes(),
    }
}

fn cases() -> Vec<Case> {
    let patient = |at: usize| {
        format!(
            "{{\"id\":1{at}~,\"name\":\"Patient {at}~\",\"born\":\"19{:02}-03-1{}\",\"ward\":\"north-{}\",\"notes\":\"seen by Dr. Weber, stable ~\",\"active\":true,\"weight\":7{}.5}}",
            40 + at,
            at % 9,
            at % 4,
            at % 9
        )
    };
    let json = format!(
        "{{\"clinic\":\"north\",\"patients\":[{}],\"total\":15}}",
        (0..15).map(patient).collect::<Vec<_>>().join(",")
    );
    let words =
        "the patient was seen in the morning and reported no further pain after the treatment last week ";
    let form: Vec<String> =
        (0..20).map(|at| format!("field{at}=~+{}", words.repeat(5).replace(' ', "+"))).collect();
    vec![
        Case {
            name: "GET, 4 arguments",
            method: "GET",
            uri: "/api/v1/patients?ward=north~&page=~&sort=name&since=2026-01-~".into(),
            headers: headers(&[]),
            body: Vec::new(),
        },
        post("POST JSON, 107 leaves", "application/json", json),
        post(
            "POST form, SQL injection",
            "application/x-www-form-urlencoded",
            "user=admin~%27+OR+1%3D1--+&password=x&note=~%27+UNION+SELECT+name%2Cpassword+FROM+users--"
                .into(),
        ),
        post("POST form, 10 KB", "application/x-www-form-urlencoded", form.join("&")),
    ]
}

/// The number `turn` wherever a case has a tilde.
fn filled(text: &[u8], turn: usize) -> Vec<u8> {
    let number = format!("{turn:04}");
    let mut out = Vec::with_capacity(text.len() + 64);
    for byte in text {
        match byte {
            b'~' => out.extend_from_slice(number.as_bytes()),
            byte => out.push(*byte),
        }
    }
    out
}

impl Case {
    fn at(&self, turn: usize) -> Self {
        let headers = self.headers.clone();
        let uri = String::from_utf8_lossy(&filled(self.uri.as_bytes(), turn)).into_owned();
        Self { name: self.name, method: self.method, uri, headers, body: filled(&self.body, turn) }
    }
}

fn run(rules: &Arc<Rules>, case: &Case, scratch: Scratch, profile: bool) -> Transaction {
    let mut transaction = Transaction::new(rules, scratch);
    transaction.set_profile(profile);
    transaction.connection(([192, 0, 2, 7].into(), 40_000), ([192, 0, 2, 1].into(), 443));
    transaction.request_line(case.method.as_bytes(), case.uri.as_bytes(), b"HTTP/1.1");
    for (name, value) in &case.headers {
        transaction.request_header(name.as_bytes(), value.as_bytes());
    }
    let _ = transaction.phase1();
    transaction.request_body(&case.body);
    let _ = transaction.phase2();
    transaction.phase5();
    transaction
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some(folder) = arguments.first() else {
        println!(
            "usage: cargo bench -p ringfence-waf --bench crs -- DIR [CASE] [rules] [long] [same] [count=N]"
        );
        return;
    };
    let only: Option<usize> = arguments.get(1).and_then(|argument| argument.parse().ok());
    let time =
        Duration::from_millis(if arguments.iter().any(|argument| argument == "long") { 10_000 } else { 700 });
    let same = arguments.iter().any(|argument| argument == "same");
    let by_rule = arguments.iter().any(|argument| argument == "rules");
    let count = arguments.iter().find_map(|argument| argument.strip_prefix("count=")?.parse::<usize>().ok());
    let levels: &[u8] = if count.is_some() { &[1] } else { &[1, 2] };
    for &paranoia in levels {
        let before = resident();
        let start = Instant::now();
        let (sources, files) = sources(Path::new(folder), paranoia);
        let rules = match Rules::load(&sources, &files, &Options::default()) {
            Ok(rules) => Arc::new(rules),
            Err(errors) => {
                for error in errors {
                    println!("{error}");
                }
                return;
            }
        };
        println!(
            "paranoia {paranoia}: loaded in {:.0} ms, {} MiB more",
            start.elapsed().as_secs_f64() * 1e3,
            resident().saturating_sub(before)
        );
        let mut scratch = Scratch::default();
        for (_, case) in cases().into_iter().enumerate().filter(|(at, _)| only.is_none_or(|only| only == *at))
        {
            let all: Vec<_> = (0..if same { 1 } else { DIFFERENT }).map(|turn| case.at(turn)).collect();
            let mut turns = all.iter().cycle();
            let mut next = || turns.next().unwrap();
            if let Some(count) = count {
                for _ in 0..count {
                    scratch = run(&rules, next(), scratch, false).into_scratch();
                }
                continue;
            }
            let mut best = Duration::MAX;
            let mut sum = Duration::ZERO;
            let mut rounds = 0;
            let begin = Instant::now();
            let mut ids = Vec::new();
            while begin.elapsed() < time {
                let case = next();
                let start = Instant::now();
                let transaction = run(&rules, case, scratch, false);
                let took = start.elapsed();
                if ids.is_empty() {
                    ids = transaction.matches().iter().map(|found| found.rule.id).collect();
                }
                scratch = transaction.into_scratch();
                // The first rounds compile expressions.
                if begin.elapsed() > Duration::from_millis(200) {
                    best = best.min(took);
                    sum += took;
                    rounds += 1;
                }
            }
            println!(
                "  {:<26} {:>6} B  min {:>9.1} µs  mean {:>9.1} µs  {ids:?}",
                case.name,
                case.body.len(),
                best.as_secs_f64() * 1e6,
                (sum / rounds).as_secs_f64() * 1e6
            );
            if by_rule {
                let mut costs: HashMap<u64, (u64, u64)> = HashMap::new();
                for _ in 0..200 {
                    let transaction = run(&rules, next(), scratch, true);
                    for cost in transaction.costs() {
                        let sum = costs.entry(cost.rule).or_default();
                        sum.0 += cost.nanoseconds;
                        sum.1 += cost.evaluations;
                    }
                    scratch = transaction.into_scratch();
                }
                let mut costs: Vec<_> = costs.into_iter().collect();
                costs.sort_by_key(|(_, (nanoseconds, _))| std::cmp::Reverse(*nanoseconds));
                let total: u64 = costs.iter().map(|(_, (nanoseconds, _))| nanoseconds).sum();
                println!("    {} rules ran, {:.1} µs", costs.len(), total as f64 / 200e3);
                for (rule, (nanoseconds, evaluations)) in costs.into_iter().take(12) {
                    println!(
                        "    {rule:>8} {:>9.2} µs  {:>6} evaluations",
                        nanoseconds as f64 / 200e3,
                        evaluations / 200
                    );
                }
            }
        }
    }
}
