//! What rustls asks of a verifier, answered once: which signatures are believed is decided here, whose certificate is, by
//! each kind of connection.

use std::fmt::Debug;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Whether a chain, its leaf first, is that of the server that is called.
pub(crate) trait JudgeServer: Debug + Send + Sync {
    fn judge_server(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error>;
}

/// Whether a chain, its leaf first, is that of somebody who may call.
pub(crate) trait JudgeClient: Debug + Send + Sync {
    /// Whether one that shows no certificate is turned away.
    const MANDATORY: bool;

    fn judge_client(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error>;
}

/// Which handshake signatures are believed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signatures {
    /// Of TLS 1.3 only.
    Tls13,
    /// Of TLS 1.2 too.
    Tls12And13,
    /// Any, for rehearsed attacks: an attacker does not check whom it attacks.
    Unchecked,
}

/// A judge with everything around it.
#[derive(Debug)]
pub(crate) struct Verifier<J> {
    pub(crate) judge: J,
    pub(crate) signatures: Signatures,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl<J> Verifier<J> {
    fn tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.signatures {
            Signatures::Tls13 => Err(Error::General("the mesh speaks TLS 1.3 only".into())),
            Signatures::Tls12And13 => verify_tls12_signature(message, cert, signature, &self.algorithms),
            Signatures::Unchecked => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.signatures {
            Signatures::Tls13 | Signatures::Tls12And13 => {
                verify_tls13_signature(message, cert, signature, &self.algorithms)
            }
            Signatures::Unchecked => Ok(HandshakeSignatureValid::assertion()),
        }
    }
}

fn chain<'a>(
    leaf: &'a CertificateDer<'_>,
    intermediates: &'a [CertificateDer<'_>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(intermediates).map(|der| CertificateDer::from(der.as_ref())).collect()
}

impl<J: JudgeServer> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.judge_server(&chain(leaf, intermediates), name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl<J: JudgeClient> ClientCertVerifier for Verifier<J> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        J::MANDATORY
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge.judge_client(&chain(leaf, intermediates), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls12(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls13(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
