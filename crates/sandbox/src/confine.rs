//! Confinement of Ringfence's own processes: declared once, enforced before the first untrusted byte.

use std::path::PathBuf;

use ringfence_channel::sys;

use crate::error::Context as _;
use crate::landlock_rules::Rules;
use crate::seccomp::Filter;
use crate::{SandboxError, capability};

/// What a process of ours may still do.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// Files and folders that it may read.
    pub read: Vec<PathBuf>,
    /// Files and folders that it may change.
    pub write: Vec<PathBuf>,
    /// Sockets that it may make; those it has, and those it is handed, stay usable.
    pub sockets: Sockets,
    /// The TCP ports that it may connect to, where these are known: then it listens at none, either.
    pub ports: Option<Vec<u16>>,
    /// Whether it may execute programs.
    pub exec: bool,
}

/// Families of sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sockets {
    /// None at all: the keeper.
    #[default]
    None,
    /// TCP and UDP: the proxy.
    Inet,
    /// Unix sockets: control with an embedded store.
    Unix,
    /// Both.
    InetAndUnix,
}

/// How far a confinement could be enforced; say what is missing, never skip it in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Whether the kernel knows Landlock; without it the file rules are not enforced.
    pub landlock: bool,
}

impl Confinement {
    /// Enforces it on the calling thread and all it starts, for good: call it before other threads exist. The process can no
    /// longer be traced, trace or read others, gain privileges, mount, or enter namespaces; as root it has no capability left.
    ///
    /// # Errors
    /// Says which part failed; the process should end then.
    pub fn enforce(&self) -> Result<Confined, SandboxError> {
        sys::set_undumpable().step(|| "forbid tracing".into())?;
        rustix::thread::set_no_new_privs(true).step(|| "give up gaining privileges".into())?;
        let mut rules = Rules::new(self.ports.as_deref())?;
        for path in &self.read {
            rules = rules.read(path)?;
        }
        for path in &self.write {
            rules = rules.write(path)?;
        }
        let landlock = rules.enforce()?;
        capability::give_up()?;
        self.filter()?.enforce()?;
        Ok(Confined { landlock })
    }

    fn filter(&self) -> Result<Filter, SandboxError> {
        let mut filter = Filter::base()?;
        for call in [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_unshare,
            libc::SYS_personality,
        ] {
            filter.deny(call);
        }
        filter.signal_only(rustix::process::getpid().as_raw_nonzero().get() as u64)?;
        if !self.exec {
            filter.deny(libc::SYS_execve);
            filter.deny(libc::SYS_execveat);
        }
        filter.sockets(match self.sockets {
            Sockets::None => &[],
            Sockets::Inet => &[libc::AF_INET, libc::AF_INET6],
            Sockets::Unix => &[libc::AF_UNIX],
            Sockets::InetAndUnix => &[libc::AF_INET, libc::AF_INET6, libc::AF_UNIX],
        })?;
        Ok(filter)
    }
}
