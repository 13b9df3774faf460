//! The proxies: each gets every snapshot, and certificates only for the identities of its own services.

mod tell;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ringfence_channel::{Channel, ChannelError};
use ringfence_join::Seat;
use ringfence_keeper::gateway_id;
use ringfence_keys::Secret;
use ringfence_model::ExternalTls;
use ringfence_snapshot::node::{FromProxy, ProviderKeys, Stats, Subject, ToProxy};
use ringfence_snapshot::{Der, Digest, SignedSnapshot, Snapshot, Target};
use ringfence_spiffe::{SpiffeId, TrustDomain};
use ringfence_wire::{Frames, Outgoing};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use self::tell::tell;
pub(crate) use self::tell::{Gone, Teller};
use crate::core::now;
use crate::metrics::NodeFacts;

/// Certificates that one node may have asked for and not been answered: as many as a fence has identities, and room.
const MAX_SIGNING: usize = 4096;
/// Questions of one node that are worked on at once, and those that may wait for an answer, be it that too much is under way.
const MAX_ASKING: usize = 256;
const MAX_ANSWERING: usize = 4 * MAX_ASKING;
/// Longest public key or proof of possession in a request.
const MAX_PART: usize = 4096;
/// Longest list of names in a request.
const MAX_NAMES: usize = 64 * 1024;
/// Longest text of a node that is kept.
const MAX_TEXT: usize = 4096;
/// Most edges whose counters are kept of one node.
const MAX_EDGES: usize = 65_536;

/// A session of a host that belongs.
#[derive(Debug)]
pub(crate) struct HostSession {
    pub(crate) seat: Seat,
    /// When its SVID ends, Unix time in seconds.
    pub(crate) ends_at: u64,
    pub(crate) frames: Frames,
    pub(crate) outgoing: Outgoing,
}

/// What arrives from proxies, under the name of the node and the number of the introduction whose channel it came over: a
/// message, or how the channel ended.
pub(crate) type NodeNews = (String, u64, Result<FromProxy, ChannelError>);

/// Files that a snapshot names.
pub(crate) type Parcel = Vec<(Digest, Arc<[u8]>)>;

/// All proxies that are connected.
#[derive(Debug)]
pub(crate) struct Nodes {
    news: mpsc::Sender<NodeNews>,
    nodes: HashMap<String, Node>,
    newest: watch::Sender<Newest>,
}

/// What every proxy is to be told: of what it has not taken yet only the newest counts. Each has a task of its own that tells
/// it, in order, as fast as it reads; a task per message was rejected, because tasks overtake each other.
#[derive(Clone, Debug, Default)]
struct Newest {
    snapshot: Option<Arc<ToProxy>>,
    /// What it names, for those that lack it.
    parcel: Arc<Parcel>,
    /// How many snapshots and calls to renew there have been.
    snapshots: u64,
    renewals: u64,
    /// By provider, with a number that changes with them.
    keys: BTreeMap<String, (u64, Arc<ToProxy>)>,
    /// The hosts with a gateway, where there are several hosts: nobody else opens cookies.
    gateways: Option<Arc<HashSet<String>>>,
    /// The number of the key that seals cookies, and the message that carries it.
    cookies: Option<(u32, Arc<ToProxy>)>,
}

#[derive(Debug)]
struct Node {
    introduction: u64,
    sender: Teller,
    /// Of a host that joined.
    seat: Option<Arc<Seat>>,
    /// Since when, Unix time in seconds.
    since: u64,
    stats: Stats,
    acknowledged: u64,
    refused: Option<String>,
    version: String,
    /// The files that it has, as far as it said; none before it said anything.
    has: watch::Sender<Option<Vec<Digest>>>,
    signing: Arc<Semaphore>,
    asking: Arc<Semaphore>,
    answering: Arc<Semaphore>,
    /// Hearing and telling; they end with the node.
    tasks: JoinSet<()>,
}

impl Nodes {
    pub(crate) fn new(news: mpsc::Sender<NodeNews>) -> Self {
        Self { news, nodes: HashMap::new(), newest: watch::Sender::default() }
    }

