//! `ringfence down`: stops what `up` runs, and comes back when it is gone.
//!
//! What to wait for is taken from the kernel before the question is asked: a descriptor of each process outlives the sockets
//! over which anybody could be asked, and does not mistake another process that got the number later. Waiting for the
//! answer alone was rejected: it says that `up` has understood, and a script that goes on then finds the port taken.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, ClientError};
use crate::view::{Done, Failure, clean, finish, print_json};

/// How often it is looked, and how often is said what is waited for.
const LOOK: Duration = Duration::from_millis(20);
const SAY: Duration = Duration::from_secs(2);
/// Most names in one line.
const MAX_NAMES: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// How long to wait until every process and socket is gone; exit code 3 if some is not
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Answer to `GET /v1/status`, as far as it tells which processes there are.
#[derive(Debug, Deserialize)]
struct Status {
    report: Report,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    processes: Vec<Process>,
    services: Vec<Service>,
}

#[derive(Debug, Deserialize)]
struct Process {
    name: String,
    pid: u32,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    shim: u32,
    init: u32,
}

/// What is to go.
struct Going {
    processes: Vec<(String, u32, OwnedFd)>,
    control: PathBuf,
    shims: PathBuf,
    up: u32,
}

pub(crate) fn run(args: &DownArgs, data: &Path) -> ExitCode {
    finish(down(args.timeout, data))
}

fn down(timeout: Duration, data: &Path) -> Done {
    let client = Client::new(data)?;
    let status: Status = client.get("/v1/status")?;
    let mut going = Going::new(data, status.report);
    let asked = client.post::<Value>("/v1/down", &json!({}));
    match asked {
        // It may be gone before its answer is out.
        Ok(_) | Err(ClientError::Broken { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let (start, mut said) = (Instant::now(), Instant::now());
    loop {
        let left = going.left();
        if left.is_empty() {
            print_json(&json!({ "done": true }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let left = clean(&list(&left));
        if start.elapsed() >= timeout {
            let why = format!(
                "not gone after {}: {left}; run `ringfence down` again or look at `ringfence events --kind lifecycle`",
                humantime::format_duration(timeout)
            );
            return Err(Failure::Cannot(why));
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("ringfence: still stopping: {left}");
        }
        std::thread::sleep(LOOK);
    }
}

impl Going {
    fn new(data: &Path, report: Report) -> Self {
        let control = data.join("control.sock");
        // Whoever listens there is `up`.
        let up = listener(&control).unwrap_or(0);
        let own = report.processes.into_iter().map(|process| (process.name, process.pid));
        let services = report
            .services
            .into_iter()
            .flat_map(|Service { name, shim, init }| [(format!("{name} (its shim)"), shim), (name, init)]);
        let all = services.chain(own).chain([("up".to_owned(), up)]);
        let processes = all.filter_map(|(name, pid)| Some((name, pid, descriptor(pid)?))).collect();
        Self { processes, control, shims: data.join("run/shim"), up }
    }

    /// Processes and sockets that are still there.
    fn left(&mut self) -> Vec<String> {
        self.processes.retain(|(.., process)| runs(process));
        if !self.processes.is_empty() {
            return self.processes.iter().map(|(name, pid, _)| format!("{name} (pid {pid})")).collect();
        }
        // Another `up` is none of ours, nor are the sockets in its folder.
        if listener(&self.control).is_some_and(|pid| pid != self.up) {
            return Vec::new();
        }
        let shims = std::fs::read_dir(&self.shims).into_iter().flatten().flatten().map(|entry| entry.path());
        let sockets = shims.chain([self.control.clone()]).filter(|path| path.symlink_metadata().is_ok());
        sockets.map(|path| path.display().to_string()).collect()
    }
}

/// The process that listens on a socket.
fn listener(path: &Path) -> Option<u32> {
    let stream = UnixStream::connect(path).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
}

fn descriptor(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

fn runs(process: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

fn list(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMES {
        let _ = write!(text, " and {} more", names.len() - MAX_NAMES);
    }
    text
}
