//! The last step before a service: gives up everything, then becomes it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringfence_channel::{BlockingChannel, stdin_channel};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::{
    CapabilitySet, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use rustix::{fs::Mode, process::setsid};
use serde::{Deserialize, Serialize};

use crate::landlock_rules::Rules;
use crate::mounts::{PRIVATE, SYSTEM, View};
use crate::seccomp::Filter;
use crate::sense::{self, FromExec};
use crate::{SandboxError, capability, error::Context as _};

/// This binary, wherever it lies.
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// What to become.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Become {
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) view: View,
    /// Uid and gid to take; `None` keeps the present ones.
    pub(crate) id: Option<u32>,
    /// Whether the root holds only what the view shows.
    pub(crate) isolated: bool,
    /// Whether there are capabilities to give up.
    pub(crate) privileged: bool,
    /// Whether it is this binary that is executed, which a service does not see.
    #[serde(default)]
    pub(crate) ourselves: bool,
}

pub(crate) fn main() -> Result<(), SandboxError> {
    let channel: BlockingChannel<FromExec, Become> =
        BlockingChannel::new(stdin_channel().step(|| "find the channel".into())?);
    let (what, _) = channel.recv()?;
    // A session of its own: its group can be signalled as a whole, and it has no terminal.
    setsid().step(|| "start a session".into())?;
    rustix::process::umask(Mode::from_bits_truncate(0o027));
    bound_resources()?;
    if what.privileged {
        capability::lock_root_out()?;
        capability::keep_only(capability::START)?;
        if let Some(id) = what.id {
            take_ids(id)?;
        }
        capability::keep_only_nothing()?;
    }
    if !what.isolated {
        // No PID namespace ends us with PID 1 then. After the change of uid, which forgets it.
        set_parent_process_death_signal(Some(Signal::KILL))
            .step(|| "follow the one that started us".into())?;
    }
    set_no_new_privs(true).step(|| "give up gaining privileges".into())?;
    std::env::set_current_dir(&what.view.folder).step(|| format!("enter {}", what.view.folder.display()))?;
    landlock(&what)?;
    let Some((program, arguments)) = what.command.split_first() else {
        return Err(SandboxError::Spec("no command".into()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&what.env).stdin(Stdio::null());
    if what.isolated {
        sense::hand_over(&channel)?;
    }
    drop(channel);
    Filter::service()?.enforce()?;
    let error = command.exec();
    Err(SandboxError::Step { step: format!("start {program}"), source: error })
}

fn take_ids(id: u32) -> Result<(), SandboxError> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
    set_thread_groups(&[]).step(|| "leave all groups".into())?;
    set_thread_res_gid(gid, gid, gid).step(|| format!("take gid {id}"))?;
    set_thread_res_uid(uid, uid, uid).step(|| format!("take uid {id}"))
}

fn bound_resources() -> Result<(), SandboxError> {
    let limit = |resource, most: u64| {
        let present = rustix::process::getrlimit(resource);
        let maximum = present.maximum.map_or(most, |m| m.min(most));
        setrlimit(resource, Rlimit { current: Some(maximum), maximum: Some(maximum) })
    };
    // No core: it would hold keys of the service, on the host's disk.
    limit(Resource::Core, 0).step(|| "forbid core dumps".into())?;
    limit(Resource::Nofile, 65_536).step(|| "bound open files".into())?;
    limit(Resource::Nproc, 8192).step(|| "bound processes".into())?;
    limit(Resource::Memlock, 8 << 20).step(|| "bound locked memory".into())?;
    limit(Resource::Msgqueue, 1 << 20).step(|| "bound message queues".into())
}

fn landlock(what: &Become) -> Result<(), SandboxError> {
    let view = &what.view;
    let mut rules = Rules::new(None)?;
    if what.isolated {
        rules = rules.list(Path::new("/"))?;
    }
    for path in SYSTEM.iter().chain(&["/proc", "/sys", "/dev", "/var"]) {
        rules = rules.read(Path::new(path))?;
    }
    let devices = ["null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx"]
        .map(|d| Path::new("/dev").join(d));
    let private = PRIVATE.map(PathBuf::from);
    for path in private.iter().chain(&devices) {
        rules = rules.write(path)?;
    }
    // Threads name themselves and adjust their OOM score there.
    rules = rules.write(Path::new("/proc"))?;
    rules = rules.read(&view.folder)?;
    if let Some(command) = &view.command {
        rules = rules.read(command)?;
    }
    if what.ourselves {
        rules = rules.read(Path::new(OURSELVES))?;
    }
    for rule in &view.files {
        rules = if rule.write { rules.write(&rule.path)? } else { rules.read(&rule.path)? };
    }
    rules.enforce().map(drop)
}

impl Become {
    /// Which capabilities the step before must pass on.
    pub(crate) const NEEDS: CapabilitySet = capability::START;
}
