//! `demo`: what README's first command does. Only the two packages that it needs are built.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::environment::{binaries, root};
use crate::process::{self, Error, cargo};
use crate::tools;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed on to `ringfence up`, such as `-- --isolation off`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds what the demo runs; `test` starts with the same, so that the work of one serves the other.
pub(crate) fn build() -> Result<(), Error> {
    process::run(&mut cargo(["build", "--package", "ringfence", "--package", "clinic"]))
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, Error> {
    tools::install(tools::DEMO)?;
    tools::clinic()?;
    build()?;
    let mut command = Command::new(binaries().join("ringfence"));
    command.arg("up").arg("examples/clinic").args(&options.arguments).current_dir(root());
    // The terminal and Ctrl-C go straight to `ringfence`: nothing of ours stays between them.
    let error = command.exec();
    Err(process::cannot_start(&command, &error))
}
