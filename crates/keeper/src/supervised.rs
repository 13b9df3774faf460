//! The supervisor's end: starts a keeper over its channel and introduces control to it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use ringfence_channel::{BlockingChannel, ChannelError, cloexec_pair};
use ringfence_keys::Secret;
use ringfence_snapshot::Der;

use crate::protocol::{FromSupervisor, Start, ToSupervisor};

/// A keeper that serves.
#[derive(Debug)]
pub struct Supervised {
    channel: BlockingChannel<FromSupervisor, ToSupervisor>,
    warnings: Vec<String>,
    snapshot_key: Der,
    signed: (u64, u64),
}

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisedError {
    /// It ended, or speaks nonsense.
    #[error("keeper's channel: {0}")]
    Channel(#[from] ChannelError),
    /// It said why.
    #[error("keeper: {0}")]
    Failed(String),
    /// An answer to another question.
    #[error("the keeper answered something else than was asked")]
    Unexpected,
}

impl Supervised {
    /// Starts the keeper at the other end of `socket` and waits until it serves.
    ///
    /// # Errors
    /// The keeper's reason, in words for the operator.
    pub fn start(socket: UnixStream, start: Start) -> Result<Self, SupervisedError> {
        let channel = BlockingChannel::new(socket);
        channel.send(&FromSupervisor::Start(start), &[])?;
        match answer(&channel)? {
            ToSupervisor::Ready { warnings, snapshot_key, signed } => {
                Ok(Self { channel, warnings, snapshot_key, signed })
            }
            _ => Err(SupervisedError::Unexpected),
        }
    }

    /// What the operator should be told at each start.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// SubjectPublicKeyInfo of the key that verifies snapshots.
    #[must_use]
    pub const fn snapshot_key(&self) -> &Der {
        &self.snapshot_key
    }

    /// Highest (epoch, revision) signed when it started.
    #[must_use]
    pub const fn signed(&self) -> (u64, u64) {
        self.signed
    }

    /// A new channel to this keeper, for control (see [`crate::Client`]); the one before is closed.
    ///
    /// # Errors
    /// [`SupervisedError`].
    pub fn introduce_control(&self) -> Result<UnixStream, SupervisedError> {
        let (ours, theirs) = cloexec_pair().map_err(ChannelError::Io)?;
        self.channel.send(&FromSupervisor::Control, &[theirs.as_fd()])?;
        self.done()?;
        Ok(ours)
    }

    /// The root key in sealed form, to be kept elsewhere and then given to [`Self::forget_root`].
    ///
    /// # Errors
    /// [`SupervisedError`].
    pub fn export_root(&self, passphrase: Secret<String>) -> Result<Der, SupervisedError> {
        self.channel.send(&FromSupervisor::ExportRoot { passphrase }, &[])?;
        match answer(&self.channel)? {
            ToSupervisor::Root { package } => Ok(package),
            _ => Err(SupervisedError::Unexpected),
        }
    }

    /// Takes the root key offline: the keeper no longer has it, after it has seen that `package` opens to it.
    ///
    /// # Errors
    /// [`SupervisedError`].
    pub fn forget_root(&self, package: Der, passphrase: Secret<String>) -> Result<(), SupervisedError> {
        self.channel.send(&FromSupervisor::ForgetRoot { package, passphrase }, &[])?;
        self.done()
    }

    /// Brings an exported root key back: until the keeper ends, or for good (`keep`).
    ///
    /// # Errors
    /// [`SupervisedError`].
    pub fn import_root(
        &self,
        package: Der,
        passphrase: Secret<String>,
        keep: bool,
    ) -> Result<(), SupervisedError> {
        self.channel.send(&FromSupervisor::ImportRoot { package, passphrase, keep }, &[])?;
        self.done()
    }

    fn done(&self) -> Result<(), SupervisedError> {
        match answer(&self.channel)? {
            ToSupervisor::Done => Ok(()),
            _ => Err(SupervisedError::Unexpected),
        }
    }
}

fn answer(channel: &BlockingChannel<FromSupervisor, ToSupervisor>) -> Result<ToSupervisor, SupervisedError> {
    match channel.recv()?.0 {
        ToSupervisor::Failed { reason } => Err(SupervisedError::Failed(reason)),
        other => Ok(other),
    }
}
