//! A secret that leaves the data directory, sealed under a passphrase: a root key taken offline.

use serde::{Deserialize, Serialize};

use crate::master::{MasterError, MasterKind, MasterSource};
use crate::seal::{self, Purpose, SealError};
use crate::{Secret, SecretBytes};

const LIMIT: usize = 64 * 1024;

/// Why an export could not be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Not an export.
    #[error("this is no export of ringfence, or it is damaged")]
    Damaged,
    /// The passphrase.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// Wrong passphrase, another secret, or altered.
    #[error("the export does not open: wrong passphrase, or the export of something else")]
    Wrong,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: String,
    protection: MasterKind,
    sealed: String,
}

/// Seals `secret` under `passphrase`.
///
/// # Errors
/// A passphrase that is too short.
pub fn seal(passphrase: &Secret<String>, name: &str, secret: &SecretBytes) -> Result<Vec<u8>, ExportError> {
    let source = MasterSource::Passphrase { passphrase: passphrase.clone() };
    let protection = source.fresh_kind();
    let key = source.load(&protection)?;
    let sealed = crate::to_hex(&seal::seal(&key, 0, Purpose::Export, name, 1, secret.expose()));
    serde_json::to_vec_pretty(&Package { name: name.to_owned(), protection, sealed })
        .map_err(|_| ExportError::Damaged)
}

/// Opens the export of the secret called `name`.
///
/// # Errors
/// [`ExportError`].
pub fn open(passphrase: &Secret<String>, name: &str, package: &[u8]) -> Result<SecretBytes, ExportError> {
    if package.len() > LIMIT {
        return Err(ExportError::Damaged);
    }
    let package: Package = serde_json::from_slice(package).map_err(|_| ExportError::Damaged)?;
    let blob = crate::from_hex(&package.sealed).ok_or(ExportError::Damaged)?;
    let key = MasterSource::Passphrase { passphrase: passphrase.clone() }.load(&package.protection)?;
    seal::open(&key, Purpose::Export, name, 1, &blob).map_err(|e| match e {
        SealError::Format(_) => ExportError::Damaged,
        _ => ExportError::Wrong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_opens_with_its_passphrase_and_name_only() {
        let passphrase = |text: &str| Secret::new(text.to_owned());
        let package =
            seal(&passphrase("correct horse battery"), "root/1", &Secret::new(vec![1, 2, 3])).unwrap();
        let open = |words, name| open(&passphrase(words), name, &package);
        assert_eq!(open("correct horse battery", "root/1").unwrap().expose(), &[1, 2, 3]);
        assert!(matches!(open("incorrect horse battery", "root/1"), Err(ExportError::Wrong)));
        assert!(matches!(open("correct horse battery", "root/2"), Err(ExportError::Wrong)));
        assert!(super::open(&passphrase("correct horse battery"), "root/1", b"{}").is_err());
    }
}
