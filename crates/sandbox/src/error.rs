//! What can go wrong around a sandbox, in words for the operator.

use std::io;
use std::path::PathBuf;

use ringfence_channel::ChannelError;

/// What can go wrong around a sandbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The spec makes no sense.
    #[error("{0}")]
    Spec(String),
    /// A step of making the sandbox failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was tried.
        step: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A path that the service needs is not there.
    #[error("{path} does not exist: create it, or take it out of the fence")]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The shim or init refused.
    #[error("{0}")]
    Refused(String),
    /// A channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Names the step that failed.
pub(crate) trait Context<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, SandboxError> {
        self.map_err(|e| SandboxError::Step { step: step(), source: e.into() })
    }
}
