//! Commands that read the fence and need nothing to run: check, graph, why, init, schema.

pub(crate) mod check;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod schema;
pub(crate) mod why;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use ringfence_model::{Diagnostics, Fence};

use crate::env::Env;

/// The answer is no.
const NO: u8 = 1;
/// Wrong use or wrong input.
const WRONG: u8 = 2;
/// Could not do it.
const CANNOT: u8 = 3;

/// Writes to standard output. Whoever stopped reading has seen enough.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(CANNOT, &format!("cannot write: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

/// Writes one JSON object, indented for people who look at it.
fn print_json(value: &impl serde::Serialize) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => fail(CANNOT, &format!("cannot write JSON: {error}")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}

/// The fence, or what is wrong with it on standard error and the code to end with.
fn load(path: &Path, env: &Env) -> Result<Fence, ExitCode> {
    Fence::load(path).map_err(|diagnostics| {
        eprint!("{}", diagnostics.render(error_colour(env)));
        ExitCode::from(if unreadable(&diagnostics) { CANNOT } else { WRONG })
    })
}

/// Whether there was a file and it could not be read.
fn unreadable(diagnostics: &Diagnostics) -> bool {
    diagnostics.errors.iter().any(|error| error.code == "unreadable")
}

/// Whether standard error may have colours: it is a terminal of its own.
fn error_colour(env: &Env) -> bool {
    env.colour && io::stderr().is_terminal()
}
