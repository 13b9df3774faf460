//! Mesh connections: who we are, whom we trust, and the configurations made from it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;
use ringfence_spiffe::{BundleSet, Kind, RevokedSvids, Role, SpiffeId, SvidError, UnixTime, VerifiedPeer};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, CommonState, ServerConfig, ServerConnection, SignatureScheme};

use crate::identity::{Identities, Identity};
use crate::metrics::HandshakeMetrics;
use crate::peers::PeerCache;
use crate::provider;
use crate::svid::{AnyCaller, OneCallee};
use crate::verifier::{Signatures, Verifier};

/// Most client configurations that are kept.
const MAX_CLIENT_CONFIGS: usize = 4096;

/// What is spoken inside a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2
    H2,
    /// HTTP/1.1
    Http1,
    /// Bytes that are not looked at.
    Tcp,
}

impl Alpn {
    /// In order of preference.
    const ALL: [Self; 3] = [Self::H2, Self::Http1, Self::Tcp];

    /// The protocol name on the wire.
    pub const fn wire_name(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http1 => b"http/1.1",
            Self::Tcp => b"ringfence-tcp",
        }
    }

    /// What was negotiated; `None` if the peer offered nothing.
    pub fn negotiated(connection: &CommonState) -> Option<Self> {
        let name = connection.alpn_protocol()?;
        Self::ALL.into_iter().find(|alpn| alpn.wire_name() == name)
    }

    pub(crate) fn names(wanted: &[Self]) -> Vec<Vec<u8>> {
        Self::ALL.iter().filter(|alpn| wanted.contains(alpn)).map(|alpn| alpn.wire_name().to_vec()).collect()
    }

    fn mask(wanted: &[Self]) -> u8 {
        wanted.iter().fold(0, |mask, alpn| mask | 1 << *alpn as u8)
    }
}

/// Why a mesh configuration cannot be made or a peer is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MeshError {
    /// No SVID of ours for this caller.
    #[error("this node holds no SVID for {0}: it is not one of its services, or has not been issued yet")]
    NoIdentity(SpiffeId),
    /// The callee is not a service, or its name does not fit a server name.
    #[error("{0} cannot be called: only services whose NAME.TRUST_DOMAIN fits a DNS name can")]
    NotCallable(SpiffeId),
    /// The peer's SVID is not valid any more.
    #[error(transparent)]
    Peer(#[from] SvidError),
}

/// The mesh side of one node. Clones share everything.
#[derive(Clone)]
pub struct Mesh(Arc<State>);

pub(crate) struct State {
    identities: ArcSwap<Identities>,
    trust: ArcSwap<Trust>,
    metrics: HandshakeMetrics,
    provider: Arc<CryptoProvider>,
    client_configs: RwLock<HashMap<(SpiffeId, SpiffeId, u8), Arc<ClientConfig>>>,
}

/// Bundles, and the peers that were verified with them: new bundles begin with none.
struct Trust {
    bundles: Arc<BundleSet>,
    peers: PeerCache,
}

impl Trust {
    fn new(bundles: BundleSet) -> Self {
        Self { bundles: Arc::new(bundles), peers: PeerCache::default() }
    }
}

impl Mesh {
    /// A node that trusts these bundles and has no identity yet.
    pub fn new(bundles: BundleSet) -> Self {
        Self(Arc::new(State {
            identities: ArcSwap::default(),
            trust: ArcSwap::from_pointee(Trust::new(bundles)),
            metrics: HandshakeMetrics::default(),
            provider: provider::mesh(),
            client_configs: RwLock::default(),
        }))
    }

    /// Replaces the bundles. Later handshakes, and later calls of [`Mesh::caller_of`], are judged by the new ones.
    ///
    /// What was revoked stays so.
    pub fn set_bundles(&self, bundles: BundleSet) {
        self.0.trust.rcu(|before| {
            let revoked = before.bundles.revoked().clone();
            Arc::new(Trust::new(bundles.clone().with_revoked(revoked)))
        });
    }

    /// Believes these SVIDs no more, in place of those before. What is open stays: whoever holds it asks [`RevokedSvids::check`].
    pub fn set_revoked(&self, revoked: Arc<RevokedSvids>) {
        self.0.trust.rcu(|before| {
            Arc::new(Trust::new(BundleSet::clone(&before.bundles).with_revoked(revoked.clone())))
        });
    }

