//! What a service does against Ringfence itself, sensed from inside its namespaces and told to the shim.
//!
//! Two sensors, and neither protects anything: a watch on the empty folders that stand where hidden ones are, and a seccomp
//! listener that sees system calls aimed at PID 1 and lets every one of them go on, for the kernel to refuse. That the
//! answer is always "go on" keeps the usual weakness of such listeners out: nothing hangs on what they saw.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringfence_channel::{BlockingChannel, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};

use crate::exec::Become;
use crate::init::{FromInit, ShimChannel};
use crate::shim::spawn;
use crate::{SandboxError, error::Context as _};

/// Alike events are told at most this often.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest that a starting service may take to hand its listener over.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a sensor saw.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sensed {
    pub(crate) what: What,
    pub(crate) message: String,
    /// How many alike since the last one.
    pub(crate) count: u64,
}

/// Kinds of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Decoy,
    Signal,
    Trace,
}

impl What {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Decoy => "decoy",
            Self::Signal => "signal",
            Self::Trace => "trace",
        }
    }
}

/// What a new process says before it becomes the service: its listener comes along, or why there is none.
pub(crate) type FromExec = Result<(), String>;

/// System calls that name a process: number, which argument names it, what for.
const AIMED: [(i64, u8, What); 9] = [
    (libc::SYS_kill, 0, What::Signal),
    (libc::SYS_tkill, 0, What::Signal),
    (libc::SYS_tgkill, 0, What::Signal),
    (libc::SYS_rt_sigqueueinfo, 0, What::Signal),
    (libc::SYS_rt_tgsigqueueinfo, 0, What::Signal),
    (libc::SYS_pidfd_open, 0, What::Signal),
    (libc::SYS_ptrace, 1, What::Trace),
    (libc::SYS_process_vm_readv, 0, What::Trace),
    (libc::SYS_process_vm_writev, 0, What::Trace),
];

