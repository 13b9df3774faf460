//! The one module of the workspace that may hold `unsafe`: system calls that no library we use wraps safely.
//!
//! Rules: each function here is safe to call with any arguments; each `unsafe` block has a `SAFETY` comment; anything with
//! more logic than one call belongs elsewhere.
#![expect(unsafe_code, reason = "the audited exception; see the module documentation")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

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
