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
    fence: String,
    path: String,
    pub(super) revision: u64,
    gateway: Vec<String>,
    isolation: String,
    warnings: Vec<String>,
    rejected: Option<String>,
    processes: Vec<Process>,
    services: Vec<Service>,
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
    let mut status: Value = client.get("/v1/status")?;
    let nodes: Vec<NodeStats> = client.get("/v1/stats")?;
    if args.json {
        if let Some(object) = status.as_object_mut() {
            object.insert("nodes".to_owned(), serde_json::to_value(&nodes)?);
        }
        print_json(&status)?;
    } else {
        print(&text(&serde_json::from_value(status)?, &nodes, now(), colour))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status, nodes: &[NodeStats], now: u64, colour: bool) -> String {
    let mut lines = Vec::new();
    let title = Paint::Bold.on(&clean(&status.fence), colour);
    let mut first = vec![title, format!("revision {}", status.revision)];
    first.extend(status.gateway.iter().map(|g| clean(g)));
    first.push(clean(&status.path));
    lines.push(first.join("  "));
    let isolated = status.isolation == "on";
    let isolation = format!("isolation {}", clean(&status.isolation));
    lines.push(if isolated { isolation } else { Paint::Bad.on(&isolation, colour) });
    for warning in &status.warnings {
        lines.push(Paint::Warn.on(&format!("warning: {}", clean(warning)), colour));
    }
    if let Some(rejected) = &status.rejected {
        let notice = "the fence was changed and the change was refused; what is shown is the one before:";
        lines.push(Paint::Warn.on(notice, colour));
        lines.extend(rejected.lines().map(|line| format!("  {}", clean(line))));
    }
    for table in [processes(status, now), services(status), certificates(nodes, now), proxies(nodes)] {
        if !table.is_empty() {
            lines.push(String::new());
            lines.extend(table.lines(colour));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn processes(status: &Status, now: u64) -> Table {
    let mut table = Table::new(&["PROCESS", ">PID", ">RESTARTS", ">UP"]);
    for process in &status.processes {
        let up = if process.pid == 0 {
            Cell::from("down").paint(Paint::Bad)
        } else {
            Cell::from(duration(now.saturating_sub(process.since)))
        };
        table.row([Cell::from(&process.name), pid(process.pid), restarts(process.restarts), up]);
    }
    table
}

fn services(status: &Status) -> Table {
    let mut table = Table::new(&["SERVICE", "STATE", "ISOLATION", ">PID", ">SHIM", ">RESTARTS", "DETAIL"]);
    for service in &status.services {
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

fn certificates(nodes: &[NodeStats], now: u64) -> Table {
    let mut table = Table::new(&["CERTIFICATE", ">ENDS IN"]);
    for (name, not_after) in nodes.iter().flat_map(|n| &n.stats.certificates) {
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

fn proxies(nodes: &[NodeStats]) -> Table {
    let mut table =
        Table::new(&["PROXY", ">REVISION", ">CONNECTIONS", ">EVENTS", ">DROPPED", "LEASE", "HANDSHAKES"]);
    for NodeStats { node, stats } in nodes {
        let lease = if stats.stale {
            Cell::from("run out").paint(Paint::Bad)
        } else {
            Cell::from("fresh").paint(Paint::Good)
        };
        let dropped =
            Cell::from(stats.events.1).paint(if stats.events.1 > 0 { Paint::Bad } else { Paint::Plain });
        let groups: Vec<String> =
            stats.groups.iter().map(|(group, count)| format!("{group} {count}")).collect();
        let (revision, connections) = (Cell::from(stats.revision), Cell::from(stats.connections));
        table.row([
            Cell::from(node),
            revision,
            connections,
            Cell::from(stats.events.0),
            dropped,
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

    fn status() -> Status {
        serde_json::from_value(json!({
            "fence": "clinic", "path": "ringfence.yaml", "revision": 3, "gateway": ["https://127.0.0.1:8443"],
            "isolation": "on", "warnings": [], "rejected": null,
            "processes": [
                {"name": "keeper", "pid": 11, "restarts": 0, "since": 940},
                {"name": "node", "pid": 0, "restarts": 2, "since": 0},
            ],
            "services": [
                {"name": "portal", "state": "ready", "detail": "", "shim": 20, "init": 21, "restarts": 0, "isolation": "fenced"},
                {"name": "mailer", "state": "backoff", "detail": "exited with code 1; again in 4 s", "shim": 30, "init": 0,
                 "restarts": 3, "isolation": "fenced"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn a_status_names_each_process_service_and_certificate() {
        let stats = Stats {
            certificates: vec![("spiffe://clinic.example/service/portal".into(), 4600)],
            ..Stats::default()
        };
        let text = text(&status(), &[NodeStats { node: "local".into(), stats }], 1000, false);
        for line in [
            "clinic  revision 3  https://127.0.0.1:8443  ringfence.yaml",
            "keeper    11         0    1m",
            "node       -         2  down",
            "portal   ready    fenced      21    20         0",
            "mailer   backoff  fenced       -    30         3  exited with code 1; again in 4 s",
            "spiffe://clinic.example/service/portal       1h",
        ] {
            assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn isolation_off_and_a_refused_fence_are_said_every_time() {
        let status = Status {
            isolation: "off: asked for with --isolation off".into(),
            warnings: vec!["the master key is a plain file".into()],
            rejected: Some("error: unknown service `x`\n --> ringfence.yaml:3:5".into()),
            ..status()
        };
        let text = text(&status, &[], 1000, false);
        assert!(
            text.contains("isolation off: asked for") && text.contains("warning: the master key"),
            "{text}"
        );
        assert!(text.contains("refused") && text.contains("  error: unknown service"), "{text}");
    }
}
