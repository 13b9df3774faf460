//! Noticing that the fence changed: the texts themselves are compared, twice a second.
//!
//! inotify was rejected: editors rename, network file systems and bind mounts stay silent, and reading a few small files
//! costs less than the cases it gets wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Largest file and number of files that are read; the model refuses larger ones with a better message.
const MAX_FILE: u64 = 1 << 20;
const MAX_FILES: usize = 256;

/// Name and text of each file of a fence.
pub(crate) type Texts = Vec<(String, String)>;

/// Watches a file, or a folder of fragments.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    seen: Texts,
    /// A change is reported once it has stood still for one look, so that a half-written file is not.
    pending: Option<Texts>,
}

impl Watch {
    /// Starts from what is there now.
    pub(crate) fn new(path: &Path) -> io::Result<(Self, Texts)> {
        let texts = read(path)?;
        Ok((Self { path: path.to_owned(), seen: texts.clone(), pending: None }, texts))
    }

    /// Looks once; `Some` when there is something new that has settled.
    pub(crate) fn look(&mut self) -> Option<Texts> {
        // A file that is being replaced may be missing for a moment.
        let now = read(&self.path).ok()?;
        if now == self.seen {
            self.pending = None;
            return None;
        }
        if self.pending.as_ref() == Some(&now) {
            self.pending = None;
            self.seen.clone_from(&now);
            return Some(now);
        }
        self.pending = Some(now);
        None
    }

    /// Reads now, settled or not: somebody asked.
    pub(crate) fn force(&mut self) -> io::Result<Texts> {
        self.seen = read(&self.path)?;
        Ok(self.seen.clone())
    }
}

fn read(path: &Path) -> io::Result<Texts> {
    let mut files = BTreeMap::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            let yaml = file.extension().is_some_and(|e| e == "yaml" || e == "yml");
            if yaml && file.is_file() && files.len() < MAX_FILES {
                files.insert(name(&file), text(&file)?);
            }
        }
    } else {
        files.insert(name(path), text(path)?);
    }
    Ok(files.into_iter().collect())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn text(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    // What is not UTF-8 is for the parser to refuse, with a position.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_reported_once_and_only_when_it_has_settled() {
        let path = std::env::temp_dir().join(format!("ringfence-watch-{}.yaml", std::process::id()));
        std::fs::write(&path, "a").unwrap();
        let (mut watch, texts) = Watch::new(&path).unwrap();
        assert_eq!(texts[0].1, "a");
        assert_eq!(watch.look(), None);
        std::fs::write(&path, "half").unwrap();
        assert_eq!(watch.look(), None, "seen for the first time");
        std::fs::write(&path, "whole").unwrap();
        assert_eq!(watch.look(), None, "still moving");
        assert_eq!(watch.look().unwrap()[0].1, "whole");
        assert_eq!(watch.look(), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(watch.look(), None, "a file that is gone leaves the old fence in force");
    }
}
