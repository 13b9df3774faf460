//! The keeper's folder: its own, by one keeper at a time, with the last snapshot signed in it.

use std::path::Path;

use ringfence_keys::{SigningKey, file};
use ringfence_snapshot::SignedSnapshot;
use ringfence_spiffe::TrustDomain;

use crate::oracle::OpenError;
use crate::policy::Allowed;

/// Largest file with a signed snapshot.
const SNAPSHOT_LIMIT: u64 = 32 * 1024 * 1024;

/// Makes the folder, for nobody else to read.
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Locks the folder for as long as the file is held.
pub(crate) fn lock(folder: &Path) -> Result<std::fs::File, OpenError> {
    let path = folder.join("lock");
    let at = |e: std::io::Error| OpenError::Io(path.clone(), e);
    let file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(at)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Busy(folder.to_owned())),
        Err(e) => Err(at(e.into())),
    }
}

/// The snapshot that was signed last: what it allows, and its (epoch, revision).
pub(crate) fn read_current(
    path: &Path,
    key: &SigningKey,
    trust_domain: &TrustDomain,
) -> Result<(Option<Allowed>, (u64, u64)), OpenError> {
    let damaged = || OpenError::Snapshot(path.to_owned());
    let text =
        file::read_bounded(path, SNAPSHOT_LIMIT, 0o077).map_err(|e| OpenError::Io(path.to_owned(), e))?;
    let Some(text) = text else { return Ok((None, (0, 0))) };
    let signed: SignedSnapshot = serde_json::from_slice(&text).map_err(|_| damaged())?;
    let message = SignedSnapshot::message(&signed.bytes);
    key.verifying_key().verify(&message, &signed.signature.0).map_err(|_| damaged())?;
    let snapshot = SignedSnapshot::parse_unverified(&signed.bytes).map_err(|_| damaged())?;
    let allowed = Allowed::of(&snapshot, trust_domain);
    let revision = allowed.revision;
    Ok((Some(allowed), revision))
}
