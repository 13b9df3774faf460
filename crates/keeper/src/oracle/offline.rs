//! The root key kept elsewhere: out of the keeper in a sealed package, and back for a rotation or for good.
//!
//! Out in two steps, because a key that was forgotten before its package was safely on another disk would be gone.

use std::sync::PoisonError;

use ringfence_keys::{Secret, SecretBytes, SigningKey, export};
use ringfence_snapshot::Der;

use super::Oracle;
use crate::authority::{Record, Role, active};
use crate::protocol::{Refusal, RefusalCode};

impl Oracle {
    /// Seals the active root's key under a passphrase.
    ///
    /// # Errors
    /// When it is offline already, or the passphrase is too short.
    pub fn export_root(&self, passphrase: &Secret<String>) -> Result<Der, Refusal> {
        let state = self.state();
        let root = active(&state.stored.roots)?;
        if root.key.is_none() {
            return Err(Refusal::new(RefusalCode::RootOffline, "the root is offline already"));
        }
        let secret = root.unseal_bytes(&self.keyring, Role::Root)?;
        let package =
            export::seal(passphrase, &format!("root/{}", root.id), &secret).map_err(Refusal::internal)?;
        self.log_change("root-export", &root.id)?;
        Ok(Der(package))
    }

    /// Forgets the active root's key, if `package` opens to it.
    ///
    /// # Errors
    /// When it is offline already, the package does not open, or the disk fails; then the key stays.
    pub fn forget_root(&self, package: &Der, passphrase: &Secret<String>) -> Result<(), Refusal> {
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stored = self.state().stored.clone();
        let root = active(&stored.roots)?;
        if root.key.is_none() {
            return Err(Refusal::new(RefusalCode::RootOffline, "the root is offline already"));
        }
        exported(root, package, passphrase)?;
        let id = root.id.clone();
        self.log_change("root-forget", &id)?;
        for root in stored.roots.iter_mut().filter(|r| r.id == id) {
            root.key = None;
        }
        self.keep(stored)
    }

    /// Brings an exported root key back: for as long as this process lives, or for good (`keep`).
    ///
    /// # Errors
    /// A wrong passphrase, or the key of another root.
    pub fn import_root(&self, package: &Der, passphrase: &Secret<String>, keep: bool) -> Result<(), Refusal> {
        let _turn = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stored = self.state().stored.clone();
        let root = active(&stored.roots)?;
        let secret = exported(root, package, passphrase)?;
        let id = root.id.clone();
        if !keep {
            self.log_change("root-import", &id)?;
            *self.imported.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, secret));
            return Ok(());
        }
        self.log_change("root-restore", &id)?;
        for root in stored.roots.iter_mut().filter(|r| r.id == id) {
            root.seal_bytes(&self.keyring, Role::Root, &secret);
        }
        self.keep(stored)
    }
}

/// The key in an export of `root`, which must be that root's.
fn exported(root: &Record, package: &Der, passphrase: &Secret<String>) -> Result<SecretBytes, Refusal> {
    let malformed = |e: &dyn std::fmt::Display| Refusal::new(RefusalCode::Malformed, e.to_string());
    let secret =
        export::open(passphrase, &format!("root/{}", root.id), &package.0).map_err(|e| malformed(&e))?;
    let key = SigningKey::from_pkcs8(root.algorithm, &secret).map_err(|e| malformed(&e))?;
    if key.verifying_key().to_spki() != root.spki.0 {
        return Err(Refusal::new(RefusalCode::Malformed, "this is the key of another root"));
    }
    Ok(secret)
}
