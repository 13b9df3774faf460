//! Control's one loop: every change of state passes through here, one at a time.

pub(crate) mod asks;
pub(crate) mod certificates;
mod data;
pub(crate) mod enforce;
mod operator;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use ringfence_ca::workload::{Serving, WorkloadApi, WorkloadEvent};
use ringfence_ca::{Ca, Options};
use ringfence_channel::{ChannelError, Sender};
use ringfence_event::{Emitter, Entity, Event, Kind};
use ringfence_keeper::Client;
use ringfence_keeper::protocol::DataPurpose;
use ringfence_model::{Fence, Provider};
use ringfence_oidc::protocol::{EntitiesConfig, FromFederation};
use ringfence_snapshot::node::{FromProxy, ProviderKeys};
use ringfence_snapshot::{ClientAuthority, Policies, SignedSnapshot, Snapshot};
use ringfence_store::{Store, StoreError};
use tokio::sync::mpsc;

pub(crate) use self::enforce::Offer;
use crate::ControlError;
use crate::api::Question;
use crate::attest::Asking;
use crate::calendar::Calendar;
use crate::content::Contents;
use crate::entities::Entities;
use crate::federation::{Federation, keys_for};
use crate::hosts::{Admitted, Joined};
use crate::keys::Keys;
use crate::logs::Logs;
use crate::metrics::{Endpoint, Known, SnapshotFacts};
use crate::mint::Minter;
use crate::nodes::{NodeNews, Nodes, cut, nonsense};
use crate::revocations::Revocations;
use crate::sessions::Sessions;
use crate::signin::SignIns;
use crate::state::State;
use crate::supervisor::{FromControl, Report, ToControl, Usage};

/// Seconds that a snapshot is valid, and seconds that enforcement points may run from it without hearing from control.
const SNAPSHOT_LIFE: u64 = 24 * 3600;
const LEASE: u64 = 3600;
/// A new revision is made this often even if nothing changed, so that the lease never runs out while control lives.
pub(crate) const REFRESH: Duration = Duration::from_secs(LEASE / 6);
/// Everything that control knows.
pub(crate) struct Core {
    state: State,
    /// `None` until the keeper was introduced for the first time.
    ca: Option<Authority>,
    news: mpsc::Sender<WorkloadEvent>,
    pub(crate) nodes: Nodes,
    pub(crate) joined: Joined,
    pub(crate) keys: Keys,
    pub(crate) revocations: Revocations,
    federation: Federation,
    /// What is known of the keeper's logs.
    pub(crate) logs: Logs,
    supervisor: Sender<FromControl>,
    pub(crate) asking: Asking,
    pub(crate) emitter: Emitter,
    lives: Options,
    fence: Option<Fence>,
    policies: Option<Policies>,
    /// The server of entity data of the fence in force, and what is known of it.
    server: Option<EntitiesConfig>,
    entities: Entities,
    authorities: Vec<ClientAuthority>,
    contents: Contents,
    /// Those of the fence in force, for whoever answers questions about them.
    providers: Arc<Vec<Provider>>,
    signins: SignIns,
    minter: Minter,
    pub(crate) current: Option<(Snapshot, SignedSnapshot)>,
    report: Report,
    usage: Vec<Usage>,
    /// Where counters are served.
    pub(crate) endpoint: Endpoint,
    pub(crate) calendar: Calendar,
    workloads: HashMap<String, Serving>,
    offered: Option<Offer>,
    /// Workload API sockets that came before the keeper.
    waiting: Vec<(String, u64, OwnedFd)>,
}

/// By which what happens elsewhere comes to control.
pub(crate) struct Ways {
    /// What happens on Workload API sockets.
    pub(crate) workloads: mpsc::Sender<WorkloadEvent>,
    /// What proxies say.
    pub(crate) proxies: mpsc::Sender<NodeNews>,
    /// Hosts that open a session.
    pub(crate) admitted: mpsc::Sender<Admitted>,
}

/// The CA and the Workload API on top of it.
struct Authority {
    ca: Ca,
    workload: WorkloadApi,
}

