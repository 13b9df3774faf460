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
    let (mut checked, mut beside) = (Fence::load(&args.path), Beside::default());
    let fence_is_valid = checked.is_ok();
    let mut problems = Diagnostics::default();
    if let Ok(fence) = &mut checked {
        match judged(fence) {
            Ok((files, rules)) => (beside.files, beside.rules) = (Some(files), rules),
            Err(found) => absorb(&mut problems, found),
        }
        match super::authz::of_fence(fence, &args.data) {
            // What policies may say of users, groups and things, the data tells.
            _ if args.data.lacks(fence) && fence.policies.is_some() => fence.warnings.push(unchecked(fence)),
            Ok(engine) => {
                fence.warnings.extend(engine.iter().flat_map(Engine::warnings).cloned());
                beside.policies = engine.map(|engine| engine.policies().count());
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
    let shown = if args.json { print_json(&report(&checked, &beside)) } else { text(&checked, &beside, env) };
    if shown == ExitCode::SUCCESS { code } else { shown }
}

fn absorb(problems: &mut Diagnostics, found: Diagnostics) {
    problems.omitted += found.omitted;
    found.errors.into_iter().chain(found.warnings).for_each(|problem| problems.push(problem));
}

/// What was judged besides the fence itself.
#[derive(Default)]
struct Beside {
    /// Policies, if they were judged.
    policies: Option<usize>,
    /// Files of rules and descriptions.
    files: Option<usize>,
    /// The rules that requests are inspected by.
    rules: Option<String>,
}

/// Judges rules and descriptions that the fence names: how many files they are, and which rules look.
fn judged(fence: &mut Fence) -> Result<(usize, Option<String>), Diagnostics> {
    let files: Files = content::read(fence)?.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
    let judged = judge(fence, &files)?;
    fence.warnings.extend(judged.warnings);
    Ok((files.len(), judged.rules))
}

fn unchecked(fence: &Fence) -> Diagnostic {
    let position = fence.policies.as_ref().map_or(&fence.position, |policies| &policies.position).clone();
    let message = "the policies were not checked: the data that they are judged with is at a server";
    Diagnostic::warning("unchecked", position, message)
        .help("give a file with what it says: `ringfence check --entities FILE`".to_owned())
}

fn text(checked: &Result<Fence, Diagnostics>, beside: &Beside, env: &Env) -> ExitCode {
    match checked {
        Ok(fence) => {
            for warning in &fence.warnings {
                eprintln!("{}", warning.render(error_colour(env)));
            }
            let (services, edges) =
                (count(fence.services.len(), "service"), count(fence.edges().count(), "edge"));
            let policies = beside.policies.map_or_else(String::new, |n| {
                format!(", {n} {}", if n == 1 { "policy" } else { "policies" })
            });
            let files = beside.files.filter(|n| *n > 0);
            let files = files
                .map_or_else(String::new, |n| format!(", {} of rules and descriptions", count(n, "file")));
            let mode = fence.waf.as_ref().map_or("off", |waf| waf.mode.as_str());
            let attacks = match &beside.rules {
                Some(rules) => format!("attacks: {mode}, {rules}\n"),
                None if fence.gateway.is_some() => "attacks are not looked for\n".to_owned(),
                None => String::new(),
            };
            print(&format!("{}: valid, {services}, {edges}{policies}{files}\n{attacks}", fence.name))
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
fn report(checked: &Result<Fence, Diagnostics>, beside: &Beside) -> Value {
    match checked {
        Ok(fence) => json!({
            "valid": true, "fence": fence.name, "trust_domain": fence.trust_domain, "services": fence.services.len(),
            "edges": fence.edges().count(), "policies": beside.policies, "files": beside.files,
            "waf": beside.rules.as_ref().map(|rules| json!({ "mode": fence.waf.as_ref().map(|waf| waf.mode), "rules": rules })),
            "errors": [], "warnings": fence.warnings, "omitted": 0,
        }),
        Err(found) => json!({
            "valid": false, "errors": found.errors, "warnings": found.warnings, "omitted": found.omitted,
        }),
    }
}
