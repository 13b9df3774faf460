//! `status`: what runs, since when, under which revision, and what the operator should worry about.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use ringfence_snapshot::node::Stats;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::table::{Cell, Table};
use super::{Done, Paint, clean, duration, finish, now, print, print_json};
use crate::client::Client;

/// A certificate that ends sooner than this has not been renewed when it should have been.
const SOON: u64 = 60;

#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Answer to `GET /v1/status`, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    report: Report,
    pub(super) snapshot: Option<Snapshot>,
    nodes: Vec<Node>,
    entities: Option<Entities>,
    waf: Option<Waf>,
    store: Store,
    member: Option<Member>,
}

/// How a host that joined stands with control.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    host: String,
    connected: bool,
    since: u64,
    said: String,
}

/// What the supervisor reports.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    fence: String,
    path: String,
    gateway: Vec<String>,
    isolation: String,
    warnings: Vec<String>,
    rejected: Option<String>,
    processes: Vec<Process>,
    services: Vec<Service>,
}

/// What is in force.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Snapshot {
    pub(super) revision: u64,
    trust_domain: String,
    edges: u64,
}

/// Data that a server has and policies are judged with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entities {
    url: String,
    confirmed_at: Option<u64>,
    trouble: Option<String>,
}

/// How attacks are looked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Waf {
    mode: String,
    rules: String,
}

/// Where state is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Store {
    place: Option<String>,
    trouble: Option<String>,
}

/// A proxy, as control sees it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    node: String,
    revision: u64,
    refused: Option<String>,
    stale: bool,
    connections: u64,
    certificates: Vec<(String, u64)>,
    groups: Vec<(String, u64)>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    name: String,
    pid: u32,
    restarts: u32,
    since: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    name: String,
    state: String,
    detail: String,
    shim: u32,
    init: u32,
    restarts: u32,
    isolation: String,
}

/// One element of the answer to `GET /v1/stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NodeStats {
    pub(super) node: String,
    pub(super) stats: Stats,
}

pub(crate) fn run(args: &StatusArgs, data: &Path, colour: bool) -> ExitCode {
    finish(show(args, data, colour))
}

