//! Control's stand-in on a host that joined: it speaks with the supervisor and the proxy of its host as control does, and with control
//! over the network.
//!
//! It holds one key, its host's, and decides nothing: what it passes on the proxy verifies, and what it withholds makes the proxy
//! stale, which `status` says and which ends at the lease. The proxy is introduced when control can be reached, not before, so that
//! what it asks is refused at once while nobody could answer.

mod issuer;
mod kept;
mod seen;
mod way;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use ringfence_ca::workload::{Limits, Serving, WorkloadApi, WorkloadListener};
use ringfence_channel::{BlockingChannel, Channel, ChannelError, Receiver, Sender};
use ringfence_event::{Emitter, Entity, Event, Kind, Writer, WriterOptions};
use ringfence_join::JoinToken;
use ringfence_keys::{Keyring, VerifyingKey};
use ringfence_snapshot::node::{FromProxy, ToProxy};
use ringfence_snapshot::{Der, SignedSnapshot, VerifiedSnapshot};
use ringfence_wire::{Known, Session};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::issuer::Remote;
pub use self::kept::{folder, of};
use self::seen::Seen;
use self::way::{NoWay, Way};
use crate::ControlError;
use crate::api::{self, Answer, Ask};
use crate::attest::Asking;
use crate::core::certificates::workload_event;
use crate::core::enforce::applied;
use crate::core::now;
use crate::pem::pem;
use crate::supervisor::{Applied, Command, FromControl, MemberStart, Report, ToControl};

/// An SVID is renewed when this many seconds of it are left: half of what control gives.
const HALF_LIFE: u64 = 1800;
/// Pauses between attempts to reach control, at first and at most; and after it refused.
const SOON: Duration = Duration::from_millis(200);
const LATE: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_secs(15);

/// What happens on the way to control.
enum Happened {
    /// There is a connection.
    Connected(Box<Way>, Known),
    /// There is none.
    Failed(Box<Way>, NoWay),
    /// Control told a snapshot.
    Snapshot(SignedSnapshot),
    /// The session, or the proxy's channel, ended.
    Ended(String),
    /// The SVID is to be renewed.
    Due,
}

/// Runs the stand-in until its supervisor is gone. `confine` is called with its own folder and the ports of control, before anything
/// else is opened and before a second thread exists.
///
/// # Errors
/// [`ControlError`]: the supervisor starts it again.
pub fn run(
    channel: UnixStream,
    confine: impl FnOnce(&Path, Vec<u16>) -> io::Result<()>,
) -> Result<(), ControlError> {
    let channel = BlockingChannel::<FromControl, ToControl>::new(channel);
    let (ToControl::Member(start), mut fds) = channel.recv()? else {
        return Err(ControlError::Protocol("the first message is not Member"));
    };
    let socket = fds.pop().ok_or(ControlError::Protocol("Member came without the control socket"))?;
    let MemberStart { data, master, token } = start;
    let fatal = |reason: String| {
        channel.send(&FromControl::Fatal(reason.clone()), &[])?;
        Err(ControlError::Home(reason))
    };
    let token = match token.as_ref().map(|text| JoinToken::parse(text.expose().trim())).transpose() {
        Ok(token) => token,
        Err(e) => return fatal(e.to_string()),
    };
    let folder = folder(&data);
    std::fs::create_dir_all(&folder)?;
    std::fs::create_dir_all(data.join("events/control"))?;
    let known = of(&data)?.map(|(_, controls)| controls).unwrap_or_default();
    let ports =
        known.iter().chain(token.iter().flat_map(JoinToken::controls)).map(SocketAddr::port).collect();
    let keyring = match Keyring::open(&folder.join("keyring.json"), &master) {
        Ok(keyring) => keyring,
        Err(e) => return fatal(e.to_string()),
    };
    confine(&folder, ports).map_err(ControlError::Confine)?;
    let way = match Way::new(&folder, &keyring, token) {
        Ok(way) => way,
        Err(reason) => return fatal(reason),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work(channel, socket.into(), &data, way))
}

