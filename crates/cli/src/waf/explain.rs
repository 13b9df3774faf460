//! `waf explain ID`: what the rules found, from the event alone; the rules' own text, where they are here, besides.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use ringfence_event::{Filter, Record, read_dir};
use ringfence_model::{Fence, content};
use ringfence_waf::Source;
use serde_json::{Value, json};

use super::{Found, text};
use crate::view::events::{event_id, id, trace_id};
use crate::view::{Done, Failure, Paint, clean, print, print_json, timestamp};

/// Most lines of a rule that are shown.
const MAX_LINES: usize = 40;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// An event id (the `instance` of a problem document) or a trace id
    event: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn explain(args: &ExplainArgs, fence: &Path, data: &Path, colour: bool) -> Done {
    let filter = if let Ok(id) = event_id(&args.event) {
        Filter { id: Some(id), ..Filter::default() }
    } else if let Ok(trace) = trace_id(&args.event) {
        Filter { trace: Some(trace), ..Filter::default() }
    } else {
        let forms = "an event id (a UUID, the `instance` of a problem document) or a trace id (32 hexadecimal digits)";
        return Err(Failure::Wrong(format!("`{}` is neither {forms}", args.event)));
    };
    let folder = data.join("events");
    let all = read_dir(&folder, &filter)?;
    let events: Vec<(&Record, Vec<Found>)> = all
        .iter()
        .map(|record| (record, Found::all(record)))
        .filter(|(_, found)| !found.is_empty())
        .collect();
    if events.is_empty() {
        if all.is_empty() {
            let folder = folder.display();
            eprintln!(
                "no event in {folder} has that id: it may have been rotated away, or belong to another fence"
            );
        } else {
            eprintln!("the firewall found nothing there: `ringfence why {}` tells what happened", args.event);
        }
        return Ok(ExitCode::from(1));
    }
    let rules = Texts::of(fence);
    if args.json {
        let events: Vec<Value> = events.iter().map(|(record, found)| object(record, found, &rules)).collect();
        print_json(&json!({ "events": events }))?;
    } else {
        let parts: Vec<String> =
            events.iter().map(|(record, found)| page(record, found, &rules, colour)).collect();
        print(&parts.join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of the request, in a word.
fn outcome(record: &Record, found: &[Found]) -> &'static str {
    if record.denied() {
        "refused"
    } else if found.iter().all(|found| found.observed) {
        "observed"
    } else {
        "passed"
    }
}

fn page(record: &Record, found: &[Found], rules: &Texts, colour: bool) -> String {
    let mut out = String::new();
    let mut say = |label: &str, text: &str| {
        let _ = writeln!(out, "{} {text}", Paint::Dim.on(&format!("{label:<9}"), colour));
    };
    let outcome = outcome(record, found);
    let paint = if record.denied() { Paint::Bad } else { Paint::Warn };
    let of = |place: &str| clean(text(record, place));
    say("request", &format!("{} {}", of("/http_request/http_method"), of("/http_request/url/path")));
    say("when", &timestamp(record.time_ms()).to_string());
    say("who", &format!("{} → {}", clean(record.caller()), clean(record.callee())));
    say("outcome", &Paint::on(paint, outcome, colour));
    if !record.message().is_empty() {
        say("reason", &clean(record.message()));
    }
    let position = of("/unmapped/position");
    if !position.is_empty() {
        say("fence", &position);
    }
    say("event", &id(record).map(clean).unwrap_or_default());
    let mut before = None;
    for found in found {
        if before != Some(&found.rule) {
            let score = if found.score > 0 { format!(", score {}", found.score) } else { String::new() };
            let _ = writeln!(out, "\n{}{score}", Paint::Bold.on(&clean(&found.rule), colour));
            before = Some(&found.rule);
            let mut say = |label: &str, text: &str| {
                let _ = writeln!(out, "  {} {text}", Paint::Dim.on(&format!("{label:<8}"), colour));
            };
            say("says", &clean(&found.message));
            if !found.transformations.is_empty() {
                say("after", &clean(&found.transformations.join(", ")));
            }
            if let Some(rule) = found.number().and_then(|number| rules.of_rule(number)) {
                say("stands", &format!("{}:{}", rule.file, rule.line));
                for line in &rule.text {
                    let _ = writeln!(out, "           {}", Paint::Dim.on(&clean(line), colour));
                }
            }
        }
        let _ = writeln!(out, "  {} {}", Paint::Dim.on("in      ", colour), clean(&found.target));
        let _ = writeln!(out, "  {} {}", Paint::Dim.on("found   ", colour), clean(&found.value));
    }
    out
}

fn object(record: &Record, found: &[Found], rules: &Texts) -> Value {
    let of = |place: &str| record.json.pointer(place).cloned().unwrap_or_default();
    let findings: Vec<Value> = found
        .iter()
        .map(|found| {
            let stands = found
                .number()
                .and_then(|number| rules.of_rule(number))
                .map(|rule| json!({ "file": rule.file, "line": rule.line, "text": rule.text.join("\n") }));
            json!({
                "rule": found.rule, "message": found.message, "target": found.target, "value": found.value,
                "transformations": found.transformations, "score": found.score, "observed": found.observed,
                "stands": stands,
            })
        })
        .collect();
    json!({
        "event": id(record),
        "time": timestamp(record.time_ms()).to_string(),
        "outcome": outcome(record, found),
        "method": of("/http_request/http_method"),
        "path": of("/http_request/url/path"),
        "service": record.callee(),
        "rule": of("/firewall_rule/uid"),
        "reason": record.message(),
        "position": of("/unmapped/position"),
        "revision": of("/unmapped/revision"),
        "findings": findings,
    })
}

/// The rule files that are here, and the embedded rules.
struct Texts(BTreeMap<String, Vec<u8>>);

/// A rule as it is written.
struct Written<'t> {
    file: &'t str,
    line: usize,
    text: Vec<String>,
}

impl Texts {
    /// Those of a fence; none if it cannot be read, since an event explains itself.
    fn of(fence: &Path) -> Self {
        let files = Fence::load(fence).ok().and_then(|fence| content::read(&fence).ok());
        let embedded = [Source::base(), Source::baseline()].map(|source| (source.name, source.text));
        Self(files.unwrap_or_default().into_iter().chain(embedded).collect())
    }

    fn of_rule(&self, number: u32) -> Option<Written<'_>> {
        let files = self.0.iter().filter(|(name, _)| name.ends_with(".conf") || name.starts_with('('));
        files.into_iter().find_map(|(file, bytes)| {
            let text = String::from_utf8_lossy(bytes);
            let lines: Vec<&str> = text.lines().collect();
            let at = lines.iter().position(|line| names(line, number))?;
            let is_start = |line: &&str| line.trim_start().starts_with("Sec");
            let from = lines.get(..=at)?.iter().rposition(is_start)?;
            let goes_on = |line: &&&str| line.trim_end().ends_with('\\');
            let more = lines.get(from..)?.iter().take_while(goes_on).count();
            let text = lines.iter().skip(from).take((more + 1).min(MAX_LINES)).map(|&line| line.to_owned());
            Some(Written { file, line: from + 1, text: text.collect() })
        })
    }
}

