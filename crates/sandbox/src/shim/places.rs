//! The shim's places in the data directory, opened before it becomes somebody who cannot reach them by path.
//!
//! As root the shim takes a uid of its own, while the data directory stays root's (0700). So it keeps descriptors of the two
//! folders it writes in, which are sticky then: a shim can rename and remove its own files there and nobody else's. What it
//! could put there besides, under the name of another, is not believed by whoever reads. The folder of sockets is not shared:
//! whoever answers at a service's socket is that service to the supervisor, so the socket is bound before the uid changes.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::mounts::View;
use crate::spec::{FileRule, Isolation, Spec, UidRange};
use crate::{SandboxError, error::Context as _};

/// Three folders and a name.
#[derive(Debug)]
pub(crate) struct Places {
    sockets: OwnedFd,
    listener: Option<UnixListener>,
    bound: bool,
    logs: OwnedFd,
    events: OwnedFd,
    service: String,
}

impl Places {
    pub(crate) fn open(spec: &Spec) -> Result<Self, SandboxError> {
        private_dir(&spec.data)?;
        let mode = fs::metadata(&spec.data)
            .step(|| format!("look at {}", spec.data.display()))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&spec.data, fs::Permissions::from_mode(0o700))
                .step(|| format!("close {} to others", spec.data.display()))?;
        }
        private_dir(&spec.data.join("run"))?;
        let root = rustix::process::geteuid().is_root();
        let folder = |name: &str, shared: bool| {
            let path = spec.data.join(name);
            private_dir(&path)?;
            if root {
                // Harmless: only root can traverse the data directory.
                let mode = if shared { 0o1777 } else { 0o700 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                    .step(|| format!("set the mode of {}", path.display()))?;
            }
            rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .step(|| format!("open {}", path.display()))
        };
        let mut places = Self {
            sockets: folder("run/shim", false)?,
            listener: None,
            bound: false,
            logs: folder("logs", true)?,
            events: folder("events", true)?,
            service: spec.service.clone(),
        };
        let path = places.socket();
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(SandboxError::Refused(format!(
                "service {} has a running shim already",
                spec.service
            )));
        }
        // As root it may be another uid's; that is still us, of an earlier run.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).step(|| format!("remove the stale {}", path.display()));
            }
            _ => {}
        }
        if root && spec.isolation == Isolation::On {
            places.hand_over(spec)?;
        }
        // Nobody can connect between bind and chmod: the folder is private, and umask says 0600 at once.
        let before = rustix::process::umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(places.socket());
        rustix::process::umask(before);
        places.listener = Some(listener.step(|| "make the shim's socket".into())?);
        places.bound = true;
        Ok(places)
    }

    /// The socket for supervisors; there is one.
    pub(crate) fn listener(&mut self) -> Result<UnixListener, SandboxError> {
        self.listener.take().ok_or_else(|| SandboxError::Refused("the shim's socket is taken already".into()))
    }

    /// The folder of event logs.
    pub(crate) fn events(&self) -> PathBuf {
        by_fd(&self.events)
    }

    /// What the service prints goes here.
    pub(crate) fn log(&self) -> PathBuf {
        by_fd(&self.logs).join(format!("{}.log", self.service))
    }

    fn socket(&self) -> PathBuf {
        by_fd(&self.sockets).join(format!("{}.sock", self.service))
    }

    /// Files of an earlier run may belong to another uid, if ranges were dealt out anew.
    fn hand_over(&self, spec: &Spec) -> Result<(), SandboxError> {
        let Some(range) = spec.uids else { return Ok(()) };
        let events = ringfence_event::own_files(&self.events(), &format!("shim-{}", self.service));
        for path in [self.log(), self.log().with_extension("log.1")].into_iter().chain(events) {
            hand_over(&path, range)?;
        }
        Ok(())
    }
}

impl Drop for Places {
    /// Removes what must not be left behind, however the shim ends.
    fn drop(&mut self) {
        if self.bound {
            // With a uid of our own it is for the supervisor or the next start to remove.
            let _ = fs::remove_file(self.socket());
        }
    }
}

