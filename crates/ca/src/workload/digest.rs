//! Digests of programs, remembered: hashing a large program for each connection would be a way to keep us busy.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use ringfence_keys::{digest::Sha256, to_hex};
use tokio::sync::Semaphore;

/// Largest program that is hashed.
const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Programs that are remembered.
const REMEMBERED: usize = 1024;
/// Programs that are hashed at the same time.
const AT_ONCE: usize = 1;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Digests by file. Clones share them.
#[derive(Clone, Debug)]
pub struct ProgramDigests {
    known: Arc<Mutex<HashMap<FileKey, Arc<str>>>>,
    turns: Arc<Semaphore>,
}

impl Default for ProgramDigests {
    fn default() -> Self {
        Self { known: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl ProgramDigests {
    pub(crate) fn key(file: &File) -> io::Result<FileKey> {
        let m = file.metadata()?;
        Ok(FileKey {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })
    }

    /// SHA-256 (hexadecimal) of the file; `None` when it is too large or changed while it was read.
    pub(crate) async fn digest(&self, key: FileKey, file: File) -> Option<Arc<str>> {
        if let Some(known) = self.get(&key) {
            return Some(known);
        }
        if key.size > MAX_BYTES {
            return None;
        }
        let _turn = self.turns.acquire().await.ok()?;
        // Whoever had the turn before may have hashed the same file.
        if let Some(known) = self.get(&key) {
            return Some(known);
        }
        let digest = tokio::task::spawn_blocking(move || hash(key, file)).await.ok()?.ok()??;
        let digest: Arc<str> = digest.into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, digest.clone());
        Some(digest)
    }

    fn get(&self, key: &FileKey) -> Option<Arc<str>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

fn hash(key: FileKey, mut file: File) -> io::Result<Option<String>> {
    let (mut digest, mut buffer, mut total) = (Sha256::new(), vec![0; 256 * 1024], 0_u64);
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        total += n as u64;
        if total > key.size {
            return Ok(None);
        }
        digest.update(&buffer[..n]);
    }
    let same = total == key.size && ProgramDigests::key(&file)? == key;
    Ok(same.then(|| to_hex(&digest.finish())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_hashed_once_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let digests = ProgramDigests::default();
        let digest = async || {
            let file = File::open(&path).unwrap();
            digests.digest(ProgramDigests::key(&file).unwrap(), file).await.unwrap()
        };
        std::fs::write(&path, "abc").unwrap();
        let first = digest().await;
        assert_eq!(&*first, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Arc::ptr_eq(&first, &digest().await));
        std::fs::write(&path, "abd").unwrap();
        assert_ne!(first, digest().await);
    }
}
