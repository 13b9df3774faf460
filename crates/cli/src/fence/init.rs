//! `ringfence init`: a first fence, from what describes the application already, or to start with.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringfence_model::import::{self, ImportError, Imported};
use serde_json::json;

use super::{CANNOT, WRONG, count, fail, print, print_json};
use crate::env::Env;

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A Compose file, a Kubernetes manifest, or a folder of them
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// The file to write; one that exists is never overwritten
    #[arg(long, short, value_name = "FILE", default_value = "ringfence.yaml")]
    output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: InitArgs, _env: &Env) -> ExitCode {
    if fs::symlink_metadata(&args.output).is_ok() {
        return exists(&args.output);
    }
    let name = match name(&args.output) {
        Ok(name) => name,
        Err(error) => {
            return fail(CANNOT, &format!("cannot find the folder of {}: {error}", args.output.display()));
        }
    };
    let imported = match &args.from {
        None => Imported { text: import::starter(&name), services: 1, calls: 0, notes: Vec::new() },
        Some(from) => match import::from_path(from, &name) {
            Ok(imported) => imported,
            Err(error) => return fail(code(&error), &error.to_string()),
        },
    };
    match write(&args.output, &imported.text) {
        Ok(()) => report(&args, &imported),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => exists(&args.output),
        Err(error) => fail(CANNOT, &format!("cannot write {}: {error}", args.output.display())),
    }
}

fn exists(path: &Path) -> ExitCode {
    fail(
        WRONG,
        &format!(
            "{} is there already and stays as it is: remove it, or name another with --output",
            path.display()
        ),
    )
}

fn code(error: &ImportError) -> u8 {
    match error {
        ImportError::Unreadable { error, .. } if error.kind() != io::ErrorKind::NotFound => CANNOT,
        _ => WRONG,
    }
}

/// The fence is called after the folder that it is written into.
fn name(output: &Path) -> io::Result<String> {
    let folder = std::path::absolute(output)?;
    let folder = folder.parent().and_then(Path::file_name);
    Ok(folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

/// Writes a file that must not exist, whole or not at all.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a fence helps nobody; the first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    written
}

fn report(args: &InitArgs, imported: &Imported) -> ExitCode {
    let path = args.output.display();
    if args.json {
        return print_json(&json!({
            "written": path.to_string(), "services": imported.services, "guessed_calls": imported.calls, "notes": imported.notes,
        }));
    }
    for note in &imported.notes {
        eprintln!("note: {}", note.escape_debug());
    }
    if args.from.is_none() {
        return print(&format!(
            "wrote {path}: change it to what you have, then `ringfence check` and `ringfence up`\n"
        ));
    }
    let (services, calls) = (count(imported.services, "service"), count(imported.calls, "guessed call"));
    print(&format!(
        "wrote {path}: {services}, {calls}: look at the lines marked so, then `ringfence check`\n"
    ))
}
