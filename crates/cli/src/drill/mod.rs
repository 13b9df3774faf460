//! `ringfence drill`: rehearsed attacks against the running fence.
//!
//! A protection that nobody attacks is a hope. Each drill says what it tries, what must stop it and what must report it; then
//! it runs, and holds the fence to both: that the attack reached nothing, and that the event is there within two seconds.
//! Attacks from inside run as the service itself would if it were taken over. They are bounded, and touch only this fence.

pub(crate) mod attack;
mod attacks;
mod forge;
mod inside;
mod issuer;
mod scorecard;
mod server;
mod stage;
mod target;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use self::scorecard::Score;
use self::target::Target;
use crate::view::{Done, Failure, finish, print, print_json};

#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Which drills [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// List the drills: what each tries, what must stop it, what must report it
    #[arg(long)]
    list: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Attack this address in place of the gateway, to see that the drill can fail
    #[arg(long, value_name = "IP:PORT", hide = true)]
    gateway: Option<SocketAddr>,
    /// Attack this address in place of the mesh listener, to see that the drill can fail
    #[arg(long, value_name = "IP:PORT", hide = true)]
    mesh: Option<SocketAddr>,
    /// Leave these words out of the fences that drills bring, to see that the drill can fail
    #[arg(long, value_name = "TEXT", hide = true)]
    without: Option<String>,
}

/// One rehearsed attack.
pub(crate) struct Drill {
    name: &'static str,
    tries: &'static str,
    stops: &'static str,
    reports: &'static str,
    run: fn(&Target) -> Result<Outcome, Unable>,
}

/// What became of an attack.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// It reached nothing.
    stopped: bool,
    /// The event that must tell of it is there.
    reported: bool,
    /// What was seen, for the operator.
    detail: String,
}

impl Outcome {
    /// Of several attempts: those that came through, and those that no event tells of.
    fn listed<T: AsRef<str>, U: AsRef<str>>(mut detail: String, passed: &[T], untold: &[U]) -> Self {
        let mut list = |what: &str, names: Vec<&str>| {
            if !names.is_empty() {
                detail.push_str(&format!("; {what}: {}", names.join(", ")));
            }
        };
        list("PASSED", passed.iter().map(AsRef::as_ref).collect());
        list("NOT told", untold.iter().map(AsRef::as_ref).collect());
        Self { stopped: passed.is_empty(), reported: untold.is_empty(), detail }
    }
}

/// An attack that could not even be tried; which is no pass.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unable(String);

impl Unable {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

pub(crate) fn run(args: &DrillArgs, fence: &Path, data: &Path, colour: bool) -> ExitCode {
    finish(drill(args, fence, data, colour))
}

fn drill(args: &DrillArgs, fence: &Path, data: &Path, colour: bool) -> Done {
    let drills = chosen(&args.names)?;
    if args.list {
        if args.json {
            print_json(&scorecard::list(&drills))?;
        } else {
            drills.iter().try_for_each(|drill| print(&scorecard::describe(drill, colour)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let target = Target::find(args, fence, data)?;
    let mut scores = Vec::new();
    for drill in drills {
        if !args.json {
            print(&scorecard::describe(drill, colour))?;
        }
        let begun = Instant::now();
        let score = Score::new(drill, (drill.run)(&target), begun.elapsed());
        if !args.json {
            print(&score.verdict(colour))?;
        }
        scores.push(score);
    }
    if args.json {
        print_json(&scorecard::json(target.fence_name(), &scores))?;
    } else {
        print(&scorecard::table(&scores, colour))?;
    }
    let passed = scores.iter().all(Score::passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Drill>, Failure> {
    if names.is_empty() {
        return Ok(attacks::ALL.iter().collect());
    }
    let find = |name: &String| {
        attacks::ALL.iter().find(|drill| drill.name == name).ok_or_else(|| {
            let all: Vec<&str> = attacks::ALL.iter().map(|drill| drill.name).collect();
            Failure::Wrong(format!("there is no drill `{name}`; there are: {}", all.join(", ")))
        })
    };
    names.iter().map(find).collect()
}
