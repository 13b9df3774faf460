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
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match result {
        0 => Ok(()),
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
