//! The data directory: where each thing lies, who may enter, and that only one `up` works in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Paths below `.ringfence/` or `--data DIR`.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// Held as long as an `up` works in a data directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("cannot make the data directory {}: {source}; choose another with --data DIR", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("the data directory {} belongs to user {owner}; run as that user, or choose another with --data DIR", path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("another `ringfence up` works in {}; stop it first, or choose another directory with --data DIR", path.display())]
    Busy { path: PathBuf },
}

impl DataDir {
    /// The data directory for a fence at `fence` (a file or a folder), unless `chosen`.
    pub(crate) fn locate(fence: &Path, chosen: Option<&Path>) -> io::Result<Self> {
        let root = match chosen {
            Some(path) => std::path::absolute(path)?,
            None => std::path::absolute(fence_folder(fence))?.join(".ringfence"),
        };
        Ok(Self { root })
    }

    /// Makes what is missing, with mode 0700.
    pub(crate) fn prepare(&self) -> Result<(), DataError> {
        for folder in [
            "",
            "run",
            "run/shim",
            "events",
            "events/control",
            "events/node",
            "logs",
            "proxy",
            "keeper",
            "control",
        ] {
            let path = self.root.join(folder);
            let make = |source| DataError::Make { path: path.clone(), source };
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(make)?;
            let metadata = std::fs::symlink_metadata(&path).map_err(make)?;
            if metadata.uid() != rustix::process::geteuid().as_raw() {
                return Err(DataError::Owner { path, owner: metadata.uid() });
            }
            // Shims of running services, each under a uid of its own, write to the other folders, which lie behind this one.
            if folder.is_empty() && metadata.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(make)?;
            }
        }
        Ok(())
    }

    /// Takes the lock that one `up` holds. The kernel lets go of it when the process ends, however it ends.
    pub(crate) fn lock(&self) -> Result<Lock, DataError> {
        let path = self.root.join("run/up.lock");
        let make = |source| DataError::Make { path: path.clone(), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(make)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataError::Busy { path: self.root.clone() }),
            Err(e) => Err(make(e.into())),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Binds the control socket, in place of one that a dead `up` left; the lock must be held.
    pub(crate) fn bind_control(&self) -> io::Result<UnixListener> {
        let path = self.control_sock();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Replaces the trust bundle for clients of the gateway.
    pub(crate) fn write_trust(&self, pem: &str) -> io::Result<()> {
        let temporary = self.root.join("ca.pem.new");
        std::fs::write(&temporary, pem)?;
        std::fs::rename(temporary, self.root.join("ca.pem"))
    }

    pub(crate) fn control_sock(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.root.join("events")
    }

    pub(crate) fn log(&self, service: &str) -> PathBuf {
        self.root.join("logs").join(format!("{service}.log"))
    }

    pub(crate) fn shim_dir(&self) -> PathBuf {
        self.root.join("run/shim")
    }

    pub(crate) fn shim_sock(&self, service: &str) -> PathBuf {
        self.shim_dir().join(format!("{service}.sock"))
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.root.join("master.key")
    }
}

/// The folder that a fence's relative paths start from.
pub(crate) fn fence_folder(fence: &Path) -> PathBuf {
    let folder = if fence.is_dir() { Some(fence) } else { fence.parent() };
    folder.filter(|f| !f.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ups_never_share_a_data_directory_and_others_never_look_inside() {
        let root = std::env::temp_dir().join(format!("ringfence-data-{}", std::process::id()));
        let data = DataDir::locate(Path::new("ringfence.yaml"), Some(&root)).unwrap();
        data.prepare().unwrap();
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        let lock = data.lock().unwrap();
        assert!(matches!(data.lock(), Err(DataError::Busy { .. })));
        drop(lock);
        data.lock().unwrap();
        std::fs::remove_dir_all(&root).unwrap();
    }
}
