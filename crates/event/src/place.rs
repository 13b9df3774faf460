//! Which files of the events folder are believed, and how they are opened.
//!
//! As root, shims with a uid each write in that folder beside the other processes. It is sticky, so none can touch another's
//! file; but one that was taken over could make a file, a link or a pipe under a name that is not its own. What counts is
//! therefore the file behind a descriptor: plain, with one name, and of the right owner.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// How often a name that somebody else occupies is cleared.
const TRIES: usize = 8;
/// What producers are called that have a uid of their own.
const SHIM: &str = "shim-";

/// Opens a file of our own for appending, in a folder that others write in too. What somebody else put there is removed first.
///
/// # Errors
/// The file cannot be made, or what occupies its name cannot be removed.
pub fn open_own(path: &Path) -> io::Result<File> {
    let us = rustix::process::geteuid().as_raw();
    let append = OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(0o600);
    for _ in 0..TRIES {
        match open(path, append | OFlags::CREATE | OFlags::EXCL, mode) {
            Err(rustix::io::Errno::EXIST) => {}
            made => return Ok(made?.into()),
        }
        if let Ok(found) = open(path, append, Mode::empty()).map(File::from) {
            let metadata = found.metadata()?;
            if is_plain(&metadata) && metadata.uid() == us {
                return Ok(found);
            }
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Err(io::Error::other("somebody keeps putting other files in the place of the event log"))
}

/// Opens a file for reading if we wrote it.
pub(crate) fn open_mine(path: &Path) -> io::Result<Option<File>> {
    let Some(file) = open_to_read(path)? else { return Ok(None) };
    let metadata = file.metadata()?;
    let mine = metadata.uid() == rustix::process::geteuid().as_raw();
    Ok((is_plain(&metadata) && mine).then_some(file))
}

/// Opens a file for reading if it is the producer's: never waits for a pipe and follows no link.
pub(crate) fn open_believed(path: &Path, producer: &str) -> io::Result<Option<File>> {
    let Some(file) = open_to_read(path)? else { return Ok(None) };
    let metadata = file.metadata()?;
    Ok((is_plain(&metadata) && is_owners(path, producer, &metadata)?).then_some(file))
}

fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Ok(None),
        file => Ok(Some(file?.into())),
    }
}

fn is_plain(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.nlink() == 1
}

/// A shim's rotated files belong to whom its present one belongs to; all others to the folder's owner.
fn is_owners(path: &Path, producer: &str, metadata: &Metadata) -> io::Result<bool> {
    let Some(folder) = path.parent() else { return Ok(false) };
    if !producer.starts_with(SHIM) {
        return Ok(metadata.uid() == std::fs::metadata(folder)?.uid());
    }
    let present = std::fs::symlink_metadata(folder.join(format!("{producer}.jsonl")));
    Ok(present.is_ok_and(|present| present.uid() == metadata.uid()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn pipe(path: &Path) {
        let (kind, mode) = (rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600));
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }

    /// Ways to occupy a name, given some other file.
    const PLANTS: [fn(&Path, &Path); 3] = [
        |other, name| symlink(other, name).unwrap(),
        |other, name| std::fs::hard_link(other, name).unwrap(),
        |_, name| pipe(name),
    ];

    #[test]
    fn a_producer_writes_into_no_file_but_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, log) = (dir.path().join("victim"), dir.path().join("node.jsonl"));
        std::fs::write(&victim, "v").unwrap();
        for plant in PLANTS {
            plant(&victim, &log);
            let file = open_own(&log).unwrap();
            assert!(is_plain(&file.metadata().unwrap()));
            assert_eq!(std::fs::read(&victim).unwrap(), b"v");
            assert_eq!(std::fs::symlink_metadata(&log).unwrap().ino(), file.metadata().unwrap().ino());
            std::fs::remove_file(&log).unwrap();
        }
        let first = open_own(&log).unwrap().metadata().unwrap().ino();
        assert_eq!(open_own(&log).unwrap().metadata().unwrap().ino(), first, "its own is kept");
    }

    #[test]
    fn links_and_pipes_are_not_read_as_events() {
        let dir = tempfile::tempdir().unwrap();
        let (other, log) = (dir.path().join("other"), dir.path().join("keeper.1.jsonl"));
        std::fs::write(&other, "{}\n").unwrap();
        for plant in PLANTS {
            plant(&other, &log);
            assert!(open_believed(&log, "keeper").unwrap().is_none());
            std::fs::remove_file(&log).unwrap();
        }
        std::fs::write(&log, "{}\n").unwrap();
        assert!(open_believed(&log, "keeper").unwrap().is_some());
        let orphan = dir.path().join("shim-portal.1.jsonl");
        std::fs::write(&orphan, "{}\n").unwrap();
        assert!(open_believed(&orphan, "shim-portal").unwrap().is_none(), "nobody to compare it with");
        std::fs::write(dir.path().join("shim-portal.jsonl"), "{}\n").unwrap();
        assert!(open_believed(&orphan, "shim-portal").unwrap().is_some());
    }
}
