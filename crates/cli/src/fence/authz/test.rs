//! `ringfence authz test TABLE`: for CI.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::super::{NO, count, print, print_json};
use crate::env::Env;

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The table, YAML or JSON: a list of `{ principal, request, expect }`
    table: PathBuf,
    /// The fence: a file or a folder
    #[arg(long, short, default_value = ".", value_name = "PATH")]
    fence: PathBuf,
    #[command(flatten)]
    data: super::Data,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TestArgs, env: &Env) -> Result<ExitCode, ExitCode> {
    let engine = super::engine(&args.fence, &args.data, env)?;
    let table = super::table(&args.table, env)?;
    let results = engine.test(&table, SystemTime::now());
    let failed = results.iter().filter(|result| result.problem.is_some()).count();
    let shown = if args.json {
        print_json(&json!({ "passed": results.len() - failed, "failed": failed, "cases": results }))
    } else {
        let mut text = String::new();
        for result in &results {
            if let Some(problem) = &result.problem {
                text.push_str(&format!("{}: {}: {problem}\n", result.position, result.name));
            }
        }
        print(&format!("{text}{}, {failed} not as expected\n", count(results.len(), "request")))
    };
    Ok(if shown == ExitCode::SUCCESS && failed > 0 { ExitCode::from(NO) } else { shown })
}
