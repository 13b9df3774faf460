//! `ringfence check [PATH]`: everything that is wrong with the fence, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ringfence_authz::Engine;
use ringfence_control::inspect::{Files, judge};
use ringfence_model::{Diagnostic, Diagnostics, Fence, content};
use serde_json::{Value, json};

use super::authz::Data;
use super::{CANNOT, NO, WRONG, count, error_colour, print, print_json, unreadable};
use crate::env::Env;

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The fence: a file, or a folder with ringfence.yaml or fragments
    #[arg(default_value = ".")]
    path: PathBuf,
    #[command(flatten)]
    data: Data,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: CheckArgs, env: &Env) -> ExitCode {
    let (mut checked, mut policies) = (Fence::load(&args.path), None);
    let fence_is_valid = checked.is_ok();
    let (mut content, mut problems) = (None, Diagnostics::default());
    if let Ok(fence) = &mut checked {
        match judged(fence) {
            Ok(found) => content = Some(found),
            Err(found) => absorb(&mut problems, found),
        }
        match super::authz::of_fence(fence, &args.data) {
            // What policies may say of users, groups and things, the data tells.
            _ if args.data.lacks(fence) && fence.policies.is_some() => fence.warnings.push(unchecked(fence)),
            Ok(engine) => {
                fence.warnings.extend(engine.iter().flat_map(Engine::warnings).cloned());
                policies = engine.map(|engine| engine.policies().count());
            }
            Err(found) => absorb(&mut problems, found),
        }
    }
    if !problems.is_valid() {
        checked = Err(problems);
    }
    let code = match &checked {
        Ok(_) => ExitCode::SUCCESS,
        Err(diagnostics) if unreadable(diagnostics) => ExitCode::from(CANNOT),
        Err(diagnostics)
            if !fence_is_valid && diagnostics.errors.iter().any(|error| error.code == "not-found") =>
        {
            ExitCode::from(WRONG)
        }
        Err(_) => ExitCode::from(NO),
    };
    let shown = if args.json {
        print_json(&report(&checked, policies, content))
    } else {
        text(&checked, policies, content, env)
    };
    if shown == ExitCode::SUCCESS { code } else { shown }
}

fn absorb(problems: &mut Diagnostics, found: Diagnostics) {
    problems.omitted += found.omitted;
    found.errors.into_iter().chain(found.warnings).for_each(|problem| problems.push(problem));
}

/// Judges rules and descriptions that the fence names: how many files they are.
fn judged(fence: &mut Fence) -> Result<usize, Diagnostics> {
    let files: Files = content::read(fence)?.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
    let warnings = judge(fence, &files)?;
    fence.warnings.extend(warnings);
    Ok(files.len())
}

fn unchecked(fence: &Fence) -> Diagnostic {
    let position = fence.policies.as_ref().map_or(&fence.position, |policies| &policies.position).clone();
    let message = "the policies were not checked: the data that they are judged with is at a server";
    Diagnostic::warning("unchecked", position, message)
        .help("give a file with what it says: `ringfence check --entities FILE`".to_owned())
}

fn text(
    checked: &Result<Fence, Diagnostics>,
    policies: Option<usize>,
    content: Option<usize>,
    env: &Env,
) -> ExitCode {
    match checked {
        Ok(fence) => {
            for warning in &fence.warnings {
                eprintln!("{}", warning.render(error_colour(env)));
            }
            let (services, edges) =
                (count(fence.services.len(), "service"), count(fence.edges().count(), "edge"));
            let policies = policies.map_or_else(String::new, |n| {
                format!(", {n} {}", if n == 1 { "policy" } else { "policies" })
            });
            let files = content.filter(|n| *n > 0);
            let files = files
                .map_or_else(String::new, |n| format!(", {} of rules and descriptions", count(n, "file")));
            print(&format!("{}: valid, {services}, {edges}{policies}{files}\n", fence.name))
        }
        Err(diagnostics) => {
            eprint!("{}", diagnostics.render(error_colour(env)));
            let (errors, warnings) = (diagnostics.errors.len(), diagnostics.warnings.len());
            eprintln!("not valid: {}, {}", count(errors, "error"), count(warnings, "warning"));
            ExitCode::SUCCESS
        }
    }
}

/// The documented object: `valid`, what the fence is when it is, and the lists `errors` and `warnings`.
fn report(checked: &Result<Fence, Diagnostics>, policies: Option<usize>, content: Option<usize>) -> Value {
    match checked {
        Ok(fence) => json!({
            "valid": true, "fence": fence.name, "trust_domain": fence.trust_domain, "services": fence.services.len(),
            "edges": fence.edges().count(), "policies": policies, "files": content, "errors": [], "warnings": fence.warnings, "omitted": 0,
        }),
        Err(found) => json!({
            "valid": false, "errors": found.errors, "warnings": found.warnings, "omitted": found.omitted,
        }),
    }
}
