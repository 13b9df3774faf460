//! What is inside the sealed stream: a list of files with their digests, and their bytes in that order.
//!
//! `length of the list (4, big-endian) | list, JSON | bytes of each file`. Nothing of it counts before all of it was read: the last
//! chunk of the stream says that nothing is missing, and the digests say that nothing was mixed up.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ringfence_keys::backup::{Opener, Sealer};
use ringfence_keys::digest::Sha256;
use ringfence_keys::{MasterSource, to_hex};
use serde::{Deserialize, Serialize};

use super::files::{Staged, may_be};
use crate::view::Failure;

/// Which form is written.
const FORMAT: u32 = 1;
/// Longest list, largest file, and most bytes in all.
const MAX_LIST: u32 = 1 << 20;
const MAX_FILE: u64 = 64 << 30;
const MAX_ALL: u64 = 256 << 30;
/// When it takes longer than this, it is said how far it is.
const LONG: Duration = Duration::from_secs(2);

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// Version of the program that wrote it.
    pub(super) version: String,
    /// Unix time in seconds.
    pub(super) made_at: u64,
    pub(super) files: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Hexadecimal.
    sha256: String,
}

impl Manifest {
    /// Of the files that were copied.
    pub(super) fn of(staged: &Staged, made_at: u64) -> io::Result<Self> {
        let mut files = Vec::new();
        for folder in ["", "control", "keeper", "member"] {
            for entry in std::fs::read_dir(staged.path().join(folder))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if entry.file_type()?.is_file() && may_be(&name) {
                    let (bytes, sha256) = digest(&mut File::open(entry.path())?, |_| Ok(()))?;
                    files.push(Entry { name, bytes, sha256 });
                }
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), made_at, files })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.name == name)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether it is one that this program would write.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it has form {}, and this ringfence knows {FORMAT}", self.format));
        }
        if !self.files.windows(2).all(|pair| pair[0].name < pair[1].name) {
            return Err("its files are not in order, or one is there twice".to_owned());
        }
        if let Some(file) = self.files.iter().find(|file| !may_be(&file.name)) {
            return Err(format!("it holds {:?}, which is no file of a fence", file.name));
        }
        let mut all = 0_u64;
        for file in &self.files {
            all = all.saturating_add(file.bytes);
            if file.bytes > MAX_FILE || all > MAX_ALL {
                return Err("it is larger than any backup".to_owned());
            }
        }
        Ok(())
    }
}

