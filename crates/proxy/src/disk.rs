//! What outlives the process: the last good snapshot and the files that it names, the highest revision ever enforced, what was revoked,
//! and the keys of providers, which may not answer when a node starts.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ringfence_model::content::MAX_CONTENT_FILE;
use ringfence_snapshot::node::ProviderKeys;
use ringfence_snapshot::{Digest, SignedSnapshot};
use ringfence_token::Revocation;

/// Largest file that is read back.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// Where files that a snapshot names lie, each by its digest.
const CONTENT: &str = "content";

/// The node's folder, `proxy/` in the data directory.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let folder = data_dir.join("proxy");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(CONTENT))?;
        Ok(Self { folder })
    }

    /// Highest (epoch, revision) seen; (0, 0) at the first start.
    ///
    /// # Errors
    /// A file that is there and cannot be read: starting from nothing would let old configuration be replayed.
    pub(crate) fn seen(&self) -> io::Result<(u64, u64)> {
        match self.read("seen.json")? {
            Some(text) => serde_json::from_str(&text).map_err(io::Error::other),
            None => Ok((0, 0)),
        }
    }

    /// The last good snapshot, to be verified anew.
    pub(crate) fn snapshot(&self) -> io::Result<Option<SignedSnapshot>> {
        let text = self.read("snapshot.json")?;
        text.map(|text| serde_json::from_str(&text).map_err(io::Error::other)).transpose()
    }

    /// Keeps a snapshot that verified. The revision is written first: a crash in between forgets a snapshot, not a revision.
    pub(crate) fn keep(&self, snapshot: &SignedSnapshot, seen: (u64, u64)) -> io::Result<()> {
        self.write("seen.json", &serde_json::to_vec(&seen)?)?;
        self.write("snapshot.json", &serde_json::to_vec(snapshot)?)
    }

    /// The keys of providers that were kept; whether they are still believed is theirs to say.
    pub(crate) fn keys(&self) -> io::Result<Vec<ProviderKeys>> {
        match self.read("keys.json")? {
            Some(text) => serde_json::from_str(&text).map_err(io::Error::other),
            None => Ok(Vec::new()),
        }
    }

    /// Keeps the keys of all providers.
    pub(crate) fn keep_keys<'k>(&self, keys: impl Iterator<Item = &'k ProviderKeys>) -> io::Result<()> {
        self.write("keys.json", &serde_json::to_vec(&keys.collect::<Vec<_>>())?)
    }

    /// What was revoked, as it was kept; none if nothing was ever kept.
    ///
    /// # Errors
    /// A file that is there and cannot be read: what was revoked is not known then.
    pub(crate) fn revocations(&self) -> io::Result<Option<Vec<Revocation>>> {
        let text = self.read("revocations.json")?;
        text.map(|text| serde_json::from_str(&text).map_err(io::Error::other)).transpose()
    }

    /// Keeps what was revoked.
    pub(crate) fn keep_revocations<'r>(&self, all: impl Iterator<Item = &'r Revocation>) -> io::Result<()> {
        self.write("revocations.json", &serde_json::to_vec(&all.collect::<Vec<_>>())?)
    }

    /// The files that are there whole, by digest; anything else there is removed.
    pub(crate) fn contents(&self) -> io::Result<BTreeSet<Digest>> {
        let mut whole = BTreeSet::new();
        for entry in fs::read_dir(self.folder.join(CONTENT))? {
            let path = entry?.path();
            let digest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            match digest {
                Some(digest) if self.content(&digest).is_ok() => drop(whole.insert(digest)),
                _ => fs::remove_file(path)?,
            }
        }
        Ok(whole)
    }

    /// The file with this digest.
    pub(crate) fn content(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.content_path(digest))?;
        file.take(MAX_CONTENT_FILE as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_CONTENT_FILE || Digest::of(&bytes) != *digest {
            return Err(io::Error::other("it was changed on disk"));
        }
        Ok(bytes)
    }

    /// Keeps a file that a verified snapshot names; it is sure to be there after [`Self::sync_contents`].
    pub(crate) fn keep_content(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        replace(&self.content_path(digest), bytes)
    }

    pub(crate) fn sync_contents(&self) -> io::Result<()> {
        File::open(self.folder.join(CONTENT))?.sync_all()
    }

    pub(crate) fn remove_content(&self, digest: &Digest) -> io::Result<()> {
        fs::remove_file(self.content_path(digest))
    }

    fn content_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(CONTENT).join(digest.to_string())
    }

    fn read(&self, name: &str) -> io::Result<Option<String>> {
        let path = self.folder.join(name);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(m) if m.len() > MAX_BYTES => {
                return Err(io::Error::other(format!("{} is too large", path.display())));
            }
            other => other?,
        };
        fs::read_to_string(path).map(Some)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace(&self.folder.join(name), bytes)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Writes a file beside the one of before, and puts it in its place.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_back_and_a_damaged_revision_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap();
        assert_eq!((disk.seen().unwrap(), disk.snapshot().unwrap()), ((0, 0), None));
        let snapshot = SignedSnapshot { bytes: "{}".into(), signature: vec![1, 2].into() };
        disk.keep(&snapshot, (1, 7)).unwrap();
        assert_eq!((disk.seen().unwrap(), disk.snapshot().unwrap()), ((1, 7), Some(snapshot)));
        assert_eq!(disk.keys().unwrap(), []);
        let keys = ProviderKeys { provider: "a".into(), issuer: "b".into(), jwks: "{}".into(), until: 7 };
        disk.keep_keys([&keys].into_iter()).unwrap();
        assert_eq!(disk.keys().unwrap(), [keys]);
        assert_eq!(disk.revocations().unwrap(), None);
        disk.keep_revocations([].into_iter()).unwrap();
        assert_eq!(disk.revocations().unwrap(), Some(Vec::new()));
        for damaged in ["seen.json", "revocations.json"] {
            fs::write(dir.path().join("proxy").join(damaged), "[1").unwrap();
        }
        assert!(disk.seen().is_err() && disk.revocations().is_err());
    }
}