async fn work(
    channel: BlockingChannel<FromControl, ToControl>,
    socket: std::os::unix::net::UnixListener,
    data: &Path,
    way: Way,
) -> Result<(), ControlError> {
    let (supervisor, mut inbox) = channel.into_async()?.split();
    let writer = Writer::open(&data.join("events/control"), "control", WriterOptions::default())?;
    socket.set_nonblocking(true)?;
    let (ask, mut questions) = mpsc::channel(64);
    tokio::spawn(api::serve(tokio::net::UnixListener::from_std(socket)?, ask));
    let (happens, mut happening) = mpsc::channel(16);
    let remote = Remote::new(&way.kept.trust_domain);
    let asking = Asking::new(supervisor.clone());
    let (api, mut workload_events) = WorkloadApi::new(remote.clone(), Limits::default());
    let api = api.attested_by(Arc::new(asking.clone()));
    let mut member = Member {
        host: way.kept.host.clone(),
        folder: way.folder.clone(),
        supervisor: supervisor.clone(),
        emitter: writer.emitter(),
        happens,
        link: Link::Away,
        tasks: JoinSet::new(),
        introduction: None,
        offered: false,
        applied: None,
        current: None,
        report: Report::default(),
        said: String::new(),
        since: now(),
        key: None,
        pause: SOON,
        remote: remote.clone(),
        seen: Seen::default(),
        asking,
        api,
        workloads: HashMap::new(),
        waiting: Vec::new(),
    };
    supervisor.send(&FromControl::Ready, &[]).await?;
    member.begin(&way).await?;
    member.seek(Box::new(way), Duration::ZERO);
    loop {
        tokio::select! {
            message = inbox.recv() => match message {
                Ok((message, fds)) => member.supervisor(message, fds).await?,
                Err(ChannelError::Closed) => return Ok(()),
                Err(e) => return Err(e.into()),
            },
            Some((ask, answer)) = questions.recv() => {
                let _ = answer.send(member.answer(ask).await);
            }
            Some(happened) = happening.recv() => member.happened(happened).await?,
            Some(event) = workload_events.recv() => workload_event(&event, |entity, name, activity, granted, message| {
                member.entity(entity, name, activity, granted, message);
            }),
        }
    }
}

/// Where this host stands with control.
enum Link {
    /// On the way, or waiting to be.
    Away,
    /// There; the proxy is not introduced yet.
    There(Box<Way>, Known),
    /// In session.
    Open(Box<Way>),
}

struct Member {
    host: String,
    folder: PathBuf,
    supervisor: Sender<FromControl>,
    emitter: Emitter,
    happens: mpsc::Sender<Happened>,
    link: Link,
    /// Those of the session.
    tasks: JoinSet<()>,
    /// The last introduction of the proxy, which was given up.
    introduction: Option<u64>,
    /// Whether the supervisor waits for an answer to its fence.
    offered: bool,
    applied: Option<Applied>,
    current: Option<VerifiedSnapshot>,
    report: Report,
    /// What was said last of the way to control, so that it is said once.
    said: String,
    since: u64,
    key: Option<VerifyingKey>,
    pause: Duration,
    /// The CA, and what is served on top of it.
    remote: Remote,
    /// What the proxy said last.
    seen: Seen,
    asking: Asking,
    api: WorkloadApi,
    workloads: HashMap<String, Serving>,
    /// Workload API sockets that came before it was known whom to believe.
    waiting: Vec<(String, u64, OwnedFd)>,
}

impl Member {
    /// Goes on from what is known.
    async fn begin(&mut self, way: &Way) -> Result<(), ControlError> {
        let Some(der) = &way.kept.snapshot_key else { return Ok(()) };
        self.belongs(der.clone()).await?;
        if let Some(signed) = kept::last_snapshot(&self.folder) {
            self.take(signed).await?;
        }
        Ok(())
    }

    async fn belongs(&mut self, snapshot_key: Der) -> Result<(), ControlError> {
        if self.key.is_none() {
            self.key = VerifyingKey::from_spki(&snapshot_key.0).ok();
            self.supervisor.send(&FromControl::Belongs { snapshot_key }, &[]).await?;
        }
        Ok(())
    }

    /// Looks for control, after a pause.
    fn seek(&self, mut way: Box<Way>, pause: Duration) {
        let happens = self.happens.clone();
        tokio::spawn(async move {
            sleep(pause).await;
            let happened = match way.connect().await {
                Ok(known) => Happened::Connected(way, known),
                Err(why) => Happened::Failed(way, why),
            };
            let _ = happens.send(happened).await;
        });
    }

