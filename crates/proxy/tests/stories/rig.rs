//! A node in this process, with a control, a supervisor and shims that the test plays.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SubjectPublicKeyInfo,
};
use ringfence_channel::BlockingChannel;
use ringfence_event::{Filter, Record, read_dir};
use ringfence_keys::{Algorithm, Secret, SigningKey, VerifyingKey, possession};
use ringfence_model::Fence;
use ringfence_proxy::protocol::shim::{FromShim, ToShim};
use ringfence_proxy::protocol::{FromNode, ListenerKind, Start, ToNode};
use ringfence_snapshot::node::{
    ApiKeys, Ask, FromProxy, Issued, NoAnswer, NoAnswerCode, ProviderKeys, Revocations, Stats, Subject,
    ToProxy, Told,
};
use ringfence_snapshot::{
    Addresses, Bundle, ClientAuthority, Content, ContentPart, Digest, Header, JwtKey, Policies,
    SignedSnapshot, compile,
};
use ringfence_tls::pki_types::CertificateDer;
use ringfence_token::Revocation;

use crate::keeper::Keeper;
use crate::net::Net;
pub use crate::patience::eventually;
use crate::patience::{HELP, within};

/// Data-plane threads of nodes started from now on.
pub static THREADS: AtomicUsize = AtomicUsize::new(2);

fn threads() -> usize {
    THREADS.load(Ordering::Relaxed)
}

pub const TRUST_DOMAIN: &str = "clinic.example";

pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A root that signs SVIDs and serving certificates.
pub struct Authority {
    pub root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Certifies a public key for names that begin with `spiffe://`, or are hosts.
    pub fn issue(
        &self,
        names: &[String],
        spki: &impl PublicKeyData,
        life: Duration,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + life).into();
        let san = |name: &String| match (name.starts_with("spiffe://"), name.parse()) {
            (true, _) => SanType::URI(name.as_str().try_into().unwrap()),
            (_, Ok(ip)) => SanType::IpAddress(ip),
            _ => SanType::DnsName(name.as_str().try_into().unwrap()),
        };
        params.subject_alt_names = names.iter().map(san).collect();
        params.signed_by(spki, &self.issuer).unwrap().der().clone()
    }
}

/// What control, the keeper behind it and a provider say to what a node asks.
pub type Answers = Arc<dyn Fn(Ask) -> Result<Told, NoAnswer> + Send + Sync>;

/// Name of the key that signs JWT-SVIDs.
pub const SVID_KEY_ID: &str = "j1";

/// What the played control holds.
pub struct Control {
    /// Signs sessions, as `t1`.
    pub token_key: SigningKey,
    /// Signs JWT-SVIDs, as [`SVID_KEY_ID`].
    pub svid_key: SigningKey,
    pub answers_to: Mutex<Option<Answers>>,
    /// Who is asked for transaction tokens.
    pub keeper: Keeper,
    /// The fence that was signed last.
    pub fence: Mutex<Option<Fence>>,
    key: SigningKey,
    pub authority: Mutex<Arc<Authority>>,
    addresses: Mutex<Addresses>,
    revision: AtomicU64,
    pub life: Mutex<Duration>,
    pub lease: AtomicU64,
    pub generation: AtomicU64,
    pub extra_roots: Mutex<Vec<CertificateDer<'static>>>,
    /// Acks (revision, none) and nacks (revision, why).
    pub answers: Mutex<Vec<(u64, Option<String>)>>,
    pub stats: Mutex<Option<Stats>>,
    pub issued: AtomicU64,
    /// Providers whose keys were asked for.
    pub wanted: Mutex<Vec<String>>,
    /// What decides on top of the edges.
    pub policies: Mutex<Option<Policies>>,
    /// Who issues client certificates.
    pub authorities: Mutex<Vec<ClientAuthority>>,
    /// What a node is told was revoked, when it comes.
    pub revoked: Mutex<Vec<Revocation>>,
    /// Files that snapshots name.
    pub content: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The newest certificate of each name.
    leaves: Mutex<HashMap<String, CertificateDer<'static>>>,
}

