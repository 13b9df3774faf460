//! Whom the mesh believes, answered by `ringfence-spiffe`.

use std::sync::Arc;

use ringfence_spiffe::{Role, SpiffeId, UnixTime};
use rustls::Error;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::mesh::State;
use crate::refusal::Refusal;
use crate::verifier::{JudgeClient, JudgeServer};

/// Any caller with a valid SVID; what it may do is decided later, by who it is.
#[derive(Debug)]
pub(crate) struct AnyCaller(pub(crate) Arc<State>);

/// One callee.
#[derive(Debug)]
pub(crate) struct OneCallee {
    pub(crate) state: Arc<State>,
    pub(crate) callee: SpiffeId,
}

impl JudgeClient for AnyCaller {
    const MANDATORY: bool = true;

    fn judge_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.0.verify(chain, Role::Client, now).map_err(Refusal::Svid)?;
        Ok(())
    }
}

impl JudgeServer for OneCallee {
    fn judge_server(
        &self,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let peer = self.state.verify(chain, Role::Server, now).map_err(Refusal::Svid)?;
        if *peer.id() != self.callee {
            let refusal = Refusal::OtherCallee { expected: self.callee.clone(), found: peer.id().clone() };
            return Err(refusal.into());
        }
        Ok(())
    }
}