/// The program whose listener hears of calls aimed at PID 1. Calls of another architecture never get here: the programs
/// beside this one end whoever makes one.
pub(crate) fn program() -> Vec<libc::sock_filter> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // struct seccomp_data: the number, then arguments of eight bytes from 16 on.
    let low = |argument: u8| 16 + 8 * u32::from(argument) + if cfg!(target_endian = "big") { 4 } else { 0 };
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD_WORD, 0, 0, 0)];
    for (call, argument, _) in AIMED {
        program.extend([
            step(JUMP_EQUAL, 0, 4, call as u32),
            step(LOAD_WORD, 0, 0, low(argument)),
            step(JUMP_EQUAL, 0, 1, 1),
            step(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]);
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// In the process that becomes a service: installs the program and hands its listener to PID 1.
pub(crate) fn hand_over(channel: &BlockingChannel<FromExec, Become>) -> Result<(), SandboxError> {
    match sys::seccomp_listener(&program()) {
        Ok(listener) => channel.send(&Ok(()), &[listener.as_fd()])?,
        Err(e) => channel.send(&Err(e.to_string()), &[])?,
    }
    Ok(())
}

/// In PID 1: listens to one process and what it starts, until the last of them is gone.
pub(crate) fn listen(
    process: BlockingChannel<Become, FromExec>,
    reports: ShimChannel,
) -> Result<(), SandboxError> {
    spawn("calls", move || {
        let said = process.set_timeout(Some(PATIENCE)).and_then(|()| process.recv());
        match said {
            Ok((Ok(()), fds)) => {
                if let Some(listener) = fds.into_iter().next() {
                    drop(process);
                    hear(&listener, &reports);
                }
            }
            Ok((Err(why), _)) => {
                eprintln!("ringfence: signals to PID 1 and traces of it are not told here: {why}")
            }
            // It ended before it became the service, and has said why.
            Err(_) => {}
        }
    })
}

fn hear(listener: &OwnedFd, reports: &ShimChannel) {
    let (mut signals, mut traces) = (Tally::default(), Tally::default());
    loop {
        let due = [signals.due(), traces.due()].into_iter().flatten().min();
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let ready = wait(&mut fds, due);
        if ready && fds[0].revents().contains(PollFlags::IN) {
            let Ok(asked) = sys::seccomp_receive(listener) else { continue };
            let (what, message) = describe(&asked);
            // Whoever called may be gone meanwhile.
            let _ = sys::seccomp_continue(listener, asked.id);
            match what {
                What::Trace => traces.seen(message),
                _ => signals.seen(message),
            }
        } else if ready {
            return;
        }
        for (what, tally) in [(What::Signal, &mut signals), (What::Trace, &mut traces)] {
            if !tally.tell(what, reports) {
                return;
            }
        }
    }
}

fn describe(asked: &sys::Notification) -> (What, String) {
    let name = match asked.call {
        libc::SYS_kill | libc::SYS_tkill | libc::SYS_tgkill => "a signal to",
        libc::SYS_rt_sigqueueinfo | libc::SYS_rt_tgsigqueueinfo => "a queued signal to",
        libc::SYS_pidfd_open => "a descriptor of",
        libc::SYS_ptrace => "ptrace of",
        libc::SYS_process_vm_readv => "reading the memory of",
        libc::SYS_process_vm_writev => "writing the memory of",
        _ => "a call at",
    };
    let known = AIMED.iter().find(|(call, ..)| *call == asked.call);
    let what = known.map_or(What::Signal, |(_, _, what)| *what);
    // The name is the caller's own choice: shown as such, and bounded by the kernel.
    let program = fs::read_to_string(format!("/proc/{}/comm", asked.pid)).unwrap_or_default();
    (what, format!("{name} PID 1 by process {} {:?}", asked.pid, program.trim_end()))
}

/// In PID 1: watches the empty folders that stand in for hidden ones.
pub(crate) fn watch(hidden: &[PathBuf], reports: ShimChannel) -> Result<(), SandboxError> {
    let folders: Vec<&PathBuf> = hidden.iter().filter(|path| path.is_dir()).collect();
    if folders.is_empty() {
        return Ok(());
    }
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).step(|| "watch the hidden folders".into())?;
    for folder in &folders {
        inotify::add_watch(
            &watch,
            folder.as_path(),
            inotify::WatchFlags::OPEN | inotify::WatchFlags::ONLYDIR,
        )
        .step(|| format!("watch {}", folder.display()))?;
    }
    let message = folders.iter().map(|f| name(f)).collect::<Vec<_>>().join(" or ");
    let message = format!("opened the empty folder that stands in for {message}");
    spawn("decoys", move || {
        let mut tally = Tally::default();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            wait(&mut [PollFd::new(&watch, PollFlags::IN)], tally.due());
            let mut opened = inotify::Reader::new(&watch, &mut buffer);
            while opened.next().is_ok() {
                tally.seen(message.clone());
            }
            if !tally.tell(What::Decoy, &reports) {
                return;
            }
        }
    })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Waits until a descriptor is ready or something is due; whether one is ready.
fn wait(fds: &mut [PollFd<'_>], due: Option<Duration>) -> bool {
    let timeout =
        due.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
    poll(fds, timeout.as_ref()).is_ok_and(|n| n > 0)
}

/// Counts alike events, so that whoever repeats one fills no log.
#[derive(Default)]
struct Tally {
    told: Option<Instant>,
    waiting: u64,
    message: String,
}

impl Tally {
    fn seen(&mut self, message: String) {
        self.waiting += 1;
        self.message = message;
    }

    /// How long until the next may be told; `None` if there is none.
    fn due(&self) -> Option<Duration> {
        (self.waiting > 0)
            .then(|| self.told.map_or(Duration::ZERO, |told| PAUSE.saturating_sub(told.elapsed())))
    }

    /// Tells what is due; `false` if nobody listens any more.
    fn tell(&mut self, what: What, reports: &ShimChannel) -> bool {
        if !self.due().is_some_and(|left| left.is_zero()) {
            return true;
        }
        self.told = Some(Instant::now());
        let (count, message) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.message));
        reports.send(&FromInit::Sensed(Sensed { what, message, count }), &[]).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_repetitions_are_counted() {
        let (ours, theirs) = ringfence_channel::cloexec_pair().unwrap();
        let (reports, shim) = (ShimChannel::new(ours), BlockingChannel::<(), FromInit>::new(theirs));
        let mut tally = Tally::default();
        assert_eq!(tally.due(), None);
        tally.seen("a".into());
        assert!(tally.tell(What::Signal, &reports));
        for _ in 0..1000 {
            tally.seen("b".into());
            assert!(tally.tell(What::Signal, &reports));
        }
        assert!(tally.due().is_some_and(|left| left <= PAUSE));
        tally.told = Instant::now().checked_sub(PAUSE);
        assert!(tally.tell(What::Signal, &reports));
        drop(reports);
        let mut counts = Vec::new();
        while let Ok((FromInit::Sensed(sensed), _)) = shim.recv() {
            counts.push(sensed.count);
        }
        assert_eq!(counts, [1, 1000]);
    }
}