/// Whether a line gives a rule this number.
fn names(line: &str, number: u32) -> bool {
    let number = number.to_string();
    !line.trim_start().starts_with('#')
        && line.match_indices("id:").any(|(at, _)| {
            let before = line.get(..at).and_then(|before| before.chars().next_back());
            let rest = line.get(at + 3..).unwrap_or_default().trim_start_matches('\'');
            let after = rest.strip_prefix(&number).map(|after| after.chars().next());
            before.is_none_or(|c| matches!(c, ' ' | '"' | ',' | '\t'))
                && after.is_some_and(|next| next.is_none_or(|c| !c.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_its_number_and_shown_as_it_is_written() {
        let text = "# id:942100 is about SQL\nSecRule ARGS \"@rx a\" \\\n    \"id:9421001,\\\n    phase:2\"\n\nSecRule ARGS \\\n    \"@detectSQLi\" \\\n    \"id:942100,\\\n    phase:2\"\nSecAction \"id:7\"\n";
        let texts = Texts(BTreeMap::from([
            ("crs/rules/a.conf".to_owned(), text.as_bytes().to_vec()),
            ("crs/rules/a.data".to_owned(), b"id:5".to_vec()),
        ]));
        let rule = texts.of_rule(942_100).unwrap();
        assert_eq!((rule.file, rule.line, rule.text.len()), ("crs/rules/a.conf", 6, 4));
        assert!(rule.text[1].contains("@detectSQLi"));
        assert_eq!(texts.of_rule(7).unwrap().text, ["SecAction \"id:7\""]);
        assert!(texts.of_rule(5).is_none() && texts.of_rule(94_210).is_none());
    }

    #[test]
    fn an_embedded_rule_is_shown_too() {
        let texts = Texts::of(Path::new("/nowhere/ringfence.yaml"));
        let rule = texts.of_rule(4_610_600).unwrap();
        assert!(rule.file == "(baseline)" && rule.text[0].contains("@detectSQLi"), "{:?}", rule.text);
        assert_eq!(texts.of_rule(4_600_012).unwrap().file, "(base)");
    }
}
