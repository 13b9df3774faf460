//! Who is at the other end of a Workload API socket: found from the kernel, without a race.
//!
//! The pidfd names the process that connected, whatever happens to its number. `/proc/PID` is opened as a directory and
//! everything is read through it; that the process lives after each step, by its pidfd, proves that the directory is its.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};

/// Longest cgroup file that is read.
const CGROUP_BYTES: u64 = 4096;

/// What attestation found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Process number.
    pub pid: u32,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Inode of its network namespace.
    pub netns: u64,
    /// Path of its program, as it sees it.
    pub program: String,
    /// Its control group (the unified hierarchy's line, or the first).
    pub cgroup: String,
}

/// Why a caller gets nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// It ended meanwhile.
    #[error("the process ended")]
    Ended,
    /// A step failed.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// It lives elsewhere.
    #[error("process {pid} is in network namespace {found}, not in the service's, {expected}")]
    OtherNamespace {
        /// Its number.
        pid: u32,
        /// Where it is.
        found: u64,
        /// Where it should be.
        expected: u64,
    },
    /// It cannot be seen from here.
    #[error("the process is in no process namespace that can be seen from here")]
    Unseen,
    /// Whoever looks on our behalf says why.
    #[error("{0}")]
    Told(String),
}

/// A caller that was attested, with what keeps it so.
#[derive(Debug)]
pub struct Attested {
    /// Who it is.
    pub workload: Workload,
    /// The process itself, whatever happens to its number.
    pub pidfd: OwnedFd,
    /// Its program, open, for the digest.
    pub program: Option<File>,
}

/// What [`Attestor::attest`] gives.
pub type Attesting = Pin<Box<dyn Future<Output = Result<Attested, AttestError>> + Send>>;

/// Whoever looks at callers. A process under Landlock can look at no other process, so control has its supervisor do it.
pub trait Attestor: std::fmt::Debug + Send + Sync {
    /// Attests the process that connected `socket`, which is one of `service`, whose network namespace has inode `netns`.
    fn attest(&self, socket: OwnedFd, service: &str, netns: u64) -> Attesting;
}

/// Looks itself, on a thread that may block.
#[derive(Clone, Copy, Debug)]
pub struct Here;

impl Attestor for Here {
    fn attest(&self, socket: OwnedFd, _: &str, netns: u64) -> Attesting {
        let looking = tokio::task::spawn_blocking(move || attest(socket.as_fd(), netns));
        Box::pin(async { looking.await.map_err(|e| AttestError::Io("attestation", io::Error::other(e)))? })
    }
}

/// Attests the process that connected `socket`: it must live in the network namespace with inode `netns`.
///
/// # Errors
/// [`AttestError`]: the caller gets nothing.
pub fn attest(socket: BorrowedFd<'_>, netns: u64) -> Result<Attested, AttestError> {
    let peer = rustix::net::sockopt::socket_peercred(socket).map_err(|e| step("peer credentials", e))?;
    let pidfd = pidfd(socket, peer.pid)?;
    let pid = pid_of(&pidfd)?;
    let proc = rustix::fs::open(
        format!("/proc/{pid}"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| step("its /proc entry", e))?;
    // The process lives, so its number is still its own, so the directory is its.
    alive(pidfd.as_fd())?;
    let found =
        statat(&proc, "ns/net", AtFlags::empty()).map_err(|e| step("its network namespace", e))?.st_ino;
    alive(pidfd.as_fd())?;
    if found != netns {
        return Err(AttestError::OtherNamespace { pid, found, expected: netns });
    }
    let program = rustix::fs::readlinkat(&proc, "exe", Vec::new()).map_err(|e| step("its program", e))?;
    let file = openat(&proc, "exe", OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok();
    let cgroup = read_cgroup(&proc).unwrap_or_default();
    alive(pidfd.as_fd())?;
    Ok(Attested {
        workload: Workload {
            pid,
            uid: peer.uid.as_raw(),
            gid: peer.gid.as_raw(),
            netns: found,
            program: program.to_string_lossy().into_owned(),
            cgroup,
        },
        program: file.map(File::from),
        pidfd,
    })
}

/// The pidfd of the peer: from the socket where the kernel can, else by number with a check afterwards.
fn pidfd(socket: BorrowedFd<'_>, pid: rustix::process::Pid) -> Result<OwnedFd, AttestError> {
    match ringfence_channel::sys::peer_pidfd(socket) {
        Ok(fd) => Ok(fd),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOPROTOOPT.raw_os_error()) => {
            let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .map_err(|e| step("its pidfd", e))?;
            // Before 6.5 the number could have passed to another process between the connect and here. The one that connected
            // held the socket; if it has ended, nobody does.
            let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
            poll(&mut fds, Some(&Timespec::default())).map_err(|e| step("its socket", e))?;
            if fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
                return Err(AttestError::Ended);
            }
            Ok(fd)
        }
        Err(e) => Err(AttestError::Io("its pidfd", e)),
    }
}

/// The number behind a pidfd, in our own process namespace.
fn pid_of(pidfd: &OwnedFd) -> Result<u32, AttestError> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .map_err(|e| AttestError::Io("its pidfd", e))?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    match number.and_then(|number| number.parse::<i64>().ok()) {
        Some(-1) => Err(AttestError::Ended),
        Some(number) if number > 0 => u32::try_from(number).map_err(|_| AttestError::Unseen),
        _ => Err(AttestError::Unseen),
    }
}

/// Whether the process behind a pidfd still lives.
fn alive(pidfd: BorrowedFd<'_>) -> Result<(), AttestError> {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec::default())) {
        Ok(0) => Ok(()),
        Ok(_) => Err(AttestError::Ended),
        Err(e) => Err(step("its pidfd", e)),
    }
}

fn read_cgroup(proc: &OwnedFd) -> io::Result<String> {
    let file = File::from(openat(proc, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let mut text = String::new();
    file.take(CGROUP_BYTES).read_to_string(&mut text)?;
    let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(unified.or_else(|| text.lines().next()).unwrap_or_default().to_owned())
}

fn step(what: &'static str, e: rustix::io::Errno) -> AttestError {
    match e {
        rustix::io::Errno::SRCH => AttestError::Ended,
        _ => AttestError::Io(what, e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn own_netns() -> u64 {
        std::fs::metadata("/proc/self/ns/net").unwrap().ino()
    }

    #[test]
    fn our_own_process_is_seen_as_what_it_is() {
        let (a, _b) = UnixStream::pair().unwrap();
        let attested = attest(a.as_fd(), own_netns()).unwrap();
        let workload = attested.workload;
        assert_eq!((workload.pid, workload.netns), (std::process::id(), own_netns()));
        assert_eq!(workload.uid, rustix::process::getuid().as_raw());
        assert_eq!(workload.program, std::env::current_exe().unwrap().display().to_string());
        assert!(attested.program.is_some());
    }

    #[test]
    fn another_network_namespace_is_not_the_service_s() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(matches!(attest(a.as_fd(), own_netns() + 1), Err(AttestError::OtherNamespace { .. })));
    }
}