fn show(args: &StatusArgs, data: &Path, colour: bool) -> Done {
    let client = Client::new(data)?;
    let status: Value = client.get("/v1/status")?;
    if args.json {
        print_json(&status)?;
    } else {
        let nodes: Vec<NodeStats> = client.get("/v1/stats")?;
        print(&text(&serde_json::from_value(status)?, dropped(&nodes), now(), colour))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Events that proxies had to drop.
fn dropped(nodes: &[NodeStats]) -> u64 {
    nodes.iter().map(|node| node.stats.events.1).sum()
}

fn text(status: &Status, dropped: u64, now: u64, colour: bool) -> String {
    let Status { report, snapshot, nodes, entities, waf, store, member } = status;
    let warn = |text: &str| Paint::Warn.on(text, colour);
    let mut lines = Vec::new();
    let mut first = vec![Paint::Bold.on(&clean(&report.fence), colour)];
    match snapshot {
        Some(s) => {
            first.push(format!("revision {}  {} edges  {}", s.revision, s.edges, clean(&s.trust_domain)))
        }
        None => first.push(warn("nothing in force yet")),
    }
    first.extend(report.gateway.iter().map(|g| clean(g)));
    first.push(clean(&report.path));
    lines.push(first.join("  "));
    let isolation = format!("isolation {}", clean(&report.isolation));
    lines.push(if report.isolation == "on" { isolation } else { Paint::Bad.on(&isolation, colour) });
    if let Some(Member { host, connected, since, said }) = member {
        let age = duration(now.saturating_sub(*since));
        lines.push(if *connected {
            format!("host {}  connected to control for {age}", clean(host))
        } else {
            warn(&format!("host {}  without control for {age}: {}", clean(host), clean(said)))
        });
    }
    if snapshot.is_some() && !report.gateway.is_empty() && member.is_none() {
        let inspected = waf.as_ref().map_or_else(
            || "attacks are not looked for".to_owned(),
            |waf| format!("attacks: {}  {}", clean(&waf.mode), clean(&waf.rules)),
        );
        lines.push(inspected);
    }
    lines.extend(report.warnings.iter().map(|warning| warn(&format!("warning: {}", clean(warning)))));
    if dropped > 0 {
        lines.push(warn(&format!("warning: {dropped} events were dropped: the disk is full or too slow")));
    }
    if let Some(Entities { url, confirmed_at, trouble: Some(trouble) }) = entities {
        let age = confirmed_at
            .map_or_else(String::new, |at| format!(" is {} old", duration(now.saturating_sub(at))));
        lines.push(warn(&format!("warning: entity data of {}{age}: {}", clean(url), clean(trouble))));
    }
    if let Store { place: Some(place), trouble: Some(trouble) } = store {
        lines.push(warn(&format!(
            "warning: the database {} does not answer ({}): nothing can be changed, what is in force stays so",
            clean(place),
            clean(trouble)
        )));
    }
    for Node { node, refused, .. } in nodes {
        if let Some(why) = refused {
            lines.push(warn(&format!("warning: proxy {} refused a snapshot: {}", clean(node), clean(why))));
        }
    }
    if let Some(rejected) = &report.rejected {
        lines
            .push(warn("the fence was changed and the change was refused; what is shown is the one before:"));
        lines.extend(rejected.lines().map(|line| format!("  {}", clean(line))));
    }
    for table in [processes(report, now), services(report), certificates(nodes, now), proxies(nodes)] {
        if !table.is_empty() {
            lines.push(String::new());
            lines.extend(table.lines(colour));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn processes(report: &Report, now: u64) -> Table {
    let mut table = Table::new(&["PROCESS", ">PID", ">RESTARTS", ">UP"]);
    for process in &report.processes {
        let up = if process.pid == 0 {
            Cell::from("down").paint(Paint::Bad)
        } else {
            Cell::from(duration(now.saturating_sub(process.since)))
        };
        table.row([Cell::from(&process.name), pid(process.pid), restarts(process.restarts), up]);
    }
    table
}

fn services(report: &Report) -> Table {
    let mut table = Table::new(&["SERVICE", "STATE", "ISOLATION", ">PID", ">SHIM", ">RESTARTS", "DETAIL"]);
    for service in &report.services {
        let state = match service.state.as_str() {
            "ready" | "running" | "external" => Paint::Good,
            "starting" | "waiting" | "stopped" => Paint::Warn,
            _ => Paint::Bad,
        };
        let isolation = if service.isolation == "fenced" { Paint::Plain } else { Paint::Warn };
        table.row([
            Cell::from(&service.name),
            Cell::from(&service.state).paint(state),
            Cell::from(&service.isolation).paint(isolation),
            pid(service.init),
            pid(service.shim),
            restarts(service.restarts),
            Cell::from(&service.detail),
        ]);
    }
    table
}

fn certificates(nodes: &[Node], now: u64) -> Table {
    let mut table = Table::new(&["CERTIFICATE", ">ENDS IN"]);
    for (name, not_after) in nodes.iter().flat_map(|n| &n.certificates) {
        let left = not_after.saturating_sub(now);
        let (text, paint) = match left {
            0 => ("ended".to_owned(), Paint::Bad),
            _ if left < SOON => (duration(left), Paint::Warn),
            _ => (duration(left), Paint::Plain),
        };
        table.row([Cell::from(name), Cell::from(text).paint(paint)]);
    }
    table
}

fn proxies(nodes: &[Node]) -> Table {
    let mut table = Table::new(&["PROXY", ">REVISION", ">CONNECTIONS", "LEASE", "HANDSHAKES"]);
    for node in nodes {
        let lease = if node.stale {
            Cell::from("run out").paint(Paint::Bad)
        } else {
            Cell::from("fresh").paint(Paint::Good)
        };
        let groups: Vec<String> =
            node.groups.iter().map(|(group, count)| format!("{group} {count}")).collect();
        table.row([
            Cell::from(&node.node),
            Cell::from(node.revision),
            Cell::from(node.connections),
            lease,
            Cell::from(groups.join(", ")),
        ]);
    }
    table
}

fn pid(pid: u32) -> Cell {
    if pid == 0 { Cell::from("-").paint(Paint::Dim) } else { Cell::from(pid) }
}

fn restarts(count: u32) -> Cell {
    Cell::from(count).paint(if count > 0 { Paint::Warn } else { Paint::Plain })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Value {
        json!({
            "report": {
                "fence": "clinic", "path": "ringfence.yaml", "gateway": ["https://127.0.0.1:8443"],
                "isolation": "on", "warnings": [], "rejected": null,
                "processes": [
                    {"name": "keeper", "pid": 11, "restarts": 0, "since": 940},
                    {"name": "node", "pid": 0, "restarts": 2, "since": 0},
                ],
                "services": [
                    {"name": "portal", "state": "ready", "detail": "", "shim": 20, "init": 21, "restarts": 0,
                     "isolation": "fenced"},
                    {"name": "mailer", "state": "backoff", "detail": "exited with code 1; again in 4 s", "shim": 30,
                     "init": 0, "restarts": 3, "isolation": "fenced"},
                ],
            },
            "snapshot": {"trust_domain": "clinic.example", "revision": 3, "edges": 7},
            "waf": {"mode": "enforce", "rules": "the embedded baseline, 37 rules"},
            "nodes": [{"node": "local", "revision": 3, "connections": 4, "stale": false, "refused": null,
                       "certificates": [["spiffe://clinic.example/service/portal", 4600]],
                       "groups": [["X25519MLKEM768", 12]]}],
        })
    }

    fn shown(answer: Value, dropped: u64) -> String {
        text(&serde_json::from_value(answer).unwrap(), dropped, 1000, false)
    }

    #[test]
    fn a_status_names_each_process_service_and_certificate() {
        let text = shown(answer(), 0);
        for line in [
            "clinic  revision 3  7 edges  clinic.example  https://127.0.0.1:8443  ringfence.yaml",
            "attacks: enforce  the embedded baseline, 37 rules",
            "keeper    11         0    1m",
            "node       -         2  down",
            "portal   ready    fenced      21    20         0",
            "mailer   backoff  fenced       -    30         3  exited with code 1; again in 4 s",
            "spiffe://clinic.example/service/portal       1h",
            "local         3            4  fresh  X25519MLKEM768 12",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("warning"), "{text}");
    }

    #[test]
    fn what_is_not_well_is_said_every_time() {
        let mut answer = answer();
        answer["report"]["isolation"] = "off: asked for with --isolation off".into();
        answer["report"]["warnings"] = json!(["the master key is a plain file"]);
        answer["report"]["rejected"] = "error: unknown service `x`\n --> ringfence.yaml:3:5".into();
        answer["nodes"][0]["refused"] = "not signed".into();
        answer["nodes"][0]["stale"] = true.into();
        let text = shown(answer, 9);
        for part in [
            "isolation off: asked for",
            "warning: the master key",
            "warning: 9 events were dropped",
            "warning: proxy local refused a snapshot: not signed",
            "refused; what is shown is the one before:\n  error: unknown service",
            "run out",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn before_the_first_snapshot_there_is_a_status_too() {
        assert!(
            shown(json!({"report": {"fence": "clinic"}, "snapshot": null, "nodes": []}), 0)
                .contains("nothing in force")
        );
    }
}
