//! `soak`: runs that are too long for every test run. Each is an entry here and a program of its own elsewhere.

use std::process::ExitCode;

use clap::Args;

use crate::process::{Error, cargo, status};
use crate::{demo, environment, tools};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which; without it, what there is
    name: Option<String>,
    /// How long it is to run
    #[arg(long)]
    seconds: Option<u64>,
    /// Passed on to the run
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// A long run.
#[derive(Debug)]
struct Soak {
    name: &'static str,
    about: &'static str,
    /// Arguments of `cargo`.
    cargo: &'static [&'static str],
    /// How long it runs, unless `--seconds` says otherwise.
    seconds: u64,
}

/// Stories of `crates/cli/tests/load`, which run for seconds among the tests.
macro_rules! load {
    ($story:literal) => {
        ["test", "--quiet", "--package", "ringfence", "--test", "load", $story, "--", "--nocapture"]
    };
}

/// Stories of `crates/proxy/tests/stories/crowds.rs`, likewise; alone and as released, since they measure.
macro_rules! crowd {
    ($story:literal) => {
        [
            "test",
            "--quiet",
            "--release",
            "--package",
            "ringfence-proxy",
            "--test",
            "stories",
            $story,
            "--",
            "--nocapture",
        ]
    };
}

/// All long runs. To add one: a program that is bounded in time and exits with 1 when what it watches does not hold.
const SOAKS: &[Soak] = &[
    Soak {
        name: "rotation",
        about: "2 min of load, SVIDs of 10 s, an issuing and a root rotation, a snapshot each second: no request may fail",
        cargo: &load!("rotation"),
        seconds: 120,
    },
    Soak {
        name: "kill",
        about: "5 min of load and random kills of Ringfence's own processes: the fence may never open, and heals",
        cargo: &load!("kill"),
        seconds: 300,
    },
    Soak {
        name: "store",
        about: "5 min of clients of three servers on one PostgreSQL that is killed again and again: no acknowledged write is lost",
        cargo: &[
            "test",
            "--quiet",
            "--package",
            "ringfence-store",
            "--test",
            "stories",
            "model::no_acknowledged_write",
            "--",
            "--nocapture",
        ],
        seconds: 300,
    },
    Soak {
        name: "discovery",
        about: "1 min of random questions to the registry, some million: no name that the asker may not call is told",
        cargo: &[
            "test",
            "--quiet",
            "--package",
            "ringfence-registry",
            "--test",
            "views",
            "leak::random_questions",
            "--",
            "--nocapture",
        ],
        seconds: 60,
    },
    Soak {
        name: "slowhttp",
        about: "slow heads, bodies and reads on 10,000 connections (slowhttptest): p99 of honest traffic at most twice the calm one",
        cargo: &crowd!("crowds::slow"),
        seconds: 60,
    },
    Soak {
        name: "rapid-reset",
        about: "HTTP/2 streams opened and reset without end: p99 of honest traffic at most twice the calm one",
        cargo: &crowd!("crowds::a_flood"),
        seconds: 30,
    },
];

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let Some(name) = &options.name else {
        for soak in SOAKS {
            println!("{:<16} {}", soak.name, soak.about);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let names = || SOAKS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    let soak = SOAKS
        .iter()
        .find(|soak| soak.name == name)
        .ok_or_else(|| Error::new(format!("there is no long run `{name}`; there are: {}", names())))?;
    tools::install(tools::TEST)?;
    let python = tools::python()?;
    demo::build()?;
    let mut command = cargo(soak.cargo.iter().copied());
    let seconds = options.seconds.unwrap_or(soak.seconds);
    command
        .args(&options.arguments)
        .env("RINGFENCE_SOAK_SECONDS", seconds.to_string())
        .env("PATH", environment::search_path(&python));
    Ok(if status(&mut command)?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
