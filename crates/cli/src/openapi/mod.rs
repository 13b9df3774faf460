//! `ringfence openapi`: descriptions of APIs, checked and drafted.

mod check;
mod learn;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::view::finish;

#[derive(Debug, Args)]
pub(crate) struct OpenapiArgs {
    #[command(subcommand)]
    command: OpenapiCommand,
}

#[derive(Debug, Subcommand)]
enum OpenapiCommand {
    /// Check a description, OpenAPI 3.0 or 3.1: everything that is wrong with it, each with its place
    Check(check::CheckArgs),
    /// Draft a description of a service from the traffic that events tell of
    Learn(learn::LearnArgs),
}

pub(crate) fn run(args: &OpenapiArgs, data: &Path) -> ExitCode {
    finish(match &args.command {
        OpenapiCommand::Check(args) => check::check(args),
        OpenapiCommand::Learn(args) => learn::learn(args, data),
    })
}
