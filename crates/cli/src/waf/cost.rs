//! `waf cost`: what requests and rules cost, measured in this process with the rules of the fence. Nothing is sent anywhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use ringfence_control::inspect::{Files, rules};
use ringfence_model::{Fence, Mode, Position, Waf, content};
use ringfence_waf::{Interest, Rules, Scratch, Transaction};
use serde_json::{Value, json};

use super::mix::{self, Sample};
use crate::view::table::{Cell, Table};
use crate::view::{Done, Failure, print, print_json};

#[derive(Debug, Args)]
pub(super) struct CostArgs {
    /// Requests to measure with: a file of JSON lines, `{"method":"GET","target":"/a?b=c","headers":{},"body":""}`
    #[arg(long, value_name = "FILE")]
    requests: Option<PathBuf>,
    /// Another paranoia level than the fence's
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=4))]
    paranoia: Option<u8>,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How many rules to show
    #[arg(long, value_name = "NUMBER", default_value = "20")]
    top: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was measured.
struct Measured {
    /// How often all requests were judged, and how long it took.
    rounds: u32,
    whole: Duration,
    /// The same while the costs of rules were counted.
    counted: u32,
    /// Nanoseconds and evaluations by rule; number zero is what all share.
    rules: HashMap<u64, (u64, u64)>,
}

