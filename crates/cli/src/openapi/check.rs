//! `openapi check`: whether a description can be enforced, and what it describes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ringfence_openapi::{Api, Problem};
use serde_json::{Value, json};

use crate::view::{Done, Failure, clean, print, print_json};

/// The longest file that is read.
const MAX_FILE: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The description, YAML or JSON
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn check(args: &CheckArgs) -> Done {
    let name = args.file.display().to_string();
    let unreadable = |why: &str| Failure::Wrong(format!("cannot read {name}: {why}"));
    let size = std::fs::metadata(&args.file).map_err(|e| unreadable(&e.to_string()))?.len();
    if size > MAX_FILE {
        return Err(unreadable("it is longer than 16 MiB"));
    }
    let bytes = std::fs::read(&args.file).map_err(|e| unreadable(&e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not text in UTF-8"))?;
    let (operations, errors, warnings) = match Api::load(&text) {
        Ok(api) => {
            let operations = api.operations().iter();
            let named = operations.map(|operation| format!("{} {}", operation.method(), operation.path()));
            (named.collect::<Vec<_>>(), Vec::new(), api.warnings().to_vec())
        }
        Err(errors) => (Vec::new(), errors, Vec::new()),
    };
    let valid = errors.is_empty();
    if args.json {
        let list =
            |problems: &[Problem]| problems.iter().map(|problem| object(&name, problem)).collect::<Value>();
        print_json(&json!({
            "valid": valid,
            "operations": operations,
            "errors": list(&errors),
            "warnings": list(&warnings),
        }))?;
    } else {
        for (word, problem) in
            warnings.iter().map(|w| ("warning", w)).chain(errors.iter().map(|e| ("error", e)))
        {
            eprintln!("{name}:{} {word}: {}", place(problem), clean(&problem.message));
        }
        if valid {
            let many = if operations.len() == 1 { "" } else { "s" };
            print(&format!("{name}: valid, {} operation{many}\n", operations.len()))?;
        }
    }
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn place(problem: &Problem) -> String {
    match problem.at {
        Some((line, column)) => format!("{line}:{column}:"),
        None if problem.pointer.is_empty() => String::new(),
        None => format!(" {}:", clean(&problem.pointer)),
    }
}

fn object(name: &str, problem: &Problem) -> Value {
    json!({
        "file": name,
        "line": problem.at.map(|at| at.0),
        "column": problem.at.map(|at| at.1),
        "pointer": problem.pointer,
        "message": problem.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<ExitCode, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("api.yaml");
        std::fs::write(&file, text).unwrap();
        check(&CheckArgs { file, json: true })
    }

    #[test]
    fn a_description_is_valid_wrong_or_not_there() {
        let good = "openapi: 3.1.0\npaths: { /a: { get: { responses: {} } } }\n";
        assert_eq!(run(good).unwrap(), ExitCode::SUCCESS);
        assert_eq!(run(&good.replace("/a", "a")).unwrap(), ExitCode::from(1));
        assert_eq!(run("swagger: '2.0'").unwrap(), ExitCode::from(1));
        let none = CheckArgs { file: "/nowhere/api.yaml".into(), json: false };
        assert!(matches!(check(&none), Err(Failure::Wrong(_))));
    }
}
