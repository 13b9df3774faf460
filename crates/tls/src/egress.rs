//! TLS to servers outside, known by host name.

use std::fmt;
use std::sync::Arc;

use ringfence_spiffe::path::{Anchors, PathOptions, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error};

use crate::mesh::Alpn;
use crate::provider;
use crate::refusal::Refusal;
use crate::verifier::{JudgeServer, Signatures, Verifier};

/// Most roots that are read from one file.
const MAX_ROOTS: usize = 4096;

/// Why roots are not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// Not PEM.
    #[error("the file of root certificates is not PEM: {0}")]
    Pem(String),
    /// Nothing in it can be trusted.
    #[error("the file has no usable root certificate: name one such as /etc/ssl/certs/ca-certificates.crt")]
    NoRoot,
}

/// Roots that servers outside are trusted by. Clones share them.
#[derive(Clone)]
pub struct EgressRoots {
    anchors: Arc<Anchors>,
    refused: usize,
}

impl EgressRoots {
    /// Reads a PEM file's contents. Roots that cannot be read or break a rule are left out and counted.
    pub fn from_pem(pem: &[u8]) -> Result<Self, EgressError> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_ROOTS).collect();
        let roots = roots.map_err(|error| EgressError::Pem(error.to_string()))?;
        let (anchors, _) = Anchors::for_servers(&roots);
        if anchors.usable() == 0 {
            return Err(EgressError::NoRoot);
        }
        let refused = roots.len() - anchors.usable();
        Ok(Self { anchors: Arc::new(anchors), refused })
    }

    /// How many roots are trusted.
    pub fn trusted(&self) -> usize {
        self.anchors.usable()
    }

    /// How many of the file are not.
    pub fn refused(&self) -> usize {
        self.refused
    }
}

impl fmt::Debug for EgressRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EgressRoots").field("trusted", &self.trusted()).finish_non_exhaustive()
    }
}

/// Configuration to call servers outside: TLS 1.2 and 1.3, no client certificate.
pub fn egress_client_config(roots: &EgressRoots, protocols: &[Alpn]) -> Arc<ClientConfig> {
    let provider = provider::outside();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { judge: roots.clone(), signatures: Signatures::Tls12And13, algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("invariant: the outside provider has suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = Alpn::names(protocols);
    Arc::new(config)
}

impl JudgeServer for EgressRoots {
    fn judge_server(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        // The fence declares the host itself; object stores and hosters serve it under such a wildcard.
        let options =
            PathOptions { shared_suffix_wildcards: true, ..PathOptions::server(&self.anchors, now) };
        verify_server_name(chain, name, &options).map_err(Refusal::Path)?;
        Ok(())
    }
}
