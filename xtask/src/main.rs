//! Everything that a developer or CI runs, as `cargo xtask COMMAND`: the same commands, the same profile, the same
//! features everywhere, so that nothing is built twice and nobody has to remember flags.
#![forbid(unsafe_code)]

mod bench;
mod conform;
mod demo;
mod deny;
mod dist;
mod environment;
mod fuzz;
mod process;
mod soak;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::process::Error;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "What a developer or CI runs", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and bring the clinic up behind its fence; Ctrl-C takes it down
    Demo(demo::Options),
    /// Install what tests need and run them all
    Test(test::Options),
    /// Measure against nginx, haproxy and Envoy in one run
    Bench(bench::Options),
    /// Fuzz what parses untrusted bytes, each target for a bounded time
    Fuzz(fuzz::Options),
    /// A long run under load; without a name, list them
    Soak(soak::Options),
    /// Run an external suite from the golden data
    Conform {
        /// Which, such as `x509-limbo`
        suite: String,
        #[command(flatten)]
        options: conform::Options,
    },
    /// Make what users install: a static program, a Debian package, a container image, a bill of materials
    Dist(dist::Options),
    /// Check dependencies: bans, licences, sources, advisories
    Deny,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Conform { suite, options } => run_suite(&suite, &options),
        Command::Deny => deny::run(),
        Command::Dist(options) => dist::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(3)
    })
}

fn run_suite(suite: &str, options: &conform::Options) -> Result<ExitCode, Error> {
    // The one suite that makes its own material.
    if suite == "desync" {
        return conform::desync();
    }
    let golden = environment::golden()
        .ok_or_else(|| Error::new("set RINGFENCE_GOLDEN to the folder that holds the suites"))?;
    Ok(conform::run(suite, options, &golden, environment::root()))
}