    async fn happened(&mut self, happened: Happened) -> Result<(), ControlError> {
        match happened {
            Happened::Connected(way, known) => {
                if let Some(key) = &way.kept.snapshot_key {
                    self.belongs(key.clone()).await?;
                }
                self.pause = SOON;
                self.link = Link::There(way, known);
                if let Some(introduction) = self.introduction {
                    self.supervisor.send(&FromControl::Introduce { introduction }, &[]).await?;
                }
            }
            Happened::Failed(way, why) => {
                let (pause, text) = match &why {
                    NoWay::Refused(text) => (REFUSED, text.clone()),
                    NoWay::Later(text) => (self.pause, text.clone()),
                };
                self.pause = (self.pause * 2).min(LATE);
                // A host that never belonged has nothing to go on from.
                if matches!(why, NoWay::Refused(_)) && !way.kept.belongs() {
                    self.supervisor.send(&FromControl::Fatal(text.clone()), &[]).await?;
                    return Err(ControlError::Home(text));
                }
                self.say(false, &text).await?;
                self.seek(way, pause);
            }
            Happened::Snapshot(signed) => self.take(signed).await?,
            Happened::Ended(reason) => {
                self.tasks = JoinSet::new();
                self.remote.set_way(None);
                if let Link::Open(way) = std::mem::replace(&mut self.link, Link::Away) {
                    self.say(
                        false,
                        &format!("control is gone ({reason}); this host goes on from what it knows"),
                    )
                    .await?;
                    self.seek(way, self.pause);
                }
            }
            Happened::Due => {
                self.tasks = JoinSet::new();
                self.remote.set_way(None);
                if let Link::Open(mut way) = std::mem::replace(&mut self.link, Link::Away) {
                    way.renew();
                    self.seek(way, Duration::ZERO);
                }
            }
        }
        Ok(())
    }

    async fn supervisor(&mut self, message: ToControl, fds: Vec<OwnedFd>) -> Result<(), ControlError> {
        if let ToControl::Attested { id, outcome } = message {
            self.asking.answered(id, outcome, fds);
            return Ok(());
        }
        match (message, fds.into_iter().next()) {
            (ToControl::Workload { service, netns }, Some(fd)) => self.workload(service, netns, fd),
            (ToControl::WorkloadGone { service }, _) => {
                self.workloads.remove(&service);
                self.waiting.retain(|(name, ..)| *name != service);
            }
            (ToControl::Proxy { introduction, .. }, Some(fd)) => {
                self.introduction = Some(introduction);
                match std::mem::replace(&mut self.link, Link::Away) {
                    Link::There(way, known) => self.open(way, known, fd.into()).await?,
                    Link::Open(way) => {
                        // The proxy is another: so is the session.
                        self.tasks = JoinSet::new();
                        self.remote.set_way(None);
                        self.seek(way, Duration::ZERO);
                    }
                    Link::Away => {}
                }
            }
            (ToControl::Fence { .. }, _) => {
                self.offered = true;
                self.tell_applied().await?;
            }
            (ToControl::Report(report), _) => self.report = report,
            // What is enforced comes from control, and so do certificates.
            _ => {}
        }
        Ok(())
    }

    /// Opens a session for the proxy at the other end of `socket`.
    async fn open(
        &mut self,
        mut way: Box<Way>,
        known: Known,
        socket: UnixStream,
    ) -> Result<(), ControlError> {
        let (sender, receiver) = Channel::<ToProxy, FromProxy>::new(socket)?.split();
        let session = match known.session().await {
            Ok(session) => session,
            Err(e) => {
                // Whether it still belongs, it learns when it asks for an SVID.
                way.renew();
                self.say(false, &format!("no session: {e}")).await?;
                self.seek(way, self.pause);
                return Ok(());
            }
        };
        self.tasks = JoinSet::new();
        let due = Duration::from_secs(way.renew_at().saturating_sub(now()));
        self.tasks.spawn(up(receiver, session.way(), self.seen.clone(), self.happens.clone()));
        self.remote.set_way(Some(session.way()));
        self.tasks.spawn(down(session, sender, self.remote.clone(), self.happens.clone()));
        let happens = self.happens.clone();
        self.tasks.spawn(async move {
            sleep(due).await;
            let _ = happens.send(Happened::Due).await;
        });
        self.link = Link::Open(way);
        self.say(true, "control is there").await
    }

    /// Takes a snapshot that is control's to give and the keeper's to sign. Which it enforces, the proxy decides.
    async fn take(&mut self, signed: SignedSnapshot) -> Result<(), ControlError> {
        let Some(key) = &self.key else { return Ok(()) };
        let seen = self.current.as_ref().map_or((0, 0), |s| (s.epoch, s.revision));
        let snapshot = match signed.verify(key, now(), seen) {
            Ok(snapshot) => snapshot,
            Err(e) => {
                self.entity("snapshot", "-", 3, false, &e.to_string());
                return Ok(());
            }
        };
        if let Err(e) = kept::keep_snapshot(&self.folder, &signed) {
            self.entity(
                "snapshot",
                &snapshot.revision.to_string(),
                3,
                false,
                &format!("cannot be kept: {e}"),
            );
        }
        let roots: String = snapshot.bundle.serving.iter().map(|der| pem("CERTIFICATE", &der.0)).collect();
        self.supervisor.send(&FromControl::Trust(roots), &[]).await?;
        if let Link::Open(way) | Link::There(way, _) = &mut self.link
            && way.kept.roots != snapshot.bundle.x509
        {
            way.kept.roots.clone_from(&snapshot.bundle.x509);
            if let Err(e) = way.kept.write(&self.folder) {
                self.entity("host", &self.host, 3, false, &format!("whom to believe cannot be kept: {e}"));
            }
        }
        self.remote.set_bundle(&snapshot.bundle);
        let applied = applied(&snapshot);
        self.current = Some(snapshot);
        for (service, netns, fd) in std::mem::take(&mut self.waiting) {
            self.workload(service, netns, fd);
        }
        let places = |a: &Applied| (a.services.clone(), a.egress.clone());
        let news = self.applied.as_ref().is_none_or(|before| places(before) != places(&applied));
        self.applied = Some(applied);
        if news { self.tell_applied().await } else { Ok(()) }
    }

