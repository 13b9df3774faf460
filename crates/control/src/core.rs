//! Control's one loop: every change of state passes through here, one at a time.

pub(crate) mod asks;
mod data;
mod enforce;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use ringfence_ca::workload::{Serving, WorkloadApi, WorkloadEvent, WorkloadListener};
use ringfence_ca::{Ca, IssuedSvid, Options};
use ringfence_channel::{ChannelError, Sender};
use ringfence_event::{Emitter, Entity, Event, Kind};
use ringfence_keeper::Client;
use ringfence_keeper::protocol::{Stage, Step, X509Request};
use ringfence_keys::{Algorithm, SigningKey, possession};
use ringfence_model::{Fence, Provider};
use ringfence_oidc::protocol::{EntitiesConfig, FromFederation};
use ringfence_snapshot::node::{FromProxy, Issued, ProviderKeys, Subject, ToProxy};
use ringfence_snapshot::{ClientAuthority, Der, Policies, SignedSnapshot, Snapshot};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::enforce::Offer;
use self::enforce::applied;
use crate::ControlError;
use crate::api::{Answer, Ask, Mint, Question, Rotate, RotateWhat};
use crate::attest::Asking;
use crate::calendar::Calendar;
use crate::entities::Entities;
use crate::federation::{Federation, keys_for};
use crate::keys::{AskKeys, Done, Keys, Refusal};
use crate::mint::Minter;
use crate::nodes::{NodeNews, Nodes, cut, may_hold, nonsense};
use crate::revocations::{AskRevocations, Revocations, SVID_BACKDATE, Target};
use crate::sessions::Sessions;
use crate::signin::SignIns;
use crate::state::State;
use crate::supervisor::{Command, FromControl, Report, ToControl};

/// Seconds that a snapshot is valid, and seconds that enforcement points may run from it without hearing from control.
const SNAPSHOT_LIFE: u64 = 24 * 3600;
const LEASE: u64 = 3600;
/// A new revision is made this often even if nothing changed, so that the lease never runs out while control lives.
pub(crate) const REFRESH: Duration = Duration::from_secs(LEASE / 6);
/// Longest life of an SVID that an operator may ask for, in seconds.
const MINT_LIFE: u64 = 24 * 3600;

/// Longest life of an SVID of a fenced service that an operator may ask for, in seconds: drills let it expire.
const DRILL_LIFE: u64 = 5;

/// Everything that control knows.
pub(crate) struct Core {
    state: State,
    /// `None` until the keeper was introduced for the first time.
    ca: Option<Authority>,
    news: mpsc::Sender<WorkloadEvent>,
    nodes: Nodes,
    keys: Keys,
    pub(crate) revocations: Revocations,
    federation: Federation,
    supervisor: Sender<FromControl>,
    pub(crate) asking: Asking,
    emitter: Emitter,
    lives: Options,
    fence: Option<Fence>,
    policies: Option<Policies>,
    /// The server of entity data of the fence in force, and what is known of it.
    server: Option<EntitiesConfig>,
    entities: Entities,
    authorities: Vec<ClientAuthority>,
    /// Those of the fence in force, for whoever answers questions about them.
    providers: Arc<Vec<Provider>>,
    signins: SignIns,
    minter: Minter,
    current: Option<(Snapshot, SignedSnapshot)>,
    report: Report,
    pub(crate) calendar: Calendar,
    workloads: HashMap<String, Serving>,
    offered: Option<Offer>,
    /// Workload API sockets that came before the keeper.
    waiting: Vec<(String, u64, OwnedFd)>,
}

/// The CA and the Workload API on top of it.
struct Authority {
    ca: Ca,
    workload: WorkloadApi,
}

