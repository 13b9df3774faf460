//! The hidden roles that `up` starts: keeper, control and node. Each takes its channel from standard input, confines
//! itself, and works until the channel ends.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringfence_sandbox::confine::{Confinement, Sockets};
use rustix::process::{Signal, set_parent_process_death_signal};

/// What programs and libraries are read from.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/opt"];

/// Runs the role that the first argument names, if it names one.
pub(crate) fn dispatch(first: Option<&OsStr>) -> Option<ExitCode> {
    let (name, role): (_, fn() -> Result<(), String>) = match first?.to_str()? {
        "keeper" => ("keeper", keeper),
        "control" => ("control", control),
        "node" => ("node", node),
        _ => return None,
    };
    Some(match harden().map_err(|e| e.to_string()).and_then(|()| role()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringfence {name}: {e}");
            ExitCode::from(3)
        }
    })
}

/// No sockets, no programs, no files but its own.
fn keeper() -> Result<(), String> {
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |folder: &Path| {
        enforce(Confinement { read: vec![], write: vec![folder.to_owned()], sockets: Sockets::None, exec: false })
    };
    ringfence_keeper::main_loop(channel, confine).map_err(|e| e.to_string())
}

/// Unix sockets for the Workload API and the control socket, which it is handed; processes are looked at through `/proc`.
fn control() -> Result<(), String> {
    prepare_runtime()?;
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |folder: &Path| {
        let read = existing(SYSTEM.iter().chain(&["/proc"]));
        let events = folder.with_file_name("events");
        enforce(Confinement { read, write: vec![folder.to_owned(), events], sockets: Sockets::None, exec: false })
    };
    ringfence_control::run(channel, confine).map_err(|e| e.to_string())
}

/// TCP and UDP, no Unix sockets: nobody of this host can be reached but through channels that it was handed.
fn node() -> Result<(), String> {
    prepare_runtime()?;
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |data: &Path| {
        let read = existing(SYSTEM.iter());
        let write = vec![data.join("proxy"), data.join("events")];
        enforce(Confinement { read, write, sockets: Sockets::Inet, exec: false })
    };
    ringfence_proxy::run(channel, confine).map_err(|e| e.to_string())
}

/// The runtime library makes one socket pair per process for signals, at its first start. Confined, it could not.
fn prepare_runtime() -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map(drop).map_err(|e| e.to_string())
}

fn existing<'a>(paths: impl Iterator<Item = &'a &'a str>) -> Vec<PathBuf> {
    paths.map(PathBuf::from).filter(|p| p.exists()).collect()
}

fn enforce(confinement: Confinement) -> io::Result<()> {
    let confined = confinement.enforce().map_err(io::Error::other)?;
    if !confined.landlock {
        eprintln!("ringfence: this kernel has no Landlock: file access of ringfence's own processes is not confined");
    }
    Ok(())
}

/// What all three want before they hold anything worth having: nobody of the same user reads their memory, and they do not
/// outlive the supervisor.
fn harden() -> io::Result<()> {
    ringfence_channel::sys::set_undumpable()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
