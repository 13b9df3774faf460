//! Which files make a fence, and a copy of them that holds still.

use std::io;
use std::path::{Path, PathBuf};

use ringfence_control::home::file;
use ringfence_store::Store;

use crate::view::Failure;

/// Names that a backup may hold, besides logs of the keeper that were renamed away.
const NAMES: [&str; 11] = [
    "master.key",
    "control/state.db",
    "control/store.json",
    "keeper/authority.json",
    "keeper/keyring.json",
    "keeper/snapshot.json",
    "keeper/signing.log",
    "keeper/minting.log",
    "member/member.json",
    "member/keyring.json",
    "member/snapshot.json",
];
/// Logs that were renamed away, each under its number.
const LOGS: [&str; 2] = ["keeper/signing.log.", "keeper/minting.log."];
const OLD_LOGS: u32 = 8;
/// Attempts to copy files that are renamed meanwhile.
const ATTEMPTS: u32 = 5;

/// Whether a backup may hold a file of this name. No other is ever written.
pub(super) fn may_be(name: &str) -> bool {
    let old = |log: &str| (1..=OLD_LOGS).any(|n| format!("{log}{n}") == name);
    NAMES.contains(&name) || LOGS.iter().any(|log| old(log))
}

/// Copies in a folder that is removed with this.
#[derive(Debug)]
pub(super) struct Staged(PathBuf);

impl Staged {
    /// An empty folder beside `data`, on the same disk.
    pub(super) fn beside(data: &Path, what: &str) -> io::Result<Self> {
        let name = data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = data.with_file_name(format!("{name}.{what}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        private(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Gives the folder another name, for good.
    pub(super) fn become_folder(self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.0, to)
        // What is dropped now is a name that nobody has any more.
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes a folder for nobody else to enter.
pub(super) fn private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Copies what makes the fence in `data`: the state first, as it is at one moment, and then the keeper's files, which may only be newer.
pub(super) async fn stage(data: &Path, master: bool) -> Result<Staged, Failure> {
    let staged = Staged::beside(data, "backup")?;
    for folder in ["control", "keeper", "member"] {
        private(&staged.path().join(folder))?;
    }
    let state = file(&data.join("control"));
    if state.exists() {
        Store::copy_of_file(&state, &staged.path().join("control/state.db")).await?;
    }
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.extend(LOGS.iter().flat_map(|log| (1..=OLD_LOGS).map(move |n| format!("{log}{n}"))));
    names.retain(|name| name != "control/state.db" && (master || name != "master.key"));
    for attempt in 1.. {
        match copy(data, staged.path(), &names) {
            Ok(()) => break,
            Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(staged)
}

fn copy(data: &Path, to: &Path, names: &[String]) -> io::Result<()> {
    let there: Vec<&String> = names.iter().filter(|name| data.join(name).exists()).collect();
    for name in names {
        match std::fs::remove_file(to.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    for name in there {
        std::fs::copy(data.join(name), to.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_fence_are_in_a_backup() {
        for good in ["master.key", "keeper/signing.log.8", "control/state.db", "member/member.json"] {
            assert!(may_be(good), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "keeper/../../x",
            "keeper/signing.log.9",
            "keeper/signing.log.0",
            "keeper/signing.log.01",
            "run/up.lock",
            "keeper",
            "KEEPER/authority.json",
            "control/state.db-wal",
        ] {
            assert!(!may_be(bad), "{bad}");
        }
    }
}
