//! `why ID`: one event in full, from the rule that decided to the line of the fence, with every hop of its trace.

use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use ringfence_event::{Filter, Record, read_dir};
use serde_json::{Value, json};

use super::events::{event_id, id, line, trace_id, with_producer};
use super::status::Status;
use super::{Done, Failure, Paint, clean, finish, print, print_json, timestamp};
use crate::client::Client;
use crate::data::fence_folder;

/// Largest file of a fence that is looked into for a line.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Hops shown of one trace.
const MAX_HOPS: usize = 200;

/// Explains an event by its id, or everything refused in a trace by the trace's id. `fence` is the fence's file or folder.
pub(crate) fn run(what: &str, json: bool, data: &Path, fence: impl AsRef<Path>, colour: bool) -> ExitCode {
    finish(explain(what, json, data, &fence_folder(fence.as_ref()), colour))
}

/// Whether a word is an id that [`run`] takes, rather than the name of a service.
pub(crate) fn is_id(word: &str) -> bool {
    event_id(word).is_ok() || trace_id(word).is_ok()
}

fn explain(what: &str, json: bool, data: &Path, fence: &Path, colour: bool) -> Done {
    let folder = data.join("events");
    let (events, trace) = if let Ok(id) = event_id(what) {
        let events = read_dir(&folder, &Filter { id: Some(id), ..Filter::default() })?;
        let trace = events.first().and_then(Record::trace).map(str::to_owned);
        (events, trace)
    } else if let Ok(trace) = trace_id(what) {
        let filter = Filter { trace: Some(trace.clone()), ..Filter::default() };
        let all = read_dir(&folder, &filter)?;
        // What was refused is what people ask about; a trace without refusals is explained by its hops alone.
        let denied: Vec<Record> = all.iter().filter(|r| r.denied()).cloned().collect();
        (if denied.is_empty() { all.into_iter().take(1).collect() } else { denied }, Some(trace))
    } else {
        let forms = "an event id (a UUID, the `instance` of a problem document) or a trace id (32 hexadecimal digits)";
        return Err(Failure::Wrong(format!("`{what}` is neither {forms}")));
    };
    if events.is_empty() {
        eprintln!(
            "no event in {} has that id: it may have been rotated away, or belong to another fence",
            folder.display()
        );
        return Ok(ExitCode::from(1));
    }
    let mut hops = match trace {
        Some(trace) => read_dir(&folder, &Filter { trace: Some(trace), ..Filter::default() })?,
        None => Vec::new(),
    };
    hops.truncate(MAX_HOPS);
    if json {
        let all = |records: &[Record]| records.iter().map(with_producer).collect::<Vec<_>>();
        print_json(&json!({ "events": all(&events), "hops": all(&hops) }))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Only to say whether the fence has changed since; nothing has to run for an explanation.
    let in_force =
        Client::new(data)?.get::<Status>("/v1/status").ok().and_then(|s| s.snapshot).map(|s| s.revision);
    let parts: Vec<String> = events.iter().map(|event| one(event, fence, in_force, colour)).collect();
    print(&format!("{}{}", parts.join("\n"), trace_lines(&hops, colour)))?;
    Ok(ExitCode::SUCCESS)
}

/// What one event says, a label and a text per line.
fn one(record: &Record, fence: &Path, in_force: Option<u64>, colour: bool) -> String {
    let json = &record.json;
    let more = &json["unmapped"];
    let text = |value: &Value| value.as_str().map(clean);
    let mut out = String::new();
    let mut say = |label: &str, text: &str| {
        let _ = writeln!(out, "{} {text}", Paint::Dim.on(&format!("{label:<9}"), colour));
    };
    let (verdict, paint) = match (record.denied(), json["status_id"] == 2) {
        (true, _) => ("refused", Paint::Bad),
        (_, true) => ("failed", Paint::Warn),
        _ => ("allowed", Paint::Good),
    };
    say("what", &format!("{} {}", clean(record.kind()), Paint::on(paint, verdict, colour)));
    say("when", &timestamp(record.time_ms()).to_string());
    if record.callee().is_empty() {
        say("who", &clean(record.caller()));
    } else {
        say("who", &format!("{} → {}", clean(record.caller()), clean(record.callee())));
    }
    if let Some(identity) = text(&json["src_endpoint"]["uid"]) {
        say("identity", &identity);
    }
    if let Some(whom) = on_behalf(record) {
        say("for", &whom);
    }
    if let (Some(method), Some(path)) =
        (text(&json["http_request"]["http_method"]), text(&json["http_request"]["url"]["path"]))
    {
        let status = json["http_response"]["code"]
            .as_u64()
            .map(|code| format!(", answered {code}"))
            .unwrap_or_default();
        say("request", &format!("{method} {path}{status}"));
    }
    if record.kind() == "dial" {
        let to = &json["dst_endpoint"];
        let name = text(&to["hostname"]).map(|n| format!(" ({n})")).unwrap_or_default();
        say("dialled", &format!("{}:{}{name}", text(&to["ip"]).unwrap_or_default(), to["port"]));
        say(
            "reason",
            "nothing that the service may call or reach has this address, so the packet went into the sink",
        );
    }
    let rule = [text(&more["stage"]), text(&json["firewall_rule"]["uid"]), text(&more["point"])];
    let [stage, rule, point] = &rule;
    if let Some(rule) = rule {
        let stage = stage.as_ref().map(|s| format!(" in stage {s}")).unwrap_or_default();
        let point = point.as_ref().map(|p| format!(", at {p}")).unwrap_or_default();
        say("rule", &format!("{rule}{stage}{point}"));
    }
    if !record.message().is_empty() {
        say("reason", &clean(record.message()));
    }
    if let Some(help) = rule.as_deref().and_then(next_step) {
        say("so", help);
    }
    if let Some(position) = text(&more["position"]) {
        say("fence", &position);
        for line in picture(fence, &position) {
            say("", &line);
        }
    }
    if let Some(missing) = text(&more["missing"]) {
        say("missing", &Paint::Bold.on(&missing, colour));
    }
    if let Some(revision) = more["revision"].as_u64().filter(|r| *r > 0) {
        let since = match in_force {
            Some(now) if now > revision => {
                format!(" (now {now} is in force: the line above may have changed since)")
            }
            _ => String::new(),
        };
        say("revision", &format!("{revision}{since}"));
    }
    say("event", &id(record).map(clean).unwrap_or_default());
    say("told by", &clean(&record.producer));
    out
}

/// On whose behalf a call is: the user or client, which way it came, and what the transaction is called. Never the token.
pub(super) fn on_behalf(record: &Record) -> Option<String> {
    let (owner, more) = (&record.json["src_endpoint"]["owner"], &record.json["unmapped"]);
    let text = |value: &Value| value.as_str().map(clean);
    let mut whom = text(&owner["name"])?;
    whom.extend(text(&owner["domain"]).map(|provider| format!(" of {provider}")));
    whom.extend(text(&more["client"]).map(|client| format!(" through {client}")));
    if let Some(chain) = more["chain"].as_array() {
        let names: Vec<String> = chain.iter().filter_map(text).collect();
        whom.push_str(&format!(", by way of {}", names.join(" → ")));
    }
    whom.extend(text(&more["txn"]).map(|transaction| format!(", transaction {transaction}")));
    Some(whom)
}

/// What to look at when something is wrong with the delegation of a request.
fn next_step(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "delegate.required" => {
            "the service has to send the header `Txn-Token` of the request that it serves with the calls that it makes for it, and `traceparent`"
        }
        "delegate.unknown" => {
            "only a token that came to this service with a request counts, until its end; after a restart of the node none does"
        }
        "delegate.expired" => {
            "a token lives two minutes, or until the credential ends: what takes longer the service does for itself"
        }
        "delegate.chain" => {
            "look at the hops of the trace: the services call each other in circles, or sidecars are of different versions; where one token came over several ways, the service has to pass `traceparent` on"
        }
        "delegate.several" => "a client library adds the header to one that is there already: set it instead",
        "delegate.unavailable" => {
            "look at the events of control and of the keeper: `ringfence status` says whether they run"
        }
        "delegate.denied" => {
            "the keeper looks at the credential itself: it may have been revoked, or its provider's keys are not there yet"
        }
        "delegate.invalid" | "delegate.workload" => {
            "no sidecar of ours passes such a token on: the node of the caller may have been broken into, or runs with another trust bundle"
        }
        _ => return None,
    })
}

