//! A client that believes any server: for rehearsed attacks on our own listeners, never for traffic.
//!
//! An attacker does not check whom it attacks. That there is no such client anywhere else is what this door is for.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, Error};

use crate::mesh::Alpn;
use crate::provider;
use crate::verifier::{JudgeServer, Signatures, Verifier};

/// A configuration that verifies nobody and shows whatever certificate it is given.
///
/// # Errors
/// When the key is none, or not that of the certificate.
pub fn drill_client_config(
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    protocols: &[Alpn],
) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider::outside();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { judge: Anybody, signatures: Signatures::Unchecked, algorithms };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = Alpn::names(protocols);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody;

impl JudgeServer for Anybody {
    fn judge_server(
        &self,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _now: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}
