//! `doctor`: looks at everything that is known to go wrong, and says of each what was seen and what to do next.
//!
//! Each check finds out by doing where that is possible: a port is free if it can be bound, services can be isolated if a trial
//! process could be. A check that cannot be made says so; it never passes for that.

mod here;
mod running;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringfence_model::Fence;
use serde::Serialize;

use crate::env::Env;
use crate::view::table::{Cell, Table};
use crate::view::{Done, Paint, finish, print, print_json};

/// Every check, as `docs/reference/doctor.md` lists them too.
pub(crate) const CHECKS: [&str; 19] = [
    "fence",
    "protections",
    "programs",
    "kernel",
    "isolation",
    "open-files",
    "data-folder",
    "disk-space",
    "master-key",
    "listeners",
    "control",
    "processes",
    "fence-in-force",
    "nodes",
    "certificates",
    "authorities",
    "clock",
    "store",
    "hosts",
];

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// It works, and should be otherwise.
    Warn,
    /// Something does not work, or is not safe.
    Fail,
    /// It could not be looked at.
    Unknown,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    seen: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, seen: impl Into<String>) {
        self.0.push(Finding { check, status: Status::Ok, seen: seen.into(), next: None });
    }

    fn unknown(&mut self, check: &'static str, seen: impl Into<String>) {
        self.0.push(Finding { check, status: Status::Unknown, seen: seen.into(), next: None });
    }

    fn warn(&mut self, check: &'static str, seen: impl Into<String>, next: impl Into<String>) {
        self.0.push(Finding { check, status: Status::Warn, seen: seen.into(), next: Some(next.into()) });
    }

    fn fail(&mut self, check: &'static str, seen: impl Into<String>, next: impl Into<String>) {
        self.0.push(Finding { check, status: Status::Fail, seen: seen.into(), next: Some(next.into()) });
    }

    fn has(&self, check: &str) -> bool {
        self.0.iter().any(|finding| finding.check == check)
    }

    fn worst(&self) -> Status {
        let any = |status| self.0.iter().any(|finding| finding.status == status);
        [Status::Fail, Status::Warn, Status::Unknown].into_iter().find(|s| any(*s)).unwrap_or(Status::Ok)
    }
}

/// What checks look at.
struct Patient<'a> {
    path: &'a Path,
    data: &'a Path,
    env: &'a Env,
    fence: Option<&'a Fence>,
    /// What this host is called, where there are several.
    host: Option<String>,
}

pub(crate) fn run(args: &DoctorArgs, path: &Path, data: &Path, env: &Env) -> ExitCode {
    finish(look(args, path, data, env))
}

fn look(args: &DoctorArgs, path: &Path, data: &Path, env: &Env) -> Done {
    let mut findings = Findings::default();
    let fence = here::fence(path, &mut findings);
    let joined = ringfence_control::member::of(data).ok().flatten().map(|(name, _)| name);
    let control = || Some(fence.as_ref()?.control_host()?.name.clone());
    let host = joined.or_else(control);
    let patient = Patient { path, data, env, fence: fence.as_ref(), host };
    here::look(&patient, &mut findings);
    running::look(&patient, &mut findings);
    findings.0.sort_by_key(|finding| CHECKS.iter().position(|check| *check == finding.check));
    if args.json {
        let value = serde_json::json!({ "status": findings.worst(), "checks": findings.0 });
        print_json(&value)?;
    } else {
        print(&text(&findings, env.colour))?;
    }
    Ok(if findings.worst() == Status::Fail { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn text(findings: &Findings, colour: bool) -> String {
    let mut table = Table::new(&["", "check", "seen"]);
    for finding in &findings.0 {
        let (word, paint) = match finding.status {
            Status::Ok => ("ok", Paint::Good),
            Status::Warn => ("warn", Paint::Warn),
            Status::Fail => ("FAIL", Paint::Bad),
            Status::Unknown => ("?", Paint::Dim),
        };
        table.row([Cell::from(word).paint(paint), finding.check.into(), finding.seen.as_str().into()]);
        for line in finding.next.iter().flat_map(|next| next.lines()) {
            table.row(["".into(), "".into(), Cell::from(format!("→ {line}")).paint(Paint::Bold)]);
        }
    }
    table.lines(colour).into_iter().map(|line| line + "\n").collect()
}

/// The folder of the fence.
fn folder(path: &Path) -> PathBuf {
    crate::data::fence_folder(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_check_and_no_other() {
        let text = include_str!("../../../../docs/reference/doctor.md");
        let listed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name))
            .collect();
        assert_eq!(listed, CHECKS);
    }

    #[test]
    fn the_worst_is_what_counts() {
        let mut findings = Findings::default();
        assert_eq!(findings.worst(), Status::Ok);
        findings.ok("kernel", "5.13");
        findings.unknown("control", "not asked");
        assert_eq!(findings.worst(), Status::Unknown);
        findings.warn("master-key", "a file", "use another");
        findings.fail("disk-space", "full", "free some");
        assert_eq!(findings.worst(), Status::Fail);
        let shown = text(&findings, false);
        assert!(shown.contains("FAIL") && shown.contains("→ free some"), "{shown}");
    }
}
