//! `waf tune`: exclusions that would have let pass what the rules found, by rule, variable and path.
//!
//! What many clients send, an application probably asks for; what one client sends may be an attack. A tool cannot tell, so nothing is
//! written: it proposes, people look, and the reason is theirs to give.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ringfence_event::{Filter, Record, read_dir};
use ringfence_model::{Date, Fence};
use serde_json::{Value, json};

use super::{Found, text};
use crate::view::events::since;
use crate::view::{Done, Paint, clean, now, print, print_json};

/// Most proposals, and most clients of one that are told apart.
const MAX_PROPOSALS: usize = 200;
const MAX_CLIENTS: usize = 10_000;
/// How long a proposed exclusion holds.
const HOLDS: u64 = 90 * 86_400;
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 60;

#[derive(Debug, Args)]
pub(super) struct TuneArgs {
    /// Only what happened since: RFC 3339, or a duration back from now such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Only what so many different clients sent
    #[arg(long, value_name = "NUMBER", default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// The last day of the exclusions, in UTC [default: in 90 days]
    #[arg(long, value_name = "DAY", value_parser = |text: &str| text.parse::<Date>())]
    until: Option<Date>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found by one rule in one variable on one path.
#[derive(Debug, Default)]
struct Group {
    requests: u64,
    refused: u64,
    clients: BTreeSet<String>,
    message: String,
    example: String,
}

/// Rule, variable, path.
type Key = (u32, String, String);

pub(super) fn tune(args: &TuneArgs, data: &Path, colour: bool) -> Done {
    let since_ms = args.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
    let since_ms = since_ms.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX));
    let records =
        read_dir(&data.join("events"), &Filter { since_ms, kind: Some("call".into()), ..Filter::default() })?;
    let groups = groups(&records);
    let until = args.until.map_or_else(|| day(now() + HOLDS), |date| date.to_string());
    let wanted = usize::try_from(args.clients).unwrap_or(usize::MAX);
    let (mut many, few): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|(_, group)| group.clients.len() >= wanted);
    many.sort_by_key(|(_, group)| std::cmp::Reverse((group.clients.len(), group.requests)));
    let more = many.len().saturating_sub(MAX_PROPOSALS);
    many.truncate(MAX_PROPOSALS);
    if args.json {
        let proposals: Vec<Value> = many.iter().map(|(key, group)| object(key, group, &until)).collect();
        print_json(&json!({ "proposals": proposals, "more": more, "fewer_clients": few.len() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if many.is_empty() {
        eprintln!("the firewall found nothing that {} different clients sent", args.clients);
    } else {
        print(&page(&many, &until, colour))?;
    }
    if more > 0 {
        eprintln!("and {more} more: take those first");
    }
    if !few.is_empty() {
        eprintln!("{} more were sent by fewer clients: --clients 1 shows them", few.len());
    }
    Ok(ExitCode::SUCCESS)
}

fn groups(records: &[Record]) -> BTreeMap<Key, Group> {
    let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
    for record in records {
        let path = pattern(text(record, "/http_request/url/path"));
        let mut seen = BTreeSet::new();
        for found in Found::all(record) {
            let Some(rule) = found.number() else { continue };
            let key = (rule, found.target, path.clone());
            if !seen.insert(key.clone()) {
                continue;
            }
            let group = groups.entry(key).or_default();
            group.requests += 1;
            group.refused += u64::from(record.denied());
            if group.clients.len() < MAX_CLIENTS {
                group.clients.insert(client(record));
            }
            if group.example.is_empty() {
                (group.message, group.example) = (found.message, found.value);
            }
        }
    }
    groups
}

/// Whoever sent it: the user or client that was verified, or the address.
fn client(record: &Record) -> String {
    match text(record, "/src_endpoint/owner/name") {
        "" => text(record, "/src_endpoint/ip").to_owned(),
        name => format!("{name}@{}", text(record, "/src_endpoint/owner/domain")),
    }
}

/// A path without what names one thing of many: numbers, UUIDs and the like.
fn pattern(path: &str) -> String {
    let named = |segment: &str| {
        let digits = segment.bytes().filter(u8::is_ascii_digit).count();
        let hexadecimal = segment.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        // What a pattern cannot say is any segment, too.
        let plain =
            segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'));
        (digits > 0 && (digits == segment.len() || (hexadecimal && segment.len() >= 8))) || !plain
    };
    path.split('/').map(|segment| if named(segment) { "*" } else { segment }).collect::<Vec<_>>().join("/")
}

/// A line for the fence, if the fence would take it.
fn proposal((rule, target, path): &Key, group: &Group, until: &str) -> Option<String> {
    let quoted = |text: &str| serde_json::to_string(text).ok();
    let reason = format!(
        "proposed from {} of {}: say here why it is no attack",
        counted(group.requests, "request"),
        counted(group.clients.len() as u64, "client")
    );
    let target = if target.is_empty() { String::new() } else { format!("target: {}, ", quoted(target)?) };
    let line = format!(
        "{{ rules: [{rule}], {target}path: {}, reason: {}, until: {until} }}",
        quoted(path)?,
        quoted(&reason)?
    );
    let fence = format!(
        "fence: t\ntrust_domain: t.example\nwaf:\n  exclude:\n    - {line}\nservices: {{ a: {{}} }}\n"
    );
    Fence::parse(vec![("ringfence.yaml", fence)]).ok().map(|_| line)
}

fn page(groups: &[(Key, Group)], until: &str, colour: bool) -> String {
    let dim = |text: String| Paint::Dim.on(&text, colour);
    let mut out = format!(
        "{}\nwaf:\n  exclude:\n",
        dim("# Look at each before it is pasted: what attackers send often looks the same.".to_owned())
    );
    for (key, group) in groups {
        let refused = if group.refused > 0 { format!(", {} refused", group.refused) } else { String::new() };
        let counts = format!(
            "{} of {}{refused}",
            counted(group.requests, "request"),
            counted(group.clients.len() as u64, "client")
        );
        let example: String = group.example.chars().take(MAX_SHOWN).collect();
        let about = format!("    # {counts}: {}: {}", clean(&group.message), clean(&example));
        let _ = writeln!(out, "{}", dim(about));
        match proposal(key, group, until) {
            Some(line) => {
                let _ = writeln!(out, "    - {line}");
            }
            None => {
                let (rule, target, path) = key;
                let said =
                    format!("    # no exclusion says rule {rule} in {} on {}", clean(target), clean(path));
                let _ = writeln!(out, "{}", dim(said));
            }
        }
    }
    out
}

fn object(key: &Key, group: &Group, until: &str) -> Value {
    let (rule, target, path) = key;
    json!({
        "rule": rule, "target": target, "path": path, "requests": group.requests, "refused": group.refused,
        "clients": group.clients.len(), "message": group.message, "example": group.example,
        "exclude": proposal(key, group, until),
    })
}

fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The day of a Unix time, in UTC.
fn day(time: u64) -> String {
    let shown = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time)).to_string();
    shown.get(..10).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(client: &str, path: &str, rule: &str, target: &str, denied: bool) -> Record {
        let json = json!({
            "src_endpoint": { "ip": client },
            "http_request": { "http_method": "GET", "url": { "path": path } },
            "action_id": if denied { 2 } else { 1 },
            "unmapped": { "findings": [
                { "stage": "inspect", "rule": rule, "message": "SQL", "target": target, "value": "O'Brien", "score": 5 },
                { "stage": "inspect", "rule": rule, "message": "SQL", "target": target, "value": "again", "score": 0 },
                { "stage": "validate", "rule": "openapi.type", "target": "/a" },
            ] },
        });
        Record { producer: "node".into(), json }
    }

    #[test]
    fn what_several_clients_sent_is_proposed_with_its_counts_and_what_one_sent_is_not() {
        let records: Vec<Record> = (0..3)
            .map(|n| {
                record(
                    &format!("203.0.113.{n}"),
                    &format!("/people/{n}/notes"),
                    "waf.942100",
                    "ARGS:q",
                    n == 0,
                )
            })
            .chain([record("203.0.113.9", "/login", "waf.942100", "ARGS:user", true)])
            .collect();
        let groups = groups(&records);
        let key = (942_100, "ARGS:q".to_owned(), "/people/*/notes".to_owned());
        let group = &groups[&key];
        assert_eq!(
            (group.requests, group.refused, group.clients.len()),
            (3, 1, 3),
            "each request counts once"
        );
        assert_eq!((groups.len(), group.example.as_str()), (2, "O'Brien"));
        let line = proposal(&key, group, "2027-03-01").unwrap();
        assert!(
            line.starts_with("{ rules: [942100], target: \"ARGS:q\", path: \"/people/*/notes\", "),
            "{line}"
        );
        let page = page(&groups.into_iter().collect::<Vec<_>>(), "2027-03-01", false);
        assert!(page.contains("# 3 requests of 3 clients, 1 refused: SQL: O'Brien"), "{page}");
        let fence = format!("fence: t\ntrust_domain: t.example\n{page}services: {{ a: {{}} }}\n");
        assert_eq!(
            Fence::parse(vec![("f", fence)]).unwrap().waf.unwrap().exclude.len(),
            2,
            "it can be pasted"
        );
    }

    #[test]
    fn nothing_that_a_client_sent_becomes_a_line_of_its_own() {
        for (target, path) in [
            ("ARGS:a\"}\n    - { tag: OWASP_CRS", "/x"),
            ("ARGS:q", "/x\"\nwaf: off"),
            ("ARGS:\u{2028}", "/\u{1b}[2J"),
            ("TX:1", "/**"),
        ] {
            let groups = groups(&[record("::1", path, "waf.1", target, false)]);
            let page = page(&groups.into_iter().collect::<Vec<_>>(), "2027-03-01", false);
            let fence = format!("fence: t\ntrust_domain: t.example\n{page}services: {{ a: {{}} }}\n");
            let waf = Fence::parse(vec![("f", fence)]).map(|fence| fence.waf.unwrap());
            assert!(waf.is_err() || waf.is_ok_and(|waf| waf.exclude.len() <= 1), "{page}");
            assert!(!page.contains('\u{1b}') && page.lines().count() <= 5, "{page}");
        }
    }

    #[test]
    fn paths_that_differ_by_what_they_name_are_one() {
        for (path, expected) in [
            ("/", "/"),
            ("/people/17", "/people/*"),
            ("/people/0192f3b0-7c1e-7abc-8def-0123456789ab/notes", "/people/*/notes"),
            ("/v1/search", "/v1/search"),
            ("/decade/feed", "/decade/feed"),
            ("/a b/{x}", "/*/*"),
        ] {
            assert_eq!(pattern(path), expected);
        }
        assert_eq!(day(1_803_945_599), "2027-03-01");
    }
}