/// The line of the fence as it stands now, with a caret under the column.
fn picture(fence: &Path, position: &str) -> Vec<String> {
    let mut parts = position.rsplitn(3, ':');
    let (Some(column), Some(number), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (Ok(column), Ok(number)) = (column.parse::<usize>(), number.parse::<usize>()) else {
        return Vec::new();
    };
    let Some(path) = inside(fence, file) else { return Vec::new() };
    if !std::fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= MAX_FILE) {
        return Vec::new();
    }
    let Ok(text) = std::fs::read_to_string(path) else { return Vec::new() };
    let Some(line) = number.checked_sub(1).and_then(|at| text.lines().nth(at)) else { return Vec::new() };
    let shown = clean(line);
    let room = column.saturating_sub(1).min(shown.chars().count());
    vec![format!("{number:>4} \u{2502} {shown}"), format!("{:>4} \u{2502} {}^", "", " ".repeat(room))]
}

/// A file's place in the fence's folder. A position comes from an event file, and must not lead anywhere else.
fn inside(fence: &Path, file: &str) -> Option<PathBuf> {
    let plain = Path::new(file).components().all(|c| matches!(c, Component::Normal(_)));
    plain.then(|| fence.join(file))
}

fn trace_lines(hops: &[Record], colour: bool) -> String {
    let Some(trace) = hops.first().and_then(Record::trace) else { return String::new() };
    let mut text = format!("\n{} {}\n", Paint::Dim.on("trace    ", colour), clean(trace));
    for hop in hops {
        let point = hop.json["unmapped"]["point"].as_str().unwrap_or("");
        let _ = writeln!(text, "  {:<12} {}", clean(point), line(hop, colour));
        if let Some(whom) = on_behalf(hop) {
            let _ = writeln!(text, "  {:<12} {}", "", Paint::Dim.on(&format!("for {whom}"), colour));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Record {
        let json = json!({
            "time": 0, "class_uid": 4002, "action_id": 2, "severity_id": 3,
            "metadata": {"uid": "0190f6a2-7d1c-7000-8000-000000000001"},
            "trace": {"uid": "4bf92f3577b34da6a3ce929d0e0e4736"},
            "src_endpoint": {"svc_name": "mailer", "uid": "spiffe://clinic.example/service/mailer"},
            "dst_endpoint": {"svc_name": "patients"},
            "http_request": {"http_method": "GET", "url": {"path": "/patients/7"}}, "http_response": {"code": 403},
            "firewall_rule": {"uid": "edge.undeclared"}, "status_detail": "mailer may not call patients",
            "unmapped": {"stage": "authorize", "point": "sidecar-out", "position": "ringfence.yaml:2:3",
                         "missing": "calls: [patients]", "revision": 3},
        });
        Record { producer: "node".into(), json }
    }

    #[test]
    fn a_refusal_is_explained_down_to_the_line_that_is_missing() {
        let folder = std::env::temp_dir().join(format!("ringfence-why-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ringfence.yaml"), "services:\n  mailer:\n    listen: 1\n").unwrap();
        let text = one(&denied(), &folder, Some(5), false);
        for part in [
            "call refused",
            "mailer → patients",
            "spiffe://clinic.example/service/mailer",
            "GET /patients/7, answered 403",
            "edge.undeclared in stage authorize, at sidecar-out",
            "mailer may not call patients",
            "   2 │   mailer:\n",
            "     │   ^\n",
            "calls: [patients]",
            "3 (now 5 is in force",
            "node",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(trace_lines(&[denied()], false).contains("sidecar-out  1970-01-01T00:00:00.000Z deny "));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_hop_says_for_whom_it_is_and_which_way_it_came_and_what_to_do() {
        let mut record = denied();
        record.json["src_endpoint"]["owner"] = json!({"name": "ada\u{1b}[31m", "domain": "staff"});
        record.json["firewall_rule"]["uid"] = "delegate.required".into();
        for (name, value) in
            [("client", json!("app")), ("txn", json!("0192-7")), ("chain", json!(["portal", "appointments"]))]
        {
            record.json["unmapped"][name] = value;
        }
        let whom = on_behalf(&record).unwrap();
        assert!(
            whom.contains(" of staff through app, by way of portal → appointments, transaction 0192-7"),
            "{whom}"
        );
        assert!(!whom.contains('\u{1b}'), "{whom:?}");
        let text = one(&record, Path::new("/nowhere"), None, false);
        assert!(
            text.contains(&format!("for       {whom}\n"))
                && text.contains("so        the service has to send"),
            "{text}"
        );
        assert!(trace_lines(&[record], false).contains(&format!("for {whom}\n")));
        assert_eq!(on_behalf(&denied()), None);
    }

    #[test]
    fn a_position_cannot_lead_out_of_the_fence_s_folder() {
        let fence = Path::new("/srv/clinic");
        assert_eq!(inside(fence, "teams/a.yaml"), Some("/srv/clinic/teams/a.yaml".into()));
        for file in ["/etc/shadow", "../secret", "a/../../b", "./a"] {
            assert_eq!(inside(fence, file), None, "{file}");
        }
        assert!(picture(fence, "/proc/self/environ:1:1").is_empty());
    }

    #[test]
    fn an_id_is_not_taken_for_the_name_of_a_service() {
        assert!(is_id("0190f6a2-7d1c-7000-8000-000000000001") && is_id("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(!is_id("portal") && !is_id("a-b"));
    }
}
