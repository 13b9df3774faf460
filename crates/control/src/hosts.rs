//! Hosts that join: who may, what they get, and the listener that they come to.
//!
//! Who comes is proven by `ringfence-wire`, who belongs is decided by the store (`ringfence-join`), and what may be certified by
//! the keeper, for which only hosts of the snapshot in force exist. Nothing here remembers a membership: each SVID and
//! each certificate is recorded in a transaction that fails when the host was removed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use ringfence_ca::Ca;
use ringfence_event::{Emitter, Entity, Event, Kind};
use ringfence_join::{Hosts, JoinError, JoinToken, Request as JoinRequest, Seat};
use ringfence_keeper::protocol::X509Request;
use ringfence_keeper::{control_id, gateway_id};
use ringfence_keys::{Algorithm, SigningKey, VerifyingKey, possession};
use ringfence_snapshot::{Der, Snapshot, Target};
use ringfence_spiffe::{
    BundleSet, CertificateDer, LeafKey, RevokedSvids, SpiffeId, TrustBundle, TrustDomain,
};
use ringfence_store::Store;
use ringfence_tls::{Identity, Mesh};
use ringfence_wire::{JoinAsk, Refused, Request, Trust, Welcome};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::ControlError;
use crate::core::{Core, now};
use crate::nodes::HostSession;
use crate::refusal::Refusal;
use crate::revocations::Target as Revoked;

/// Longest life of a host's SVID in seconds.
const HOST_LIFE: u64 = 3600;
/// How long control's own SVID lives, and the pause after it could not be had.
const OWN_LIFE: u64 = 3600;
const PAUSE: Duration = Duration::from_secs(1);
/// Introductions of sessions are numbered from here on: those of the supervisor's are below.
const FIRST: u64 = 1 << 32;

/// Body of `POST /v1/hosts/{name}/token`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostToken {
    /// How long the token is good, in seconds.
    pub ttl: u64,
}

/// What is asked about hosts.
#[derive(Clone, Debug)]
pub(crate) enum AskHosts {
    List,
    Token(String, HostToken),
    Remove(String),
}

/// A host that belongs opened a session.
pub(crate) type Admitted = (HostSession, oneshot::Sender<Result<(), Refused>>);

/// All about hosts that join.
pub(crate) struct Joined {
    hosts: Hosts,
    mesh: Mesh,
    emitter: Emitter,
    /// What the snapshot in force says of hosts.
    known: Arc<Mutex<Option<Arc<Known>>>>,
    snapshot_key: Option<Der>,
    listener: Option<std::net::TcpListener>,
    admitted: mpsc::Sender<Admitted>,
    introductions: u64,
    /// The listener's task and those that it needs; they end with this.
    tasks: JoinSet<()>,
}

/// What a snapshot says of hosts.
struct Known {
    fence: String,
    trust_domain: TrustDomain,
    bundle: Arc<TrustBundle>,
    roots: Vec<Der>,
    /// Whether the host is there, and has not control itself.
    hosts: BTreeMap<String, bool>,
    controls: Vec<SocketAddr>,
}

/// What each visit needs.
#[derive(Clone)]
struct Desk {
    hosts: Hosts,
    ca: Ca,
    known: Arc<Mutex<Option<Arc<Known>>>>,
    snapshot_key: Der,
    emitter: Emitter,
    admitted: mpsc::Sender<Admitted>,
}

impl Joined {
    pub(crate) fn new(store: &Store, emitter: Emitter, admitted: mpsc::Sender<Admitted>) -> Self {
        Self {
            hosts: Hosts::new(store.clone()),
            // Nobody is believed before it is known who is not to be.
            mesh: Mesh::new(BundleSet::default().with_revoked(RevokedSvids::unknown().into())),
            emitter,
            known: Arc::default(),
            snapshot_key: None,
            listener: None,
            admitted,
            introductions: FIRST,
            tasks: JoinSet::new(),
        }
    }

