//! `bench`: the harness in `bench/`, built for release, with the peers that it measures against.

use std::process::ExitCode;

use clap::Args;

use crate::process::{Error, cargo, status};
use crate::{environment, tools};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed on to the harness, such as `-- --help`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Peers and instruments.
const TOOLS: &[tools::Tool] = &[
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("openssl", "openssl"),
    ("valgrind", "valgrind"),
    ("taskset", "util-linux"),
    ("python3", "python3"),
];

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    tools::install(TOOLS)?;
    let python = tools::python()?;
    let mut command = cargo(["run", "--release", "--package", "ringfence-bench", "--"]);
    command.args(&options.arguments).env("PATH", environment::search_path(&python));
    let status = status(&mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
