//! `top`: each edge's traffic, live. Counters are cumulative, so every figure is the difference of two samples.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use ringfence_snapshot::node::{BreakerStats, EdgeStats, latency_bound};
use serde::Serialize;

use super::status::NodeStats;
use super::table::{Cell, Table};
use super::{Done, Failure, Paint, finish, print, print_json};
use crate::client::Client;

#[derive(Clone, Debug, Args)]
pub(crate) struct TopArgs {
    /// Print one JSON object per sample
    #[arg(long)]
    json: bool,
    /// Time between samples
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Stop after this many samples
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// What happened between two samples.
#[derive(Debug, Serialize)]
struct Sample {
    time: String,
    seconds: f64,
    connections: u64,
    events_dropped: u64,
    edges: Vec<Edge>,
}

/// Traffic along one edge, over all proxies.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Edge {
    caller: String,
    callee: String,
    requests_per_second: f64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    errors: u64,
    denied: u64,
    retries: u64,
    breaker: Option<BreakerStats>,
    faults: Option<u64>,
}

pub(crate) fn run(args: &TopArgs, data: &Path, colour: bool) -> ExitCode {
    finish(watch(args, data, colour))
}

fn watch(args: &TopArgs, data: &Path, colour: bool) -> Done {
    if args.interval < Duration::from_millis(100) || args.interval > Duration::from_secs(3600) {
        return Err(Failure::Wrong("--interval must be between 100ms and 1h".to_owned()));
    }
    let client = Client::new(data)?;
    let live = std::io::stdout().is_terminal() && !args.json;
    let mut before: Vec<NodeStats> = client.get("/v1/stats")?;
    let mut since = Instant::now();
    let (mut drawn, mut samples) = (0, 0);
    while args.count.is_none_or(|count| samples < count) {
        std::thread::sleep(args.interval);
        let after: Vec<NodeStats> = client.get("/v1/stats")?;
        let sample = sample(&before, &after, since.elapsed());
        (before, since, samples) = (after, Instant::now(), samples + 1);
        if args.json {
            print_json(&sample)?;
        } else if live {
            let lines = screen(&sample, height(), colour);
            // Up over what was drawn, and clear from there: what scrolled by before stays.
            let up = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
            // A line that wrapped would be two, so for this moment lines are cut at the edge.
            print(&format!("{up}\r\x1b[J\x1b[?7l{}\n\x1b[?7h", lines.join("\n")))?;
            drawn = lines.len();
        } else {
            print(&plain(&sample))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines that fit on the terminal.
fn height() -> usize {
    let rows = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_row));
    // A terminal that does not tell has none.
    if rows == 0 { 24 } else { rows.max(4) }
}

fn sample(before: &[NodeStats], after: &[NodeStats], elapsed: Duration) -> Sample {
    let none = EdgeStats::default();
    let mut sums: BTreeMap<(&str, &str), EdgeStats> = BTreeMap::new();
    for NodeStats { node, stats } in after {
        let old =
            before.iter().find(|n| n.node == *node).map(|n| n.stats.edges.as_slice()).unwrap_or_default();
        for edge in &stats.edges {
            let old = old.iter().find(|o| o.caller == edge.caller && o.callee == edge.callee);
            // A proxy that was started again counts from nothing.
            let old = old.filter(|o| o.requests <= edge.requests && o.denied <= edge.denied).unwrap_or(&none);
            let sum = sums.entry((&edge.caller, &edge.callee)).or_default();
            sum.requests += edge.requests - old.requests;
            sum.denied += edge.denied - old.denied;
            sum.errors += edge.errors.saturating_sub(old.errors);
            sum.retries += edge.retries.saturating_sub(old.retries);
            if let Some(faults) = edge.faults {
                *sum.faults.get_or_insert_default() += faults.saturating_sub(old.faults.unwrap_or_default());
            }
            if let Some(breaker) = edge.breaker {
                let all = sum.breaker.get_or_insert_default();
                all.ways += breaker.ways;
                all.open += breaker.open;
                all.running += breaker.running;
                all.waiting += breaker.waiting;
                all.opened += breaker.opened.saturating_sub(old.breaker.map_or(0, |old| old.opened));
            }
            sum.latency.resize(sum.latency.len().max(edge.latency.len()), 0);
            for (at, total) in sum.latency.iter_mut().enumerate() {
                let count = |e: &EdgeStats| e.latency.get(at).copied().unwrap_or(0);
                *total += count(edge).saturating_sub(count(old));
            }
        }
    }
    let seconds = elapsed.as_secs_f64().max(0.001);
    let mut edges: Vec<Edge> = sums
        .into_iter()
        .map(|((caller, callee), sum)| Edge {
            caller: caller.to_owned(),
            callee: callee.to_owned(),
            requests_per_second: (sum.requests as f64 / seconds * 10.0).round() / 10.0,
            p50_us: quantile(&sum.latency, 50),
            p99_us: quantile(&sum.latency, 99),
            errors: sum.errors,
            denied: sum.denied,
            retries: sum.retries,
            breaker: sum.breaker,
            faults: sum.faults,
        })
        .collect();
    edges.sort_by(|a, b| {
        let weight = |e: &Edge| e.requests_per_second + e.denied as f64;
        weight(b).total_cmp(&weight(a)).then_with(|| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)))
    });
    let dropped = |nodes: &[NodeStats]| nodes.iter().map(|n| n.stats.events.1).sum::<u64>();
    Sample {
        time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        seconds,
        connections: after.iter().map(|n| n.stats.connections).sum(),
        events_dropped: dropped(after).saturating_sub(dropped(before)),
        edges,
    }
}

