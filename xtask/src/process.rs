//! Running programs: shown before they run, their failure an error that names them.

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// Why a task could not be done.
#[derive(Debug)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// `cargo` with these arguments, at the workspace's root.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(crate::environment::root());
    command
}

/// Runs it with our own output and no input.
///
/// # Errors
/// It cannot be started.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus, Error> {
    eprintln!("\u{2192} {}", line(command));
    command.stdin(Stdio::null()).status().map_err(|e| cannot_start(command, &e))
}

/// Runs it; a failure is an error.
///
/// # Errors
/// It cannot be started, or fails.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let status = status(command)?;
    if status.success() { Ok(()) } else { Err(Error(format!("`{}` failed: {status}", line(command)))) }
}

/// Whether it runs and succeeds; its output is not shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

pub(crate) fn cannot_start(command: &Command, error: &io::Error) -> Error {
    Error(format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
}

/// The command as a person would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