/// Gives a file of an earlier shim to the new one, by descriptor. Shims of other services write in the same folder: what is
/// there may be a link to a file that is nobody's to give away, and then it goes.
fn hand_over(path: &Path, range: UidRange) -> Result<(), SandboxError> {
    let step = || format!("hand {} over", path.display());
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().append(true).custom_flags(flags).open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => return fs::remove_file(path).step(step),
        Ok(file) => file,
    };
    let metadata = file.metadata().step(step)?;
    let owner = metadata.uid();
    // Only the first uid of some service's range ever was a shim's.
    let of_a_shim = owner >= range.count && owner % range.count == range.base % range.count;
    if !metadata.is_file() || metadata.nlink() != 1 || !of_a_shim {
        return fs::remove_file(path).step(step);
    }
    std::os::unix::fs::fchown(&file, Some(range.base), Some(range.base)).step(step)
}

/// Canonical paths of what the service sees.
pub(crate) fn view(spec: &Spec) -> Result<View, SandboxError> {
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => SandboxError::Missing { path: path.to_owned() },
            _ => SandboxError::Step { step: format!("look up {}", path.display()), source: e },
        })
    };
    let files = spec
        .files
        .iter()
        .map(|rule| Ok(FileRule { path: real(&rule.path)?, write: rule.write }))
        .collect::<Result<_, SandboxError>>()?;
    let command = Path::new(&spec.command[0]);
    let command = if command.is_absolute() { Some(real(command)?) } else { None };
    let mut hide: Vec<_> =
        spec.hide.iter().chain(&spec.fence).chain([&spec.data]).flat_map(|p| names(p)).collect();
    hide.sort();
    hide.dedup();
    let fence =
        spec.fence.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    let folder = real(&spec.folder)?;
    if folder == Path::new("/") {
        return Err(SandboxError::Spec(
            "the fence's folder is /: move the fence into a folder of its own".into(),
        ));
    }
    if rustix::process::geteuid().is_root() {
        readable_by_others(&folder, 0o005)?;
        command.iter().try_for_each(|path| readable_by_others(path, 0o001))?;
    }
    Ok(View { folder, command, files, hide, fence })
}

/// Where a path is and where it leads, if it is a link. What does not exist need not be hidden.
fn names(path: &Path) -> Vec<PathBuf> {
    let Ok(real) = fs::canonicalize(path) else { return Vec::new() };
    let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
    let own = folder.zip(path.file_name()).map(|(folder, name)| folder.join(name));
    own.into_iter().chain([real]).collect()
}

/// As root a service has a uid of its own, to which our files are other people's.
fn readable_by_others(path: &Path, bits: u32) -> Result<(), SandboxError> {
    let mode = fs::metadata(path).step(|| format!("look at {}", path.display()))?.permissions().mode();
    if mode & bits == bits {
        return Ok(());
    }
    let path = path.display();
    Err(SandboxError::Spec(format!(
        "as root each service runs with a uid of its own, and {path} is closed to it: chmod -R o+rX {path}"
    )))
}

fn private_dir(path: &Path) -> Result<(), SandboxError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).step(|| format!("make {}", path.display()))
}

fn by_fd(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_shim_planted_is_not_given_away() {
        let dir = tempfile::tempdir().unwrap();
        let range = UidRange { base: 0x5001_0000, count: 65_536 };
        let (secret, log) = (dir.path().join("secret"), dir.path().join("portal.log"));
        let before = |path: &Path| fs::metadata(path).unwrap().uid() != range.base;
        fs::write(&secret, "s").unwrap();
        std::os::unix::fs::symlink(&secret, &log).unwrap();
        hand_over(&log, range).unwrap();
        assert!(fs::symlink_metadata(&log).is_err() && before(&secret), "symbolic link");
        fs::hard_link(&secret, &log).unwrap();
        hand_over(&log, range).unwrap();
        assert!(fs::symlink_metadata(&log).is_err() && before(&secret), "hard link");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &log,
            rustix::fs::FileType::Fifo,
            Mode::from_bits_truncate(0o600),
            0,
        )
        .unwrap();
        hand_over(&log, range).unwrap();
        assert!(fs::symlink_metadata(&log).is_err(), "a pipe, which nobody reads");
        fs::write(&log, "line").unwrap();
        hand_over(&log, range).unwrap();
        assert!(fs::symlink_metadata(&log).is_err(), "a file that never was a shim's");
    }
}
