//! `trace ID`: every decision on the way of one trace, over the gateway and all sidecars, in the order of cause.
//!
//! Each hop's event has a span of its own and names the one it came out of, so that the order needs no clock. Where a service passes on
//! another span than it was given, its calls are put below the request that it served at that time, and it is said so.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use ringfence_event::{Filter, Record, read_dir};
use serde_json::{Value, json};

use super::events::{event_id, id, line, trace_id};
use super::why::on_behalf;
use super::{Done, Failure, Paint, clean, finish, print, print_json, timestamp};

/// Most hops of one trace that are shown.
const MAX_HOPS: usize = 1_000;
/// By how much times of events, which are whole milliseconds, may be off, in microseconds.
const SLACK: u64 = 2_000;

#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// A trace id, a `traceparent`, or the id of an event of the trace
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One hop in its place.
#[derive(Debug)]
struct Hop<'a> {
    record: &'a Record,
    depth: usize,
    /// Which hop it came out of.
    cause: Option<usize>,
    /// The place was found by time, not by a span.
    guessed: bool,
}

pub(crate) fn run(args: &TraceArgs, data: &Path, colour: bool) -> ExitCode {
    finish(show(args, data, colour))
}

fn show(args: &TraceArgs, data: &Path, colour: bool) -> Done {
    let folder = data.join("events");
    if !folder.is_dir() {
        let hint = "name the data directory of a fence with --data DIR";
        return Err(Failure::Cannot(format!("there are no events in {}: {hint}", folder.display())));
    }
    let trace = if let Ok(event) = event_id(&args.id) {
        let found = read_dir(&folder, &Filter { id: Some(event), ..Filter::default() })?;
        found.first().and_then(Record::trace).map(str::to_owned)
    } else if let Ok(trace) = trace_id(&args.id) {
        Some(trace)
    } else {
        let forms = "a trace id (32 hexadecimal digits), a traceparent, or an event id (a UUID)";
        return Err(Failure::Wrong(format!("`{}` is none of {forms}", args.id)));
    };
    let mut records = match &trace {
        Some(trace) => read_dir(&folder, &Filter { trace: Some(trace.clone()), ..Filter::default() })?,
        None => Vec::new(),
    };
    let (Some(trace), false) = (trace, records.is_empty()) else {
        eprintln!("no event in {} belongs to it: it may have been rotated away", folder.display());
        return Ok(ExitCode::from(1));
    };
    let omitted = records.len().saturating_sub(MAX_HOPS);
    records.truncate(MAX_HOPS);
    let hops = ordered(&records);
    if args.json {
        let told: Vec<Value> = hops.iter().map(|hop| told(hop, &hops)).collect();
        print_json(&json!({ "trace": trace, "omitted": omitted, "hops": told }))?;
    } else {
        print(&text(&trace, &hops, omitted, colour))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn span<'r>(record: &'r Record, which: &str) -> Option<&'r str> {
    record.json["trace"]["span"][which].as_str()
}

fn point(record: &Record) -> &str {
    record.json["unmapped"]["point"].as_str().unwrap_or("")
}

fn duration(record: &Record) -> u64 {
    record.json["unmapped"]["duration_us"].as_u64().unwrap_or(0)
}

/// Begin and end, Unix time in microseconds.
fn times(record: &Record) -> (u64, u64) {
    let end = record.time_ms().saturating_mul(1000);
    (end.saturating_sub(duration(record)), end)
}

/// The hops, each after what it came out of, and those of one cause by their beginning.
fn ordered(records: &[Record]) -> Vec<Hop<'_>> {
    let spans: HashMap<&str, usize> =
        records.iter().enumerate().filter_map(|(at, record)| Some((span(record, "uid")?, at))).collect();
    let mut effects: Vec<Vec<(usize, bool)>> = vec![Vec::new(); records.len()];
    let mut roots = Vec::new();
    for (at, record) in records.iter().enumerate() {
        let named =
            span(record, "parent_uid").and_then(|parent| spans.get(parent)).filter(|cause| **cause != at);
        match (named, named.is_none().then(|| serving(records, at)).flatten()) {
            (Some(cause), _) => effects[*cause].push((at, false)),
            (None, Some(cause)) => effects[cause].push((at, true)),
            (None, None) => roots.push((at, false)),
        }
    }
    for list in effects.iter_mut().chain([&mut roots]) {
        list.sort_by_key(|(at, _)| times(&records[*at]));
    }
    let (mut hops, mut seen) = (Vec::with_capacity(records.len()), vec![false; records.len()]);
    // Spans that name each other in a circle, as only forged events can, have no beginning: they come last.
    let all = roots.iter().copied().chain((0..records.len()).map(|at| (at, false)));
    for (root, guessed) in all {
        let mut due = vec![(root, 0, None, guessed)];
        while let Some((at, depth, cause, guessed)) = due.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let here = hops.len();
            hops.push(Hop { record: &records[at], depth, cause, guessed });
            due.extend(
                effects[at].iter().rev().map(|(effect, guessed)| (*effect, depth + 1, Some(here), *guessed)),
            );
        }
    }
    hops
}

