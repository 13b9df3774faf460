//! The one module of the workspace that may hold `unsafe`: system calls that no library we use wraps safely.
//!
//! Rules: each function here is safe to call with any arguments; each `unsafe` block has a `SAFETY` comment; anything with
//! more logic than one call belongs elsewhere.
#![expect(unsafe_code, reason = "the audited exception; see the module documentation")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::thread::UnshareFlags;

/// The pidfd of the process at the other end of a connected Unix socket (`SO_PEERPIDFD`, Linux 6.5).
///
/// # Errors
/// `ENOPROTOOPT` on older kernels: fall back to the credentials and `pidfd_open`, and check again afterwards.
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `fd` and `length` live across the call and `length` is the size of `fd`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: on success the kernel installed a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How many bytes the kernel takes from us for this TCP socket beyond what it could send already (`TCP_NOTSENT_LOWAT`, tcp(7)).
/// Connections that a listener accepts have its bound.
///
/// # Errors
/// What the kernel says, such as `ENOPROTOOPT` for a socket that is no TCP.
pub fn set_unsent_limit(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    // SAFETY: `bytes` lives across the call and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes this process invisible to `ptrace` and `/proc/PID/mem` of the same user and excludes it from core dumps
/// (`PR_SET_DUMPABLE`).
pub fn set_undumpable() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one integer and touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling thread into new namespaces of the given kinds; anything in `flags` that is not a namespace is ignored.
pub fn unshare_namespaces(flags: UnshareFlags) -> io::Result<()> {
    let namespaces = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: only CLONE_FILES is unsafe (descriptors would differ between threads), and the mask excludes it.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags & namespaces) }?)
}

/// Sets and clears `MOUNT_ATTR_*` bits of the mount at `path`, and of all below it if `recursive` (`mount_setattr`, Linux 5.12).
pub fn mount_setattr(path: &Path, set: u64, clear: u64, recursive: bool) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // attr_set, attr_clr, propagation, userns_fd
    let attributes: [u64; 4] = [set, clear, 0, 0];
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is NUL-terminated and `attributes` has the layout and size of `struct mount_attr`; the kernel only
    // reads both, during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Marks all descriptors from 3 on as closed on exec, also those that whoever started us left open (`close_range`, Linux 5.11).
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now; only a flag of our descriptors changes.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Installs a seccomp program on this thread and returns the listener that its `SECCOMP_RET_USER_NOTIF` answers go to
/// (Linux 5.0). The thread must have given up gaining privileges.
pub fn seccomp_listener(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` and the instructions that it points to live across the call, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: on success the kernel installed a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// What to answer to.
    pub id: u64,
    /// The caller, as our PID namespace numbers it.
    pub pid: u32,
    /// Number of the call.
    pub call: i64,
    /// Its arguments.
    pub args: [u64; 6],
}

/// The next system call that waits at a seccomp listener; waits for one itself.
pub fn seccomp_receive(listener: impl AsFd) -> io::Result<Notification> {
    // SAFETY: a structure of integers, for which zero is a value; the kernel insists on it.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number carries the size of `asked`, which lives across the call.
    let result =
        unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    match result {
        0 => Ok(Notification {
            id: asked.id,
            pid: asked.pid,
            call: i64::from(asked.data.nr),
            args: asked.data.args,
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a system call go on to the kernel, as if nobody had asked (Linux 5.5).
pub fn seccomp_continue(listener: impl AsFd, id: u64) -> io::Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the request's number carries the size of `answer`, which lives across the call.
    let result =
        unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Traces a process without stopping it (`PTRACE_SEIZE`), until the calling thread ends: what drills try where it must fail.
pub fn trace_attach(pid: i32) -> io::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE reads and writes no memory of ours.
    match unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, nothing, nothing) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks for one byte at the start of another process's memory, where none lies: `EFAULT` says that it may be read, `EPERM`
/// that it may not.
pub fn probe_memory(pid: i32) -> io::Result<()> {
    let mut byte = 0_u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(1), iov_len: 1 };
    // SAFETY: the kernel writes at most one byte, to `byte`, which lives across the call; `remote` is an address elsewhere.
    match unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_our_own_pair_is_ourselves() {
        let (a, _b) = UnixStream::pair().unwrap();
        match peer_pidfd(&a) {
            Ok(fd) => {
                let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
                assert!(info.contains(&format!("Pid:\t{}\n", std::process::id())), "{info}");
            }
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
    }
}