    /// Takes what a snapshot in force says of hosts.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let known = Known::of(snapshot);
        if let Some(known) = &known {
            let bundles = [known.bundle.clone()];
            self.mesh.set_bundles(BundleSet::new(snapshot.bundle.generation, bundles));
        }
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known.map(Arc::new);
    }

    /// Takes which identities were revoked: up to when what they were issued counts no more.
    pub(crate) fn set_revoked(&self, revoked: impl Iterator<Item = (String, u64)>) {
        let mut svids = RevokedSvids::default();
        for (id, until) in revoked {
            if let Ok(id) = SpiffeId::parse(&id) {
                svids.add_id(id, until);
            }
        }
        self.mesh.set_revoked(Arc::new(svids));
    }

    /// Takes the listener, in place of one before; none is served without one.
    pub(crate) fn listen(&mut self, listener: Option<std::net::TcpListener>, snapshot_key: Der) {
        self.tasks = JoinSet::new();
        (self.listener, self.snapshot_key) = (listener, Some(snapshot_key));
    }

    /// Begins to serve what there is to serve, once there is all that it takes.
    pub(crate) fn start(&mut self, ca: &Ca) -> Result<(), ControlError> {
        let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(());
        };
        let (Some(listener), Some(snapshot_key)) = (self.listener.take(), self.snapshot_key.clone()) else {
            return Ok(());
        };
        let Ok(own) = control_id(&known.trust_domain, &known.fence) else { return Ok(()) };
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let desk = Desk {
            hosts: self.hosts.clone(),
            ca: ca.clone(),
            known: self.known.clone(),
            snapshot_key,
            emitter: self.emitter.clone(),
            admitted: self.admitted.clone(),
        };
        self.tasks.spawn(be(own.clone(), self.mesh.clone(), ca.clone(), self.emitter.clone()));
        let (visitor, mut visits) = mpsc::channel(64);
        let mesh = self.mesh.clone();
        self.tasks.spawn(ringfence_wire::serve(listener, mesh, own, visitor));
        self.tasks.spawn(async move {
            while let Some(visit) = visits.recv().await {
                let desk = desk.clone();
                // Each waits for the keeper and the store by itself.
                tokio::spawn(async move { desk.receive(visit).await });
            }
        });
        Ok(())
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Known {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        let trust_domain = TrustDomain::new(&snapshot.trust_domain).ok()?;
        let roots = snapshot.bundle.x509.clone();
        let ders = roots.iter().map(|der| der.0.clone().into()).collect();
        let generation = snapshot.bundle.generation;
        let bundle = TrustBundle::new(trust_domain.clone(), ders, Vec::new(), generation, None).ok()?;
        let bundle = Arc::new(bundle);
        let hosts: BTreeMap<String, bool> =
            snapshot.hosts.iter().map(|host| (host.name.clone(), host.control.is_none())).collect();
        let controls: Vec<SocketAddr> = snapshot.hosts.iter().filter_map(|host| host.control).collect();
        let fence = snapshot.fence.clone();
        (!hosts.is_empty()).then_some(Self { fence, trust_domain, bundle, roots, hosts, controls })
    }

    /// Whether a host of that name may join.
    fn joins(&self, host: &str) -> bool {
        self.hosts.get(host).copied().unwrap_or(false)
    }
}