    /// Whether an identity of our own was revoked, or nobody knows.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        identity.is_revoked(self.0.trust.load().bundles.revoked())
    }

    /// The bundles now in use.
    pub fn bundles(&self) -> Arc<BundleSet> {
        self.0.trust.load().bundles.clone()
    }

    /// Adds an identity or replaces the one with its ID.
    pub fn put_identity(&self, identity: Identity) {
        self.0.identities.rcu(|identities| {
            let mut identities = Identities::clone(identities);
            identities.put(identity.clone());
            identities
        });
    }

    /// Replaces all identities.
    pub fn set_identities(&self, identities: impl IntoIterator<Item = Identity>) {
        self.0.identities.store(Arc::new(Identities::new(identities)));
    }

    /// Forgets an identity: nobody can be called under its name, or call with it, any more.
    pub fn remove_identity(&self, id: &SpiffeId) {
        self.0.identities.rcu(|identities| {
            let mut identities = Identities::clone(identities);
            identities.remove(id);
            identities
        });
        if let Ok(mut configs) = self.0.client_configs.write() {
            configs.retain(|(caller, _, _), _| caller != id);
        }
    }

    /// The identity with this ID.
    pub fn identity(&self, id: &SpiffeId) -> Option<Identity> {
        self.0.identities.load().get(id).cloned()
    }

    /// Configuration of the node's mesh listener; made once, it follows identities and bundles by itself.
    pub fn server_config(&self, protocols: &[Alpn]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(self.0.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("invariant: the mesh provider has TLS 1.3 suites and groups")
            .with_client_cert_verifier(Arc::new(self.0.verifier(AnyCaller(self.0.clone()))))
            .with_cert_resolver(Arc::new(CalleeByServerName(self.0.clone())));
        config.alpn_protocols = Alpn::names(protocols);
        // A resumed session would skip the identity check and outlive bundle and SVID.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// Configuration to call one service as another. Kept, so asking again is cheap.
    pub fn client_config(
        &self,
        caller: &SpiffeId,
        callee: &SpiffeId,
        protocols: &[Alpn],
    ) -> Result<Arc<ClientConfig>, MeshError> {
        if self.0.identities.load().get(caller).is_none() {
            return Err(MeshError::NoIdentity(caller.clone()));
        }
        if server_name_text(callee).is_none() {
            return Err(MeshError::NotCallable(callee.clone()));
        }
        let key = (caller.clone(), callee.clone(), Alpn::mask(protocols));
        if let Ok(configs) = self.0.client_configs.read()
            && let Some(config) = configs.get(&key)
        {
            return Ok(config.clone());
        }
        let config = Arc::new(self.new_client_config(caller, callee, protocols));
        if let Ok(mut configs) = self.0.client_configs.write() {
            if configs.len() >= MAX_CLIENT_CONFIGS {
                configs.clear();
            }
            configs.insert(key, config.clone());
        }
        Ok(config)
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.0
    }

    pub(crate) fn new_client_config(
        &self,
        caller: &SpiffeId,
        callee: &SpiffeId,
        protocols: &[Alpn],
    ) -> ClientConfig {
        let judge = OneCallee { state: self.0.clone(), callee: callee.clone() };
        let mut config = ClientConfig::builder_with_provider(self.0.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("invariant: the mesh provider has TLS 1.3 suites and groups")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.0.verifier(judge)))
            .with_client_cert_resolver(Arc::new(CallerById(self.0.clone(), caller.clone())));
        config.alpn_protocols = Alpn::names(protocols);
        config.resumption = Resumption::disabled();
        config
    }

    /// Who called, after the handshake. Judged again by the bundles now in use, which costs a look-up unless they
    /// changed.
    pub fn caller_of(&self, connection: &ServerConnection) -> Result<VerifiedPeer, MeshError> {
        Ok(self.0.verify(
            connection.peer_certificates().unwrap_or_default(),
            Role::Client,
            UnixTime::now(),
        )?)
    }

    /// Who answered, after the handshake; always the callee that the configuration was made for.
    pub fn callee_of(&self, connection: &ClientConnection) -> Result<VerifiedPeer, MeshError> {
        Ok(self.0.verify(
            connection.peer_certificates().unwrap_or_default(),
            Role::Server,
            UnixTime::now(),
        )?)
    }

    /// Which of our services was called, by the server name of the handshake.
    pub fn called_service(&self, connection: &ServerConnection) -> Option<SpiffeId> {
        let identities = self.0.identities.load();
        identities.by_server_name(connection.server_name()?).map(|identity| identity.id().clone())
    }

    /// Counters of mesh handshakes.
    pub fn metrics(&self) -> &HandshakeMetrics {
        &self.0.metrics
    }
}

impl State {
    /// Verifies a chain, or recognises a leaf that was verified with the same bundles before.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<VerifiedPeer, SvidError> {
        let trust = self.trust.load();
        trust.peers.verify(chain, &trust.bundles, role, now)
    }

    pub(crate) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub(crate) fn certified(&self, id: &SpiffeId) -> Option<Arc<CertifiedKey>> {
        self.identities.load().get(id).map(|identity| identity.certified().clone())
    }

    pub(crate) fn verifier<J>(&self, judge: J) -> Verifier<J> {
        let algorithms = self.provider.signature_verification_algorithms;
        Verifier { judge, signatures: Signatures::Tls13, algorithms }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("generation", &self.trust.load().bundles.generation())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name a service is called by, `NAME.TRUST_DOMAIN`.
pub fn mesh_server_name(callee: &SpiffeId) -> Result<ServerName<'static>, MeshError> {
    let not_callable = || MeshError::NotCallable(callee.clone());
    let name = server_name_text(callee).ok_or_else(not_callable)?;
    ServerName::try_from(name).map_err(|_| not_callable())
}

pub(crate) fn server_name_text(id: &SpiffeId) -> Option<String> {
    let Some(Kind::Service(name)) = id.kind() else {
        return None;
    };
    let text = format!("{name}.{}", id.trust_domain());
    // A trust domain need not be a DNS name, but a server name must be one.
    matches!(ServerName::try_from(text.as_str()), Ok(ServerName::DnsName(_))).then_some(text)
}

/// Shows the SVID of the service that is called.
#[derive(Debug)]
struct CalleeByServerName(Arc<State>);

impl ResolvesServerCert for CalleeByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identities = self.0.identities.load();
        identities.by_server_name(hello.server_name()?).map(|identity| identity.certified().clone())
    }
}

/// Shows the SVID of the service that calls.
#[derive(Debug)]
struct CallerById(Arc<State>, SpiffeId);

impl ResolvesClientCert for CallerById {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.identities.load().get(&self.1).map(|identity| identity.certified().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
