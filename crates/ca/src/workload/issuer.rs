//! Who issues what the Workload API gives out: the CA itself, or one on another host.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use ringfence_keeper::protocol::X509Request;
use ringfence_snapshot::Bundle;
use tokio::sync::watch;

use crate::issuer::{Ca, CaError, IssuedSvid};

/// What comes of a question.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, CaError>> + Send + 'a>>;

/// Issues SVIDs, and knows whom to believe.
pub trait Issuer: fmt::Debug + Send + Sync {
    /// The trust domain.
    fn trust_domain(&self) -> &str;
    /// How long X.509-SVIDs live, in seconds.
    fn svid_life(&self) -> u64;
    /// Whom to believe: the present bundle and each newer one.
    fn bundle(&self) -> watch::Receiver<Arc<Bundle>>;
    /// Changes whenever every SVID is to be renewed at once.
    fn renewals(&self) -> watch::Receiver<u64>;
    /// Whether what this identity was issued at `issued_at` was revoked with all else of it.
    fn is_revoked(&self, id: &str, issued_at: u64) -> bool;
    /// Issues an X.509-SVID.
    fn issue(&self, request: X509Request) -> Answering<'_, IssuedSvid>;
    /// Signs a JWT-SVID: the token, and when it ends.
    fn sign_jwt<'a>(&'a self, id: &'a str, audiences: Vec<String>) -> Answering<'a, (String, u64)>;
}

impl Issuer for Ca {
    fn trust_domain(&self) -> &str {
        Self::trust_domain(self)
    }

    fn svid_life(&self) -> u64 {
        self.options().svid_life
    }

    fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        Self::bundle(self)
    }

    fn renewals(&self) -> watch::Receiver<u64> {
        Self::renewals(self)
    }

    fn is_revoked(&self, id: &str, issued_at: u64) -> bool {
        Self::is_revoked(self, id, issued_at)
    }

    fn issue(&self, request: X509Request) -> Answering<'_, IssuedSvid> {
        Box::pin(Self::issue(self, request))
    }

    fn sign_jwt<'a>(&'a self, id: &'a str, audiences: Vec<String>) -> Answering<'a, (String, u64)> {
        Box::pin(Self::sign_jwt(self, id, audiences))
    }
}