/// Keeps control's own SVID good, for as long as this runs.
async fn be(own: SpiffeId, mesh: Mesh, ca: Ca, emitter: Emitter) {
    loop {
        let pause = match identity(&own, &ca).await {
            Ok(identity) => {
                mesh.put_identity(identity);
                Duration::from_secs(OWN_LIFE / 2)
            }
            Err(reason) => {
                tell(&emitter, own.as_str(), 1, false, &reason);
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn identity(own: &SpiffeId, ca: &Ca) -> Result<Identity, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let key = SigningKey::generate(Algorithm::P256).map_err(|e| text(&e))?;
    let request = X509Request {
        id: own.as_str().to_owned(),
        spki: key.verifying_key().to_spki().into(),
        proof: possession::prove(&key, own.as_str()).map_err(|e| text(&e))?.into(),
        ttl: OWN_LIFE,
    };
    let svid = ca.issue(request).await.map_err(|e| text(&e))?;
    own_identity(own.clone(), &key, svid.chain)
}

/// An identity of this process.
pub(crate) fn own_identity(id: SpiffeId, key: &SigningKey, chain: Vec<Der>) -> Result<Identity, String> {
    let pkcs8 = key.to_pkcs8().map_err(|e| e.to_string())?;
    let key = LeafKey::from_pkcs8(Zeroizing::new(pkcs8.expose().clone())).map_err(|e| e.to_string())?;
    let chain = chain.into_iter().map(|der| CertificateDer::from(der.0)).collect();
    Identity::new(id, chain, &key).map_err(|e| e.to_string())
}

impl Desk {
    async fn receive(self, visit: Request) {
        let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
        match visit {
            Request::Trust(answer) => {
                let trust = Trust {
                    trust_domain: known.trust_domain.as_str().to_owned(),
                    fence: known.fence.clone(),
                    roots: known.roots.clone(),
                    challenge: String::new(),
                };
                let _ = answer.send(trust);
            }
            Request::Join { ask, from, answer } => {
                let outcome = self.join(&known, &ask).await;
                let _ = answer.send(self.said("joined", from, outcome));
            }
            Request::ComeBack { host, key, ask, from, answer } => {
                let outcome = match known.joins(&host) {
                    true => self.issue(&known, self.seat(&host, &key).await, ask.spki, ask.proof).await,
                    false => Err((host, "no such host in the fence".to_owned())),
                };
                let _ = answer.send(self.said("has a new SVID", from, outcome));
            }
            Request::Session { sealed, frames, outgoing, answer } => {
                let ringfence_wire::Sealed { host, key, ends_at } = sealed;
                let seat = match known.joins(&host) {
                    true => self.seat(&host, &key).await,
                    false => Err((host, "no such host in the fence".to_owned())),
                };
                match seat {
                    Ok(seat) => {
                        let session = HostSession { seat, ends_at, frames, outgoing };
                        let _ = self.admitted.send((session, answer)).await;
                    }
                    Err((host, reason)) => {
                        tell(&self.emitter, &host, 2, false, &format!("gets no session: {reason}"));
                        let _ = answer.send(Err(Refused));
                    }
                }
            }
        }
    }

    async fn join(&self, known: &Known, ask: &JoinAsk) -> Result<(String, Welcome), (String, String)> {
        let stranger = |why: &dyn std::fmt::Display| ("-".to_owned(), why.to_string());
        let token = JoinToken::parse(ask.token.expose()).map_err(|e| stranger(&e))?;
        let named = |why: String| (token.host().to_owned(), why);
        if !known.joins(token.host()) {
            return Err(named("no such host in the fence".to_owned()));
        }
        let key = VerifyingKey::from_spki(&ask.spki.0).map_err(|e| named(e.to_string()))?;
        let request = JoinRequest { token: &token, key: &key, proof: &ask.proof.0 };
        let seat = self.hosts.join(&request, now()).await.map_err(|e| named(e.to_string()));
        self.issue(known, seat, ask.spki.clone(), ask.proof.clone()).await
    }

    async fn seat(&self, host: &str, key: &VerifyingKey) -> Result<Seat, (String, String)> {
        self.hosts.seat(host, key).await.map_err(|e| (host.to_owned(), e.to_string()))
    }

    /// An SVID for a host that belongs, and still does when it is handed over.
    async fn issue(
        &self,
        known: &Known,
        seat: Result<Seat, (String, String)>,
        spki: Der,
        proof: Der,
    ) -> Result<(String, Welcome), (String, String)> {
        let seat = seat?;
        let host = seat.host().to_owned();
        let named = |why: &dyn std::fmt::Display| (host.clone(), why.to_string());
        let id = SpiffeId::node(&known.trust_domain, &host).map_err(|e| named(&e))?;
        let request = X509Request { id: id.as_str().to_owned(), spki, proof, ttl: HOST_LIFE };
        let svid = self.ca.issue(request).await.map_err(|e| named(&e))?;
        seat.issue(Vec::new()).await.map_err(|e| named(&e))?;
        let snapshot_key = self.snapshot_key.clone();
        Ok((host, Welcome { chain: svid.chain, not_after: svid.not_after, snapshot_key }))
    }

    /// Says to the operator what happened; to the host only whether.
    fn said(
        &self,
        done: &str,
        from: SocketAddr,
        outcome: Result<(String, Welcome), (String, String)>,
    ) -> Result<Welcome, Refused> {
        match outcome {
            Ok((host, welcome)) => {
                tell(&self.emitter, &host, 1, true, &format!("{done}; it came from {from}"));
                Ok(welcome)
            }
            Err((host, reason)) => {
                tell(&self.emitter, &host, 1, false, &format!("refused, it came from {from}: {reason}"));
                Err(Refused)
            }
        }
    }
}

fn tell(emitter: &Emitter, name: &str, activity: u8, granted: bool, message: &str) {
    let entity = Entity { entity: "host", name, uid: None, activity, granted, message };
    emitter.emit(&Event::new(Kind::Entity(entity)));
}

impl Core {
    /// A host that belongs opened a session.
    pub(crate) fn admitted(&mut self, (session, answer): Admitted) {
        let host = session.seat.host().to_owned();
        self.joined.introductions += 1;
        self.nodes.connect_host(session, self.joined.introductions);
        if let Some(sender) = self.nodes.sender(&host) {
            self.nodes.along(&host, self.revocations.tell(sender.clone()));
            self.nodes.along(&host, self.keys.tell(sender));
        }
        self.entity("host", &host, 2, true, "is here");
        let _ = answer.send(Ok(()));
    }

    /// Lists, admits and removes hosts.
    pub(crate) async fn hosts(&mut self, ask: AskHosts) -> crate::api::Answer {
        let Some(known) = self.joined.known() else {
            let why = "the fence in force has no `hosts`: declare them, one with `control`";
            return Err((StatusCode::CONFLICT, why.to_owned()));
        };
        match ask {
            AskHosts::List => self.list_hosts(&known).await,
            AskHosts::Token(host, HostToken { ttl }) => {
                if !known.joins(&host) {
                    let why = match known.hosts.contains_key(&host) {
                        true => format!("`{host}` has control and need not join"),
                        false => format!("the fence has no host `{host}`: declare it under `hosts` first"),
                    };
                    return Err((StatusCode::NOT_FOUND, why));
                }
                let token = JoinToken::generate(&host, &known.bundle, known.controls.clone())
                    .map_err(|e| (StatusCode::CONFLICT, e.to_string()))?;
                self.joined.hosts.admit(&token, ttl, now(), "operator").await.map_err(problem)?;
                self.entity("host", &host, 1, true, "a join token was made for it");
                Ok(json!({ "host": host, "token": token.to_text().expose(), "ends_at": now() + ttl }))
            }
            AskHosts::Remove(host) => {
                let found = self.joined.hosts.remove(&host, now(), "operator").await.map_err(problem)?;
                if !found {
                    return Err((StatusCode::NOT_FOUND, format!("no host `{host}` has joined or may join")));
                }
                self.nodes.disconnect(&host);
                let revoked = self.revoke_of(&host).await?;
                self.entity("host", &host, 4, true, "was removed: it gets nothing any more");
                Ok(json!({ "host": host, "removed": true, "revoked": revoked }))
            }
        }
    }

    /// What a host holds counts no more: all SVIDs so far of what runs there. Other hosts with the same services get new ones at once.
    async fn revoke_of(&mut self, host: &str) -> Result<Vec<String>, (StatusCode, String)> {
        let Some((snapshot, _)) = &self.current else { return Ok(Vec::new()) };
        let Ok(trust_domain) = TrustDomain::new(&snapshot.trust_domain) else { return Ok(Vec::new()) };
        let here =
            snapshot.services.iter().filter(|s| s.target == Target::Fenced && snapshot.runs_at(s, host));
        let mut ids: Vec<SpiffeId> =
            here.filter_map(|s| SpiffeId::service(&trust_domain, &s.name).ok()).collect();
        if snapshot.gateway_at(host) {
            ids.extend(gateway_id(&trust_domain, &snapshot.fence));
        }
        ids.extend(SpiffeId::node(&trust_domain, host));
        for id in &ids {
            let why = format!("host {host} was removed");
            let revoked = self.revocations.revoke(Revoked::svids_so_far(id), "operator", &why, now());
            revoked.await.map_err(|Refusal(status, why)| (status, why))?;
        }
        self.tell_ca().await.map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
        Ok(ids.iter().map(|id| id.as_str().to_owned()).collect())
    }

    async fn list_hosts(&self, known: &Known) -> crate::api::Answer {
        let members = self.joined.hosts.list().await.map_err(problem)?;
        let Some((snapshot, _)) = &self.current else { return Ok(json!([])) };
        let mut hosts: Vec<Value> = Vec::new();
        for host in &snapshot.hosts {
            let member = members.get(&host.name);
            let node = self.nodes.about(&host.name);
            let state = match (known.joins(&host.name), member) {
                (false, _) => "control",
                (true, None) => "absent",
                (true, Some(member)) if member.removed_at.is_some() => "removed",
                (true, Some(_)) => "joined",
            };
            let runs = |s: &&ringfence_snapshot::Service| {
                s.target == Target::Fenced && snapshot.runs_at(s, &host.name)
            };
            let services: Vec<&str> =
                snapshot.services.iter().filter(runs).map(|s| s.name.as_str()).collect();
            hosts.push(json!({
                "name": host.name,
                "mesh": host.mesh,
                "state": state,
                "joined_at": member.map(|member| member.joined_at),
                "removed_at": member.and_then(|member| member.removed_at),
                "connected": node.is_some(),
                "node": node,
                "gateway": snapshot.gateway_at(&host.name),
                "services": services,
            }));
        }
        let strangers = members.iter().filter(|(name, _)| snapshot.host(name).is_none());
        hosts.extend(strangers.map(|(name, member)| {
            json!({ "name": name, "state": "undeclared", "joined_at": member.joined_at, "removed_at": member.removed_at, "connected": false })
        }));
        Ok(Value::Array(hosts))
    }
}

fn problem(e: JoinError) -> (StatusCode, String) {
    let status = match e {
        JoinError::Ttl => StatusCode::BAD_REQUEST,
        JoinError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (status, e.to_string())
}
