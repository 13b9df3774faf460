//! The hidden roles of the binary.

use std::ffi::OsStr;
use std::process::{Command, ExitCode, Stdio};

use ringfence_channel::{cloexec_pair, sys};

use crate::{SandboxError, error::Context as _};

pub(crate) const SHIM: &str = "__shim";
pub(crate) const INIT: &str = "__init";
pub(crate) const EXEC: &str = "__exec";
pub(crate) const MAP: &str = "__map";
pub(crate) const PROBE: &str = "__probe";
pub(crate) const PROBE_PID1: &str = "__probe-pid1";

/// Runs the hidden role that `first`, the first argument, names; `None` if it names none. Must be the first thing `main`
/// does, before any thread is started: a process with threads cannot enter a user namespace.
pub fn dispatch(first: Option<&OsStr>) -> Option<ExitCode> {
    let role: fn() -> Result<(), SandboxError> = match first?.to_str()? {
        SHIM => crate::shim::main,
        INIT => crate::init::main,
        EXEC => crate::exec::main,
        MAP => crate::shim::mapper,
        PROBE => crate::probe::main,
        PROBE_PID1 => crate::probe::pid1,
        _ => return None,
    };
    Some(match role() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringfence: {e}");
            ExitCode::from(126)
        }
    })
}

/// This binary again, in another role, with one end of a channel as its standard input.
pub(crate) fn command(role: &str) -> Result<(Command, std::os::unix::net::UnixStream), SandboxError> {
    // What our own starter left open is nobody's business further down.
    sys::close_on_exec().step(|| "close inherited descriptors".into())?;
    let (ours, theirs) = cloexec_pair().step(|| "make a channel".into())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).env_clear();
    Ok((command, ours))
}