pub(super) fn cost(args: &CostArgs, fence: &Path, colour: bool) -> Done {
    let fence = Fence::load(fence).map_err(|problems| Failure::Wrong(problems.to_string()))?;
    let mut waf =
        fence.waf.clone().unwrap_or_else(|| Waf::new(Mode::Enforce, Position::whole("(none)".into())));
    waf.paranoia = args.paranoia.unwrap_or(waf.paranoia);
    let files = content::read(&fence).map_err(|problems| Failure::Wrong(problems.to_string()))?;
    let files: Files = files.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
    let samples = match &args.requests {
        Some(path) => mix::read(path).map_err(|e| Failure::Wrong(format!("{}: {e}", path.display())))?,
        None => mix::usual(),
    };
    let start = Instant::now();
    let rules = Arc::new(rules(&waf, &files).map_err(|errors| {
        Failure::Wrong(errors.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?);
    let loading = start.elapsed();
    let measured = measure(&rules, &samples, args.time);
    show(args, &waf, &rules, &samples, loading, &measured, colour)
}

fn measure(rules: &Arc<Rules>, samples: &[Sample], time: Duration) -> Measured {
    let mut scratch = Scratch::default();
    // Expressions are compiled when they are needed first.
    for sample in samples {
        scratch = judge(rules, sample, scratch, None);
    }
    let mut round = |mut counts: Option<&mut HashMap<u64, (u64, u64)>>| {
        let start = Instant::now();
        for sample in samples {
            scratch = judge(rules, sample, std::mem::take(&mut scratch), counts.as_deref_mut());
        }
        start.elapsed()
    };
    let mut measured = Measured { rounds: 0, whole: Duration::ZERO, counted: 0, rules: HashMap::new() };
    while measured.rounds == 0 || measured.whole < time / 2 {
        measured.whole += round(None);
        measured.rounds += 1;
    }
    let start = Instant::now();
    while measured.counted == 0 || start.elapsed() < time / 2 {
        round(Some(&mut measured.rules));
        measured.counted += 1;
    }
    measured
}

/// Judges a request as the gateway would.
fn judge(
    rules: &Arc<Rules>,
    sample: &Sample,
    scratch: Scratch,
    counts: Option<&mut HashMap<u64, (u64, u64)>>,
) -> Scratch {
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    let mut transaction = Transaction::new(rules, scratch);
    // An attack is looked through to the end, as where rules only watch.
    transaction.set_mode(ringfence_waf::Mode::Observe);
    transaction.set_profile(counts.is_some());
    transaction.connection((CLIENT, 40_000), (CLIENT, 443));
    transaction.request_line(sample.method.as_bytes(), sample.target.as_bytes(), b"HTTP/1.1");
    for (name, value) in &sample.headers {
        transaction.request_header(name.as_bytes(), value.as_bytes());
    }
    transaction.phase1();
    if transaction.interest() == Interest::All {
        transaction.request_body(sample.body.as_bytes());
    }
    transaction.phase2();
    transaction.phase5();
    if let Some(counts) = counts {
        for cost in transaction.costs() {
            let (nanoseconds, evaluations) = counts.entry(cost.rule).or_default();
            *nanoseconds += cost.nanoseconds;
            *evaluations += cost.evaluations;
        }
    }
    transaction.into_scratch()
}

fn show(
    args: &CostArgs,
    waf: &Waf,
    rules: &Rules,
    samples: &[Sample],
    loading: Duration,
    measured: &Measured,
    colour: bool,
) -> Done {
    let per = |nanoseconds: f64, rounds: u32| nanoseconds / f64::from(rounds) / samples.len() as f64 / 1000.0;
    let whole = per(measured.whole.as_nanos() as f64, measured.rounds);
    let total: u64 = measured.rules.values().map(|(nanoseconds, _)| nanoseconds).sum();
    let mut costs: Vec<(u64, u64, u64)> = measured
        .rules
        .iter()
        .map(|(rule, (nanoseconds, evaluations))| (*rule, *nanoseconds, *evaluations))
        .collect();
    costs.sort_by_key(|(rule, nanoseconds, _)| (std::cmp::Reverse(*nanoseconds), *rule));
    let share = |nanoseconds: u64| 100.0 * nanoseconds as f64 / total.max(1) as f64;
    let count = rules.rules().count();
    if args.json {
        let one = |(rule, nanoseconds, evaluations): &(u64, u64, u64)| {
            let info = rules.rule(*rule);
            json!({
                "rule": rule, "file": info.map(|info| &*info.file), "line": info.map(|info| info.line),
                "message": info.map(|info| &*info.message),
                "us_per_request": per(*nanoseconds as f64, measured.counted), "share": share(*nanoseconds) / 100.0,
                "evaluations_per_request": *evaluations as f64 / f64::from(measured.counted) / samples.len() as f64,
            })
        };
        let costs: Vec<Value> = costs.iter().take(args.top).map(one).collect();
        print_json(&json!({
            "rules": count, "paranoia": waf.paranoia, "load_ms": loading.as_secs_f64() * 1000.0,
            "requests": samples.len(), "rounds": measured.rounds, "us_per_request": whole, "costs": costs,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["RULE", ">µs/REQUEST", ">SHARE", ">LOOKS", "WHERE", "ABOUT"]);
    for (rule, nanoseconds, evaluations) in costs.iter().take(args.top) {
        let info = rules.rule(*rule);
        let looks = *evaluations as f64 / f64::from(measured.counted) / samples.len() as f64;
        let (name, place, about) = match info {
            Some(info) => {
                let file = info.file.rsplit('/').next().unwrap_or_default();
                (rule.to_string(), format!("{file}:{}", info.line), info.message.chars().take(60).collect())
            }
            None => (
                "all".to_owned(),
                String::new(),
                "what rules share: parsing, and one look at each value".to_owned(),
            ),
        };
        table.row([
            Cell::from(name),
            Cell::from(format!("{:.2}", per(*nanoseconds as f64, measured.counted))),
            Cell::from(format!("{:.1} %", share(*nanoseconds))),
            Cell::from(format!("{looks:.1}")),
            Cell::from(place),
            Cell::from(about),
        ]);
    }
    let head = format!(
        "{count} rules at paranoia {}, loaded in {:.0} ms; {} requests, {} times: {whole:.1} µs each\n",
        waf.paranoia,
        loading.as_secs_f64() * 1000.0,
        samples.len(),
        measured.rounds
    );
    print(&format!("{head}{}\n", table.lines(colour).join("\n")))?;
    Ok(ExitCode::SUCCESS)
}
