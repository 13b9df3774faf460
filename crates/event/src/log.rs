//! A producer's file and its rotated ones: NAME.jsonl, NAME.1.jsonl, … NAME.KEEP.jsonl, and NAME.kept.jsonl.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::kept::{Gone, merge};
use crate::place::open_own;
use crate::writer::WriterOptions;

/// Every file that a writer with default options makes for `producer` in `dir`.
pub fn own_files(dir: &Path, producer: &str) -> Vec<PathBuf> {
    let names = Names(dir.join(format!("{producer}.jsonl")));
    let rotated = (1..=WriterOptions::default().keep + 1).map(|n| names.rotated(n));
    rotated.chain([names.0.clone(), names.kept(), names.unfinished()]).collect()
}

#[derive(Clone, Debug)]
struct Names(PathBuf);

impl Names {
    fn rotated(&self, n: u32) -> PathBuf {
        self.0.with_extension(format!("{n}.jsonl"))
    }

    /// What survives of files that were let go.
    fn kept(&self) -> PathBuf {
        self.0.with_extension("kept.jsonl")
    }

    /// The next of that, while it is written: nobody reads it.
    fn unfinished(&self) -> PathBuf {
        self.0.with_extension("kept.new")
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    names: Names,
    file: File,
    size: u64,
    limit: u64,
    keep: u32,
    /// Picks out what survives of a file that was let go, off the writing thread.
    merging: Option<JoinHandle<io::Result<Gone>>>,
    notes: Vec<String>,
}

impl Log {
    pub(crate) fn open(path: PathBuf, options: &WriterOptions) -> io::Result<Self> {
        let mut file = open_own(&path)?;
        let mut size = file.metadata()?.len();
        // A crash may have cut a line in half; the next one must not be glued to it.
        if size > 0 && !ends_with_newline(&mut file)? {
            file.write_all(b"\n")?;
            size += 1;
        }
        let (limit, keep) = (options.file, options.keep);
        let mut log = Self { names: Names(path), file, size, limit, keep, merging: None, notes: Vec::new() };
        // A crash may have come between.
        if log.leaving().exists() {
            log.pick_out();
        }
        Ok(log)
    }

    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.limit {
            self.rotate()?;
        }
        if let Err(e) = self.file.write_all(lines) {
            // Take back a half-written line, so that the file stays lines of JSON.
            let _ = self.file.set_len(self.size);
            return Err(e);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    /// What the operator should know of rotations since the last call.
    pub(crate) fn notes(&mut self) -> Vec<String> {
        if self.merging.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle();
        }
        std::mem::take(&mut self.notes)
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.names.rotated(self.keep).exists() {
            self.let_go();
        }
        for n in (1..self.keep).rev() {
            match std::fs::rename(self.names.rotated(n), self.names.rotated(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(&self.names.0, self.names.rotated(1))?;
        self.file = open_own(&self.names.0)?;
        self.size = 0;
        Ok(())
    }

    /// Puts the oldest file aside and has its survivors picked out. Where that fails it is overwritten, and a note says so.
    fn let_go(&mut self) {
        self.settle();
        match std::fs::rename(self.names.rotated(self.keep), self.leaving()) {
            Ok(()) => self.pick_out(),
            Err(e) => self.notes.push(failed(&e)),
        }
    }

    fn pick_out(&mut self) {
        let (names, leaving, limit) = (self.names.clone(), self.leaving(), self.limit);
        let work = move || merge(&names.kept(), &leaving, &names.unfinished(), limit);
        match std::thread::Builder::new().name("kept-events".into()).spawn(work) {
            Ok(merging) => self.merging = Some(merging),
            Err(e) => self.notes.push(failed(&e)),
        }
    }

    fn leaving(&self) -> PathBuf {
        self.names.rotated(self.keep + 1)
    }

    /// Waits for the survivors of the file before.
    fn settle(&mut self) {
        let Some(merging) = self.merging.take() else { return };
        match merging.join() {
            Ok(Ok(gone)) => self.notes.extend(gone.to_string_if_any()),
            Ok(Err(e)) => self.notes.push(failed(&e)),
            Err(_) => self.notes.push(failed(&"a thread panicked")),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.settle();
    }
}

fn failed(why: &dyn std::fmt::Display) -> String {
    format!("the oldest events were let go, of whomever they are: {why}")
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
