//! `bench`: the harness in `bench/`, built for release. It installs the peers that it measures against.

use std::process::ExitCode;

use clap::Args;

use crate::process::{Error, cargo, status};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed on to the harness, such as `-- --help`
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    // What is measured is the product's own binary.
    crate::process::run(&mut cargo(["build", "--release", "--package", "ringfence"]))?;
    let mut command = cargo(["run", "--release", "--package", "ringfence-bench", "--"]);
    command.args(&options.arguments);
    Ok(if status(&mut command)?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
