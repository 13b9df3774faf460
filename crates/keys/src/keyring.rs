//! The keyring: random data keys, wrapped by the master key, in one small file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::master::{MasterError, MasterKind, MasterSource};
use crate::seal::{self, Purpose, Root, SealError};
use crate::{Secret, SecretBytes, file};

const LIMIT: u64 = 256 * 1024;
const FORMAT: u32 = 1;

/// Data keys in clear, ready to seal and open.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    keys: BTreeMap<u32, Root>,
}

/// Why a keyring did not open. Nothing on disk is changed by any of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The master key is not there or cannot be used.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The master key is a different one.
    #[error("wrong master key for {}: give the key or passphrase it was created with; nothing was changed", .0.display())]
    WrongMaster(PathBuf),
    /// The file is damaged.
    #[error("{path} is damaged ({why}); restore it from a backup", path = .0.display(), why = .1)]
    Damaged(PathBuf, String),
    /// The disk.
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Io(PathBuf, std::io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    master: MasterKind,
    /// Tells a wrong master key from a damaged file.
    check: String,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: u32,
    sealed: String,
}

impl Keyring {
    /// Opens the keyring at `path`; creates it, and the key file if `source` is one, when there is none yet.
    ///
    /// # Errors
    /// A wrong or missing master key, a damaged file: all without changing anything.
    pub fn open(path: &Path, source: &MasterSource) -> Result<Self, KeyringError> {
        let Some(stored) = read(path)? else { return Self::create(path, source) };
        let master = source.load(&stored.master)?;
        Self::unwrap(path, &stored, &master)
    }

    fn create(path: &Path, source: &MasterSource) -> Result<Self, KeyringError> {
        source.create()?;
        let kind = source.fresh_kind();
        let master = source.load(&kind)?;
        let keyring =
            Self { path: path.to_owned(), keys: BTreeMap::from([(1, Secret::new(crate::random()))]) };
        keyring.write(kind, &master)?;
        Ok(keyring)
    }

    fn unwrap(path: &Path, stored: &Stored, master: &Root) -> Result<Self, KeyringError> {
        let damaged = |why: &str| KeyringError::Damaged(path.to_owned(), why.to_owned());
        let expected = crate::from_hex(&stored.check).ok_or_else(|| damaged("check value"))?;
        if !crate::constant_time_eq(&expected, &check_value(master)) {
            return Err(KeyringError::WrongMaster(path.to_owned()));
        }
        let mut keys = BTreeMap::new();
        for key in &stored.keys {
            let blob = crate::from_hex(&key.sealed).ok_or_else(|| damaged("data key"))?;
            let clear = seal::open(master, Purpose::DataKey, "data-key", u64::from(key.id), &blob)
                .map_err(|e| damaged(&e.to_string()))?;
            let clear: [u8; 32] =
                clear.expose().as_slice().try_into().map_err(|_| damaged("data key length"))?;
            keys.insert(key.id, Secret::new(clear));
        }
        if keys.is_empty() {
            return Err(damaged("no data key"));
        }
        Ok(Self { path: path.to_owned(), keys })
    }

    /// Wraps the data keys with another master key. Everything sealed stays as it is.
    ///
    /// # Errors
    /// When the new master key cannot be had or the file not be written; then the old one still holds.
    pub fn rewrap(&self, source: &MasterSource) -> Result<(), KeyringError> {
        source.create()?;
        let kind = source.fresh_kind();
        let master = source.load(&kind)?;
        self.write(kind, &master)
    }

    /// Adds a data key, which seals from now on; `source` must be the present master key.
    ///
    /// # Errors
    /// A wrong master key, or a disk that does not take it; then nothing changed.
    pub fn add_data_key(&mut self, source: &MasterSource) -> Result<u32, KeyringError> {
        let stored =
            read(&self.path)?.ok_or_else(|| KeyringError::Damaged(self.path.clone(), "missing".into()))?;
        let master = source.load(&stored.master)?;
        let mut next = Self::unwrap(&self.path, &stored, &master)?;
        let id = next.current().0 + 1;
        next.keys.insert(id, Secret::new(crate::random()));
        next.write(stored.master, &master)?;
        *self = next;
        Ok(id)
    }

    /// Seals `secret` under the newest data key, bound to `purpose`, `name` and `version`.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, name: &str, version: u64, secret: &SecretBytes) -> Vec<u8> {
        let (id, key) = self.current();
        seal::seal(key, id, purpose, name, version, secret.expose())
    }

    /// Opens what [`Self::seal`] sealed with the same `purpose`, `name` and `version`.
    ///
    /// # Errors
    /// Anything but exactly that.
    pub fn open_sealed(
        &self,
        purpose: Purpose,
        name: &str,
        version: u64,
        blob: &[u8],
    ) -> Result<SecretBytes, SealError> {
        let id = seal::key_id(name, blob)?;
        let key = self.keys.get(&id).ok_or_else(|| SealError::UnknownKey { name: name.to_owned(), id })?;
        seal::open(key, purpose, name, version, blob)
    }

    fn current(&self) -> (u32, &Root) {
        let (id, key) = self.keys.last_key_value().expect("invariant: a keyring has a data key");
        (*id, key)
    }

    fn write(&self, master: MasterKind, key: &Root) -> Result<(), KeyringError> {
        let keys = self.keys.iter().map(|(id, clear)| StoredKey {
            id: *id,
            sealed: crate::to_hex(&seal::seal(
                key,
                0,
                Purpose::DataKey,
                "data-key",
                u64::from(*id),
                clear.expose(),
            )),
        });
        let stored =
            Stored { format: FORMAT, master, check: crate::to_hex(&check_value(key)), keys: keys.collect() };
        let mut text = serde_json::to_vec_pretty(&stored).map_err(|e| io(&self.path, e.into()))?;
        text.push(b'\n');
        file::replace(&self.path, &text).map_err(|e| io(&self.path, e))
    }
}

fn read(path: &Path) -> Result<Option<Stored>, KeyringError> {
    let Some(text) = file::read_bounded(path, LIMIT, 0o077).map_err(|e| io(path, e))? else {
        return Ok(None);
    };
    let stored: Stored =
        serde_json::from_slice(&text).map_err(|e| KeyringError::Damaged(path.to_owned(), e.to_string()))?;
    if stored.format != FORMAT {
        let why = format!("format {}, this ringfence reads {FORMAT}", stored.format);
        return Err(KeyringError::Damaged(path.to_owned(), why));
    }
    Ok(Some(stored))
}

fn check_value(master: &Root) -> [u8; 16] {
    let full = seal::derive(master.expose(), b"ringfence master v1", "check");
    let mut check = [0; 16];
    check.copy_from_slice(&full.expose()[..16]);
    check
}

fn io(path: &Path, e: std::io::Error) -> KeyringError {
    KeyringError::Io(path.to_owned(), e)
}
