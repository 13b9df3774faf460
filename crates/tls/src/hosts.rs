//! Between hosts and control: both ends show SVIDs, but for a host that has none yet.
//!
//! A host that joins cannot be known by a certificate, and does not know yet whom to believe. It gets a connection on which
//! nobody is proven: it judges what control showed by itself, and says nothing secret before.

use std::sync::Arc;

use ringfence_spiffe::{Role, SpiffeId, UnixTime};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, ServerConfig};

use crate::mesh::{Alpn, Mesh, MeshError, State};
use crate::provider;
use crate::refusal::Refusal;
use crate::verifier::{JudgeClient, JudgeServer, Signatures, Verifier};

/// The server name that hosts say to control. Whom they reach they know by its SPIFFE ID.
pub const CONTROL_NAME: &str = "control.ringfence.internal";

impl Mesh {
    /// Configuration of control's listener for other hosts, as `own`. Whoever shows an SVID must show a valid one; who shows none
    /// is told apart by its absence.
    pub fn control_server_config(&self, own: &SpiffeId) -> Arc<ServerConfig> {
        let state = self.state();
        let mut config = ServerConfig::builder_with_provider(state.provider().clone())
            .with_protocol_versions(&[&TLS13])
            .expect("invariant: the mesh provider has TLS 1.3 suites and groups")
            .with_client_cert_verifier(Arc::new(state.verifier(AnyOrNobody(state.clone()))))
            .with_cert_resolver(Arc::new(Always(state.clone(), own.clone())));
        config.alpn_protocols = Alpn::names(&[Alpn::H2]);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// Configuration to call control, `control`, as the host `own`.
    ///
    /// # Errors
    /// [`MeshError::NoIdentity`].
    pub fn control_client_config(
        &self,
        own: &SpiffeId,
        control: &SpiffeId,
    ) -> Result<Arc<ClientConfig>, MeshError> {
        if self.identity(own).is_none() {
            return Err(MeshError::NoIdentity(own.clone()));
        }
        Ok(Arc::new(self.new_client_config(own, control, &[Alpn::H2])))
    }
}

/// Configuration to call control without being known and without knowing it. The other end has the key of the certificate that
/// it shows; whose that is, the caller must judge by itself before it says anything secret.
///
/// # Errors
/// When the crypto library lacks what TLS 1.3 needs.
pub fn introduction_client_config() -> Result<Arc<ClientConfig>, Error> {
    let provider = provider::mesh();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { judge: JudgedLater, signatures: Signatures::Tls13, algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = Alpn::names(&[Alpn::H2]);
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A host with a valid SVID, or one that has none.
#[derive(Debug)]
struct AnyOrNobody(Arc<State>);

impl JudgeClient for AnyOrNobody {
    const MANDATORY: bool = false;

    fn judge_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.0.verify(chain, Role::Client, now).map_err(Refusal::Svid)?;
        Ok(())
    }
}

#[derive(Debug)]
struct JudgedLater;

impl JudgeServer for JudgedLater {
    fn judge_server(
        &self,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _now: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// Shows one identity, whatever name is asked for.
#[derive(Debug)]
struct Always(Arc<State>, SpiffeId);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified(&self.1)
    }
}