/// The latency that `percent` of the counted ones do not exceed, up to the width of a bucket.
fn quantile(counts: &[u64], percent: u64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let rank = (total * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(latency_bound(bucket))
}

fn screen(sample: &Sample, height: usize, colour: bool) -> Vec<String> {
    let total: f64 = sample.edges.iter().map(|e| e.requests_per_second).sum();
    let mut head = format!("{}  {total:.1} requests/s  {} connections", sample.time, sample.connections);
    if sample.events_dropped > 0 {
        head.push_str(&Paint::Bad.on(&format!("  {} events dropped", sample.events_dropped), colour));
    }
    let mut table = Table::new(&[
        "CALLER",
        "CALLEE",
        ">REQUESTS/S",
        ">P50",
        ">P99",
        ">ERRORS",
        ">DENIED",
        ">RETRIES",
        "BREAKER",
    ]);
    for edge in &sample.edges {
        let idle = edge.requests_per_second == 0.0 && edge.denied == 0;
        let name = if idle { Paint::Dim } else { Paint::Plain };
        let count = |n: u64, paint| Cell::from(n).paint(if n > 0 { paint } else { Paint::Dim });
        table.row([
            Cell::from(&edge.caller).paint(name),
            Cell::from(&edge.callee).paint(name),
            Cell::from(format!("{:.1}", edge.requests_per_second)).paint(name),
            Cell::from(latency(edge.p50_us)).paint(name),
            Cell::from(latency(edge.p99_us)).paint(name),
            count(edge.errors, Paint::Warn),
            count(edge.denied, Paint::Bad),
            count(edge.retries, Paint::Warn),
            breaker(edge.breaker.as_ref()),
        ]);
    }
    let mut lines = vec![head];
    for (edge, faults) in sample.edges.iter().filter_map(|edge| Some((edge, edge.faults?))) {
        let (caller, callee) = (super::clean(&edge.caller), super::clean(&edge.callee));
        let text = format!("FAULTS are injected along {caller} → {callee}: {faults}");
        lines.push(Paint::Bad.on(&text, colour));
    }
    lines.push(String::new());
    if table.is_empty() {
        lines.push("no traffic yet".to_owned());
    } else {
        lines.extend(table.lines(colour));
    }
    // One line stays free for the cursor.
    let room = height.saturating_sub(1).max(3);
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(format!("{hidden} more edges; --json has them all"));
    }
    lines
}

/// A line per edge that did something.
fn plain(sample: &Sample) -> String {
    let busy = sample.edges.iter().filter(|e| e.requests_per_second > 0.0 || e.denied > 0 || e.errors > 0);
    busy.map(|edge| {
        let Edge { caller, callee, requests_per_second, p50_us, p99_us, errors, denied, retries, .. } = edge;
        let faults = edge.faults.map_or_else(String::new, |faults| format!(" FAULTS {faults}"));
        let breaker = edge.breaker.as_ref().map_or_else(String::new, |b| format!(" breaker {}", stands(b)));
        let (caller, callee) = (super::clean(caller), super::clean(callee));
        let (p50, p99) = (latency(*p50_us), latency(*p99_us));
        format!(
            "{} {caller} → {callee} {requests_per_second:.1}/s p50 {p50} p99 {p99} errors {errors} denied {denied} retries {retries}{breaker}{faults}\n",
            sample.time
        )
    })
    .collect()
}

/// How the breakers of an edge stand, in a word or two.
fn stands(breaker: &BreakerStats) -> String {
    match *breaker {
        BreakerStats { open: 0, waiting: 0, .. } => "closed".to_owned(),
        BreakerStats { open: 0, waiting, .. } => format!("{waiting} wait"),
        BreakerStats { open, ways, .. } if open == ways => "open".to_owned(),
        BreakerStats { open, ways, .. } => format!("{open} of {ways} open"),
    }
}

