//! Why our side ended a handshake, carried through rustls' error so that an event can say it.

use std::error::Error as StdError;
use std::sync::Arc;

use ringfence_spiffe::path::PathError;
use ringfence_spiffe::{SpiffeId, SvidError};
use rustls::{CertificateError, Error, OtherError};

/// Why a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The callee is somebody else.
    #[error("the callee is {found}, not {expected}")]
    OtherCallee {
        /// Who was called.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
    /// A server outside is not who it should be.
    #[error(transparent)]
    Path(PathError),
    /// The SVID is not valid.
    #[error(transparent)]
    Svid(SvidError),
}

impl Refusal {
    /// A short, stable code for events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OtherCallee { .. } => "other_callee",
            Self::Path(_) => "server_certificate",
            Self::Svid(error) => error.reason(),
        }
    }

    /// Finds the refusal in the error that a handshake ended with, if that was why.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(refusal);
            }
            next = match (error.downcast_ref::<std::io::Error>(), error.downcast_ref::<Error>()) {
                (Some(io), _) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
                (_, Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner))))) => {
                    Some(&**inner as &(dyn StdError + 'static))
                }
                _ => error.source(),
            };
        }
        None
    }
}

impl From<Refusal> for Error {
    // The peer is told `certificate_unknown` whatever the reason: it is for our operator to know, not for a stranger.
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}
