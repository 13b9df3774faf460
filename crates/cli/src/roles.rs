//! The hidden roles that `up` and `node` start: keeper, control, node, federation and member. Each takes its channel from standard input, confines
//! itself, and works until the channel ends.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ringfence_sandbox::confine::{Confinement, Sockets};
use ringfence_store::Place;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

/// What programs and libraries are read from.
const PROGRAMS: [&str; 5] = ["/usr", "/bin", "/lib", "/lib64", "/opt"];
/// What it takes to resolve a name and to trust a public certificate.
const NAMES: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/etc/ssl/certs",
];

/// Runs the role that the first argument names, if it names one.
pub(crate) fn dispatch(first: Option<&OsStr>) -> Option<ExitCode> {
    // `ringfence node` at a terminal is a command: a role has a channel as its standard input.
    if !has_channel() {
        return None;
    }
    let (name, role): (_, fn() -> Result<(), String>) = match first?.to_str()? {
        "keeper" => ("keeper", keeper),
        "control" => ("control", control),
        "node" => ("node", node),
        "federation" => ("federation", federation),
        "member" => ("member", member),
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
    let confine =
        |folder: &Path| enforce(Confinement { write: vec![folder.to_owned()], ..Confinement::default() });
    ringfence_keeper::main_loop(channel, confine).map_err(|e| e.to_string())
}

/// The Workload API's sockets and the control socket it is handed. Who calls there, the supervisor finds out: a process under
/// Landlock can look at no other.
fn control() -> Result<(), String> {
    prepare_runtime()?;
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |folder: &Path, store: Option<&Place>| {
        let mut read = existing(PROGRAMS.iter().chain(&["/proc/self"]));
        let mut write = vec![folder.to_owned(), folder.with_file_name("events").join("control")];
        let Some(store) = store else {
            return enforce(Confinement { read, write, ..Confinement::default() });
        };
        // One kind of socket, and by TCP to the database's ports only.
        read.extend(store.files().map(Path::to_owned));
        let sockets = match store.socket() {
            Some(socket) => {
                write.push(socket.to_owned());
                Sockets::Unix
            }
            None => {
                read.extend(existing(NAMES.iter()));
                Sockets::Inet
            }
        };
        enforce(Confinement { read, write, sockets, ports: Some(store.ports()), ..Confinement::default() })
    };
    ringfence_control::run(channel, confine).map_err(|e| e.to_string())
}

/// TCP and UDP, no Unix sockets: nobody of this host can be reached but through channels that it was handed.
fn node() -> Result<(), String> {
    raise_descriptors();
    prepare_runtime()?;
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |data: &Path| {
        let read = existing(PROGRAMS.iter().chain(&NAMES));
        let write = vec![data.join("proxy"), data.join("events/node")];
        enforce(Confinement { read, write, sockets: Sockets::Inet, ..Confinement::default() })
    };
    ringfence_proxy::run(channel, confine).map_err(|e| e.to_string())
}

/// TCP and UDP to OpenID providers, no files but programs and public roots. It holds no keys of ours.
fn federation() -> Result<(), String> {
    prepare_runtime()?;
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |_: &Path| {
        let read = existing(PROGRAMS.iter().chain(&NAMES));
        enforce(Confinement { read, sockets: Sockets::Inet, ..Confinement::default() })
    };
    ringfence_oidc::run(channel, confine).map_err(|e| e.to_string())
}

/// TCP to control, and nothing else outside; its own folder.
fn member() -> Result<(), String> {
    prepare_runtime()?;
    let channel = ringfence_channel::stdin_channel().map_err(|e| e.to_string())?;
    let confine = |folder: &Path, ports: Vec<u16>| {
        let read = existing(PROGRAMS.iter());
        let write = vec![folder.to_owned(), folder.with_file_name("events").join("control")];
        enforce(Confinement {
            read,
            write,
            sockets: Sockets::Inet,
            ports: Some(ports),
            ..Confinement::default()
        })
    };
    ringfence_control::member::run(channel, confine).map_err(|e| e.to_string())
}

/// Whether standard input is a socket.
fn has_channel() -> bool {
    rustix::net::sockopt::socket_type(io::stdin()).is_ok()
}

/// The runtime library makes one socket pair per process for signals, at its first start. Confined, it could not.
fn prepare_runtime() -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map(drop).map_err(|e| e.to_string())
}

/// As many descriptors as the system allows: a proxied connection takes up to four, and the usual soft limit of 1024 would end
/// for all what one caller uses up. What is inherited stays if it cannot be raised.
fn raise_descriptors() {
    let present = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: present.maximum, ..present });
}

fn existing<'a>(paths: impl Iterator<Item = &'a &'a str>) -> Vec<PathBuf> {
    paths.map(PathBuf::from).filter(|p| p.exists()).collect()
}

fn enforce(confinement: Confinement) -> io::Result<()> {
    let confined = confinement.enforce().map_err(io::Error::other)?;
    if !confined.landlock {
        eprintln!(
            "ringfence: this kernel has no Landlock: file access of ringfence's own processes is not confined"
        );
    }
    Ok(())
}

/// What all want before they hold anything worth having: nobody of the same user reads their memory, and they do not
/// outlive the supervisor.
fn harden() -> io::Result<()> {
    ringfence_channel::sys::set_undumpable()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
