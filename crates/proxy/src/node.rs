//! The control thread of the node: told by the supervisor what to serve, by control what to enforce.

mod beliefs;
mod upward;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringfence_channel::{Channel, ChannelError, Receiver, Sender};
use ringfence_event::{Emitter, Entity, Event, Kind, Lifecycle, LifecycleActivity, Severity, Writer};
use ringfence_keys::VerifyingKey;
use ringfence_model::GatewayTls;
use ringfence_snapshot::node::{FromProxy, ProviderKeys as Told, ToProxy};
use ringfence_snapshot::{SignedSnapshot, SnapshotError, VerifiedSnapshot};
use ringfence_spiffe::{BundleSet, TrustBundle, TrustDomain};
use ringfence_tls::GatewayCertificate;
use ringfence_token::KeySet;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};

use crate::asks::{Asked, Open};
use crate::content::Contents;
use crate::delegate::TxnKeys;
use crate::disk::Disk;
use crate::identity::Renewer;
use crate::inspect::Engine;
use crate::policy::Policy;
use crate::protocol::{FromNode, ListenerKind, ToNode};
use crate::revoked::Known;
use crate::shared::Shared;
use crate::table::Table;
use crate::validate::Apis;
use crate::worker::{Command, unix_now};

/// The control thread's state.
pub(crate) struct Node {
    /// What this node is called, a DNS label.
    name: String,
    shared: Arc<Shared>,
    workers: Vec<mpsc::Sender<Command>>,
    key: VerifyingKey,
    disk: Disk,
    events: Emitter,
    writer: Writer,
    supervisor: Sender<FromNode>,
    control: RefCell<Option<(Sender<FromProxy>, JoinHandle<()>)>>,
    renewer: RefCell<Renewer>,
    seen: Cell<(u64, u64)>,
    table: RefCell<Option<Arc<Table>>>,
    serving: RefCell<Option<GatewayCertificate>>,
    files: RefCell<Option<GatewayCertificate>>,
    /// Of each provider, as control told them last.
    keys: RefCell<BTreeMap<String, Told>>,
    /// What was revoked.
    revoked: RefCell<Known>,
    /// The same as threads have them, with the text that they were read from.
    sets: RefCell<BTreeMap<String, (String, Arc<KeySet>)>>,
    /// Files that snapshots name.
    contents: RefCell<Contents>,
    /// Questions that control has.
    open: RefCell<Open>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        key: VerifyingKey,
        disk: Disk,
        shared: Arc<Shared>,
        writer: Writer,
        workers: Vec<mpsc::Sender<Command>>,
        supervisor: Sender<FromNode>,
    ) -> std::io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            name,
            seen: Cell::new(disk.seen()?),
            contents: RefCell::new(Contents::kept(&disk)?),
            events: writer.emitter(),
            shared,
            workers,
            key,
            disk,
            writer,
            supervisor,
            control: RefCell::default(),
            renewer: RefCell::default(),
            table: RefCell::default(),
            serving: RefCell::default(),
            files: RefCell::default(),
            keys: RefCell::default(),
            revoked: RefCell::default(),
            sets: RefCell::default(),
            open: RefCell::default(),
        }))
    }

    /// Serves until the supervisor says that it is over, or is gone.
    pub(crate) async fn serve(
        self: &Rc<Self>,
        mut supervisor: Receiver<ToNode>,
        wanted: mpsc::Receiver<Arc<str>>,
        asked: mpsc::Receiver<Asked>,
    ) -> Result<(), ChannelError> {
        spawn_local(self.clone().want_keys(wanted));
        spawn_local(self.clone().asks(asked));
        self.last_revocations().await;
        self.last_good().await;
        self.last_keys().await;
        spawn_local(self.clone().renew());
        spawn_local(self.clone().report());
        spawn_local(self.clone().uses());
        spawn_local(self.clone().leases());
        self.supervisor.send(&FromNode::Ready, &[]).await?;
        loop {
            let (message, descriptors) = match supervisor.recv().await {
                Err(ChannelError::Closed) => return Ok(()),
                received => received?,
            };
            match message {
                ToNode::Shutdown => return Ok(()),
                message => {
                    if let Err(reason) = self.follow(message, descriptors).await {
                        self.tell("supervisor", LifecycleActivity::Update, &reason, Severity::Medium);
                        self.supervisor.send(&FromNode::Refused { reason }, &[]).await?;
                    }
                }
            }
        }
    }

    async fn follow(self: &Rc<Self>, message: ToNode, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        match message {
            ToNode::Start(_) => return Err("the node has been started already".into()),
            ToNode::Shutdown => {}
            ToNode::Listener { kind } => return self.listen(kind, descriptors).await,
            ToNode::CloseListener { kind } => self.broadcast(|| Command::Close(kind.clone())).await,
            ToNode::Control => self.connect_control(channel(descriptors)?)?,
            ToNode::Shim { service } => {
                let shim = self.shared.shims.of(&service);
                let channel = Channel::new(channel(descriptors)?).map_err(|e| e.to_string())?;
                let node = self.clone();
                spawn_local(async move {
                    let ended = shim.supply(channel).await;
                    if let Err(e) = ended {
                        let message = format!("the channel to the shim ended: {e}");
                        node.tell(&service, LifecycleActivity::Update, &message, Severity::Low);
                    }
                });
            }
            ToNode::ShimGone { service } => {
                self.shared.shims.of(&service).gone();
                self.shared.registry.gone(&service);
            }
            ToNode::ShimReady { service } => self.is_ready(&service, true),
            ToNode::ShimNotReady { service } => self.is_ready(&service, false),
            ToNode::GatewayFiles { cert, key } => {
                let certificate = GatewayCertificate::from_pem(cert.as_bytes(), key.expose().as_bytes());
                *self.files.borrow_mut() =
                    Some(certificate.map_err(|e| format!("gateway certificate: {e}"))?);
                self.choose_certificate();
            }
            ToNode::Drain { seconds } => {
                let node = self.clone();
                spawn_local(async move { node.drain(Duration::from_secs(seconds)).await });
            }
        }
        Ok(())
    }

    fn is_ready(&self, service: &str, ready: bool) {
        self.shared.shims.of(service).set_ready(ready);
        self.shared.registry.ready(service, ready);
    }

    /// Sockets of thread 0, 1, … of the first address, then of the next.
    async fn listen(&self, kind: ListenerKind, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let threads = self.workers.len();
        if descriptors.is_empty() || !descriptors.len().is_multiple_of(threads) {
            return Err(format!("{kind:?} came with {} sockets for {threads} threads", descriptors.len()));
        }
        let mut shares: Vec<Vec<TcpListener>> = (0..threads).map(|_| Vec::new()).collect();
        for (i, descriptor) in descriptors.into_iter().enumerate() {
            shares[i % threads].push(descriptor.into());
        }
        let mut answers = Vec::new();
        for (worker, share) in self.workers.iter().zip(shares) {
            let (done, answer) = oneshot::channel();
            let _ = worker.send(Command::Listen(kind.clone(), share, done)).await;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(|_| format!("{kind:?} came with something that is no listening socket"))?;
        }
        let _ = self.supervisor.send(&FromNode::Listening { kind }, &[]).await;
        Ok(())
    }

    async fn broadcast(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.send(command()).await;
        }
    }

    async fn drain(&self, time: Duration) {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            let _ = worker.send(Command::Drain(time, done)).await;
            answers.push(answer);
        }
        let mut cut = 0;
        for answer in answers {
            cut += answer.await.unwrap_or(0);
        }
        let _ = self.supervisor.send(&FromNode::Drained { cut }, &[]).await;
    }

    /// Takes a channel to control; one from before is forgotten.
    fn connect_control(self: &Rc<Self>, socket: UnixStream) -> Result<(), String> {
        let channel = Channel::<FromProxy, ToProxy>::new(socket).map_err(|e| e.to_string())?;
        let (sender, receiver) = channel.split();
        self.renewer.borrow_mut().reconnected();
        self.open.borrow_mut().lost();
        let task = spawn_local(self.clone().control(sender.clone(), receiver));
        if let Some((_, before)) = self.control.borrow_mut().replace((sender, task)) {
            before.abort();
        }
        Ok(())
    }

    async fn control(self: Rc<Self>, sender: Sender<FromProxy>, mut receiver: Receiver<ToProxy>) {
        let hello = FromProxy::Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            seen: self.seen.get(),
            content: self.contents.borrow().digests(),
        };
        let mut open = sender.send(&hello, &[]).await.is_ok();
        let mut said = "control is gone".to_owned();
        while open {
            let message = match receiver.recv().await {
                Ok((message, _)) => message,
                Err(ChannelError::Closed | ChannelError::Io(_)) => break,
                Err(nonsense) => {
                    said = format!("control spoke nonsense, so that its channel was closed: {nonsense}");
                    break;
                }
            };
            open = match message {
                ToProxy::Content(part) => {
                    let taken = self.contents.borrow_mut().take(part);
                    if let Err(e) = taken {
                        self.entity("content", "-", 1, false, &e.to_string());
                    }
                    true
                }
                ToProxy::Snapshot(signed) => {
                    let answer = self.take(&signed).await;
                    sender.send(&answer, &[]).await.is_ok()
                }
                ToProxy::Signed { request, outcome } => {
                    self.certificate(request, outcome);
                    true
                }
                // It never asks for one.
                ToProxy::SignedJwt { .. } => true,
                ToProxy::Keys(keys) => {
                    self.believe(keys).await;
                    true
                }
                ToProxy::ApiKeys(told) => {
                    self.api_keys(told).await;
                    true
                }
                ToProxy::Revocations(told) => {
                    self.revocations(told).await;
                    true
                }
                ToProxy::Answer { request, outcome } => {
                    self.open.borrow_mut().answered(request, outcome);
                    true
                }
                ToProxy::CookieKeys(keys) => {
                    self.shared.set_cookie_keys(keys);
                    true
                }
                ToProxy::Renew => {
                    self.renewer.borrow_mut().renew_all();
                    true
                }
            };
        }
        // The last good snapshot stays in force until its lease is over. A channel that is closed on both sides is replaced.
        *self.control.borrow_mut() = None;
        self.open.borrow_mut().lost();
        self.tell("control", LifecycleActivity::Stop, &said, Severity::Medium);
    }

    /// Enforces what the disk remembers, until control says more.
    async fn last_good(&self) {
        let found = match self.disk.snapshot() {
            Ok(Some(signed)) => {
                signed.verify(&self.key, unix_now(), self.seen.get()).map_err(|e| e.to_string())
            }
            Ok(None) => return,
            Err(e) => Err(e.to_string()),
        };
        let applied = match found {
            Ok(snapshot) => self.apply(snapshot).await,
            Err(e) => Err(e),
        };
        if let Err(reason) = applied {
            let message = format!("the last good snapshot is not used: {reason}");
            self.entity("snapshot", "last-good", 2, false, &message);
        }
    }

    async fn take(&self, signed: &SignedSnapshot) -> FromProxy {
        let verified = signed.verify(&self.key, unix_now(), self.seen.get());
        let claimed =
            |e: &SnapshotError| if let SnapshotError::Rollback { offered, .. } = e { *offered } else { 0 };
        let (revision, outcome) = match verified {
            Err(e) => (claimed(&e), Err(e.to_string())),
            Ok(snapshot) => {
                let (revision, seen) = (snapshot.revision, (snapshot.epoch, snapshot.revision));
                let applied = self.apply(snapshot.clone()).await;
                let mut contents = self.contents.borrow_mut();
                if applied.is_ok() {
                    self.seen.set(seen);
                    let kept = contents.keep(&snapshot, &self.disk);
                    // A full disk must not keep a revocation from being enforced.
                    match kept.and_then(|()| self.disk.keep(signed, seen)) {
                        Ok(()) => contents.prune(&snapshot, &self.disk),
                        Err(e) => {
                            let message = format!("the snapshot could not be kept: {e}");
                            self.tell("proxy", LifecycleActivity::Update, &message, Severity::High);
                        }
                    }
                } else {
                    contents.refused(&snapshot);
                }
                (revision, applied)
            }
        };
        let name = revision.to_string();
        match outcome {
            Ok(()) => {
                self.entity("snapshot", &name, 3, true, "in force");
                let _ = self.supervisor.send(&FromNode::Applied { revision }, &[]).await;
                FromProxy::Ack { revision }
            }
            Err(reason) => {
                self.entity("snapshot", &name, 3, false, &reason);
                FromProxy::Nack { revision, reason }
            }
        }
    }

    /// Puts a verified snapshot in force on every thread.
    async fn apply(&self, snapshot: VerifiedSnapshot) -> Result<(), String> {
        let bundles = bundles(&snapshot)?;
        let (engine, apis) = {
            let contents = self.contents.borrow();
            let files = contents.files(&snapshot, &self.disk)?;
            let before = self.table.borrow();
            let engine = Engine::of(&snapshot, before.as_deref(), &files)?;
            (engine, Apis::of(&snapshot, before.as_deref(), &files)?)
        };
        let policy = Policy::of(&snapshot, self.table.borrow().as_deref())?;
        let txn = TxnKeys::of(&snapshot, self.table.borrow().as_deref())?;
        let compiled = self.shared.with_interner(|interner| {
            Table::compile(
                snapshot,
                policy,
                engine,
                apis,
                txn,
                interner,
                &self.shared.shims,
                &self.shared.limiter,
                &self.shared.breakers,
                &self.name,
            )
        });
        let table = Arc::new(compiled.map_err(|e| e.to_string())?);
        // Whom to believe first: nobody is let in by the new table whom the new bundle would refuse.
        if self.shared.mesh.bundles().generation() != bundles.generation() || self.table.borrow().is_none() {
            self.shared.mesh.set_bundles(bundles);
        }
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            let _ = worker.send(Command::Table(table.clone(), done)).await;
            answers.push(answer);
        }
        for answer in answers {
            let _ = answer.await;
        }
        for id in self.renewer.borrow_mut().follow(&table.snapshot, &self.name) {
            self.shared.mesh.remove_identity(&id);
        }
        self.shared.registry.follow(&table.snapshot, &self.name);
        self.shared.delivered.follow(|service| table.callee(service).is_some());
        *self.table.borrow_mut() = Some(table);
        self.choose_certificate();
        self.ask();
        Ok(())
    }

    /// The gateway shows what the fence says: the certificate from files, or the one from the serving CA.
    fn choose_certificate(&self) {
        let from_files = self.table.borrow().as_ref().is_some_and(|t| {
            t.snapshot.gateway.as_ref().is_some_and(|g| matches!(g.tls, GatewayTls::Files { .. }))
        });
        let chosen = if from_files { self.files.borrow() } else { self.serving.borrow() };
        if let Some(certificate) = &*chosen {
            self.shared.certificates.set(std::slice::from_ref(certificate));
        }
    }

    fn revision(&self) -> u64 {
        self.table.borrow().as_ref().map_or(0, |t| t.snapshot.revision)
    }

    fn entity(&self, entity: &str, name: &str, activity: u8, granted: bool, message: &str) {
        let kind = Kind::Entity(Entity { entity, name, uid: None, activity, granted, message });
        self.events.emit(&Event::new(kind).revision(self.revision()));
    }

    fn tell(&self, name: &str, activity: LifecycleActivity, message: &str, severity: Severity) {
        let kind = Kind::Lifecycle(Lifecycle { name, activity, message, severity });
        self.events.emit(&Event::new(kind).revision(self.revision()));
    }
}

fn channel(descriptors: Vec<OwnedFd>) -> Result<UnixStream, String> {
    match <[OwnedFd; 1]>::try_from(descriptors) {
        Ok([descriptor]) => Ok(descriptor.into()),
        Err(other) => Err(format!("a channel comes with one descriptor, not {}", other.len())),
    }
}

fn bundles(snapshot: &VerifiedSnapshot) -> Result<BundleSet, String> {
    let trust_domain = TrustDomain::new(&snapshot.trust_domain).map_err(|e| e.to_string())?;
    let roots = snapshot.bundle.x509.iter().map(|der| der.0.clone().into()).collect();
    let generation = snapshot.bundle.generation;
    let bundle =
        TrustBundle::new(trust_domain, roots, Vec::new(), generation, None).map_err(|e| e.to_string())?;
    Ok(BundleSet::new(generation, [Arc::new(bundle)]))
}