/// The request that the caller of a hop served at that time; of several the one that began last.
fn serving(records: &[Record], at: usize) -> Option<usize> {
    if point(&records[at]) != "sidecar-out" {
        return None;
    }
    let (begin, end) = times(&records[at]);
    let encloses = |record: &Record| {
        let (from, to) = times(record);
        from <= begin + SLACK && end <= to + SLACK
    };
    let serves = |record: &Record| point(record) == "sidecar-in" && record.callee() == records[at].caller();
    let all = records
        .iter()
        .enumerate()
        .filter(|(other, record)| *other != at && serves(record) && encloses(record));
    all.max_by_key(|(_, record)| times(record).0).map(|(other, _)| other)
}

fn verdict(record: &Record) -> (&'static str, Paint) {
    match (record.denied(), record.json["status_id"] == 2) {
        (true, _) => ("denied", Paint::Bad),
        (_, true) => ("failed", Paint::Warn),
        _ => ("allowed", Paint::Good),
    }
}

fn told(hop: &Hop<'_>, hops: &[Hop<'_>]) -> Value {
    let (record, json) = (hop.record, &hop.record.json);
    let more = &json["unmapped"];
    json!({
        "event": id(record),
        "cause": hop.cause.and_then(|cause| id(hops[cause].record)),
        "placed_by": if hop.guessed { "time" } else { "span" },
        "depth": hop.depth,
        "point": more["point"],
        "caller": record.caller(),
        "callee": record.callee(),
        "method": json["http_request"]["http_method"],
        "path": json["http_request"]["url"]["path"],
        "status": json["http_response"]["code"],
        "verdict": verdict(record).0,
        "stage": more["stage"],
        "rule": json["firewall_rule"]["uid"],
        "position": more["position"],
        "missing": more["missing"],
        "reason": record.message(),
        "revision": more["revision"],
        "duration_us": duration(record),
        "begun": timestamp(times(record).0 / 1000).to_string(),
        "producer": record.producer,
    })
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

fn text(trace: &str, hops: &[Hop<'_>], omitted: usize, colour: bool) -> String {
    let denied = hops.iter().filter(|hop| hop.record.denied()).count();
    let from = hops.iter().map(|hop| times(hop.record).0).min().unwrap_or(0);
    let to = hops.iter().map(|hop| times(hop.record).1).max().unwrap_or(0);
    let mut out = format!(
        "{} {} hops in {}, {denied} denied\n",
        Paint::Bold.on(&clean(trace), colour),
        hops.len(),
        milliseconds(to.saturating_sub(from))
    );
    for hop in hops {
        one(&mut out, hop, colour);
    }
    if omitted > 0 {
        let _ = writeln!(out, "{omitted} more events of this trace are not shown");
    }
    out
}

fn one(out: &mut String, hop: &Hop<'_>, colour: bool) {
    let (record, json) = (hop.record, &hop.record.json);
    let room = "  ".repeat(hop.depth + 1);
    if record.kind() != "call" {
        let _ = writeln!(out, "{room}{}", line(record, colour));
        return;
    }
    let word = |value: &Value| value.as_str().map(clean).unwrap_or_default();
    let (verdict, paint) = verdict(record);
    let what = format!(
        "{} → {} {} {} {} {verdict}",
        clean(record.caller()),
        clean(record.callee()),
        word(&json["http_request"]["http_method"]),
        word(&json["http_request"]["url"]["path"]),
        json["http_response"]["code"].as_u64().map_or_else(|| "-".to_owned(), |code| code.to_string()),
    );
    let more = &json["unmapped"];
    let revision =
        more["revision"].as_u64().map(|revision| format!(", revision {revision}")).unwrap_or_default();
    let guessed = if hop.guessed { ", placed by time" } else { "" };
    let _ = writeln!(
        out,
        "{room}{} {} {}",
        Paint::Dim.on(&format!("{:<11}", clean(point(record))), colour),
        paint.on(&what, colour),
        Paint::Dim.on(&format!("{}{revision}{guessed}", milliseconds(duration(record))), colour),
    );
    let mut say = |label: &str, text: &str| {
        let _ = writeln!(out, "{room}  {} {text}", Paint::Dim.on(label, colour));
    };
    if let Some(whom) = on_behalf(record) {
        say("for", &whom);
    }
    if let Some(rule) = json["firewall_rule"]["uid"].as_str() {
        let stage =
            more["stage"].as_str().map(|stage| format!(" in stage {}", clean(stage))).unwrap_or_default();
        let position = more["position"].as_str().map(|at| format!(" at {}", clean(at))).unwrap_or_default();
        say("by", &format!("{}{stage}{position}", clean(rule)));
    }
    if !record.message().is_empty() {
        say("because", &clean(record.message()));
    }
    if let Some(missing) = more["missing"].as_str() {
        say("missing", &clean(missing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event that ends at `time` after `ms`; spans are single letters, `-` is none.
    fn hop(point: &str, way: (&str, &str), spans: (&str, &str), time: u64, ms: u64) -> Record {
        let mut span = json!({ "uid": spans.0 });
        if spans.1 != "-" {
            span["parent_uid"] = spans.1.into();
        }
        let json = json!({
            "time": time, "class_uid": 4002, "action_id": 1, "severity_id": 1,
            "metadata": { "uid": format!("event-{}", spans.0) },
            "trace": { "uid": "4bf92f3577b34da6a3ce929d0e0e4736", "span": span },
            "src_endpoint": { "svc_name": way.0 }, "dst_endpoint": { "svc_name": way.1 },
            "http_request": { "http_method": "GET", "url": { "path": "/\u{1b}[2J" } }, "http_response": { "code": 200 },
            "unmapped": { "point": point, "duration_us": ms * 1000, "revision": 3 },
        });
        Record { producer: "node".into(), json }
    }

    fn shape(records: &[Record]) -> Vec<(String, usize, bool)> {
        let name = |hop: &Hop<'_>| span(hop.record, "uid").unwrap().to_owned();
        ordered(records).iter().map(|hop| (name(hop), hop.depth, hop.guessed)).collect()
    }

    #[test]
    fn what_came_out_of_what_is_told_by_spans_whatever_the_clocks_say() {
        // The innermost ends first, and its clock is an hour ahead.
        let records = [
            hop("sidecar-in", ("portal", "patients"), ("d", "c"), 3_600_000, 1),
            hop("sidecar-out", ("portal", "patients"), ("c", "b"), 107, 4),
            hop("sidecar-out", ("portal", "billing"), ("e", "b"), 109, 1),
            hop("sidecar-in", ("outside", "portal"), ("b", "a"), 110, 9),
            hop("gateway", ("outside", "portal"), ("a", "x"), 111, 11),
        ];
        let found = shape(&records);
        let found: Vec<(&str, usize, bool)> =
            found.iter().map(|(name, depth, by)| (name.as_str(), *depth, *by)).collect();
        assert_eq!(
            found,
            [("a", 0, false), ("b", 1, false), ("c", 2, false), ("d", 3, false), ("e", 2, false)]
        );
        let hops = ordered(&records);
        let told = told(&hops[3], &hops);
        assert_eq!(
            (&told["cause"], &told["placed_by"], &told["duration_us"]),
            (&json!("event-c"), &json!("span"), &json!(1000))
        );
    }

    #[test]
    fn a_service_with_spans_of_its_own_is_placed_by_time_and_it_is_said() {
        let records = [
            hop("sidecar-in", ("outside", "portal"), ("a", "-"), 100, 50),
            hop("sidecar-in", ("outside", "portal"), ("b", "-"), 140, 30),
            hop("sidecar-out", ("portal", "patients"), ("c", "unknown"), 130, 10),
            hop("sidecar-out", ("portal", "patients"), ("d", "unknown"), 900, 10),
        ];
        let found = shape(&records);
        assert_eq!(found[1..3], [("b".to_owned(), 0, false), ("c".to_owned(), 1, true)]);
        assert_eq!(found[3], ("d".to_owned(), 0, false), "nobody served at that time");
        let text = text("t", &ordered(&records), 0, false);
        assert!(text.contains("placed by time") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn spans_in_a_circle_are_shown_once_each() {
        let records = [
            hop("gateway", ("a", "b"), ("a", "b"), 1, 1),
            hop("gateway", ("a", "b"), ("b", "a"), 2, 1),
            hop("gateway", ("a", "b"), ("c", "c"), 3, 1),
        ];
        assert_eq!(ordered(&records).len(), 3);
    }
}
