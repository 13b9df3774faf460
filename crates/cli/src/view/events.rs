//! `events`: what happened, from the event files themselves, so that it works when nothing runs any more.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use ringfence_event::{EventId, Filter, Follow, Record, read_dir};
use serde_json::Value;

use super::{Done, Failure, Paint, clean, finish, print};

/// How often files are looked at again; an event reaches its file within 50 ms.
const POLL: Duration = Duration::from_millis(200);
/// Characters of the time at the beginning of a line.
const TIME: usize = 24;

#[derive(Clone, Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only events about this service, as caller or callee
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only events of this kind
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only what was refused
    #[arg(long)]
    denied: bool,
    /// Only events of this trace
    #[arg(long, value_name = "TRACE_ID", value_parser = trace_id)]
    trace: Option<String>,
    /// Only this event
    #[arg(long, value_name = "EVENT_ID", value_parser = event_id)]
    id: Option<String>,
    /// Only what is younger, such as `10m`, or came after a time in RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<SystemTime>,
    /// Only the last N of these
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Go on showing what comes; alone, only what comes
    #[arg(long)]
    follow: bool,
    /// Print OCSF events, one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// An HTTP request
    Call,
    /// A connection
    Connection,
    /// A packet to where no edge leads
    Dial,
    /// A search over ports or addresses
    Scan,
    /// A service that reaches for Ringfence's own files or processes
    Tamper,
    /// Something started, stopped or changed
    Lifecycle,
    /// A certificate, key or snapshot
    Entity,
}

pub(crate) fn run(args: &EventsArgs, data: &Path, colour: bool) -> ExitCode {
    finish(show(args, data, colour))
}

