//! `ringfence graph [PATH]`: who may call whom, for people and for other programs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{load, print, print_json};
use crate::env::Env;

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// The fence: a file, or a folder with ringfence.yaml or fragments
    #[arg(default_value = ".")]
    path: PathBuf,
    /// How it is drawn
    #[arg(long, value_enum, default_value = "tree")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal
    Tree,
    /// A Mermaid flowchart, for Markdown
    Mermaid,
    /// For Graphviz
    Dot,
    /// One object with `nodes` and `edges`
    Json,
}

pub(crate) fn run(args: GraphArgs, env: &Env) -> ExitCode {
    let fence = match load(&args.path, env) {
        Ok(fence) => fence,
        Err(code) => return code,
    };
    match if args.json { Format::Json } else { args.format } {
        Format::Tree => print(&fence.graph_tree(env.colour)),
        Format::Mermaid => print(&fence.graph_mermaid()),
        Format::Dot => print(&fence.graph_dot()),
        Format::Json => print_json(&fence.graph_json()),
    }
}
