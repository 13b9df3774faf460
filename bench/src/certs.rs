//! One authority and three leaves, made afresh for each run: P-256, valid for a day, each with one SPIFFE ID.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub(crate) const GATEWAY: &str = "spiffe://bench.example/gateway/bench";
pub(crate) const LOAD: &str = "spiffe://bench.example/service/load";
pub(crate) const UPSTREAM: &str = "spiffe://bench.example/service/upstream";
/// The DNS name beside the SPIFFE ID, for those who can check nothing else.
pub(crate) const NAME: &str = "localhost";

/// How long every leaf is valid.
pub(crate) const LIFE: Duration = Duration::from_secs(24 * 3600);

/// The authority, and where the files are.
pub(crate) struct Certs {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certs {
    pub(crate) fn make(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Benchmark authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.subject_alt_names = vec![uri("spiffe://bench.example")?];
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let authority = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        fs::write(folder.join("ca.pem"), authority.pem())?;
        for (file, id) in [("gateway", GATEWAY), ("load", LOAD), ("upstream", UPSTREAM)] {
            let names = vec![uri(id)?, SanType::DnsName(NAME.try_into().map_err(io::Error::other)?)];
            let params = leaf(names);
            let key = KeyPair::generate().map_err(io::Error::other)?;
            let leaf = params.signed_by(&key, &authority).map_err(io::Error::other)?;
            fs::write(folder.join(format!("{file}.pem")), leaf.pem())?;
            fs::write(folder.join(format!("{file}.key")), key.serialize_pem())?;
            // haproxy wants both in one file.
            fs::write(folder.join(format!("{file}.both.pem")), leaf.pem() + &key.serialize_pem())?;
        }
        Ok(Self { folder: folder.to_owned(), authority })
    }

    /// `ca.pem`, `gateway.pem`, `gateway.key`, `gateway.both.pem` and so on.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Certifies a key that somebody else holds: for a SPIFFE ID, or for hosts.
    pub(crate) fn issue(&self, names: &[String], spki: &[u8]) -> io::Result<CertificateDer<'static>> {
        let name = |name: &String| match name.parse() {
            _ if name.starts_with("spiffe://") => uri(name),
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => Ok(SanType::DnsName(name.as_str().try_into().map_err(io::Error::other)?)),
        };
        let params = leaf(names.iter().map(name).collect::<io::Result<_>>()?);
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(io::Error::other)?;
        Ok(params.signed_by(&key, &self.authority).map_err(io::Error::other)?.der().clone())
    }

    pub(crate) fn authority(&self) -> &[u8] {
        self.authority.der()
    }

    fn pair(&self, name: &str) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let certificate = CertificateDer::from_pem_file(self.file(&format!("{name}.pem")));
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key")));
        Ok((vec![certificate.map_err(io::Error::other)?], key.map_err(io::Error::other)?))
    }

    fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.file("ca.pem")).map_err(io::Error::other)?;
        roots.add(authority).map_err(io::Error::other)?;
        Ok(roots)
    }

    /// How the load speaks TLS: X25519 only and no resumption, so that every contender does the same work.
    pub(crate) fn client(&self, mutual: bool, alpn: &[u8]) -> io::Result<Arc<ClientConfig>> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_root_certificates(self.roots()?);
        let mut config = if mutual {
            let (chain, key) = self.pair("load")?;
            config.with_client_auth_cert(chain, key).map_err(io::Error::other)?
        } else {
            config.with_no_client_auth()
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(config))
    }

    /// How the upstream speaks TLS: it wants the gateway's certificate.
    pub(crate) fn upstream(&self) -> io::Result<Arc<ServerConfig>> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let (chain, key) = self.pair("upstream")?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn leaf(names: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + LIFE).into();
    params
}

fn uri(id: &str) -> io::Result<SanType> {
    Ok(SanType::URI(id.try_into().map_err(io::Error::other)?))
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}
