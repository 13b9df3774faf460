//! `ringfence authz diff OLD NEW`: what a change of policies means, before it is in force.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use ringfence_authz::Question;

use super::super::{NO, print, print_json};
use crate::env::Env;

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The fence before: a file or a folder; without policies, whatever its edges allow is permitted
    old: PathBuf,
    /// The fence after
    new: PathBuf,
    /// Ask the requests of this table besides
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    #[command(flatten)]
    data: super::Data,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DiffArgs, env: &Env) -> Result<ExitCode, ExitCode> {
    let (old, new) =
        (super::of_edges(&args.old, &args.data, env)?, super::of_edges(&args.new, &args.data, env)?);
    let table = args.table.as_ref().map(|path| super::table(path, env)).transpose()?;
    let questions: Vec<Question> =
        table.into_iter().flat_map(|table| table.cases).map(|case| case.question).collect();
    let diff = old.diff(&new, &questions, SystemTime::now());
    let same = diff.changes.is_empty() && diff.omitted == 0;
    let shown = if args.json { print_json(&diff) } else { print(&diff.to_string()) };
    Ok(if shown == ExitCode::SUCCESS && !same { ExitCode::from(NO) } else { shown })
}
