//! What rustls asks during a mesh handshake, answered by `ringfence-spiffe`.

use std::sync::Arc;

use ringfence_spiffe::{Role, SpiffeId, UnixTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::mesh::State;
use crate::refusal::Refusal;

/// Accepts any caller with a valid SVID; what it may do is decided later, by who it is.
#[derive(Debug)]
pub(crate) struct CallerVerifier(pub(crate) Arc<State>);

/// Accepts one callee.
#[derive(Debug)]
pub(crate) struct CalleeVerifier {
    state: Arc<State>,
    callee: SpiffeId,
}

impl CalleeVerifier {
    pub(crate) fn new(state: Arc<State>, callee: SpiffeId) -> Self {
        Self { state, callee }
    }
}

fn chain<'a>(
    leaf: &'a CertificateDer<'_>,
    intermediates: &'a [CertificateDer<'_>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(intermediates).map(|der| CertificateDer::from(der.as_ref())).collect()
}

fn algorithms(state: &State) -> &WebPkiSupportedAlgorithms {
    &state.provider().signature_verification_algorithms
}

fn no_tls12() -> Error {
    Error::General("the mesh speaks TLS 1.3 only".into())
}

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify(&chain(leaf, intermediates), Role::Client, now).map_err(Refusal::Svid)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, algorithms(&self.0))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(&self.0).supported_schemes()
    }
}

impl ServerCertVerifier for CalleeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer =
            self.state.verify(&chain(leaf, intermediates), Role::Server, now).map_err(Refusal::Svid)?;
        if *peer.id() != self.callee {
            let refusal = Refusal::OtherCallee { expected: self.callee.clone(), found: peer.id().clone() };
            return Err(refusal.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, algorithms(&self.state))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(&self.state).supported_schemes()
    }
}
