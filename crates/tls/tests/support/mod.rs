//! A small PKI and handshakes over an in-memory pipe, shared by the tests.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "each test binary uses a part, and a step that fails fails the test"
)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use ringfence_spiffe::{
    BundleSet, CertificateDer, KeyAlgorithm, LeafKey, SpiffeId, TrustBundle, TrustDomain,
};
use ringfence_tls::{ClientConfig, ClientConnection, Identity, Mesh, ServerConfig, ServerConnection};

pub(crate) struct Authority {
    pub trust_domain: TrustDomain,
    pub root: CertificateDer<'static>,
    pub issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(trust_domain: &str) -> Self {
        let trust_domain = TrustDomain::new(trust_domain).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{trust_domain} root"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(trust_domain.id().as_str().try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { trust_domain, root, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn bundle(&self, sequence: u64) -> Arc<TrustBundle> {
        Arc::new(
            TrustBundle::new(self.trust_domain.clone(), vec![self.root.clone()], vec![], sequence, None)
                .unwrap(),
        )
    }

    pub(crate) fn bundles(&self, generation: u64) -> BundleSet {
        BundleSet::new(generation, [self.bundle(generation)])
    }

    pub(crate) fn id(&self, name: &str) -> SpiffeId {
        SpiffeId::service(&self.trust_domain, name).unwrap()
    }

    /// What an honest issuer would sign for this ID.
    pub(crate) fn params(&self, id: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        params
    }

    pub(crate) fn sign(&self, params: &CertificateParams, key: &LeafKey) -> CertificateDer<'static> {
        let key = KeyPair::try_from(key.pkcs8_der().as_slice()).unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.identity_with(name, KeyAlgorithm::P256, |_| {})
    }

    pub(crate) fn identity_with(
        &self,
        name: &str,
        algorithm: KeyAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let id = self.id(name);
        let key = LeafKey::generate(algorithm).unwrap();
        let mut params = self.params(id.as_str());
        change(&mut params);
        Identity::new(id, vec![self.sign(&params, &key)], &key).unwrap()
    }

    /// A node with these services.
    pub(crate) fn mesh(&self, services: &[&str]) -> Mesh {
        let mesh = Mesh::new(self.bundles(1));
        mesh.set_identities(services.iter().map(|name| self.identity(name)));
        mesh
    }
}

/// Runs a handshake to its end; each side's verdict.
pub(crate) fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> (Result<ClientConnection, ringfence_tls::Error>, Result<ServerConnection, ringfence_tls::Error>) {
    let name = ringfence_tls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        while !input.is_empty() && server_error.is_none() {
            server.read_tls(&mut input).unwrap();
            server_error = server.process_new_packets().err();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut input = wire.as_slice();
        while !input.is_empty() && client_error.is_none() {
            client.read_tls(&mut input).unwrap();
            client_error = client.process_new_packets().err();
        }
        if !client.wants_write() && !server.wants_write() {
            break;
        }
    }
    let client = client_error.map_or(Ok(client), Err);
    let server = server_error.map_or(Ok(server), Err);
    (client, server)
}