fn breaker(breaker: Option<&BreakerStats>) -> Cell {
    let Some(breaker) = breaker else { return Cell::from("-").paint(Paint::Dim) };
    let paint = match (breaker.open, breaker.waiting) {
        (0, 0) => Paint::Plain,
        (0, _) => Paint::Warn,
        _ => Paint::Bad,
    };
    Cell::from(stands(breaker)).paint(paint)
}

fn latency(microseconds: Option<u64>) -> String {
    match microseconds {
        None => "-".to_owned(),
        Some(us) if us < 1000 => format!("{us} µs"),
        Some(us) if us < 1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use ringfence_snapshot::node::{LATENCY_BUCKETS, Stats, latency_bucket};

    use super::*;

    fn node(name: &str, requests: u64, denied: u64, latencies: &[u64]) -> NodeStats {
        let mut latency = vec![0; LATENCY_BUCKETS];
        latencies.iter().for_each(|us| latency[latency_bucket(*us)] += 1);
        let edge = EdgeStats {
            caller: "portal".into(),
            callee: "patients".into(),
            requests,
            errors: 0,
            denied,
            retries: 0,
            latency,
            ..EdgeStats::default()
        };
        NodeStats { node: name.into(), stats: Stats { edges: vec![edge], ..Stats::default() } }
    }

    #[test]
    fn figures_are_differences_summed_over_proxies() {
        let before = [node("a", 100, 1, &[900; 100])];
        let mut slow = vec![900; 100];
        slow.extend([400; 98]);
        slow.extend([50_000; 2]);
        let after = [node("a", 200, 1, &slow), node("b", 20, 3, &[400; 20])];
        let sample = sample(&before, &after, Duration::from_secs(2));
        let [edge] = sample.edges.as_slice() else { panic!("{sample:?}") };
        assert_eq!((edge.requests_per_second, edge.denied), (60.0, 3));
        let (p50, p99) = (edge.p50_us.unwrap(), edge.p99_us.unwrap());
        assert_eq!(edge.breaker, None);
        assert!((400..500).contains(&p50), "the first hundred at 900 µs were before: {p50}");
        assert!((50_000..62_501).contains(&p99), "{p99}");
    }

    #[test]
    fn a_proxy_that_starts_again_counts_from_nothing() {
        let sample =
            sample(&[node("a", 5000, 9, &[10; 50])], &[node("a", 10, 0, &[10; 10])], Duration::from_secs(1));
        assert_eq!((sample.edges[0].requests_per_second, sample.edges[0].denied), (10.0, 0));
    }

    #[test]
    fn faults_stand_above_all_else() {
        let with = |faults| {
            let mut node = node("a", 10, 0, &[10; 10]);
            node.stats.edges[0].faults = Some(faults);
            node
        };
        let sample = sample(&[with(4)], &[with(9)], Duration::from_secs(1));
        assert_eq!(sample.edges[0].faults, Some(5));
        assert_eq!(screen(&sample, 10, false)[1], "FAULTS are injected along portal → patients: 5");
    }

    #[test]
    fn how_breakers_stand_is_summed_and_said() {
        let with = |opened, open, waiting| {
            let mut node = node("a", 10, 0, &[10; 10]);
            node.stats.edges[0].breaker = Some(BreakerStats { ways: 1, open, running: 3, waiting, opened });
            node
        };
        let shown = |before: &[NodeStats], after: &[NodeStats]| {
            let edge = sample(before, after, Duration::from_secs(1)).edges.remove(0);
            let breaker = edge.breaker.unwrap();
            (stands(&breaker), breaker.opened)
        };
        assert_eq!(shown(&[with(4, 0, 0)], &[with(5, 1, 0)]), ("open".to_owned(), 1));
        assert_eq!(shown(&[with(4, 0, 0)], &[with(4, 0, 7)]), ("7 wait".to_owned(), 0));
        let mut other = with(0, 0, 0);
        other.node = "b".into();
        let (text, opened) = shown(&[with(4, 0, 0)], &[with(4, 1, 0), other]);
        assert_eq!((&*text, opened), ("1 of 2 open", 0));
    }

    #[test]
    fn an_idle_edge_has_no_latency_and_a_low_terminal_says_what_it_hides() {
        assert_eq!(quantile(&[0; LATENCY_BUCKETS], 99), None);
        let edges = (0..50).map(|n| Edge { caller: format!("s{n}"), ..Edge::default() }).collect();
        let sample = Sample { time: "t".into(), seconds: 1.0, connections: 0, events_dropped: 0, edges };
        let lines = screen(&sample, 10, false);
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[8], "45 more edges; --json has them all");
        assert_eq!(plain(&sample), "", "nothing happened, nothing is said");
    }
}
