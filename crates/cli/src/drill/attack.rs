//! The hidden role `__attack`: what a taken-over service would try, run inside a service's own confinement.
//!
//! The standard library and nothing else: this process has what the service has, and must not need more. Each attack is
//! bounded in time and number, and prints one JSON object. It asks for things; it never harms what it finds.

use std::ffi::OsStr;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use super::server::{Answer, Server};

/// The role's name.
pub(crate) const ROLE: &str = "__attack";
/// Longest that any one step may take.
const STEP: Duration = Duration::from_secs(3);
/// Most bytes of an answer that are looked at.
const MAX_ANSWER: u64 = 64 * 1024;
/// Most entries of a folder that are told.
const MAX_ENTRIES: usize = 16;

/// Runs the role if the first argument names it.
pub(crate) fn dispatch(first: Option<&OsStr>) -> Option<ExitCode> {
    if first? != ROLE {
        return None;
    }
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let found = match arguments[..] {
        ["http", target, ref fields @ ..] => http(target, fields),
        ["tcp", target] => tcp(target),
        ["udp", target, hex] => udp(target, hex),
        ["read", folder, ref names @ ..] => read(Path::new(folder), names),
        ["serve", port] => return Some(serve(port)),
        ["processes", first, ref neighbours @ ..] => processes(first == "pid1", neighbours),
        _ => json!({ "error": "no such attack" }),
    };
    println!("{found}");
    Some(ExitCode::SUCCESS)
}

/// The service of a fence that a drill brings: it tells everybody what it was sent.
fn serve(port: &str) -> ExitCode {
    let answer = |_: SocketAddr, request: &str| Answer::body("text/plain", request);
    let server = port.parse().map_err(|_| ErrorKind::InvalidInput.into());
    match server.and_then(|port: u16| Server::start((Ipv4Addr::LOCALHOST, port).into(), answer)) {
        Ok(server) => server.go_on(),
        Err(e) => eprintln!("port {port}: {e}"),
    }
    ExitCode::FAILURE
}

fn resolve(target: &str) -> std::io::Result<SocketAddr> {
    target.to_socket_addrs()?.next().ok_or_else(|| ErrorKind::NotFound.into())
}

/// `GET /` at a name and port, as any program of the service could call it.
fn http(target: &str, fields: &[&str]) -> Value {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&resolve(target)?, STEP)?;
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        let mut head = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n");
        for field in fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
            // What came before it was cut still counts.
            Err(e) if answer.is_empty() => Err(e),
            _ => Ok(answer),
        }
    };
    match exchange() {
        Ok(answer) => json!({ "status": super::wire::status(&answer), "bytes": answer.len() }),
        Err(e) => json!({ "error": e.to_string() }),
    }
}

fn tcp(target: &str) -> Value {
    // A dial that is refused in the same moment may look connected; only one with a peer is.
    let dialled = resolve(target).and_then(|address| TcpStream::connect_timeout(&address, STEP)?.peer_addr());
    match dialled {
        Ok(_) => json!({ "reached": true }),
        Err(e) => json!({ "reached": false, "error": e.to_string() }),
    }
}

/// One datagram; reached means that somebody answered.
fn udp(target: &str, hex: &str) -> Value {
    let exchange = || -> std::io::Result<usize> {
        let bytes = ringfence_keys::from_hex(hex).ok_or(ErrorKind::InvalidInput)?;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect(resolve(target)?)?;
        socket.send(&bytes)?;
        socket.recv(&mut [0; 512])
    };
    match exchange() {
        Ok(_) => json!({ "reached": true }),
        Err(e) => json!({ "reached": false, "error": e.to_string() }),
    }
}

/// Lists a folder, and opens or dials what should lie in it. Nothing that is read is told.
fn read(folder: &Path, names: &[&str]) -> Value {
    let listed = std::fs::read_dir(folder);
    let error = listed.as_ref().err().map(ToString::to_string);
    let entries: Vec<String> = listed
        .into_iter()
        .flatten()
        .flatten()
        .take(MAX_ENTRIES)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let opens = |path: &Path| std::fs::File::open(path).is_ok() || UnixStream::connect(path).is_ok();
    let opened: Vec<&str> = names.iter().copied().filter(|name| opens(&folder.join(name))).collect();
    json!({ "entries": entries, "opened": opened, "error": error })
}

/// Signals and traces: PID 1 of the namespace if it is ours, and each neighbour by the number and start time that the host
/// knows it by. Neighbours get signal 0 only, which asks whether another one would arrive.
fn processes(pid1: bool, neighbours: &[&str]) -> Value {
    let mut found = Vec::new();
    if pid1 {
        // If this one arrived, nobody would be left to tell: that we go on is the proof.
        let error = kill_process(Pid::INIT, Signal::KILL).err().map(|e| e.to_string());
        found.push(json!({ "pid": 1, "killed": false, "error": error, "traced": memory(1) | reach_into(1) }));
    }
    for neighbour in neighbours {
        let Some((pid, start)) = neighbour.split_once(':').and_then(|(p, s)| Some((p.parse().ok()?, s)))
        else {
            continue;
        };
        // Inside a PID namespace the same number may be a process of our own.
        if start_time(pid).as_deref() != Some(start) {
            continue;
        }
        let signal = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
        found.push(json!({ "pid": pid, "killed": signal, "traced": memory(pid) }));
    }
    json!({ "found": found })
}

/// Whether a process's memory opens for reading.
fn memory(pid: i32) -> bool {
    std::fs::File::open(format!("/proc/{pid}/mem")).is_ok()
}

/// What a debugger would begin with: whether it may attach, and whether it may read.
fn reach_into(pid: i32) -> bool {
    let attached = ringfence_channel::sys::trace_attach(pid).is_ok();
    let read = match ringfence_channel::sys::probe_memory(pid) {
        Ok(()) => true,
        Err(e) => e.raw_os_error() == Some(rustix::io::Errno::FAULT.raw_os_error()),
    };
    attached || read
}

/// When a process was started, in ticks since the host's boot: with its number, this names one process.
pub(crate) fn start_time(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; field 22 is the twentieth after it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(ToOwned::to_owned)
}