fn show(args: &EventsArgs, data: &Path, colour: bool) -> Done {
    let json = args.json;
    let folder = data.join("events");
    if !folder.is_dir() {
        let hint = "name the data directory of a fence with --data DIR";
        return Err(Failure::Cannot(format!("there are no events in {}: {hint}", folder.display())));
    }
    let filter = filter(args);
    // Followed from before the first reading, so that nothing falls between the two.
    let mut follow = if args.follow { Some(Follow::from_now(&folder, filter.clone())?) } else { None };
    let mut shown = HashSet::new();
    if !args.follow || args.since.is_some() || args.last.is_some() {
        let mut records = read_dir(&folder, &filter)?;
        if let Some(last) = args.last {
            records.drain(..records.len().saturating_sub(last));
        }
        if records.is_empty() && !args.follow {
            eprintln!("no such events in {}", folder.display());
        }
        shown.extend(records.iter().filter_map(|r| id(r).map(str::to_owned)));
        print(&lines(&records, json, colour)?)?;
    }
    while let Some(follow) = &mut follow {
        std::thread::sleep(POLL);
        let mut records = follow.poll()?;
        // Only the first poll can meet what the first reading had.
        records.retain(|r| id(r).is_none_or(|id| !shown.contains(id)));
        shown.clear();
        print(&lines(&records, json, colour)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(args: &EventsArgs) -> Filter {
    let kind = args.kind.and_then(|kind| kind.to_possible_value()).map(|value| value.get_name().to_owned());
    let since = args.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    Filter {
        service: args.service.clone(),
        kind,
        denied: args.denied,
        trace: args.trace.clone(),
        id: args.id.clone(),
        since_ms: since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX)),
    }
}

fn lines(records: &[Record], json: bool, colour: bool) -> Result<String, Failure> {
    let mut text = String::new();
    for record in records {
        if json {
            text.push_str(&serde_json::to_string(&with_producer(record))?);
        } else {
            text.push_str(&line(record, colour));
            if let Some(point) = record.json["unmapped"]["point"].as_str() {
                text.push_str(&Paint::Dim.on(&format!(" ({})", clean(point)), colour));
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// The event with `metadata.log_name` naming who wrote it. The file decides that: a field of that name in it is replaced.
pub(super) fn with_producer(record: &Record) -> Value {
    let mut json = record.json.clone();
    if let Some(metadata) = json.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("log_name".to_owned(), Value::from(record.producer.as_str()));
    }
    json
}

/// One line for a person.
pub(super) fn line(record: &Record, colour: bool) -> String {
    let line = clean(&record.line());
    let (time, rest) = line.split_at_checked(TIME).unwrap_or(("", &line));
    let paint = match severity(record) {
        4.. => Paint::Bad,
        _ if record.denied() => Paint::Bad,
        2..=3 => Paint::Warn,
        _ => Paint::Plain,
    };
    format!("{}{}", Paint::Dim.on(time, colour), paint.on(rest, colour))
}

fn severity(record: &Record) -> u64 {
    record.json["severity_id"].as_u64().unwrap_or(1)
}

/// The event's id.
pub(crate) fn id(record: &Record) -> Option<&str> {
    record.json["metadata"]["uid"].as_str()
}

/// An event's id as it is written in events; what a problem document calls `instance` may have `urn:uuid:` before it.
pub(crate) fn event_id(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix("urn:uuid:").unwrap_or(text);
    // Without its hyphens a UUID would look like a trace id.
    let id = if bare.len() == 36 { EventId::parse(bare) } else { None };
    id.map(|id| id.to_string()).ok_or_else(|| "an event id is a UUID".to_owned())
}

/// A trace id, or the `traceparent` that holds it.
pub(crate) fn trace_id(text: &str) -> Result<String, String> {
    let bare = if text.len() == 55 { text.split('-').nth(1).unwrap_or(text) } else { text };
    let hex = bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { Ok(bare.to_ascii_lowercase()) } else { Err("a trace id has 32 hexadecimal digits".to_owned()) }
}

pub(crate) fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(age) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(age).ok_or_else(|| "that is before all time".to_owned());
    }
    humantime::parse_rfc3339_weak(text)
        .map_err(|_| "write a duration such as `10m`, or a time such as `2026-01-31T12:00:00Z`".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_taken_in_the_forms_people_have_them() {
        let id = "0190f6a2-7d1c-7000-8000-000000000001";
        assert_eq!(event_id(&format!("urn:uuid:{}", id.to_uppercase())).as_deref(), Ok(id));
        assert!(event_id("portal").is_err());
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(), Ok(trace));
        assert!(trace_id("4bf92f").is_err());
        assert!(event_id(trace).is_err(), "one word is never both");
    }

    #[test]
    fn the_file_names_the_producer_and_no_field_can() {
        let json = json!({"metadata": {"uid": "x", "log_name": "keeper"}});
        let record = Record { producer: "portal".into(), json };
        assert_eq!(with_producer(&record)["metadata"]["log_name"], "portal");
    }

    #[test]
    fn a_path_with_escape_sequences_stays_one_harmless_line() {
        let json = json!({
            "time": 0, "class_uid": 4002, "action_id": 2, "severity_id": 3,
            "src_endpoint": {"svc_name": "portal"}, "dst_endpoint": {"svc_name": "billing"},
            "http_request": {"http_method": "GET", "url": {"path": "/\u{1b}[2J\nfake"}}, "http_response": {"code": 403},
        });
        let line = line(&Record { producer: "node".into(), json }, false);
        assert!(line.contains("portal → billing GET /\\u{1b}[2J\\u{a}fake 403"), "{line}");
        assert!(line.starts_with("1970-01-01T00:00:00.000Z deny "), "{line}");
    }

    #[test]
    fn an_age_and_a_time_both_say_since_when() {
        assert!(since("10m").unwrap() < SystemTime::now());
        assert_eq!(since("1970-01-01T00:00:10Z").unwrap(), UNIX_EPOCH + Duration::from_secs(10));
        assert!(since("yesterday").is_err());
    }
}
