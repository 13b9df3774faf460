//! `soak`: runs that are too long for every test run. Each is an entry here and a program of its own elsewhere.

use std::process::ExitCode;

use clap::Args;

use crate::process::{Error, cargo, status};
use crate::{demo, environment, tools};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which; without it, what there is
    name: Option<String>,
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
}

/// All long runs. To add one: a program that is bounded in time and exits with 1 when what it watches does not hold.
const SOAKS: &[Soak] = &[];

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    let Some(name) = &options.name else {
        if SOAKS.is_empty() {
            println!("there is no long run yet: add one to xtask/src/soak.rs");
        }
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
    command.args(&options.arguments).env("PATH", environment::search_path(&python));
    Ok(if status(&mut command)?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
