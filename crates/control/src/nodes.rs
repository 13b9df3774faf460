//! The proxies: each gets every snapshot, and certificates only for the identities of its own services.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ringfence_channel::{Channel, ChannelError, Sender};
use ringfence_keeper::gateway_id;
use ringfence_keys::Secret;
use ringfence_model::ExternalTls;
use ringfence_snapshot::node::{FromProxy, ProviderKeys, Stats, Subject, ToProxy};
use ringfence_snapshot::{ContentPart, Der, Digest, SignedSnapshot, Snapshot, Target};
use ringfence_spiffe::{SpiffeId, TrustDomain};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

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
    /// The number of the key that seals cookies, and the message that carries it.
    cookies: Option<(u32, Arc<ToProxy>)>,
}

#[derive(Debug)]
struct Node {
    introduction: u64,
    sender: Sender<ToProxy>,
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
        let has = watch::Sender::default();
        tasks.spawn(tell(sender.clone(), self.newest.subscribe(), has.subscribe()));
        tasks.spawn(async move {
            loop {
                let received = receiver.recv().await.map(|(message, _)| message);
                let ended = received.is_err();
                if news.send((node.clone(), introduction, received)).await.is_err() || ended {
                    return;
                }
            }
        });
        let node = Node {
            introduction,
            sender,
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
        Ok(())
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

    pub(crate) fn sender(&self, name: &str) -> Option<Sender<ToProxy>> {
        self.nodes.get(name).map(|n| n.sender.clone())
    }

    /// Sends a snapshot to every proxy, those to come included, in place of any that one has not taken yet; before it, what of the
    /// files that it names the proxy does not have.
    pub(crate) fn publish(&self, snapshot: &SignedSnapshot, parcel: Parcel) {
        self.newest.send_modify(|newest| {
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

/// Tells one proxy whatever is newest, until its channel ends or it is given up.
async fn tell(
    sender: Sender<ToProxy>,
    mut newest: watch::Receiver<Newest>,
    mut has: watch::Receiver<Option<Vec<Digest>>>,
) {
    let mut there = None;
    // One that was just introduced asks for its certificates anyway.
    let (mut snapshots, mut renewals) = (0, newest.borrow().renewals);
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let mut cookies: Option<u32> = None;
    loop {
        let now = newest.borrow_and_update().clone();
        if let Some(snapshot) = now.snapshot.filter(|_| now.snapshots > snapshots) {
            let sent = bring(&sender, &now.parcel, &mut has, &mut there).await;
            if sent.is_err() || sender.send(&*snapshot, &[]).await.is_err() {
                return;
            }
        }
        for (provider, (number, keys)) in &now.keys {
            if told.insert(provider.clone(), *number) != Some(*number)
                && sender.send(&**keys, &[]).await.is_err()
            {
                return;
            }
        }
        if let Some((number, keys)) = &now.cookies
            && cookies.replace(*number) != Some(*number)
            && sender.send(&**keys, &[]).await.is_err()
        {
            return;
        }
        if now.renewals > renewals && sender.send(&ToProxy::Renew, &[]).await.is_err() {
            return;
        }
        (snapshots, renewals) = (now.snapshots, now.renewals);
        if newest.changed().await.is_err() {
            return;
        }
    }
}

/// Brings the files of a snapshot to one proxy, but for those that are `there`; all of them are then.
async fn bring(
    sender: &Sender<ToProxy>,
    parcel: &Parcel,
    has: &mut watch::Receiver<Option<Vec<Digest>>>,
    there: &mut Option<HashSet<Digest>>,
) -> Result<(), ()> {
    if !parcel.is_empty() {
        let news = has.has_changed().unwrap_or(false);
        let said = has.wait_for(Option::is_some).await.map_err(drop)?;
        let said: HashSet<Digest> = said.iter().flatten().copied().collect();
        match there {
            None => *there = Some(said),
            // It said so before it got what made it forget some.
            Some(there) if news => there.retain(|digest| said.contains(digest)),
            Some(_) => {}
        }
    }
    for (digest, bytes) in parcel {
        if there.as_ref().is_some_and(|there| there.contains(digest)) {
            continue;
        }
        for part in ContentPart::all(*digest, bytes) {
            sender.send(&ToProxy::Content(part), &[]).await.map_err(drop)?;
        }
    }
    *there = Some(parcel.iter().map(|(digest, _)| *digest).collect());
    Ok(())
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
    let gateway = gateway_id(&trust_domain, &snapshot.fence).ok().filter(|_| snapshot.gateway.is_some());
    match subject {
        Subject::Serving(hosts) if snapshot.gateway.is_none() => refuse(&hosts.join(", ")),
        Subject::Serving(_) => Ok(()),
        Subject::Svid(text) => {
            let Ok(id) = SpiffeId::parse(text) else { return refuse("something that is no SPIFFE ID") };
            // There is one host, so every fenced service is its own. The mesh listener answers for external ones too, unless
            // they prove this very identity themselves.
            let own = snapshot.services.iter().any(|service| {
                let elsewhere = match &service.target {
                    Target::Fenced | Target::External { tls: ExternalTls::Off, .. } => false,
                    Target::External { tls: ExternalTls::Spiffe { id: theirs }, .. } => {
                        theirs.as_deref().is_none_or(|theirs| theirs == text)
                    }
                };
                !elsewhere && SpiffeId::service(&trust_domain, &service.name).is_ok_and(|s| s == id)
            });
            if own || gateway.is_some_and(|g| g == id) { Ok(()) } else { refuse(text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_floods_is_held_to_its_bounds() {
        let (news, _inbox) = mpsc::channel(4);
        let mut nodes = Nodes::new(news);
        let (_theirs, ours) = UnixStream::pair().unwrap();
        nodes.connect("local", 1, ours).unwrap();
        let (key, subject) = (Der(vec![1; 64]), Subject::Svid("spiffe://x/service/a".into()));
        let turns: Vec<_> =
            (0..MAX_SIGNING).map_while(|_| nodes.turn("local", &subject, &key, &key)).collect();
        assert_eq!(turns.len(), MAX_SIGNING);
        assert!(nodes.turn("local", &subject, &key, &key).is_none(), "no more at once");
        drop(turns);
        assert!(nodes.turn("local", &subject, &key, &key).is_some());
        let huge = Der(vec![1; MAX_PART + 1]);
        assert!(nodes.turn("local", &subject, &huge, &key).is_none());
        assert!(nodes.turn("local", &Subject::Serving(vec!["x".repeat(MAX_NAMES)]), &key, &key).is_none());
        nodes.note("local", FromProxy::Nack { revision: 1, reason: "ü".repeat(MAX_TEXT) });
        assert!(nodes.nodes["local"].refused.as_ref().unwrap().len() <= MAX_TEXT);
    }

    fn numbered(revision: usize) -> SignedSnapshot {
        // Larger than what a socket holds for a reader that does not read.
        SignedSnapshot { bytes: format!("{revision} {}", "x".repeat(1 << 20)), signature: vec![1].into() }
    }

    /// Revisions and calls to renew (0) as they come, until the revision `last`.
    async fn taken(channel: &mut Channel<FromProxy, ToProxy>, last: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.last() != Some(&last) {
            let next = tokio::time::timeout(std::time::Duration::from_secs(60), channel.recv());
            taken.push(match next.await.unwrap().unwrap().0 {
                ToProxy::Snapshot(signed) => signed.bytes.split_once(' ').unwrap().0.parse().unwrap(),
                ToProxy::Renew => 0,
                other => panic!("nothing was asked: {other:?}"),
            });
        }
        taken
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn snapshots_come_in_order_the_newest_wins_and_a_node_that_does_not_read_holds_up_nobody() {
        let (news, _inbox) = mpsc::channel(4);
        let mut nodes = Nodes::new(news);
        let connect = |nodes: &mut Nodes, name: &str| {
            let (theirs, ours) = UnixStream::pair().unwrap();
            nodes.connect(name, 1, ours).unwrap();
            Channel::<FromProxy, ToProxy>::new(theirs).unwrap()
        };
        let (mut slow, mut fast) = (connect(&mut nodes, "slow"), connect(&mut nodes, "fast"));
        nodes.publish(&numbered(1), Vec::new());
        assert_eq!(taken(&mut fast, 1).await, [1]);
        for revision in 2..200 {
            nodes.publish(&numbered(revision), Vec::new());
            if revision % 50 == 0 {
                let taken = taken(&mut fast, revision).await;
                assert!(taken.is_sorted(), "{taken:?}");
            }
        }
        nodes.publish(&numbered(200), Vec::new());
        nodes.renew();
        let all = taken(&mut slow, 0).await;
        let (renew, snapshots) = all.split_last().unwrap();
        assert_eq!((*renew, snapshots.last()), (0, Some(&200)), "renewal comes after the snapshot it is for");
        assert!(snapshots.is_sorted() && snapshots.len() <= 3, "it is not told what is over: {snapshots:?}");
        // One that comes late gets what is in force, once; its earlier channel is given up.
        let mut again = connect(&mut nodes, "slow");
        assert_eq!(taken(&mut again, 200).await, [200]);
        assert!(matches!(slow.recv().await, Err(ChannelError::Closed)));
        nodes.publish(&numbered(201), Vec::new());
        assert_eq!(taken(&mut again, 201).await, [201]);
    }

    #[tokio::test]
    async fn a_proxy_is_brought_the_files_that_it_lacks_and_no_others() {
        let (news, _inbox) = mpsc::channel(64);
        let mut nodes = Nodes::new(news);
        let (theirs, ours) = UnixStream::pair().unwrap();
        nodes.connect("local", 1, ours).unwrap();
        let mut proxy = Channel::<FromProxy, ToProxy>::new(theirs).unwrap();
        let hello = |content: &[&[u8]]| FromProxy::Hello {
            version: "1".into(),
            seen: (0, 0),
            content: content.iter().map(|bytes| Digest::of(bytes)).collect(),
        };
        let parcel =
            |files: &[&[u8]]| files.iter().map(|bytes| (Digest::of(bytes), Arc::from(*bytes))).collect();
        // Files until the next snapshot.
        async fn brought(proxy: &mut Channel<FromProxy, ToProxy>) -> Vec<Vec<u8>> {
            let mut files: Vec<Vec<u8>> = Vec::new();
            loop {
                match tokio::time::timeout(std::time::Duration::from_secs(30), proxy.recv()).await.unwrap() {
                    Ok((ToProxy::Content(part), _)) if part.offset == 0 => files.push(part.bytes.0),
                    Ok((ToProxy::Content(part), _)) => files.last_mut().unwrap().extend(part.bytes.0),
                    Ok((ToProxy::Snapshot(_), _)) => return files,
                    other => panic!("{other:?}"),
                }
            }
        }
        let large = vec![7; 600 << 10];
        nodes.publish(&numbered(1), parcel(&[b"a", b"b", &large]));
        nodes.note("local", hello(&[b"b", b"old"]));
        assert_eq!(brought(&mut proxy).await, [b"a".to_vec(), large.clone()]);
        nodes.publish(&numbered(2), parcel(&[b"a", b"b", b"c"]));
        assert_eq!(brought(&mut proxy).await, [b"c"]);
        nodes.note("local", FromProxy::Nack { revision: 2, reason: "no".into() });
        nodes.publish(&numbered(3), parcel(&[b"a"]));
        assert_eq!(brought(&mut proxy).await, [b"a"], "whoever refused gets all of it again");
        nodes.publish(&numbered(4), Vec::new());
        assert_eq!(brought(&mut proxy).await, Vec::<Vec<u8>>::new());
        nodes.publish(&numbered(5), parcel(&[b"a"]));
        assert_eq!(brought(&mut proxy).await, [b"a"], "it was forgotten with the snapshot before");
    }
}