impl Core {
    /// Knows nothing yet but what it is given. `news` carries what happens on Workload API sockets, `proxies` what proxies say.
    pub(crate) fn new(
        state: State,
        supervisor: Sender<FromControl>,
        emitter: Emitter,
        lives: Options,
        news: mpsc::Sender<WorkloadEvent>,
        proxies: mpsc::Sender<NodeNews>,
        federation: Federation,
    ) -> Self {
        let sessions = Sessions::new(state.store().clone());
        let minter = Minter::new(state.store().clone());
        let revocations = Revocations::new(state.store().clone(), emitter.clone());
        let signins = SignIns::new(federation.asker(), sessions, revocations.clone(), emitter.clone());
        Self {
            ca: None,
            news,
            nodes: Nodes::new(proxies),
            keys: Keys::new(state.store().clone()),
            revocations,
            federation,
            emitter,
            lives,
            fence: None,
            policies: None,
            server: None,
            entities: Entities::default(),
            authorities: Vec::new(),
            providers: Arc::default(),
            signins,
            minter,
            current: None,
            report: Report::default(),
            calendar: Calendar::default(),
            workloads: HashMap::new(),
            offered: None,
            waiting: Vec::new(),
            asking: Asking::new(supervisor.clone()),
            supervisor,
            state,
        }
    }

