//! The shim's places in the data directory, opened before it becomes somebody who cannot reach them by path.
//!
//! As root the shim takes a uid of its own, while the data directory stays root's (0700). So it keeps descriptors of the three
//! folders it writes in, which are sticky then: a shim can rename and remove its own files there and nobody else's.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::mounts::View;
use crate::spec::{FileRule, Spec};
use crate::{SandboxError, error::Context as _};

/// Three folders and a name.
#[derive(Debug)]
pub(crate) struct Places {
    sockets: OwnedFd,
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
        let folder = |name: &str| {
            let path = spec.data.join(name);
            private_dir(&path)?;
            if root {
                // Harmless: only root can traverse the data directory.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o1777))
                    .step(|| format!("share {} between the shims", path.display()))?;
            }
            rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .step(|| format!("open {}", path.display()))
        };
        let places = Self {
            sockets: folder("run/shim")?,
            logs: folder("logs")?,
            events: folder("events")?,
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
        if root {
            places.hand_over(spec)?;
        }
        Ok(places)
    }

    /// The socket for supervisors.
    pub(crate) fn listener(&self) -> Result<UnixListener, SandboxError> {
        // Nobody can connect between bind and chmod: the folder is private, and umask says 0600 at once.
        let before = rustix::process::umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(self.socket());
        rustix::process::umask(before);
        listener.step(|| "make the shim's socket".into())
    }

    /// The folder of event logs.
    pub(crate) fn events(&self) -> PathBuf {
        by_fd(&self.events)
    }

    /// What the service prints goes here.
    pub(crate) fn log(&self) -> PathBuf {
        by_fd(&self.logs).join(format!("{}.log", self.service))
    }

    /// Removes what must not be left behind.
    pub(crate) fn clean(&self) {
        // Already gone, or the next start removes it.
        let _ = fs::remove_file(self.socket());
    }

    fn socket(&self) -> PathBuf {
        by_fd(&self.sockets).join(format!("{}.sock", self.service))
    }

    /// Files of an earlier run may belong to another uid, if ranges were dealt out anew.
    fn hand_over(&self, spec: &Spec) -> Result<(), SandboxError> {
        let Some(range) = spec.uids else { return Ok(()) };
        let files = [self.log(), self.events().join(format!("shim-{}.jsonl", self.service))];
        for path in files {
            if OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(&path).is_ok() {
                std::os::unix::fs::lchown(&path, Some(range.base), Some(range.base))
                    .step(|| format!("hand {} over", path.display()))?;
            }
        }
        Ok(())
    }
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
    // What does not exist need not be hidden.
    let hide = spec.hide.iter().chain([&spec.data]).filter_map(|path| fs::canonicalize(path).ok()).collect();
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
    Ok(View { folder, command, files, hide })
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
