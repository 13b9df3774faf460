//! PID 1 of a service's namespaces: arranges what the service sees, starts it, reaps, and ends with it.
//!
//! It decides nothing: when to start again is the shim's business. When its channel ends, the shim is gone and so is the
//! service: the kernel kills what lives in the namespace of a PID 1 that exits.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence_channel::{BlockingChannel, ChannelError, cloexec_pair, stdin_channel, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, pidfd_send_signal, wait,
};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use crate::exec::Become;
use crate::mounts::{self, View};
use crate::protocol::Exit;
use crate::sense::{self, FromExec, Sensed};
use crate::spec::hosts_file;
use crate::{SandboxError, capability, error::Context as _, role};

/// Longest that a process beside the service may run.
const INSIDE_TIME: Duration = Duration::from_secs(20);

/// Shim to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// First of all, once.
    Arrange(Arrange),
    /// Start the service; where its output goes comes along.
    Start(Become),
    /// Start this binary as the service would run: its output goes where the descriptor leads, and its time is bounded.
    Inside(Become),
    /// Stop the service.
    Stop { grace_ms: u64 },
    /// Replace the hosts file.
    Hosts(BTreeMap<String, Ipv4Addr>),
}

/// What to arrange.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Arrange {
    pub(crate) service: String,
    pub(crate) view: View,
    /// Whether the root was staged by the shim.
    pub(crate) staged: bool,
    /// The service's uid inside.
    pub(crate) owner: u32,
    pub(crate) hosts: BTreeMap<String, Ipv4Addr>,
    pub(crate) isolated: bool,
}

/// Init to shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// Arranged; if isolated, the Workload API's listener comes along.
    Ready,
    /// Could not.
    Failed(String),
    /// The service runs.
    Started,
    /// The service ended, and so did everything that it had started.
    Ended(Exit),
    /// The service did something against us.
    Sensed(Sensed),
}

pub(crate) type ShimChannel = BlockingChannel<FromInit, ToInit>;

#[derive(Default)]
struct Children {
    /// The service; also its session and process group.
    main: Mutex<Option<Pid>>,
    started: Condvar,
}

pub(crate) fn main() -> Result<(), SandboxError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(|| "follow the shim".into())?;
    sys::set_undumpable().step(|| "forbid tracing".into())?;
    let channel: ShimChannel = BlockingChannel::new(stdin_channel().step(|| "find the channel".into())?);
    let (ToInit::Arrange(arrange), _) = channel.recv()? else {
        return Err(SandboxError::Refused("the shim did not say what to arrange".into()));
    };
    match set_up(&arrange) {
        Ok(furnished) => {
            let (hosts, workload) = furnished.map(|f| (f.hosts, f.workload)).unzip();
            let fds: Vec<_> = workload.iter().map(AsFd::as_fd).collect();
            channel.send(&FromInit::Ready, &fds)?;
            drop(workload);
            if arrange.isolated
                && let Err(e) = sense::watch(&arrange.view.hide, channel.try_clone()?)
            {
                // A service without this sensor is as fenced as with it.
                eprintln!("ringfence: looks at the data directory are not told here: {e}");
            }
            run(channel, &arrange.service, hosts)
        }
        Err(e) => Ok(channel.send(&FromInit::Failed(e.to_string()), &[])?),
    }
}

fn set_up(arrange: &Arrange) -> Result<Option<mounts::Furnished>, SandboxError> {
    if !arrange.isolated {
        // Orphans of the service come to us, not to the host's PID 1.
        rustix::process::set_child_subreaper(Some(Pid::INIT)).step(|| "adopt orphans".into())?;
        return Ok(None);
    }
    sys::unshare_namespaces(
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP,
    )
    .step(|| "make mount, IPC, UTS and cgroup namespaces".into())?;
    rustix::system::sethostname(arrange.service.as_bytes()).step(|| "set the host name".into())?;
    if !arrange.staged {
        mounts::build(&arrange.view, arrange.owner)?;
    }
    let furnished =
        mounts::enter(&arrange.view, arrange.owner, &hosts_file(&arrange.service, &arrange.hosts))?;
    capability::keep_only(capability::START)?;
    capability::pass_on(Become::NEEDS)?;
    rustix::thread::set_no_new_privs(true).step(|| "give up gaining privileges".into())?;
    // A change of credentials makes a process traceable again and forgets whom it follows.
    sys::set_undumpable().step(|| "forbid tracing".into())?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step(|| "follow the shim".into())?;
    Ok(Some(furnished))
}