    /// A message of the supervisor.
    pub(crate) async fn supervisor(
        &mut self,
        message: ToControl,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ControlError> {
        if let ToControl::Attested { id, outcome } = message {
            self.asking.answered(id, outcome, fds);
            return Ok(());
        }
        let mut fds = fds.into_iter();
        match (message, fds.next()) {
            (ToControl::Keeper, Some(fd)) => {
                self.keeper(fd.into()).await?;
            }
            (ToControl::Proxy { node, introduction }, Some(fd)) => {
                self.nodes.connect(&node, introduction, fd.into())?;
                if let Some(sender) = self.nodes.sender(&node) {
                    self.nodes.along(&node, self.revocations.tell(sender.clone()));
                    self.nodes.along(&node, self.keys.tell(sender));
                }
            }
            (ToControl::Federation, Some(fd)) => {
                self.federation.connect(fd.into())?;
            }
            (ToControl::Workload { service, netns }, Some(fd)) => self.workload(service, netns, fd),
            (ToControl::WorkloadGone { service }, _) => {
                self.workloads.remove(&service);
            }
            (ToControl::Fence { files, policies, beside }, _) => {
                let offer = Offer { files, policies, beside };
                if self.ca.is_some() {
                    self.fence(offer).await?;
                } else {
                    // The keeper comes in a moment.
                    self.offered = Some(offer);
                }
            }
            (ToControl::Report(report), _) => self.report = report,
            (ToControl::Attested { .. }, _) => {}
            (ToControl::Start { .. }, _) => return Err(ControlError::Protocol("started twice")),
            (
                ToControl::Keeper
                | ToControl::Proxy { .. }
                | ToControl::Federation
                | ToControl::Workload { .. },
                None,
            ) => {
                return Err(ControlError::Protocol("a descriptor is missing"));
            }
        }
        Ok(())
    }

    /// A keeper was introduced: the first, or another in place of one that ended.
    async fn keeper(&mut self, socket: UnixStream) -> Result<(), ControlError> {
        let client = Client::new(socket)?;
        tokio::spawn(self.revocations.tell_keeper(client.clone()));
        if let Some(authority) = &self.ca {
            authority.ca.set_keeper(client);
            self.refresh().await;
            self.acquaint_keeper().await;
            return Ok(());
        }
        let ca = Ca::start(client, self.state.store().clone(), self.lives).await?;
        let (workload, mut events) = WorkloadApi::new(ca.clone(), ringfence_ca::workload::Limits::default());
        let workload = workload.attested_by(Arc::new(self.asking.clone()));
        let news = self.news.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if news.send(event).await.is_err() {
                    return;
                }
            }
        });
        self.ca = Some(Authority { ca, workload });
        self.tell_ca().await?;
        for (service, netns, fd) in std::mem::take(&mut self.waiting) {
            self.workload(service, netns, fd);
        }
        self.acquaint_keeper().await;
        if let Some(offer) = self.offered.take() {
            self.fence(offer).await?;
        }
        Ok(())
    }

    /// A message of a proxy.
    pub(crate) async fn proxy(
        &mut self,
        (node, introduction, received): NodeNews,
    ) -> Result<(), ControlError> {
        if !self.nodes.is_current(&node, introduction) {
            return Ok(());
        }
        let message = match received {
            Ok(message) => message,
            Err(end) => return self.lost(&node, introduction, end).await,
        };
        match self.nodes.note(&node, message) {
            Some(FromProxy::Sign { request, subject, spki, proof }) => {
                self.sign(&node, request, subject, spki, proof);
            }
            Some(FromProxy::Ask { request, ask }) => self.ask(&node, request, ask),
            Some(FromProxy::Used(used)) => self.keys.used(used),
            Some(FromProxy::WantKeys { provider }) => {
                let declared = self.fence.as_ref().is_some_and(|f| f.provider(&provider).is_some());
                if declared {
                    self.federation.want_keys(provider);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Something is known of a provider.
    pub(crate) async fn federated(&mut self, found: FromFederation) -> Result<(), ControlError> {
        match found {
            FromFederation::Entities { url, news } => return self.asked_for_data(url, news).await,
            FromFederation::Keys { provider, issuer, jwks, until, .. } => {
                let keys = ProviderKeys { provider, issuer, jwks, until };
                if let Some(keys) = self.fence.as_ref().and_then(|fence| keys_for(fence, keys)) {
                    self.entity("provider", &keys.provider, 3, true, "its keys are believed");
                    self.nodes.publish_keys(keys.clone());
                    self.tell_keeper(keys);
                }
            }
            FromFederation::Trouble { provider, reason } => {
                let message = cut(reason.as_deref().unwrap_or("it answers again as it should"));
                self.entity("provider", &cut(&provider), 3, reason.is_none(), &message);
            }
            FromFederation::Notice { provider, text } => {
                self.entity("provider", &cut(&provider), 2, true, &cut(&text));
            }
            FromFederation::Ready | FromFederation::Metadata { .. } | FromFederation::Answer { .. } => {}
        }
        Ok(())
    }

    /// A proxy's channel ended: the supervisor, which can start processes and introduce them, mends it.
    async fn lost(&mut self, node: &str, introduction: u64, end: ChannelError) -> Result<(), ControlError> {
        self.nodes.disconnect(node);
        let nonsense = nonsense(end);
        if let Some(reason) = &nonsense {
            let reason = format!("it spoke nonsense, so that its channel was closed: {reason}");
            self.entity("node", node, 3, false, &reason);
        }
        Ok(self.supervisor.send(&FromControl::NodeLost { introduction, nonsense }, &[]).await?)
    }

    /// Has a certificate signed for a proxy that may have it.
    fn sign(&self, node: &str, request: u64, subject: Subject, spki: Der, proof: Der) {
        let Some(sender) = self.nodes.sender(node) else { return };
        let Some(turn) = self.nodes.turn(node, &subject, &spki, &proof) else {
            let reason = "the node asks for more than any honest one does: a request was dropped";
            return self.entity("certificate", node, 1, false, reason);
        };
        let allowed = match &self.current {
            Some((snapshot, _)) => may_hold(snapshot, node, &subject),
            None => Err("no fence is in force yet".into()),
        };
        let name = match &subject {
            Subject::Svid(id) => id.clone(),
            Subject::Serving(hosts) => hosts.join(","),
        };
        let (ca, lives, emitter) = (self.ca().ok(), self.lives, self.emitter.clone());
        tokio::spawn(async move {
            let outcome = match (allowed, ca, subject) {
                (Err(reason), ..) => Err(reason),
                (Ok(()), None, _) => Err("the keeper is not there yet".into()),
                (Ok(()), Some(ca), Subject::Svid(id)) => {
                    let request = X509Request { id, spki, proof, ttl: lives.svid_life };
                    ca.issue(request).await.map_err(|e| e.to_string())
                }
                (Ok(()), Some(ca), Subject::Serving(hosts)) => {
                    ca.issue_serving(hosts, spki, proof).await.map_err(|e| e.to_string())
                }
            };
            let (granted, message) = match &outcome {
                Ok(_) => (true, "issued to the node"),
                Err(reason) => (false, reason.as_str()),
            };
            let uid = outcome.as_ref().ok().map(|svid| svid.serial.as_str());
            let entity = Entity { entity: "certificate", name: &name, uid, activity: 1, granted, message };
            emitter.emit(&Event::new(Kind::Entity(entity)));
            let outcome =
                outcome.map(|svid: IssuedSvid| Issued { chain: svid.chain, not_after: svid.not_after });
            let _ = sender.send(&ToProxy::Signed { request, outcome }, &[]).await;
            drop(turn);
        });
    }

    /// Something happened on a Workload API socket.
    pub(crate) fn workload_event(&self, event: &WorkloadEvent) {
        match event {
            WorkloadEvent::Attested { service, workload, digest } => {
                let digest = digest.as_deref().unwrap_or("unreadable");
                let message = format!(
                    "attested: pid {}, uid {}, program {} (sha256 {digest}), cgroup {}",
                    workload.pid, workload.uid, workload.program, workload.cgroup
                );
                self.entity("workload", service, 2, true, &message);
            }
            WorkloadEvent::Refused { service, pid, uid, reason } => {
                self.entity(
                    "workload",
                    service,
                    2,
                    false,
                    &format!("pid {pid}, uid {uid} got nothing: {reason}"),
                );
            }
            WorkloadEvent::Issued { service, kind, serial, .. } => {
                let message = format!("{kind} over the Workload API, serial {serial}");
                self.entity("certificate", service, 1, true, &message);
            }
            _ => {}
        }
    }

    /// A question over the control socket. What takes long is answered later.
    pub(crate) async fn question(&mut self, (ask, answer): Question) {
        let ask = match ask {
            Ask::Mint(mint) => return self.mint(mint, answer),
            Ask::Sessions(ask) => return self.ask_sessions(ask, answer),
            ask => ask,
        };
        let _ = answer.send(self.answer(ask).await);
    }

    async fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Ok(self.status()),
            Ask::Stats => Ok(self.nodes.stats()),
            Ask::Fence => match &self.current {
                Some((snapshot, _)) => {
                    let addresses = self.state.addresses().await.map_err(internal)?;
                    serde_json::to_value(applied(snapshot, &addresses)).map_err(internal)
                }
                None => Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into())),
            },
            Ask::Ca => {
                let status = self.ca().map_err(unavailable)?.show().await.map_err(unavailable)?;
                serde_json::to_value(status).map_err(internal)
            }
            Ask::Rotate(rotate) => self.rotate(&rotate).await,
            Ask::Restart(service) => {
                let known = self.fence.as_ref().and_then(|f| f.service(&service)).is_some();
                if !known {
                    return Err((StatusCode::NOT_FOUND, format!("the fence has no service `{service}`")));
                }
                self.command(Command::Restart { service }).await
            }
            Ask::Keys(ask) => self.keys(ask).await,
            Ask::Revocations(ask) => self.revoke(ask).await,
            Ask::Down => self.command(Command::Down).await,
            // Taken out before.
            Ask::Mint(_) | Ask::Sessions(_) => Err((StatusCode::INTERNAL_SERVER_ERROR, "not here".into())),
        }
    }

    /// Makes, shows and changes API keys; the event names the key's public part.
    async fn keys(&self, ask: AskKeys) -> Answer {
        let (value, done) =
            self.keys.answer(ask, now()).await.map_err(|Refusal(status, why)| (status, why))?;
        if let Some(Done { prefix, activity, message }) = done {
            self.entity("api_key", &prefix, activity, true, &message);
            if activity == 4 {
                // What was made of it goes with it.
                let revoked =
                    self.revocations.revoke(Target::api_key(&prefix), "operator", "key revoke", now());
                revoked.await.map_err(|Refusal(status, why)| (status, why))?;
            }
        }
        Ok(value)
    }

    /// Revokes, lists, and takes back.
    async fn revoke(&self, ask: AskRevocations) -> Answer {
        let refused = |Refusal(status, why)| (status, why);
        let removes = matches!(ask, AskRevocations::Remove(_));
        let value = match ask {
            AskRevocations::Revoke(revoke) => {
                let (Some(fence), Some((snapshot, _))) = (&self.fence, &self.current) else {
                    return Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into()));
                };
                let target = revoke.target(fence, &snapshot.trust_domain, self.state.store(), now()).await;
                let target = target.map_err(refused)?;
                self.revocations.revoke(target, "operator", &revoke.why, now()).await.map_err(refused)?
            }
            ask => self.revocations.answer(ask).await.map_err(refused)?,
        };
        if self.tell_ca().await.map_err(internal)? && removes {
            // Whoever was refused asks at once.
            self.nodes.renew();
        }
        Ok(value)
    }

    /// Tells the CA which identities were revoked; whether that was news to it.
    async fn tell_ca(&self) -> Result<bool, ringfence_store::StoreError> {
        let Ok(ca) = self.ca() else { return Ok(false) };
        // Revocations are by the beginning of certificates, which is before they are issued.
        let issued = |(id, begun): (String, u64)| (id, begun.saturating_add(SVID_BACKDATE));
        Ok(ca.set_revoked(self.revocations.svids().await?.into_iter().map(issued)))
    }

    async fn command(&self, command: Command) -> Answer {
        self.supervisor.send(&FromControl::Command(command), &[]).await.map_err(unavailable)?;
        Ok(json!({ "done": true }))
    }

    /// Issuing: one step. Root: the next of prepare, activate, retire, each published before the following one.
    async fn rotate(&mut self, &Rotate { what, step }: &Rotate) -> Answer {
        let ca = self.ca().map_err(unavailable)?;
        let status = match (what, step) {
            (RotateWhat::Issuing, None) => ca.rotate_issuing("operator").await,
            (RotateWhat::Issuing, Some(_)) => {
                return Err((StatusCode::BAD_REQUEST, "an issuing CA is rotated in one step".into()));
            }
            (RotateWhat::Root, Some(step)) => ca.rotate_root("operator", step).await,
            (RotateWhat::Root, None) => {
                let before = ca.show().await.map_err(unavailable)?;
                ca.rotate_root("operator", next_step(&before.roots)).await
            }
        };
        let status = status.map_err(|e| (StatusCode::CONFLICT, e.to_string()))?;
        self.entity(
            if what == RotateWhat::Root { "root" } else { "issuing" },
            "rotate",
            3,
            true,
            "rotated by the operator",
        );
        self.refresh().await;
        self.nodes.renew();
        serde_json::to_value(status).map_err(internal)
    }

    fn mint(&self, mint: Mint, answer: oneshot::Sender<Answer>) {
        let Some((snapshot, _)) = &self.current else {
            let _ = answer.send(Err((StatusCode::SERVICE_UNAVAILABLE, "no fence is in force yet".into())));
            return;
        };
        let service = snapshot.service(&mint.service);
        // A fenced service's SVID leaves the Workload API only to be let run out, by a drill.
        let drill = mint.ttl <= DRILL_LIFE;
        let known = service.is_some_and(|s| drill || s.target != ringfence_snapshot::Target::Fenced);
        if !known {
            let why = match service {
                None => format!("`{}` is no service of the fence", mint.service),
                Some(_) => format!(
                    "`{}` is fenced and gets its SVIDs from the Workload API; here it gets none that lives longer than {DRILL_LIFE} s, for drills",
                    mint.service
                ),
            };
            let _ = answer.send(Err((StatusCode::FORBIDDEN, why)));
            return;
        }
        let id = format!("spiffe://{}/service/{}", snapshot.trust_domain, mint.service);
        let roots = snapshot.bundle.x509.clone();
        let why = if drill {
            "minted for a drill over the control socket"
        } else {
            "minted for the operator over the control socket"
        };
        self.entity("certificate", &id, 1, true, why);
        let ca = self.ca();
        tokio::spawn(async move {
            let minted = async {
                let ca = ca.map_err(unavailable)?;
                let key = SigningKey::generate(Algorithm::P256).map_err(internal)?;
                let request = X509Request {
                    spki: key.verifying_key().to_spki().into(),
                    proof: possession::prove(&key, &id).map_err(internal)?.into(),
                    ttl: mint.ttl.min(MINT_LIFE),
                    id: id.clone(),
                };
                let svid = ca.issue(request).await.map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
                let key = key.to_pkcs8().map_err(internal)?;
                let key = Der(key.expose().to_vec());
                Ok(
                    json!({ "id": id, "chain": svid.chain, "key": key, "roots": roots, "not_after": svid.not_after }),
                )
            };
            let _ = answer.send(minted.await);
        });
    }

    fn workload(&mut self, service: String, netns: u64, fd: OwnedFd) {
        let Some(authority) = &self.ca else {
            self.waiting.retain(|(name, ..)| *name != service);
            return self.waiting.push((service, netns, fd));
        };
        let listener = WorkloadListener { service: service.clone(), listener: fd.into(), netns_inode: netns };
        match authority.workload.serve(listener) {
            Ok(serving) => drop(self.workloads.insert(service, serving)),
            Err(e) => self.entity("workload", &service, 1, false, &e.to_string()),
        }
    }

    pub(crate) fn ca(&self) -> Result<Ca, ControlError> {
        self.ca.as_ref().map(|authority| authority.ca.clone()).ok_or(ControlError::NoKeeper)
    }

    fn status(&self) -> Value {
        let snapshot = self.current.as_ref().map(|(s, _)| {
            json!({
                "trust_domain": s.trust_domain,
                "epoch": s.epoch,
                "revision": s.revision,
                "issued_at": s.issued_at,
                "expires_at": s.expires_at,
                "services": s.services.len(),
                "edges": s.services.iter().map(|s| s.calls.len()).sum::<usize>(),
            })
        });
        let server = self.fence.as_ref().and_then(data::server);
        let entities = server.map(|server| self.entities.status(server));
        json!({
            "report": self.report,
            "snapshot": snapshot,
            "nodes": self.nodes.status(),
            "entities": entities,
        })
    }

    pub(crate) fn entity(&self, entity: &str, name: &str, activity: u8, granted: bool, message: &str) {
        let revision = self.current.as_ref().map_or(0, |(s, _)| s.revision);
        let kind = Kind::Entity(Entity { entity, name, uid: None, activity, granted, message });
        self.emitter.emit(&Event::new(kind).revision(revision));
    }
}

/// The step of a root rotation that comes next.
fn next_step(roots: &[ringfence_keeper::protocol::AuthorityStatus]) -> Step {
    if roots.iter().any(|r| r.stage == Stage::Prepared) {
        Step::Activate
    } else if roots.iter().any(|r| r.stage == Stage::Retiring) {
        Step::Retire { force: false }
    } else {
        Step::Prepare
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn internal(e: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
}

fn unavailable(e: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, e.to_string())
}

/// The receiving ends of everything that control waits for.
pub(crate) struct Inboxes {
    pub(crate) proxies: mpsc::Receiver<NodeNews>,
    pub(crate) questions: mpsc::Receiver<Question>,
    pub(crate) workloads: mpsc::Receiver<WorkloadEvent>,
    pub(crate) federation: mpsc::Receiver<FromFederation>,
}