    /// A proxy was introduced, and gets the snapshot in force; an earlier channel of the same node is given up.
    pub(crate) fn connect(
        &mut self,
        name: &str,
        introduction: u64,
        socket: UnixStream,
    ) -> Result<(), ChannelError> {
        let (sender, mut receiver) = Channel::<ToProxy, FromProxy>::new(socket)?.split();
        let (news, node) = (self.news.clone(), name.to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let received = receiver.recv().await.map(|(message, _)| message);
                let ended = received.is_err();
                if news.send((node.clone(), introduction, received)).await.is_err() || ended {
                    return;
                }
            }
        });
        self.insert(name, introduction, Teller::Here(sender), None, tasks);
        Ok(())
    }

    /// A host that joined opened a session; an earlier one of the same host is given up.
    pub(crate) fn connect_host(&mut self, session: HostSession, introduction: u64) {
        let HostSession { seat, ends_at, mut frames, outgoing } = session;
        let (news, node) = (self.news.clone(), seat.host().to_owned());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let over = tokio::time::sleep(Duration::from_secs(ends_at.saturating_sub(now())));
            tokio::pin!(over);
            loop {
                let received = tokio::select! {
                    said = frames.next() => match said {
                        Some(Ok(message)) => Ok(message),
                        // It left, or its connection broke; or it speaks nonsense, which ends its session as well.
                        Some(Err(_)) | None => Err(ChannelError::Closed),
                    },
                    () = &mut over => Err(ChannelError::Closed),
                };
                let ended = received.is_err();
                if news.send((node.clone(), introduction, received)).await.is_err() || ended {
                    return;
                }
            }
        });
        let name = seat.host().to_owned();
        self.insert(&name, introduction, Teller::There(outgoing), Some(Arc::new(seat)), tasks);
    }

    fn insert(
        &mut self,
        name: &str,
        introduction: u64,
        sender: Teller,
        seat: Option<Arc<Seat>>,
        mut tasks: JoinSet<()>,
    ) {
        let has = watch::Sender::default();
        tasks.spawn(tell(name.to_owned(), sender.clone(), self.newest.subscribe(), has.subscribe()));
        let node = Node {
            introduction,
            sender,
            seat,
            since: now(),
            stats: Stats::default(),
            acknowledged: 0,
            refused: None,
            version: String::new(),
            has,
            signing: Arc::new(Semaphore::new(MAX_SIGNING)),
            asking: Arc::new(Semaphore::new(MAX_ASKING)),
            answering: Arc::new(Semaphore::new(MAX_ANSWERING)),
            tasks,
        };
        self.nodes.insert(name.to_owned(), node);
    }

    /// Hosts that joined, and are connected.
    pub(crate) fn joined(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.seat.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// The seat of a host that joined; none of the node beside control.
    pub(crate) fn seat(&self, name: &str) -> Option<Arc<Seat>> {
        self.nodes.get(name)?.seat.clone()
    }

    /// Whether a host is connected, and what it runs.
    pub(crate) fn about(&self, name: &str) -> Option<serde_json::Value> {
        let node = self.nodes.get(name)?;
        Some(serde_json::json!({
            "version": node.version,
            "revision": node.acknowledged,
            "refused": node.refused,
            "stale": node.stats.stale,
            "since": node.since,
        }))
    }

    /// Whether a message comes over the channel that counts, not over one that was given up.
    pub(crate) fn is_current(&self, name: &str, introduction: u64) -> bool {
        self.nodes.get(name).is_some_and(|n| n.introduction == introduction)
    }

    pub(crate) fn disconnect(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Has `task` run as long as the node is connected.
    pub(crate) fn along(&mut self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(node) = self.nodes.get_mut(name) {
            node.tasks.spawn(task);
        }
    }

    /// Notes what needs no answer; a question, a request for a certificate or for keys, and uses of API keys are handed back.
    pub(crate) fn note(&mut self, name: &str, message: FromProxy) -> Option<FromProxy> {
        let node = self.nodes.get_mut(name)?;
        match message {
            FromProxy::Hello { version, content, .. } => {
                node.version = cut(version);
                node.has.send_replace(Some(content));
            }
            FromProxy::Ack { revision } => (node.acknowledged, node.refused) = (revision, None),
            FromProxy::Nack { reason, .. } => {
                node.refused = Some(cut(reason));
                // It may be that it lacks what it should have: the next snapshot comes with all of it.
                node.has.send_replace(Some(Vec::new()));
            }
            FromProxy::Stats(mut stats) => {
                stats.edges.truncate(MAX_EDGES);
                node.stats = stats;
            }
            asked @ (FromProxy::Sign { .. }
            | FromProxy::SignJwt { .. }
            | FromProxy::WantKeys { .. }
            | FromProxy::Ask { .. }
            | FromProxy::Used(_)) => return Some(asked),
        }
        None
    }

    /// A turn for one request of a certificate. `None` when so many are under way, or it is so large, that no honest node asks
    /// for it: the request is dropped then, since an answer would have to wait as well.
    pub(crate) fn turn(
        &self,
        name: &str,
        subject: &Subject,
        spki: &Der,
        proof: &Der,
    ) -> Option<OwnedSemaphorePermit> {
        let named = match subject {
            Subject::Svid(id) => id.len(),
            Subject::Serving(hosts) => hosts.iter().map(|host| host.len() + 1).sum(),
        };
        if spki.0.len() > MAX_PART || proof.0.len() > MAX_PART || named > MAX_NAMES {
            return None;
        }
        self.nodes.get(name)?.signing.clone().try_acquire_owned().ok()
    }

    /// A place for one question. `None` when so many are under way that no honest node asks them.
    pub(crate) fn place(&self, name: &str) -> Option<Place> {
        let node = self.nodes.get(name)?;
        let answering = node.answering.clone().try_acquire_owned().ok()?;
        Some(Place { _answering: answering, asking: node.asking.clone().try_acquire_owned().ok() })
    }

    pub(crate) fn sender(&self, name: &str) -> Option<Teller> {
        self.nodes.get(name).map(|n| n.sender.clone())
    }

    /// Sends a snapshot to every proxy, those to come included, in place of any that one has not taken yet; before it, what of the
    /// files that it names the proxy does not have.
    pub(crate) fn publish(
        &self,
        snapshot: &SignedSnapshot,
        parcel: Parcel,
        gateways: Option<HashSet<String>>,
    ) {
        self.newest.send_modify(|newest| {
            newest.gateways = gateways.map(Arc::new);
            newest.parcel = Arc::new(parcel);
            newest.snapshot = Some(Arc::new(ToProxy::Snapshot(snapshot.clone())));
            newest.snapshots += 1;
        });
    }

    /// Sends the keys of a provider to every proxy, those to come included.
    pub(crate) fn publish_keys(&self, keys: ProviderKeys) {
        self.newest.send_modify(|newest| {
            let number = newest.keys.values().map(|(number, _)| number + 1).max().unwrap_or(1);
            newest.keys.insert(keys.provider.clone(), (number, Arc::new(ToProxy::Keys(keys))));
        });
    }

    /// The keys of providers as they were published last.
    pub(crate) fn keys(&self) -> Vec<ProviderKeys> {
        let newest = self.newest.borrow();
        let keys = newest.keys.values().filter_map(|(_, message)| match &**message {
            ToProxy::Keys(keys) => Some(keys.clone()),
            _ => None,
        });
        keys.collect()
    }

    /// The number of the key that seals cookies now.
    pub(crate) fn cookie_day(&self) -> Option<u32> {
        self.newest.borrow().cookies.as_ref().map(|(number, _)| *number)
    }

    /// Sends the keys for cookies to every proxy, those to come included; the first seals.
    pub(crate) fn publish_cookie_keys(&self, keys: Vec<(u32, Secret<[u8; 32]>)>) {
        let Some((number, _)) = keys.first() else { return };
        let number = *number;
        self.newest.send_modify(|newest| {
            newest.cookies = Some((number, Arc::new(ToProxy::CookieKeys(keys))));
        });
    }

    /// Forgets the keys of providers that are not there any more.
    pub(crate) fn keep_keys(&self, keep: impl Fn(&str) -> bool) {
        self.newest.send_if_modified(|newest| {
            newest.keys.retain(|provider, _| keep(provider));
            false
        });
    }

    /// Has every certificate renewed, after the last snapshot that was published is in force.
    pub(crate) fn renew(&self) {
        self.newest.send_modify(|newest| newest.renewals += 1);
    }

    /// What counters are written from, in order of name.
    pub(crate) fn facts(&self) -> Vec<NodeFacts> {
        let one = |(name, node): (&String, &Node)| NodeFacts {
            name: name.clone(),
            version: node.version.clone(),
            acknowledged: node.acknowledged,
            stats: node.stats.clone(),
        };
        let mut facts: Vec<NodeFacts> = self.nodes.iter().map(one).collect();
        facts.sort_by(|a, b| a.name.cmp(&b.name));
        facts
    }

    pub(crate) fn stats(&self) -> serde_json::Value {
        let one = |(name, node): (&String, &Node)| serde_json::json!({ "node": name, "stats": node.stats });
        self.nodes.iter().map(one).collect()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let one = |(name, node): (&String, &Node)| {
            serde_json::json!({
                "node": name,
                "version": node.version,
                "revision": node.acknowledged,
                "refused": node.refused,
                "stale": node.stats.stale,
                "connections": node.stats.connections,
                "certificates": node.stats.certificates,
                "groups": node.stats.groups,
            })
        };
        self.nodes.iter().map(one).collect()
    }
}

/// A question's place among those of its node.
#[derive(Debug)]
pub(crate) struct Place {
    _answering: OwnedSemaphorePermit,
    asking: Option<OwnedSemaphorePermit>,
}

impl Place {
    /// Whether it is worked on; it is told that too much is under way otherwise.
    pub(crate) const fn is_free(&self) -> bool {
        self.asking.is_some()
    }
}

/// What a channel's end says of the process behind it: `None` if it may just have ended, in the middle of a frame perhaps.
pub(crate) fn nonsense(end: ChannelError) -> Option<String> {
    match end {
        ChannelError::Closed | ChannelError::Io(_) => None,
        nonsense => Some(cut(nonsense.to_string())),
    }
}

/// A node parses what comes from outside: what it says is bounded.
pub(crate) fn cut(text: impl Into<String>) -> String {
    let mut text = text.into();
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

/// Whether the proxy of `node` may hold a certificate for `subject`: the services behind its own shims, and the gateway.
///
/// The keeper checks again that the subject is in the snapshot at all; which node it belongs to only control knows.
pub(crate) fn may_hold(snapshot: &Snapshot, node: &str, subject: &Subject) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("node {node} may not hold a certificate for {what}"));
    let Ok(trust_domain) = TrustDomain::new(&snapshot.trust_domain) else { return refuse("anybody") };
    let has_gateway = snapshot.gateway_at(node);
    let gateway = gateway_id(&trust_domain, &snapshot.fence).ok().filter(|_| has_gateway);
    match subject {
        Subject::Serving(hosts) if !has_gateway => refuse(&hosts.join(", ")),
        Subject::Serving(_) => Ok(()),
        Subject::Svid(text) => {
            let Ok(id) = SpiffeId::parse(text) else { return refuse("something that is no SPIFFE ID") };
            // A node answers for the fenced services of its own machine. The mesh listener answers for external ones too, unless
            // they prove this very identity themselves.
            let own = snapshot.services.iter().any(|service| {
                let elsewhere = match &service.target {
                    Target::Fenced | Target::External { tls: ExternalTls::Off, .. } => false,
                    Target::External { tls: ExternalTls::Spiffe { id: theirs }, .. } => {
                        theirs.as_deref().is_none_or(|theirs| theirs == text)
                    }
                };
                let here = snapshot.runs_at(service, node);
                here && !elsewhere && SpiffeId::service(&trust_domain, &service.name).is_ok_and(|s| s == id)
            });
            if own || gateway.is_some_and(|g| g == id) { Ok(()) } else { refuse(text) }
        }
    }
}

#[cfg(test)]
mod tests;