fn run(channel: ShimChannel, service: &str, mut hosts: Option<File>) -> Result<(), SandboxError> {
    let children = Arc::<Children>::default();
    let reports = channel.try_clone()?;
    std::thread::Builder::new()
        .name("reaper".into())
        .spawn({
            let children = children.clone();
            move || reap(&children, &reports)
        })
        .step(|| "start a thread".into())?;
    let mut deadline: Option<(Instant, Pid)> = None;
    loop {
        if !readable_before(&channel, deadline.map(|(at, _)| at))? {
            if let Some((_, pid)) = deadline.take() {
                // Still the one that was asked to stop.
                if *locked(&children.main) == Some(pid) {
                    signal_service(pid, Signal::KILL);
                }
            }
            continue;
        }
        match channel.recv() {
            Ok((ToInit::Start(what), fds)) => {
                if let Err(e) = start(&children, &channel, &what, fds) {
                    channel.send(&FromInit::Failed(e.to_string()), &[])?;
                } else {
                    channel.send(&FromInit::Started, &[])?;
                    children.started.notify_one();
                }
            }
            Ok((ToInit::Inside(what), fds)) => {
                // Whoever waits at the other end of the descriptor sees it closed.
                if let Err(e) = inside(&children, &channel, &what, fds) {
                    eprintln!("ringfence: {e}");
                }
            }
            Ok((ToInit::Stop { grace_ms }, _)) => {
                if let Some(pid) = *locked(&children.main) {
                    signal_service(pid, Signal::TERM);
                    deadline = Some((Instant::now() + Duration::from_millis(grace_ms), pid));
                }
            }
            Ok((ToInit::Hosts(map), _)) => {
                if let Some(file) = &mut hosts {
                    rewrite(file, &hosts_file(service, &map)).step(|| "rewrite the hosts file".into())?;
                }
            }
            Ok((ToInit::Arrange(_), _)) => return Err(SandboxError::Refused("arranged already".into())),
            Err(e) => {
                if let Some(pid) = *locked(&children.main) {
                    end_all(pid);
                }
                return if matches!(e, ChannelError::Closed) { Ok(()) } else { Err(e.into()) };
            }
        }
    }
}

fn start(
    children: &Children,
    reports: &ShimChannel,
    what: &Become,
    fds: Vec<OwnedFd>,
) -> Result<(), SandboxError> {
    // The reaper waits for the lock, so it cannot take the exit of this child from the standard library.
    let mut main = locked(&children.main);
    if main.is_some() {
        return Err(SandboxError::Refused("the service runs already".into()));
    }
    *main = Some(execute(reports, what, fds)?);
    Ok(())
}

/// A second process beside the service; the reaper is at work then and takes it too.
fn inside(
    children: &Children,
    reports: &ShimChannel,
    what: &Become,
    fds: Vec<OwnedFd>,
) -> Result<(), SandboxError> {
    if locked(&children.main).is_none() {
        return Err(SandboxError::Refused("the service does not run".into()));
    }
    let pid = execute(reports, what, fds)?;
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    let bound = std::thread::Builder::new().name("bound".into()).spawn({
        let process = process.try_clone().step(|| "copy a descriptor".into())?;
        move || {
            let timeout = Timespec { tv_sec: INSIDE_TIME.as_secs() as i64, tv_nsec: 0 };
            if matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)), Ok(0)) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
            }
        }
    });
    if bound.is_err() {
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
    Ok(())
}

fn execute(reports: &ShimChannel, what: &Become, fds: Vec<OwnedFd>) -> Result<Pid, SandboxError> {
    let Ok([out]) = <[OwnedFd; 1]>::try_from(fds) else { return Err(ChannelError::Descriptors.into()) };
    let error = out.try_clone().step(|| "copy the log's descriptor".into())?;
    let (ours, theirs) = cloexec_pair().step(|| "make a channel".into())?;
    sys::close_on_exec().step(|| "close inherited descriptors".into())?;
    let child = std::process::Command::new("/proc/self/exe")
        .arg(role::EXEC)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(out)
        .stderr(error)
        .spawn()
        .step(|| "start a process".into())?;
    let process = BlockingChannel::<Become, FromExec>::new(ours);
    process.send(what, &[])?;
    sense::listen(process, reports.try_clone()?)?;
    Pid::from_raw(child.id() as i32).ok_or_else(|| SandboxError::Refused("a process without a number".into()))
}

/// Reaps all there is. When the service itself ends, so does all that it left behind, and then the shim hears of it.
fn reap(children: &Children, reports: &ShimChannel) {
    loop {
        let mut main = locked(&children.main);
        while main.is_none() {
            main = children.started.wait(main).unwrap_or_else(PoisonError::into_inner);
        }
        let service = *main;
        drop(main);
        let mut exit = Exit::Init;
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if Some(pid) == service => {
                    exit = match status.exit_status() {
                        Some(code) => Exit::Code(code),
                        None => Exit::Signal(status.terminating_signal().unwrap_or_default()),
                    };
                    end_all(pid);
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        *locked(&children.main) = None;
        if reports.send(&FromInit::Ended(exit), &[]).is_err() {
            return;
        }
    }
}

fn signal_service(service: Pid, signal: Signal) {
    // Gone already: the reaper will say so.
    let _ = kill_process_group(service, signal);
}

fn end_all(service: Pid) {
    if rustix::process::getpid() == Pid::INIT {
        // Everybody in this PID namespace but ourselves.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
    } else {
        signal_service(service, Signal::KILL);
    }
}

/// In place, since the service's view is a bind mount of this very file.
fn rewrite(file: &mut File, text: &str) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn readable_before(channel: &ShimChannel, deadline: Option<Instant>) -> Result<bool, SandboxError> {
    let timeout = deadline.map(|at| {
        let left = at.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
    });
    let mut fds = [PollFd::new(channel.socket(), PollFlags::IN)];
    match poll(&mut fds, timeout.as_ref()) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e).step(|| "wait for the shim".into()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
