//! Where the master key comes from.

use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

use crate::seal::Root;
use crate::{Secret, SecretBytes, file};

/// Shortest and longest key file or credential in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;
/// Shortest passphrase in bytes.
const PASSPHRASE_MIN: usize = 12;

/// Where the master key comes from, as the operator chose it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum MasterSource {
    /// A plain file, created at first start. Whoever copies it together with the data directory has every key.
    KeyFile {
        /// Its path.
        path: PathBuf,
    },
    /// A passphrase that a person types.
    Passphrase {
        /// What was typed.
        passphrase: Secret<String>,
    },
    /// A systemd credential: a file under `$CREDENTIALS_DIRECTORY` that systemd decrypted for this unit.
    Credential {
        /// Its path.
        path: PathBuf,
    },
}

/// How the keyring remembers what kind of master key wraps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub(crate) enum MasterKind {
    KeyFile,
    Credential,
    Passphrase { memory_kib: u32, passes: u32, lanes: u32, salt: String },
}

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// The file is not there.
    #[error("master key {} is missing; restore it from a backup (a new one cannot open the keys that exist)", .0.display())]
    Missing(PathBuf),
    /// The file cannot be used.
    #[error("master key: {0}")]
    Io(#[from] std::io::Error),
    /// Too short or too long.
    #[error("master key {path} has {len} bytes, must have 32 to 4096", path = .0.display(), len = .1)]
    Length(PathBuf, usize),
    /// Too short.
    #[error("the passphrase must have at least {PASSPHRASE_MIN} bytes")]
    ShortPassphrase,
    /// Stored parameters outside what is reasonable.
    #[error("the stored passphrase parameters are damaged: {0}")]
    Parameters(String),
    /// Another kind of source than at first start.
    #[error(
        "the keys are protected by a {stored}, but a {given} was given; start with the {stored} or rotate the master key"
    )]
    OtherKind {
        /// What wraps the keyring.
        stored: &'static str,
        /// What was offered.
        given: &'static str,
    },
}

impl MasterSource {
    /// A sentence to say at each start when this source protects little, else `None`.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match self {
            Self::KeyFile { path } => Some(format!(
                "the master key is a plain file, {}: whoever copies it and the data directory has every key; for more than a first try use a passphrase or a systemd credential",
                path.display()
            )),
            _ => None,
        }
    }

    pub(crate) const fn describe(&self) -> &'static str {
        match self {
            Self::KeyFile { .. } => "key file",
            Self::Passphrase { .. } => "passphrase",
            Self::Credential { .. } => "systemd credential",
        }
    }

    /// The kind to store for a keyring that this source shall protect, with fresh parameters.
    pub(crate) fn fresh_kind(&self) -> MasterKind {
        match self {
            Self::KeyFile { .. } => MasterKind::KeyFile,
            Self::Credential { .. } => MasterKind::Credential,
            // RFC 9106, second recommended choice: 64 MiB, three passes.
            Self::Passphrase { .. } => MasterKind::Passphrase {
                memory_kib: 64 * 1024,
                passes: 3,
                lanes: 4,
                salt: crate::to_hex(&crate::random::<16>()),
            },
        }
    }

    /// Creates the key file when this source is one and it does not exist.
    pub(crate) fn create(&self) -> Result<(), MasterError> {
        if let Self::KeyFile { path } = self
            && file::read_bounded(path, *KEY_BYTES.end() as u64, 0o077)?.is_none()
        {
            let key = Secret::new(crate::random::<32>());
            let mut text = zeroize::Zeroizing::new(crate::to_hex(key.expose()));
            text.push('\n');
            file::replace(path, text.as_bytes())?;
        }
        Ok(())
    }

    /// The key that wraps data keys.
    pub(crate) fn load(&self, kind: &MasterKind) -> Result<Root, MasterError> {
        let material = match (self, kind) {
            (Self::KeyFile { path }, MasterKind::KeyFile) => read_key(path, 0o077)?,
            // systemd gives its credentials to the unit's user; group bits may be an ACL mask.
            (Self::Credential { path }, MasterKind::Credential) => read_key(path, 0o007)?,
            (Self::Passphrase { passphrase }, MasterKind::Passphrase { memory_kib, passes, lanes, salt }) => {
                stretch(passphrase, *memory_kib, *passes, *lanes, salt)?
            }
            _ => return Err(MasterError::OtherKind { stored: kind.describe(), given: self.describe() }),
        };
        Ok(crate::seal::derive(material.expose(), b"ringfence master v1", "wrap"))
    }
}

impl MasterKind {
    const fn describe(&self) -> &'static str {
        match self {
            Self::KeyFile => "key file",
            Self::Passphrase { .. } => "passphrase",
            Self::Credential => "systemd credential",
        }
    }
}

fn read_key(path: &Path, forbidden: u32) -> Result<SecretBytes, MasterError> {
    let key = file::read_bounded(path, *KEY_BYTES.end() as u64, forbidden)?
        .map(Secret::new)
        .ok_or_else(|| MasterError::Missing(path.to_owned()))?;
    if !KEY_BYTES.contains(&key.expose().len()) {
        return Err(MasterError::Length(path.to_owned(), key.expose().len()));
    }
    Ok(key)
}

fn stretch(
    passphrase: &Secret<String>,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: &str,
) -> Result<SecretBytes, MasterError> {
    if passphrase.expose().len() < PASSPHRASE_MIN {
        return Err(MasterError::ShortPassphrase);
    }
    let damaged = |why: &str| MasterError::Parameters(why.to_owned());
    // A damaged or planted file must neither weaken the key nor take the machine's memory.
    if !(19 * 1024..=1024 * 1024).contains(&memory_kib)
        || !(2..=64).contains(&passes)
        || !(1..=16).contains(&lanes)
    {
        return Err(damaged("out of range"));
    }
    let salt = crate::from_hex(salt).filter(|salt| salt.len() == 16).ok_or_else(|| damaged("salt"))?;
    let parameters = Params::new(memory_kib, passes, lanes, Some(32))
        .map_err(|e| MasterError::Parameters(e.to_string()))?;
    let mut key = zeroize::Zeroizing::new(vec![0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase.expose().as_bytes(), &salt, &mut key)
        .map_err(|e| MasterError::Parameters(e.to_string()))?;
    Ok(Secret::new(std::mem::take(&mut *key)))
}