/// A running node.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub control: Arc<Control>,
    pub gateway: SocketAddr,
    pub mesh: SocketAddr,
    pub nets: HashMap<String, Arc<Net>>,
    to_node: BlockingChannel<ToNode, FromNode>,
    to_proxy: Mutex<BlockingChannel<ToProxy, FromProxy>>,
    heard: Arc<Mutex<Vec<FromNode>>>,
    node: Option<JoinHandle<()>>,
}

fn listeners(address: SocketAddr, count: usize) -> (SocketAddr, Vec<OwnedFd>) {
    let mut address = address;
    let mut fds = Vec::new();
    for _ in 0..count {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1024).unwrap();
        address = socket.local_addr().unwrap().as_socket().unwrap();
        fds.push(OwnedFd::from(socket));
    }
    (address, fds)
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Rig {
    /// A node that enforces `fence`, with a gateway and mesh listener.
    pub fn start(fence: &str) -> Self {
        let rig = Self::bare(tempfile::tempdir().unwrap());
        rig.connect_control();
        rig.apply(fence);
        rig
    }

    /// A node before control has said anything.
    pub fn bare(dir: tempfile::TempDir) -> Self {
        let control = Arc::new(Control {
            key: SigningKey::generate(Algorithm::Ed25519).unwrap(),
            token_key: SigningKey::generate(Algorithm::Ed25519).unwrap(),
            svid_key: SigningKey::generate(Algorithm::P256).unwrap(),
            answers_to: Mutex::default(),
            keeper: Keeper::new(),
            fence: Mutex::default(),
            authority: Mutex::new(Arc::new(Authority::new(TRUST_DOMAIN))),
            addresses: Mutex::default(),
            revision: AtomicU64::new(0),
            life: Mutex::new(Duration::from_secs(3600)),
            lease: AtomicU64::new(3600),
            generation: AtomicU64::new(1),
            extra_roots: Mutex::default(),
            answers: Mutex::default(),
            stats: Mutex::default(),
            issued: AtomicU64::new(0),
            wanted: Mutex::default(),
            policies: Mutex::default(),
            authorities: Mutex::default(),
            revoked: Mutex::default(),
            content: Mutex::default(),
            leaves: Mutex::default(),
        });
        Self::with_control(dir, control)
    }

    /// A node that comes after another one.
    pub fn with_control(dir: tempfile::TempDir, control: Arc<Control>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let node = std::thread::spawn(move || ringfence_proxy::run(theirs, |_| Ok(())).unwrap());
        let to_node = BlockingChannel::<ToNode, FromNode>::new(ours);
        let (mesh, mesh_fds) = listeners(loopback(0), threads());
        let (gateway, gateway_fds) = listeners(loopback(0), threads());
        let start = Start {
            snapshot_key: control.key.verifying_key().to_spki().into(),
            data_dir: dir.path().to_owned(),
            threads: threads(),
            node: "test".into(),
            mesh,
        };
        to_node.send(&ToNode::Start(start), &[]).unwrap();
        let heard = Arc::<Mutex<Vec<FromNode>>>::default();
        let (listening, news) = (to_node.try_clone().unwrap(), heard.clone());
        std::thread::spawn(move || {
            while let Ok((message, _)) = listening.recv() {
                news.lock().unwrap().push(message);
            }
        });
        let (a, _b) = UnixStream::pair().unwrap();
        let to_proxy = Mutex::new(BlockingChannel::new(a));
        let rig = Self {
            dir,
            control,
            gateway,
            mesh,
            nets: HashMap::new(),
            to_node,
            to_proxy,
            heard,
            node: Some(node),
        };
        rig.listen(ListenerKind::Mesh, &mesh_fds);
        rig.listen(ListenerKind::Gateway, &gateway_fds);
        rig
    }

    pub fn tell(&self, message: &ToNode) {
        self.to_node.send(message, &[]).unwrap();
    }

    fn listen(&self, kind: ListenerKind, fds: &[OwnedFd]) {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.to_node.send(&ToNode::Listener { kind: kind.clone() }, &fds).unwrap();
        self.wait_for(|m| *m == FromNode::Listening { kind: kind.clone() });
    }

    pub fn wait_for(&self, wanted: impl Fn(&FromNode) -> bool) -> FromNode {
        eventually("a message of the node", || self.heard.lock().unwrap().iter().find(|m| wanted(m)).cloned())
    }

    /// A new control, as after a restart.
    pub fn connect_control(&self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.to_node.send(&ToNode::Control, &[theirs.as_fd()]).unwrap();
        let channel = BlockingChannel::<ToProxy, FromProxy>::new(ours);
        *self.to_proxy.lock().unwrap() = channel.try_clone().unwrap();
        let revoked = self.control.revoked.lock().unwrap().clone();
        self.revoke(Revocations::Part { first: true, last: true, entries: revoked });
        let control = self.control.clone();
        std::thread::spawn(move || {
            while let Ok((message, _)) = channel.recv() {
                if let FromProxy::Ask { request, ask } = message {
                    // Each in its own time: one that a provider takes long for holds up no other.
                    let (control, channel) = (control.clone(), channel.try_clone().unwrap());
                    std::thread::spawn(move || {
                        if let Ask::Mint(mint) = &ask {
                            let fence = control.fence.lock().unwrap().clone().unwrap();
                            if let Some(outcome) = control.keeper.answer(mint, &fence) {
                                let _ = channel.send(&ToProxy::Answer { request, outcome }, &[]);
                            }
                            return;
                        }
                        let answers = control.answers_to.lock().unwrap().clone();
                        let nobody = || NoAnswer::new(NoAnswerCode::Unavailable, "there is no keeper");
                        let outcome = answers.map_or_else(|| Err(nobody()), |answers| answers(ask));
                        let _ = channel.send(&ToProxy::Answer { request, outcome }, &[]);
                    });
                } else if let Some(answer) = control.take(message) {
                    let _ = channel.send(&answer, &[]);
                }
            }
        });
    }

    /// Control is gone.
    pub fn disconnect_control(&self) {
        let _ = self.to_proxy.lock().unwrap().socket().shutdown(std::net::Shutdown::Both);
    }

    pub fn renew(&self) {
        self.to_proxy.lock().unwrap().send(&ToProxy::Renew, &[]).unwrap();
    }

    /// Tells the node the keys of a provider, as control does.
    pub fn believe(&self, keys: ProviderKeys) {
        self.to_proxy.lock().unwrap().send(&ToProxy::Keys(keys), &[]).unwrap();
    }

    /// Tells the node what was revoked, as control does.
    pub fn revoke(&self, told: Revocations) {
        self.to_proxy.lock().unwrap().send(&ToProxy::Revocations(told), &[]).unwrap();
    }

    /// Has control answer what a node asks.
    pub fn answer(&self, answers: impl Fn(Ask) -> Result<Told, NoAnswer> + Send + Sync + 'static) {
        *self.control.answers_to.lock().unwrap() = Some(Arc::new(answers));
    }

    /// Tells the node what cookies are sealed under, as control does.
    pub fn tell_cookie_keys(&self, keys: Vec<(u32, Secret<[u8; 32]>)>) {
        self.to_proxy.lock().unwrap().send(&ToProxy::CookieKeys(keys), &[]).unwrap();
    }

    /// Tells the node API keys, as control does, and waits until a whole set counts.
    pub fn tell_keys(&self, keys: ApiKeys) {
        let known =
            || self.events().iter().filter(|r| field(r, "/message").contains("API keys are known")).count();
        let (before, whole) = (known(), matches!(keys, ApiKeys::Part { last: true, .. }));
        self.control.keeper.know(&keys);
        self.to_proxy.lock().unwrap().send(&ToProxy::ApiKeys(keys), &[]).unwrap();
        if whole {
            eventually("the API keys to be known", || (known() > before).then_some(()));
        }
    }

    pub fn send(&self, snapshot: &SignedSnapshot) {
        self.to_proxy.lock().unwrap().send(&ToProxy::Snapshot(snapshot.clone()), &[]).unwrap();
    }

    /// Sends the node a file that snapshots from now on name.
    pub fn give(&self, name: &str, bytes: &[u8]) {
        self.control.content.lock().unwrap().insert(name.into(), bytes.to_vec());
        for part in ContentPart::all(Digest::of(bytes), bytes) {
            self.to_proxy.lock().unwrap().send(&ToProxy::Content(part), &[]).unwrap();
        }
    }

    /// The address at which services find `service`.
    pub fn address(&self, service: &str) -> String {
        ringfence_snapshot::service_ip(self.control.addresses.lock().unwrap().service(service).unwrap())
            .to_string()
    }

    /// The address at which services find an egress host.
    pub fn egress(&self, host: &str) -> String {
        ringfence_snapshot::egress_ip(self.control.addresses.lock().unwrap().egress(host).unwrap())
            .to_string()
    }

    /// Has a fence enforced, with every certificate that it needs.
    pub fn apply(&self, fence: &str) -> u64 {
        let revision = self.apply_policy(fence);
        eventually("certificates", || {
            let stats = self.control.stats.lock().unwrap().clone()?;
            let all = stats.certificates.iter().all(|(_, ends)| *ends > unix());
            (stats.revision == revision && all).then_some(())
        });
        revision
    }

    /// Has a fence enforced and waits until it is.
    pub fn apply_policy(&self, fence: &str) -> u64 {
        let (revision, signed) = self.control.snapshot(fence);
        self.send(&signed);
        // Ten thousand policies take a while.
        let answer = within(Duration::from_secs(120), "an answer to the snapshot", || {
            self.control.answers.lock().unwrap().iter().find(|(r, _)| *r == revision).cloned()
        });
        assert_eq!(answer.1, None, "refused");
        revision
    }

    /// A service with a network and shim of its own, reachable there at `port`, serving what `serve` does.
    pub fn shim(&mut self, service: &str, outbound: &[u16]) -> Arc<Net> {
        let net = Arc::new(Net::new());
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.to_node.send(&ToNode::Shim { service: service.into() }, &[theirs.as_fd()]).unwrap();
        let sockets = net.clone();
        std::thread::spawn(move || {
            let channel = BlockingChannel::<FromShim, ToShim>::new(ours);
            while let Ok((ToShim::Sockets { count }, _)) = channel.recv() {
                let made = sockets.sockets(count);
                let fds: Vec<_> = made.iter().map(AsFd::as_fd).collect();
                if channel.send(&FromShim::Sockets { count }, &fds).is_err() {
                    return;
                }
            }
        });
        self.tell(&ToNode::ShimReady { service: service.into() });
        // What the node says of a listener tells, too, that it has followed all that it was told before.
        for port in if outbound.is_empty() { &[9] } else { outbound } {
            let fds = net.listen(*port, threads());
            self.listen(ListenerKind::Outbound { service: service.into(), port: *port }, &fds);
        }
        self.nets.insert(service.into(), net.clone());
        net
    }

    /// Events so far that fit, once there is one.
    pub fn event(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        eventually(what, || self.events().into_iter().find(|r| wanted(r)))
    }

    /// What went wrong, for the message of a test that fails.
    pub fn troubles(&self) -> Vec<String> {
        let bad = |r: &Record| r.json["severity_id"].as_u64() > Some(1);
        let text = |r: Record| {
            format!(
                "{} {} {}",
                field(&r, "/unmapped/point"),
                field(&r, "/firewall_rule/uid"),
                field(&r, "/status_detail")
            )
        };
        self.events().into_iter().filter(bad).map(text).collect()
    }

    pub fn events(&self) -> Vec<Record> {
        read_dir(&self.dir.path().join("events"), &Filter::default()).unwrap()
    }

    /// Stops the node and leaves its folder.
    pub fn stop(mut self) -> tempfile::TempDir {
        self.shut_down();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    fn shut_down(&mut self) {
        if let Some(node) = self.node.take() {
            let _ = self.to_node.send(&ToNode::Shutdown, &[]);
            node.join().unwrap();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shut_down();
        }
    }
}

impl Control {
    /// Compiles and signs the next revision.
    pub fn snapshot(&self, fence: &str) -> (u64, SignedSnapshot) {
        let revision = self.revision.fetch_add(1, Ordering::Relaxed) + 1;
        (revision, self.sign(fence, revision, unix()))
    }

    pub fn sign(&self, fence: &str, revision: u64, issued_at: u64) -> SignedSnapshot {
        let fence = Fence::parse(vec![("ringfence.yaml", fence)]).unwrap_or_else(|e| panic!("{e}"));
        *self.fence.lock().unwrap() = Some(fence.clone());
        let mut x509 = vec![self.authority.lock().unwrap().root.to_vec().into()];
        x509.extend(self.extra_roots.lock().unwrap().iter().map(|root| root.to_vec().into()));
        let header = Header {
            epoch: 1,
            revision,
            issued_at,
            expires_at: issued_at + 86_400,
            lease: self.lease.load(Ordering::Relaxed),
            bundle: Bundle {
                generation: self.generation.load(Ordering::Relaxed),
                x509,
                jwt: vec![JwtKey {
                    kid: SVID_KEY_ID.into(),
                    spki: self.svid_key.verifying_key().to_spki().into(),
                }],
                txn: vec![
                    JwtKey { kid: "t1".into(), spki: self.token_key.verifying_key().to_spki().into() },
                    self.keeper.public(),
                ],
                ..Bundle::default()
            },
        };
        let mut snapshot = compile(&fence, &mut self.addresses.lock().unwrap(), header).unwrap();
        let content = self.content.lock().unwrap();
        snapshot.content = content.iter().map(|(name, bytes)| Content::of(name, bytes)).collect();
        snapshot.policies.clone_from(&self.policies.lock().unwrap());
        snapshot.authorities.clone_from(&self.authorities.lock().unwrap());
        let bytes = serde_json::to_string(&snapshot).unwrap();
        // Names that somebody's DNS points at loopback; the fence itself does not take `localhost`.
        let bytes = bytes.replace("loopback.test", "localhost").replace("rebound.test", "localhost");
        let signature = self.key.sign(&SignedSnapshot::message(&bytes)).unwrap().into();
        SignedSnapshot { bytes, signature }
    }

    /// The serial number of the newest SVID of this SPIFFE ID.
    pub fn serial(&self, id: &str) -> String {
        let leaves = self.leaves.lock().unwrap();
        ringfence_spiffe::certificate::Certificate::parse(&leaves[id]).unwrap().serial_hex()
    }

    fn take(&self, message: FromProxy) -> Option<ToProxy> {
        match message {
            FromProxy::Ack { revision } => self.answers.lock().unwrap().push((revision, None)),
            FromProxy::Nack { revision, reason } => {
                self.answers.lock().unwrap().push((revision, Some(reason)))
            }
            FromProxy::Stats(stats) => *self.stats.lock().unwrap() = Some(stats),
            FromProxy::Hello { .. } | FromProxy::Used(_) | FromProxy::Ask { .. } => {}
            FromProxy::WantKeys { provider } => self.wanted.lock().unwrap().push(provider),
            FromProxy::SignJwt { .. } => panic!("a proxy asks for no JWT-SVID"),
            FromProxy::Sign { request, subject, spki, proof } => {
                let (names, proved) = match subject {
                    Subject::Svid(id) => (vec![id.clone()], id),
                    Subject::Serving(hosts) => (hosts.clone(), format!("serving:{}", hosts.join(","))),
                };
                let key = VerifyingKey::from_spki(&spki.0).unwrap();
                possession::check(&key, &proved, &proof.0).expect("the proof of possession holds");
                let public = SubjectPublicKeyInfo::from_der(&spki.0).unwrap();
                let life = *self.life.lock().unwrap();
                let leaf = self.authority.lock().unwrap().issue(&names, &public, life);
                self.leaves.lock().unwrap().insert(names[0].clone(), leaf.clone());
                self.issued.fetch_add(1, Ordering::Relaxed);
                let issued = Issued { chain: vec![leaf.to_vec().into()], not_after: unix() + life.as_secs() };
                return Some(ToProxy::Signed { request, outcome: Ok(issued) });
            }
        }
        None
    }
}

/// Sends raw bytes and reads until the other side closes; it may answer, and take no more, before it has taken all of them.
pub fn raw(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.set_read_timeout(Some(HELP)).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same, with a client's half that ends behind them: for what closes no connection of itself.
pub fn half(mut stream: TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    raw(stream, b"")
}

/// A GET that closes the connection after it.
pub fn get(stream: TcpStream, host: &str, path: &str) -> String {
    raw(stream, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
}

/// A port of loopback for another program, kept from everybody else: as long as this lives nobody is given it, and who asks for it by its
/// number may listen there.
pub fn kept() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&loopback(0).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A listener on loopback.
pub fn local() -> (TcpListener, u16) {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

pub fn field<'a>(record: &'a Record, path: &str) -> &'a str {
    record.json.pointer(path).and_then(|v| v.as_str()).unwrap_or_default()
}
