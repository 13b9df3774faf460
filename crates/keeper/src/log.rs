//! The signing log: a line per signature, chained by hashes, on disk before the signature leaves.
//!
//! Each line carries the SHA-256 of the line before it, so no line can be changed or taken out unnoticed; control keeps the
//! ends of both chains elsewhere ([`crate::protocol::Status`]), so neither can the last ones. A line that a crash cut
//! in half was never acknowledged and is dropped at the next start. Size is bounded: full files are renamed away and
//! the oldest of them is deleted.
//!
//! Transaction tokens have a log of their own, `minting.log`, so that however many of them a proxy asks for, they do not push out what was said of
//! certificates. It is written before they leave, but the keeper does not wait for the disk: thousands a second live for two minutes at
//! most. If the keeper crashes nothing is lost, since the kernel has the lines; if the machine does, the lines of its last seconds are,
//! and the tokens in them are over before it is up again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringfence_keys::{digest::sha256, file, from_hex, to_hex};
use serde::{Deserialize, Serialize};

/// Bytes of a file before it is renamed away.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Files that are kept besides the current one.
const KEPT: u32 = 8;
/// Longest line.
const LINE_BYTES: u64 = 64 * 1024;

/// Why the log cannot be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A line does not fit the one before.
    #[error(
        "the signing log {path} was altered at line {line}: find out by whom, then move it aside to go on",
        path = .0.display(),
        line = .1
    )]
    Altered(PathBuf, u64),
    /// The disk.
    #[error("signing log {path}: {why}", path = .0.display(), why = .1)]
    Io(PathBuf, io::Error),
}

/// What was signed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry<'a> {
    pub(crate) what: &'static str,
    pub(crate) subject: &'a str,
    /// Serial number, `kid`, or hash, by kind.
    pub(crate) serial: &'a str,
    /// SHA-256 of the public key, where there is one.
    pub(crate) key: String,
    pub(crate) until: u64,
    /// Epoch and revision of the snapshot that allowed it.
    pub(crate) revision: (u64, u64),
}

/// Transaction tokens that were signed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Minted<'a> {
    pub(crate) what: &'static str,
    pub(crate) count: usize,
    /// SHA-256 of each.
    pub(crate) tokens: &'a [String],
    pub(crate) revision: (u64, u64),
}

#[derive(Serialize)]
struct Line<'a, E> {
    n: u64,
    at: u64,
    #[serde(flatten)]
    entry: &'a E,
    prev: &'a str,
}

#[derive(Deserialize)]
struct Link {
    n: u64,
    prev: String,
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// How many lines were ever written.
    pub entries: u64,
    /// SHA-256 of the last one.
    pub hash: [u8; 32],
}

pub(crate) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    tail: Tail,
    /// Whether to wait for the disk.
    synced: bool,
}

impl Log {
    /// Opens the log, checks the chain of its current file, and drops a line that was cut in half.
    pub(crate) fn open(path: &Path) -> Result<Self, LogError> {
        let at = |e| LogError::Io(path.to_owned(), e);
        let existed = path.exists();
        let file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(at)?;
        if !existed {
            file::sync_directory(path.parent().unwrap_or_else(|| Path::new("."))).map_err(at)?;
        }
        let start = match newest_kept(path) {
            Some(previous) => verify_log(&previous)?.0,
            None => None,
        };
        let (tail, bytes) = verify_log(path)?;
        if file.metadata().map_err(at)?.len() != bytes {
            file.set_len(bytes).and_then(|()| file.sync_all()).map_err(at)?;
        }
        let tail = tail.or(start).unwrap_or(Tail { entries: 0, hash: [0; 32] });
        Ok(Self { path: path.to_owned(), file, bytes, tail, synced: true })
    }

    /// Does not wait for the disk from now on.
    pub(crate) fn unsynced(self) -> Self {
        Self { synced: false, ..self }
    }

