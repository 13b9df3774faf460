//! What all threads of the node share. But for API keys, opaque tokens, proofs, limits and breakers, nothing here is touched by a request on an open connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use ringfence_event::Emitter;
use ringfence_keys::{EnvelopeKeys, Secret};
use ringfence_spiffe::{BundleSet, RevokedSvids};
use ringfence_tls::{
    Alpn, GatewayCertificates, GatewayError, HandshakeMetrics, Mesh, ServerConfig, gateway_asking_config,
    gateway_server_config,
};
use tokio::sync::{Notify, mpsc};

use crate::access::{ApiKeys, Proofs, Vouched};
use crate::asks::Asks;
use crate::delegate::Record;
use crate::handling::Breakers;
use crate::limits::Limiter;
use crate::shims::Shims;
use crate::stats::Shard;
use crate::table::{EdgeId, Interner};

/// Shared by all threads.
pub(crate) struct Shared {
    pub(crate) mesh: Mesh,
    pub(crate) mesh_config: Arc<ServerConfig>,
    /// Where our own mesh listener is reached.
    pub(crate) mesh_address: SocketAddr,
    pub(crate) certificates: GatewayCertificates,
    pub(crate) gateway_config: Arc<ServerConfig>,
    /// The same for a fence that looks at certificates of clients.
    pub(crate) asking_config: Arc<ServerConfig>,
    pub(crate) gateway_metrics: HandshakeMetrics,
    pub(crate) shims: Shims,
    /// Looked up by requests whose route accepts API keys, for less than a microsecond.
    pub(crate) api_keys: ApiKeys,
    /// Looked up by requests with an opaque token that their thread does not know, as shortly.
    pub(crate) vouched: Vouched,
    /// Looked up by requests that come with a proof of possession, as shortly.
    pub(crate) proofs: Proofs,
    /// Looked up by requests that limits count, as shortly.
    pub(crate) limiter: Limiter,
    /// Looked at by requests along ways that have one, as shortly.
    pub(crate) breakers: Breakers,
    /// What cookies are sealed under; none until control has told.
    cookies: RwLock<Option<Arc<EnvelopeKeys>>>,
    /// Which transaction tokens services were given.
    pub(crate) delivered: Record,
    /// Where threads ask control.
    pub(crate) asks: Asks,
    /// Where threads ask for keys of a provider.
    wanted: mpsc::Sender<Arc<str>>,
    /// Tells that an identity arrived.
    pub(crate) identities: Notify,
    /// Who runs where: what each service is told of others.
    pub(crate) registry: ringfence_registry::Registry,
    /// Where the registry's clock began.
    begun: Instant,
    interner: Mutex<Interner>,
    shards: Mutex<Vec<Arc<Shard>>>,
    /// Each thread makes its own from it.
    pub(crate) events: Emitter,
    pub(crate) threads: usize,
    /// Which of several machines is next.
    turn: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(
        mesh_address: SocketAddr,
        events: Emitter,
        threads: usize,
        asks: Asks,
        wanted: mpsc::Sender<Arc<str>>,
    ) -> Result<Self, GatewayError> {
        // Nobody is believed before it is known who is not to be.
        let mesh = Mesh::new(BundleSet::default().with_revoked(RevokedSvids::unknown().into()));
        let certificates = GatewayCertificates::default();
        Ok(Self {
            mesh_config: mesh.server_config(&[Alpn::H2, Alpn::Http1, Alpn::Tcp]),
            mesh,
            mesh_address,
            gateway_config: gateway_server_config(&certificates, &[Alpn::H2, Alpn::Http1])?,
            asking_config: gateway_asking_config(&certificates, &[Alpn::H2, Alpn::Http1])?,
            certificates,
            gateway_metrics: HandshakeMetrics::default(),
            shims: Shims::default(),
            api_keys: ApiKeys::default(),
            vouched: Vouched::default(),
            proofs: Proofs::new(),
            limiter: Limiter::new(),
            breakers: Breakers::default(),
            cookies: RwLock::default(),
            delivered: Record::default(),
            asks,
            wanted,
            identities: Notify::new(),
            registry: ringfence_registry::Registry::default(),
            begun: Instant::now(),
            interner: Mutex::default(),
            shards: Mutex::default(),
            events,
            threads,
            turn: AtomicUsize::new(0),
        })
    }

    /// A number that is another each time, to take machines in turn.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The registry's clock, in milliseconds.
    pub(crate) fn registry_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// A token names a key of this provider that is not there.
    pub(crate) fn want_keys(&self, provider: &Arc<str>) {
        // Full is as good as asked: the same few providers are in it.
        let _ = self.wanted.try_send(provider.clone());
    }

    /// Seals cookies under the first of these from now on, and opens those that any of them sealed.
    pub(crate) fn set_cookie_keys(&self, keys: Vec<(u32, Secret<[u8; 32]>)>) {
        let mut keys = keys.into_iter();
        let keys = keys.next().map(|(id, key)| Arc::new(EnvelopeKeys::new(id, key, keys.collect())));
        *self.cookies.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// What cookies are sealed under.
    pub(crate) fn cookie_keys(&self) -> Option<Arc<EnvelopeKeys>> {
        self.cookies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The numbers of edges; taken for a moment by tables, statistics and denied calls.
    pub(crate) fn with_interner<R>(&self, work: impl FnOnce(&mut Interner) -> R) -> R {
        work(&mut self.interner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of an edge that may not be declared.
    pub(crate) fn edge_id(&self, caller: &Arc<str>, callee: &Arc<str>) -> EdgeId {
        self.with_interner(|interner| interner.id(caller, callee))
    }

    pub(crate) fn add_shard(&self, shard: Arc<Shard>) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(shard);
    }

    pub(crate) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
