//! `ringfence authz`: what policies decide, asked before anybody is refused.

mod diff;
mod explain;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ringfence_authz::{Engine, Sources, Table, load_sources, load_sources_with};
use ringfence_model::{Diagnostics, Entities, Fence};

use super::{CANNOT, WRONG, error_colour, fail, load, unreadable};
use crate::env::Env;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthzCommand {
    /// Run a table of requests and what is expected of each
    Test(test::TestArgs),
    /// Decide on one request and tell why
    Explain(Box<explain::ExplainArgs>),
    /// Who may do more, and who less, by a changed fence, its policies and data
    Diff(diff::DiffArgs),
}

pub(crate) fn run(command: AuthzCommand, env: &Env) -> ExitCode {
    let done = match command {
        AuthzCommand::Test(args) => test::run(&args, env),
        AuthzCommand::Explain(args) => explain::run(*args, env),
        AuthzCommand::Diff(args) => diff::run(&args, env),
    };
    done.unwrap_or_else(|code| code)
}

/// Entity data that these commands cannot ask a server for.
#[derive(Debug, Default, Args)]
pub(super) struct Data {
    /// Entity data, where the fence has it from a server: a file with what that server says
    #[arg(long, value_name = "FILE")]
    entities: Option<PathBuf>,
}

impl Data {
    /// Whether it is missing.
    pub(super) fn lacks(&self, fence: &Fence) -> bool {
        self.entities.is_none() && matches!(fence.entities, Some(Entities::Url(_)))
    }

    fn sources(&self, fence: &Fence) -> Result<Option<Sources>, Diagnostics> {
        match (&self.entities, &fence.entities) {
            (Some(file), Some(Entities::Url(_))) => load_sources_with(fence, file),
            _ => load_sources(fence),
        }
    }

    /// A fence whose data is there, or the code to end with.
    fn load(&self, path: &Path, env: &Env) -> Result<Fence, ExitCode> {
        let fence = load(path, env)?;
        if self.lacks(&fence) {
            let message = "the fence has its entity data from a server: give a file with what that says, `--entities FILE`";
            return Err(fail(WRONG, message));
        }
        Ok(fence)
    }
}

/// The engine of a fence, or what is wrong with it on standard error and the code to end with.
fn engine(path: &Path, data: &Data, env: &Env) -> Result<Engine, ExitCode> {
    let fence = data.load(path, env)?;
    match of_fence(&fence, data) {
        Ok(Some(engine)) => Ok(engine),
        Ok(None) => {
            let message = "the fence has no `policies`: its edges alone decide; see `ringfence why`";
            Err(fail(WRONG, message))
        }
        Err(problems) => Err(refused(&problems, env)),
    }
}

/// The engine of a fence; none without policies.
pub(super) fn of_fence(fence: &Fence, data: &Data) -> Result<Option<Engine>, Diagnostics> {
    data.sources(fence)?.map(|sources| Engine::new(fence, &sources)).transpose()
}

/// The same; without policies, whatever an edge allows is permitted.
fn of_edges(path: &Path, data: &Data, env: &Env) -> Result<Engine, ExitCode> {
    let fence = data.load(path, env)?;
    let all = || Sources::of_texts([("edges", "@id(\"edges\") permit(principal, action, resource);")], None);
    let engine = data.sources(&fence).and_then(|sources| Engine::new(&fence, &sources.unwrap_or_else(all)));
    engine.map_err(|problems| refused(&problems, env))
}

fn table(path: &Path, env: &Env) -> Result<Table, ExitCode> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| fail(CANNOT, &format!("cannot read {}: {error}", path.display())))?;
    Table::parse(&path.display().to_string(), &text).map_err(|problems| refused(&problems, env))
}

fn refused(problems: &Diagnostics, env: &Env) -> ExitCode {
    eprint!("{}", problems.render(error_colour(env)));
    ExitCode::from(if unreadable(problems) { CANNOT } else { WRONG })
}
