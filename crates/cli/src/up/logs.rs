//! What the services print, side by side: each line with its service's name in its colour.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Bytes of one service that are shown per look; a service that prints more is shown later, not at the others' cost.
const MAX_STEP: u64 = 256 * 1024;
/// Longest line that waits for its end.
const MAX_LINE: usize = 16 * 1024;
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];

/// Follows the services' log files.
#[derive(Debug)]
pub(crate) struct Logs {
    colour: bool,
    width: usize,
    files: HashMap<String, Tail>,
}

#[derive(Debug)]
struct Tail {
    path: PathBuf,
    file: Option<(u64, File)>,
    offset: u64,
    partial: Vec<u8>,
    colour: u8,
}

impl Logs {
    pub(crate) fn new(colour: bool) -> Self {
        Self { colour, width: 9, files: HashMap::new() }
    }

    /// Follows one more service, from the present end of its log.
    pub(crate) fn follow(&mut self, service: &str, path: PathBuf) {
        let offset = std::fs::symlink_metadata(&path).map_or(0, |m| m.len());
        let colour = COLOURS[self.files.len() % COLOURS.len()];
        self.width = self.width.max(service.len());
        self.files.entry(service.to_owned()).or_insert(Tail {
            path,
            file: None,
            offset,
            partial: Vec::new(),
            colour,
        });
    }

    /// Prints what is new.
    pub(crate) fn show(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut names: Vec<_> = self.files.keys().cloned().collect();
        names.sort();
        for name in names {
            let Some(tail) = self.files.get_mut(&name) else { continue };
            for line in tail.read().unwrap_or_default() {
                print(out, self.colour, self.width, &name, tail.colour, &line)?;
            }
        }
        out.flush()
    }

    /// A line of Ringfence's own.
    pub(crate) fn say(&self, out: &mut dyn Write, line: &str) -> io::Result<()> {
        for line in line.lines() {
            // Reasons come from processes that may have been taken over.
            print(out, self.colour, self.width, "ringfence", 1, &crate::view::clean(line))?;
        }
        out.flush()
    }
}

fn print(
    out: &mut dyn Write,
    colour: bool,
    width: usize,
    name: &str,
    code: u8,
    line: &str,
) -> io::Result<()> {
    if colour {
        writeln!(out, "\x1b[{code}m{name:width$} │\x1b[0m {line}")
    } else {
        writeln!(out, "{name:width$} | {line}")
    }
}

impl Tail {
    fn read(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        // Not `metadata`: shims write in this folder, and one that was taken over could put a link or a pipe in the log's place.
        let current = std::fs::symlink_metadata(&self.path).map(|m| m.ino()).ok();
        if let (None, Some(inode)) = (&self.file, current) {
            let mut file = open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            self.file = Some((inode, file));
        }
        let Some((inode, file)) = &mut self.file else { return Ok(lines) };
        let n = file.take(MAX_STEP).read_to_end(&mut self.partial)?;
        if n == 0 && current.is_some_and(|now| now != *inode) {
            // Rotated, and the old file is read to its end.
            (self.file, self.offset) = (None, 0);
        }
        while let Some(end) = self.partial.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            lines.push(clean(&line));
        }
        if self.partial.len() > MAX_LINE {
            lines.push(clean(&std::mem::take(&mut self.partial)));
        }
        Ok(lines)
    }
}

/// Opens a log that is a plain file with no other name; anything else would have us show, or wait for, what is not a log.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() == 1 {
        return Ok(file);
    }
    Err(io::Error::other("the log is not a plain file"))
}

/// A service must not be able to steer the operator's terminal: control characters go, except tabs.
fn clean(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().filter(|&c| c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_or_a_pipe_in_a_log_s_place_is_neither_shown_nor_waited_for() {
        let dir = std::env::temp_dir().join(format!("ringfence-planted-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (secret, path) = (dir.join("secret"), dir.join("portal.log"));
        std::fs::write(&secret, "root's own\n").unwrap();
        let pipe = |path: &Path| {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_bits_truncate(0o600), 0).unwrap();
        };
        let plants: [&dyn Fn(&Path); 3] = [
            &|path| std::os::unix::fs::symlink(&secret, path).unwrap(),
            &|path| std::fs::hard_link(&secret, path).unwrap(),
            &pipe,
        ];
        for plant in plants {
            let mut logs = Logs::new(false);
            logs.follow("portal", path.clone());
            plant(&path);
            let mut out = Vec::new();
            logs.show(&mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), "");
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn lines_of_a_service_are_shown_whole_across_a_rotation_and_cannot_steer_the_terminal() {
        let dir = std::env::temp_dir().join(format!("ringfence-logs-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("portal.log");
        std::fs::write(&path, "before\n").unwrap();
        let mut logs = Logs::new(false);
        logs.follow("portal", path.clone());
        let shown = |logs: &mut Logs| {
            let mut out = Vec::new();
            logs.show(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        std::fs::write(&path, "before\none\x1b[2J\nha").unwrap();
        assert_eq!(shown(&mut logs), "portal    | one[2J\n");
        std::fs::write(&path, "before\none\x1b[2J\nhalf\n").unwrap();
        assert_eq!(shown(&mut logs), "portal    | half\n");
        std::fs::rename(&path, dir.join("portal.1.log")).unwrap();
        std::fs::write(&path, "new\n").unwrap();
        shown(&mut logs);
        assert_eq!(shown(&mut logs), "portal    | new\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