    /// Appends `entries` and, unless told otherwise, waits until they are on disk. After an error nothing of them is in the log.
    pub(crate) fn append(&mut self, entries: &[impl Serialize], now: u64) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.bytes >= FILE_BYTES {
            self.turn()?;
        }
        let mut tail = self.tail.clone();
        let mut text = Vec::with_capacity(entries.len() * 400);
        for entry in entries {
            let start = text.len();
            let line = Line { n: tail.entries, at: now, entry, prev: &to_hex(&tail.hash) };
            serde_json::to_writer(&mut text, &line)?;
            tail = Tail { entries: tail.entries + 1, hash: sha256(&text[start..]) };
            text.push(b'\n');
        }
        let written = self.file.write_all(&text);
        if let Err(e) = written.and_then(|()| if self.synced { self.file.sync_data() } else { Ok(()) }) {
            // A full disk may have taken half a line.
            self.file.set_len(self.bytes)?;
            return Err(e);
        }
        self.bytes += text.len() as u64;
        self.tail = tail;
        Ok(())
    }

    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Renames the full file away and starts the next, which continues the chain.
    fn turn(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        for i in (1..KEPT).rev() {
            match std::fs::rename(kept(&self.path, i), kept(&self.path, i + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(&self.path, kept(&self.path, 1))?;
        self.file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        self.bytes = 0;
        file::sync_directory(self.path.parent().unwrap_or_else(|| Path::new(".")))
    }
}

fn kept(path: &Path, i: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{i}"));
    name.into()
}

fn newest_kept(path: &Path) -> Option<PathBuf> {
    Some(kept(path, 1)).filter(|path| path.exists())
}

/// Checks the chain of one file of the signing log. Answers its end (`None` when it is empty) and the length of its
/// whole lines.
///
/// # Errors
/// [`LogError`].
pub fn verify_log(path: &Path) -> Result<(Option<Tail>, u64), LogError> {
    let at = |e| LogError::Io(path.to_owned(), e);
    let mut reader = BufReader::new(File::open(path).map_err(at)?);
    let (mut tail, mut bytes, mut line, mut number): (Option<Tail>, _, Vec<u8>, _) = (None, 0, Vec::new(), 0);
    loop {
        line.clear();
        io::Read::take(&mut reader, LINE_BYTES).read_until(b'\n', &mut line).map_err(at)?;
        let Some(content) = line.strip_suffix(b"\n") else {
            // Where the disk was not waited for, a crash of the machine can leave room for lines that never came.
            let empty = line.iter().all(|byte| *byte == 0);
            if line.len() as u64 == LINE_BYTES && !(empty && rest_is_empty(&mut reader).map_err(at)?) {
                return Err(LogError::Altered(path.to_owned(), number + 1));
            }
            return Ok((tail, bytes));
        };
        number += 1;
        let link: Option<Link> = serde_json::from_slice(content).ok();
        let fits = link.as_ref().is_some_and(|link| {
            let prev = from_hex(&link.prev);
            // The first line of a file continues one that may be gone.
            tail.as_ref().is_none_or(|tail| tail.entries == link.n && prev.as_deref() == Some(&tail.hash[..]))
        });
        let Some(link) = link.filter(|_| fits) else {
            return Err(LogError::Altered(path.to_owned(), number));
        };
        tail = Some(Tail { entries: link.n + 1, hash: sha256(content) });
        bytes += line.len() as u64;
    }
}

fn rest_is_empty(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            return Ok(true);
        }
        if part.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        let read = part.len();
        reader.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(subject: &str) -> Entry<'_> {
        Entry { what: "x509", subject, serial: "01", key: String::new(), until: 9, revision: (1, 2) }
    }

    #[test]
    fn the_chain_goes_on_after_a_restart_and_a_torn_line_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.log");
        let mut log = Log::open(&path).unwrap();
        log.append(&[entry("a"), entry("b")], 1).unwrap();
        let tail = log.tail().clone();
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"n\":2,\"at"].concat()).unwrap();
        let mut log = Log::open(&path).unwrap();
        assert_eq!(log.tail(), &tail);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        log.append(&[entry("c")], 2).unwrap();
        assert_eq!(verify_log(&path).unwrap().0.unwrap().entries, 3);
    }

    #[test]
    fn room_that_a_crash_left_behind_the_last_line_is_dropped_and_anything_else_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("minting.log");
        let mut log = Log::open(&path).unwrap().unsynced();
        let tokens = vec!["ab".to_owned(); 3];
        let minted = Minted { what: "txn", count: 3, tokens: &tokens, revision: (1, 2) };
        log.append(&[minted], 1).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for room in [10, LINE_BYTES as usize, 3 * LINE_BYTES as usize] {
            std::fs::write(&path, [&whole[..], &vec![0; room]].concat()).unwrap();
            assert_eq!(Log::open(&path).unwrap().tail().entries, 1);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            std::fs::write(&path, [&whole[..], &vec![0; room], b"x\n"].concat()).unwrap();
            assert!(matches!(Log::open(&path), Err(LogError::Altered(_, 2))), "{room}");
        }
    }

    #[test]
    fn a_changed_or_missing_line_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.log");
        Log::open(&path).unwrap().append(&[entry("a"), entry("b"), entry("c")], 1).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"b\"", "\"x\"")).unwrap();
        assert!(matches!(Log::open(&path), Err(LogError::Altered(_, 3))));
        let without: Vec<&str> =
            text.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, line)| line).collect();
        std::fs::write(&path, without.join("\n") + "\n").unwrap();
        assert!(matches!(Log::open(&path), Err(LogError::Altered(_, 2))));
    }

    #[test]
    fn a_full_file_is_put_away_and_the_chain_continues_in_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.log");
        let mut log = Log::open(&path).unwrap();
        log.append(&[entry("a")], 1).unwrap();
        log.turn().unwrap();
        drop(log);
        // Also when the process ends before the next file has a line.
        let mut log = Log::open(&path).unwrap();
        log.append(&[entry("b")], 1).unwrap();
        let old = verify_log(&kept(&path, 1)).unwrap().0.unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains(&to_hex(&old.hash)));
    }
}
