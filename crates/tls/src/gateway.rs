//! TLS for clients from outside: certificates of host names, replaced while connections go on.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ringfence_spiffe::certificate::Certificate;
use ringfence_spiffe::general_name::GeneralName;
use ringfence_spiffe::path::{MAX_PRESENTED, PathError};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig};

use crate::mesh::Alpn;
use crate::provider;
use crate::refusal::Refusal;
use crate::verifier::{JudgeClient, Signatures, Verifier};

/// Most certificates in a served chain.
const MAX_SERVED_CHAIN: usize = 16;

/// Why gateway certificates are not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Not PEM certificates.
    #[error(
        "the certificate file is not a PEM chain of 1 to {MAX_SERVED_CHAIN} certificates, leaf first: {0}"
    )]
    Chain(String),
    /// Not a PEM private key.
    #[error("the key file is not a PEM private key (PKCS #8, PKCS #1 or SEC1): {0}")]
    Key(String),
    /// They do not belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// No host name.
    #[error("the certificate names no host: it needs DNS names or addresses in subjectAltName")]
    NoName,
    /// The system gave no randomness for session tickets.
    #[error("session ticket keys could not be made: the system's random generator failed")]
    Random,
}

/// A certificate chain for host names, with its key.
#[derive(Clone)]
pub struct GatewayCertificate {
    names: Vec<String>,
    not_after: u64,
    certified: Arc<CertifiedKey>,
}

impl GatewayCertificate {
    /// Reads a chain (leaf first) and a key from PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, GatewayError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| GatewayError::Chain(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| GatewayError::Key(error.to_string()))?;
        Self::new(chain, &key)
    }

    /// A chain (leaf first) and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<Self, GatewayError> {
        if !(1..=MAX_SERVED_CHAIN).contains(&chain.len()) {
            return Err(GatewayError::Chain(format!("it has {}", chain.len())));
        }
        let leaf = Certificate::parse(&chain[0]).map_err(|error| GatewayError::Chain(error.to_string()))?;
        let names = leaf.extensions.subject_alt_name.map(|names| names.value);
        let has_address =
            names.is_some_and(|names| names.iter().any(|name| matches!(name, GeneralName::Ip(_))));
        let names: Vec<String> = names
            .iter()
            .flat_map(|names| names.iter())
            .filter_map(
                |name| if let GeneralName::Dns(dns) = name { Some(dns.to_ascii_lowercase()) } else { None },
            )
            .collect();
        if names.is_empty() && !has_address {
            return Err(GatewayError::NoName);
        }
        let not_after = u64::try_from(leaf.not_after).unwrap_or(0);
        let key = any_supported_type(key).map_err(|error| GatewayError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| GatewayError::Mismatch)?;
        Ok(Self { names, not_after, certified: Arc::new(certified) })
    }

    /// The host names, `*.` for a wildcard.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Seconds since 1970 until which the leaf is valid.
    pub fn not_after_unix(&self) -> u64 {
        self.not_after
    }
}

impl fmt::Debug for GatewayCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The certificates of a gateway by server name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct GatewayCertificates(Arc<ArcSwap<ByName>>);

#[derive(Debug, Default)]
struct ByName {
    names: HashMap<String, Arc<CertifiedKey>>,
    first: Option<Arc<CertifiedKey>>,
}

impl GatewayCertificates {
    /// Replaces all. The first also answers clients that name no server, such as those that dial an address; a
    /// client that names an unknown one is refused.
    pub fn set(&self, certificates: &[GatewayCertificate]) {
        let mut by_name =
            ByName { first: certificates.first().map(|cert| cert.certified.clone()), ..ByName::default() };
        for certificate in certificates {
            for name in &certificate.names {
                by_name.names.entry(name.clone()).or_insert_with(|| certificate.certified.clone());
            }
        }
        self.0.store(Arc::new(by_name));
    }
}

impl ResolvesServerCert for GatewayCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        let Some(name) = hello.server_name() else {
            return certificates.first.clone();
        };
        let wildcard = || certificates.names.get(&format!("*.{}", name.split_once('.')?.1));
        certificates.names.get(name).or_else(wildcard).cloned()
    }
}

/// Configuration of a gateway listener: TLS 1.2 and 1.3, no client certificates, session tickets under keys that
/// rotate.
pub fn gateway_server_config(
    certificates: &GatewayCertificates,
    protocols: &[Alpn],
) -> Result<Arc<ServerConfig>, GatewayError> {
    config(certificates, protocols, Arc::new(NoClientAuth))
}

/// The same for a listener that asks clients for a certificate, and serves those without one too. Whoever shows one has proved that
/// it holds the key; whose certificate it is, and whether that counts, is not asked here.
pub fn gateway_asking_config(
    certificates: &GatewayCertificates,
    protocols: &[Alpn],
) -> Result<Arc<ServerConfig>, GatewayError> {
    let algorithms = provider::outside().signature_verification_algorithms;
    let verifier = Verifier { judge: AnyHolder, signatures: Signatures::Tls12And13, algorithms };
    let mut config = config(certificates, protocols, Arc::new(verifier))?;
    if let Some(config) = Arc::get_mut(&mut config) {
        // A session of TLS 1.2 that is resumed without it may be another than the one that the certificate was shown in (RFC 7627).
        config.require_ems = true;
    }
    Ok(config)
}

fn config(
    certificates: &GatewayCertificates,
    protocols: &[Alpn],
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, GatewayError> {
    let mut config = ServerConfig::builder_with_provider(provider::outside())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("invariant: the outside provider has suites of both versions")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(certificates.clone()));
    config.alpn_protocols = Alpn::names(protocols);
    config.ticketer = Ticketer::new().map_err(|_| GatewayError::Random)?;
    config.send_tls13_tickets = 1;
    // Most clients put AES-256 with SHA-384 first, out of habit: a tenth of a handshake goes into hashing it without help
    // of the processor. Our order has what this machine does in hardware first.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

/// Whoever holds the key of its certificate, whoever issued that.
#[derive(Debug)]
struct AnyHolder;

impl JudgeClient for AnyHolder {
    const MANDATORY: bool = false;

    fn judge_client(&self, chain: &[CertificateDer<'_>], _now: UnixTime) -> Result<(), Error> {
        if chain.len() > MAX_PRESENTED {
            return Err(Refusal::Path(PathError::TooMany).into());
        }
        for certificate in chain {
            Certificate::parse(certificate).map_err(|e| Refusal::Path(e.into()))?;
        }
        Ok(())
    }
}