/// Writes the files in `folder` that the manifest names, sealed, durably or not at all.
pub(super) fn write(
    path: &Path,
    source: &MasterSource,
    manifest: &Manifest,
    folder: &Path,
) -> Result<(), Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = std::path::PathBuf::from(name);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written = (|| {
        let mut sealer = Sealer::start(io::BufWriter::new(file), source)?;
        let list = serde_json::to_vec(manifest)?;
        let length = u32::try_from(list.len()).ok().filter(|length| *length <= MAX_LIST);
        let length = length.ok_or_else(|| Failure::Cannot("there are too many files".to_owned()))?;
        sealer.write_all(&length.to_be_bytes())?;
        sealer.write_all(&list)?;
        let mut progress = Progress::new("sealed", manifest.bytes());
        for entry in &manifest.files {
            let read = digest(&mut File::open(folder.join(&entry.name))?, |bytes| {
                progress.more(bytes.len());
                sealer.write_all(bytes)
            })?;
            if read != (entry.bytes, entry.sha256.clone()) {
                return Err(Failure::Cannot(format!("{} changed while it was copied", entry.name)));
            }
        }
        let file = sealer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        Ok(())
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Opens a backup into an empty folder, and says what is in it, once all of it was read and found to be whole.
pub(super) fn read(path: &Path, source: &MasterSource, folder: &Path) -> Result<Manifest, Failure> {
    let wrong = |why: String| Failure::Cannot(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
    let mut opener = Opener::start(io::BufReader::new(file), source).map_err(|e| wrong(e.to_string()))?;
    let mut read = || -> Result<Manifest, String> {
        let text = |e: io::Error| e.to_string();
        let mut length = [0; 4];
        opener.read_exact(&mut length).map_err(text)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_LIST {
            return Err("its list is longer than any".to_owned());
        }
        let mut list = vec![0; length as usize];
        opener.read_exact(&mut list).map_err(text)?;
        let manifest: Manifest = serde_json::from_slice(&list).map_err(|e| e.to_string())?;
        manifest.check()?;
        let mut progress = Progress::new("opened", manifest.bytes());
        for entry in &manifest.files {
            let at = folder.join(&entry.name);
            let mut out =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at).map_err(text)?;
            let (bytes, sha256) = digest(&mut (&mut opener).take(entry.bytes), |bytes| {
                progress.more(bytes.len());
                out.write_all(bytes)
            })
            .map_err(text)?;
            if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
                return Err(format!("{} is not what it was", entry.name));
            }
            out.sync_all().map_err(text)?;
        }
        // Only the end of the stream says that nothing was cut off.
        match opener.read(&mut [0]).map_err(text)? {
            0 => Ok(manifest),
            _ => Err("there is more in it than its list says".to_owned()),
        }
    };
    read().map_err(wrong)
}

/// Length and SHA-256 of what is read, each piece given on.
fn digest(from: &mut impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(u64, String)> {
    let (mut digest, mut bytes, mut piece) = (Sha256::new(), 0_u64, vec![0; 64 * 1024]);
    loop {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok((bytes, to_hex(&digest.finish()))),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        digest.update(&piece[..read]);
        bytes += read as u64;
        each(&piece[..read])?;
    }
}

/// Says how far it is, where that takes long.
struct Progress {
    what: &'static str,
    all: u64,
    done: u64,
    said: Instant,
}

impl Progress {
    fn new(what: &'static str, all: u64) -> Self {
        Self { what, all, done: 0, said: Instant::now() }
    }

    fn more(&mut self, bytes: usize) {
        self.done += bytes as u64;
        if self.said.elapsed() >= LONG {
            self.said = Instant::now();
            eprintln!("{} {} of {} MiB", self.what, self.done >> 20, self.all >> 20);
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_keys::Secret;

    use super::*;
    use crate::backup::files::private;

    fn folder(root: &Path, name: &str) -> std::path::PathBuf {
        let folder = root.join(name);
        for part in ["control", "keeper", "member"] {
            private(&folder.join(part)).unwrap();
        }
        folder
    }

    #[test]
    fn what_was_sealed_comes_back_whole_and_nothing_else_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let staged = Staged::beside(&root.path().join("data"), "test").unwrap();
        for part in ["control", "keeper", "member"] {
            private(&staged.path().join(part)).unwrap();
        }
        std::fs::write(staged.path().join("keeper/authority.json"), "keys").unwrap();
        std::fs::write(staged.path().join("control/state.db"), vec![7; 200_000]).unwrap();
        std::fs::write(staged.path().join("keeper/stray"), "no file of a fence").unwrap();
        let manifest = Manifest::of(&staged, 5).unwrap();
        assert_eq!(
            manifest.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            ["control/state.db", "keeper/authority.json"]
        );
        let key = root.path().join("key");
        std::fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let source = MasterSource::KeyFile { path: key };
        let file = root.path().join("backup");
        write(&file, &source, &manifest, staged.path()).unwrap();
        let good = std::fs::read(&file).unwrap();
        let into = folder(root.path(), "good");
        assert_eq!(read(&file, &source, &into).unwrap_or_else(|_| panic!("it opens")), manifest);
        assert_eq!(std::fs::read(into.join("control/state.db")).unwrap(), vec![7; 200_000]);
        let other = MasterSource::Passphrase { passphrase: Secret::new("another key altogether".into()) };
        assert!(read(&file, &other, &folder(root.path(), "other")).is_err());
        // A flipped byte or a missing end at many places: never a backup.
        for (n, at) in (0..good.len()).step_by(good.len() / 40).enumerate() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&file, bad).unwrap();
            assert!(read(&file, &source, &folder(root.path(), &format!("flipped{n}"))).is_err(), "{at}");
            std::fs::write(&file, &good[..at]).unwrap();
            assert!(read(&file, &source, &folder(root.path(), &format!("cut{n}"))).is_err(), "{at}");
        }
    }

    #[test]
    fn a_list_that_no_backup_has_is_refused() {
        let entry = |name: &str, bytes| Entry { name: name.into(), bytes, sha256: String::new() };
        let list = |files| Manifest { format: 1, version: String::new(), made_at: 0, files };
        assert!(list(vec![entry("keeper/authority.json", 1)]).check().is_ok());
        for (files, why) in [
            (vec![entry("../up", 1)], "no file of a fence"),
            (vec![entry("master.key", 1), entry("master.key", 1)], "twice"),
            (vec![entry("master.key", u64::MAX)], "larger"),
        ] {
            assert!(list(files).check().unwrap_err().contains(why), "{why}");
        }
        assert!(Manifest { format: 2, ..list(Vec::new()) }.check().unwrap_err().contains("form 2"));
    }
}