impl Core {
    /// Knows nothing yet but what it is given. What it hears of comes by `ways`.
    pub(crate) fn new(
        state: State,
        supervisor: Sender<FromControl>,
        emitter: Emitter,
        lives: Options,
        ways: Ways,
        federation: Federation,
    ) -> Self {
        let Ways { workloads: news, proxies, admitted } = ways;
        let sessions = Sessions::new(state.store().clone());
        let keys = Keys::new(state.store().clone());
        let minter = Minter::new(state.store().clone(), keys.known().clone());
        let revocations = Revocations::new(state.store().clone(), emitter.clone());
        let signins = SignIns::new(federation.asker(), sessions, revocations.clone(), emitter.clone());
        Self {
            ca: None,
            news,
            nodes: Nodes::new(proxies),
            joined: Joined::new(state.store(), emitter.clone(), admitted),
            keys,
            logs: Logs::new(state.store().clone()),
            revocations,
            federation,
            emitter,
            lives,
            fence: None,
            policies: None,
            server: None,
            entities: Entities::default(),
            authorities: Vec::new(),
            contents: Contents::default(),
            providers: Arc::default(),
            signins,
            minter,
            current: None,
            report: Report::default(),
            usage: Vec::new(),
            endpoint: Endpoint::default(),
            calendar: Calendar::default(),
            workloads: HashMap::new(),
            offered: None,
            waiting: Vec::new(),
            asking: Asking::new(supervisor.clone()),
            supervisor,
            state,
        }
    }

    pub(crate) fn store(&self) -> &Store {
        self.state.store()
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
            (ToControl::Content(part), _) => self.contents.take(part),
            (ToControl::Fence { files, policies, beside, content }, _) => {
                let offer = Offer { files, policies, beside, content };
                if self.ca.is_some() {
                    self.fence(offer).await?;
                } else {
                    // The keeper comes in a moment.
                    self.offered = Some(offer);
                }
            }
            (ToControl::Report(report), _) => self.report = report,
            (ToControl::Hosts { snapshot_key }, fd) => {
                self.joined.listen(fd.map(Into::into), snapshot_key);
                if let Ok(ca) = self.ca() {
                    self.joined.start(&ca)?;
                }
            }
            (ToControl::Metrics, fd) => self.endpoint.serve(fd.map(Into::into))?,
            (ToControl::Usage(usage), _) => self.usage = usage,
            (ToControl::Attested { .. }, _) => {}
            (ToControl::Start { .. } | ToControl::Member(_), _) => {
                return Err(ControlError::Protocol("started twice"));
            }
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
        if self.ca.is_none() && self.state.is_shared() {
            self.claim(&client).await?;
        }
        // Before it signs for us: what it signs makes its log longer again.
        if let Ok(status) = client.status().await {
            self.watch_logs(&status).await;
        }
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

    /// Nothing is written to a database that is another fence's.
    async fn claim(&self, keeper: &Client) -> Result<(), ControlError> {
        let status = keeper.status().await.map_err(ringfence_ca::CaError::from)?;
        let key = keeper.data_key(DataPurpose::Store).await.map_err(ringfence_ca::CaError::from)?;
        let claimed = self.state.claim(&status.trust_domain, &key).await;
        if let Err(reason @ StoreError::Setup(_)) = &claimed {
            self.supervisor.send(&FromControl::Fatal(reason.to_string()), &[]).await?;
        }
        Ok(claimed?)
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
            Some(FromProxy::SignJwt { request, id, audiences }) => {
                self.sign_jwt(&node, request, id, audiences)
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
        let seat = self.nodes.seat(node);
        self.nodes.disconnect(node);
        if seat.is_some() {
            self.entity("host", node, 2, false, "is gone; its proxy goes on from what it knows");
            return Ok(());
        }
        let nonsense = nonsense(end);
        if let Some(reason) = &nonsense {
            let reason = format!("it spoke nonsense, so that its channel was closed: {reason}");
            self.entity("node", node, 3, false, &reason);
        }
        Ok(self.supervisor.send(&FromControl::NodeLost { introduction, nonsense }, &[]).await?)
    }

    /// What counters are written from, but for what the keeper says.
    pub(crate) fn known(&self) -> Known {
        let stats = self.emitter.stats();
        Known {
            report: self.report.clone(),
            usage: self.usage.clone(),
            snapshot: self.current.as_ref().map(|(s, _)| SnapshotFacts {
                epoch: s.epoch,
                revision: s.revision,
                issued_at: s.issued_at,
                expires_at: s.expires_at,
            }),
            nodes: self.nodes.facts(),
            keeper: None,
            events: (stats.written(), stats.dropped()),
        }
    }

    /// Of the snapshot in force, 0 without one.
    pub(crate) fn revision(&self) -> u64 {
        self.current.as_ref().map_or(0, |(s, _)| s.revision)
    }

    pub(crate) fn entity(&self, entity: &str, name: &str, activity: u8, granted: bool, message: &str) {
        let revision = self.revision();
        let kind = Kind::Entity(Entity { entity, name, uid: None, activity, granted, message });
        self.emitter.emit(&Event::new(kind).revision(revision));
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
    pub(crate) admitted: mpsc::Receiver<Admitted>,
}