    /// Serves a service's Workload API, once it is known whom to believe.
    fn workload(&mut self, service: String, netns: u64, fd: OwnedFd) {
        if self.current.is_none() {
            self.waiting.retain(|(name, ..)| *name != service);
            return self.waiting.push((service, netns, fd));
        }
        let listener = WorkloadListener { service: service.clone(), listener: fd.into(), netns_inode: netns };
        match self.api.serve(listener) {
            Ok(serving) => drop(self.workloads.insert(service, serving)),
            Err(e) => self.entity("workload", &service, 1, false, &e.to_string()),
        }
    }

    async fn tell_applied(&self) -> Result<(), ControlError> {
        if let (true, Some(applied)) = (self.offered, &self.applied) {
            self.supervisor.send(&FromControl::Fence(Ok(applied.clone())), &[]).await?;
        }
        Ok(())
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Ok(self.status()),
            Ask::Stats => Ok(self.seen.stats(&self.host)),
            Ask::Restart(service) => self.command(Command::Restart { service }).await,
            Ask::Down => self.command(Command::Down).await,
            _ => Err((StatusCode::CONFLICT, "this host joined: ask on the host that has control".into())),
        }
    }

    async fn command(&self, command: Command) -> Answer {
        let sent = self.supervisor.send(&FromControl::Command(command), &[]).await;
        sent.map_err(|e| (StatusCode::SERVICE_UNAVAILABLE, e.to_string()))?;
        Ok(json!({ "done": true }))
    }

    fn status(&self) -> Value {
        let snapshot = self.current.as_ref().map(|s| {
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
        json!({
            "report": self.report,
            "snapshot": snapshot,
            "nodes": self.seen.status(&self.host),
            "entities": null,
            "waf": null,
            "store": {},
            "member": {
                "host": self.host,
                "connected": matches!(self.link, Link::Open(_)),
                "since": self.since,
                "said": self.said,
            },
        })
    }

    /// Says how it stands with control, once each.
    async fn say(&mut self, good: bool, text: &str) -> Result<(), ControlError> {
        if self.said != text {
            (self.said, self.since) = (text.to_owned(), now());
            self.entity("host", &self.host, 2, good, text);
            self.supervisor.send(&FromControl::Waiting(text.to_owned()), &[]).await?;
        }
        Ok(())
    }

    fn entity(&self, entity: &str, name: &str, activity: u8, granted: bool, message: &str) {
        let revision = self.current.as_ref().map_or(0, |s| s.revision);
        let kind = Kind::Entity(Entity { entity, name, uid: None, activity, granted, message });
        self.emitter.emit(&Event::new(kind).revision(revision));
    }
}

/// What the proxy says goes to control.
async fn up(
    mut receiver: Receiver<FromProxy>,
    way: ringfence_wire::Way,
    seen: Seen,
    happens: mpsc::Sender<Happened>,
) {
    let reason = loop {
        match receiver.recv().await {
            Ok((message, _)) if !Remote::is_its_own(&message) => {
                break "the proxy asks in another's name".to_owned();
            }
            Ok((message, _)) => {
                seen.note(&message);
                if let Err(e) = way.send(&message).await {
                    break e.to_string();
                }
            }
            Err(e) => break format!("the proxy's channel: {e}"),
        }
    };
    let _ = happens.send(Happened::Ended(reason)).await;
}

/// What control says goes to the proxy.
async fn down(
    mut session: Session,
    sender: Sender<ToProxy>,
    remote: Remote,
    happens: mpsc::Sender<Happened>,
) {
    let reason = loop {
        let message = match session.next().await {
            Some(Ok(message)) => message,
            Some(Err(e)) => break e.to_string(),
            None => break "it ended the session".to_owned(),
        };
        if let ToProxy::Snapshot(signed) = &message
            && happens.send(Happened::Snapshot(signed.clone())).await.is_err()
        {
            return;
        }
        let Some(message) = remote.take(message) else { continue };
        if let Err(e) = sender.send(&message, &[]).await {
            break format!("the proxy's channel: {e}");
        }
    };
    let _ = happens.send(Happened::Ended(reason)).await;
}
