//! `ringfence up`: the supervisor. It holds no key and parses nothing from outside; it starts the processes that do,
//! introduces them to each other, keeps them alive, and shows what happens.
//!
//! Its children are replaceable at any time: whatever ends is started again and introduced anew, while services and their
//! shims go on. It is replaceable itself: the next `up` finds the shims by their sockets and takes them over.

mod banner;
mod beside;
mod child;
mod files;
mod host;
mod logs;
mod mend;
mod news;
mod order;
mod peers;
mod services;
mod shim;
pub(crate) mod spec;
mod usage;
mod watch;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringfence_control::supervisor::{Applied, Command, FromControl, Report, ToControl};
use ringfence_event::{Emitter, Event, Kind, Lifecycle, LifecycleActivity, Severity, Writer, WriterOptions};
use ringfence_keeper::protocol::ToSupervisor;
use ringfence_keys::{MasterSource, Secret};
use ringfence_model::Fence;
use ringfence_proxy::protocol::FromNode;
use ringfence_sandbox::spec::Isolation;
use ringfence_store::Place;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::interval;

use self::child::Role;
use self::logs::Logs;
use self::news::News;
use self::order::Order;
use self::peers::Peers;
use self::services::Services;
use self::watch::{Texts, Watch};
use crate::data::{DataDir, Lock};
use crate::env::Env;

/// What `up` was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) fence: PathBuf,
    pub(crate) data: Option<PathBuf>,
    pub(crate) isolation: Isolation,
    pub(crate) threads: usize,
    pub(crate) mesh: SocketAddr,
    /// What this host is called in the fence, where there are several; found out at the start.
    pub(crate) host: Option<String>,
    /// This host joins: control is elsewhere.
    pub(crate) member: Option<Joining>,
    pub(crate) store: Option<Place>,
    pub(crate) store_wait: Duration,
    pub(crate) master: MasterChoice,
    pub(crate) svid_life: Duration,
    pub(crate) quiet: bool,
}

/// How a host joins.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    /// The join token, unless it has joined.
    pub(crate) token: Option<Secret<String>>,
}

/// Where the master key is to come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MasterChoice {
    File(Option<PathBuf>),
    Passphrase,
    Credential,
}

/// Why `up` ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("{0}")]
    Fence(String),
    #[error("{0}")]
    Isolation(String),
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    #[error("{0}")]
    Keeper(String),
    #[error("{0}")]
    Control(String),
    #[error(
        "cannot listen on {address}: {source}; is another program there, or should `gateway.listen` be another?"
    )]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "cannot serve metrics at {address}: {source}; is another program there, or should `metrics.listen` be another? It is tried again"
    )]
    Metrics { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Usage(String),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error(transparent)]
    Channel(#[from] ringfence_channel::ChannelError),
}

impl UpError {
    fn exit(&self) -> ExitCode {
        match self {
            Self::Fence(_) | Self::Usage(_) => ExitCode::from(2),
            _ => ExitCode::from(3),
        }
    }
}

/// Runs until a signal, `down`, or something that cannot be mended.
pub(crate) fn run(options: Options, env: Env) -> ExitCode {
    // It may hold a passphrase for a moment, and channels to all others at all times.
    if let Err(e) = ringfence_channel::sys::set_undumpable() {
        eprintln!("ringfence: cannot close its memory to others: {e}");
        return ExitCode::from(3);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("ringfence: cannot start: {e}");
            return ExitCode::from(3);
        }
    };
    match runtime.block_on(up(options, env)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ringfence: {e}");
            e.exit()
        }
    }
}

/// The supervisor.
struct Supervisor {
    options: Options,
    data: DataDir,
    fence: Fence,
    applied: Option<Applied>,
    rejected: Option<String>,
    news: mpsc::Sender<News>,
    peers: Peers,
    services: Services,
    order: Order,
    watch: Watch,
    texts: Texts,
    logs: Logs,
    emitter: Emitter,
    warnings: Vec<String>,
    /// Why counters cannot be served.
    trouble: Option<String>,
    /// When it was looked last at what our processes use.
    measured: Instant,
    reported: String,
    announced: bool,
}

async fn up(mut options: Options, env: Env) -> Result<(), UpError> {
    options.store = crate::store::chosen(options.store.take(), &env).map_err(UpError::Usage)?;
    let fence = Fence::load(&options.fence).map_err(|d| UpError::Fence(d.to_string()))?;
    for warning in &fence.warnings {
        eprintln!("{warning}");
    }
    let mut warnings = Vec::new();
    if options.isolation == Isolation::Off {
        warnings.push("services run WITHOUT isolation: --isolation off was given".to_owned());
    } else {
        let probe = ringfence_sandbox::probe();
        if let Some(missing) = probe.missing {
            let advice: String = probe.advice.iter().map(|line| format!("\n  - {line}")).collect();
            return Err(UpError::Isolation(format!(
                "services cannot be isolated here: {missing}{advice}\n  - or run without isolation: --isolation off"
            )));
        }
    }
    let io = |what| move |source| UpError::Io { what, source };
    let data = DataDir::locate(&options.fence, options.data.as_deref())
        .map_err(io("cannot find the data directory"))?;
    options.host = host::of(&options, &fence, &data).map_err(UpError::Usage)?;
    data.prepare()?;
    let _lock: Lock = data.lock()?;
    let (watch, texts) = Watch::new(&options.fence, &env).map_err(io("cannot read the fence"))?;
    let writer =
        Writer::open(&data.events(), "up", WriterOptions::default()).map_err(io("cannot write events"))?;
    let master = master(&options.master, &data, &env)?;
    warnings.extend(texts.warnings.iter().inspect(|warning| eprintln!("{warning}")).cloned());
    let (news, inbox) = mpsc::channel(256);
    let peers = Peers::new(&options, &data, &fence, master, news.clone())?;
    let services =
        Services::new(&options, &data, &env, news.clone()).map_err(io("cannot find where ringfence lies"))?;
    let mut supervisor = Supervisor {
        logs: Logs::new(env.colour),
        emitter: writer.emitter(),
        applied: None,
        rejected: None,
        trouble: None,
        measured: Instant::now(),
        order: Order::default(),
        reported: String::new(),
        announced: false,
        options,
        data,
        fence,
        news,
        peers,
        services,
        watch,
        texts,
        warnings,
    };
    supervisor.services.adopt().await;
    let outcome = supervisor.work(inbox).await;
    supervisor.say("stopping");
    supervisor.services.stop().await;
    supervisor.peers.stop().await;
    supervisor.logs.show(&mut io::stdout()).ok();
    let _ = std::fs::remove_file(supervisor.data.control_sock());
    outcome
}

impl Supervisor {
    async fn work(&mut self, mut inbox: mpsc::Receiver<News>) -> Result<(), UpError> {
        let io = |source| UpError::Io { what: "cannot wait for signals", source };
        let mut interrupt = signal(SignalKind::interrupt()).map_err(io)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(io)?;
        let mut reload = signal(SignalKind::hangup()).map_err(io)?;
        let (mut look, mut tick) =
            (interval(Duration::from_millis(500)), interval(Duration::from_millis(100)));
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = reload.recv() => {
                    if let Ok(texts) = self.watch.force() { self.offer(texts).await }
                }
                news = inbox.recv() => match news {
                    Some(News::Control(FromControl::Command(Command::Down))) | None => return Ok(()),
                    Some(news) => self.handle(news).await?,
                },
                role = self.peers.ended() => self.ended(role),
                _ = look.tick() => {
                    if let Some(texts) = self.watch.look() { self.offer(texts).await }
                    self.services.discover().await;
                    if self.applied.is_some() { self.measure().await }
                    if let Err(e) = self.peers.reload_certificate(&self.fence).await { self.say(&e.to_string()) }
                }
                _ = tick.tick() => {
                    self.peers.start_due(&self.texts).await?;
                    self.start_services().await;
                    if !self.options.quiet { self.logs.show(&mut io::stdout()).ok(); }
                    self.report().await;
                }
            }
        }
    }

    async fn handle(&mut self, news: News) -> Result<(), UpError> {
        match news {
            News::Keeper(ToSupervisor::Ready { warnings, snapshot_key, .. }) => {
                self.warn(&warnings);
                self.peers.keeper_ready(snapshot_key).await?;
            }
            News::Keeper(ToSupervisor::Failed { reason }) => return Err(UpError::Keeper(reason)),
            News::Keeper(ToSupervisor::Done | ToSupervisor::Root { .. }) => {}
            News::Control(FromControl::Trust(pem)) => self
                .data
                .write_trust(&pem)
                .map_err(|source| UpError::Io { what: "cannot write ca.pem", source })?,
            News::Control(FromControl::Ready) => self.services.offer_all(),
            News::Control(FromControl::Belongs { snapshot_key }) => {
                self.peers.keeper_ready(snapshot_key).await?;
            }
            News::Control(FromControl::Introduce { introduction }) => {
                if self.peers.is_last(introduction) {
                    self.peers.introduce_again().await?;
                }
            }
            News::Control(FromControl::Fence(Ok(applied))) => self.apply(applied).await,
            News::Control(FromControl::Fence(Err(reason))) => self.refuse(reason)?,
            News::Control(FromControl::Command(Command::Restart { service })) => {
                self.say(&format!("restarting {service}: asked for"));
                self.services.restart(&service).await;
            }
            // Without its descriptor it asks nothing.
            News::Control(FromControl::Attest { .. } | FromControl::Command(Command::Down)) => {}
            News::Attest { id, service, socket } => {
                // No namespace has the number 0: without a shim, nobody is the service.
                self.peers.attest(id, self.services.netns(&service).unwrap_or(0), socket);
            }
            News::Control(FromControl::Waiting(what)) => self.say(&what),
            News::Control(FromControl::Fatal(reason)) => return Err(UpError::Control(reason)),
            News::Node(FromNode::Ready) => {
                self.peers.node_ready(&self.fence).await?;
                self.services.attach_all();
            }
            News::Node(FromNode::Refused { reason }) => self.say(&format!("node: {reason}")),
            News::Node(FromNode::Listening { .. } | FromNode::Applied { .. } | FromNode::Drained { .. }) => {}
            News::Control(FromControl::NodeLost { introduction, nonsense }) => {
                self.lost(introduction, nonsense)
            }
            News::Parted { introduction } => self.parted(introduction).await?,
            News::Deaf { life, reason } => self.distrust(life, &reason),
            News::Shim(news) => self.shim(news).await,
            News::ShimUp { service, link, hello, adopted } => {
                if adopted {
                    self.say(&format!("{service}: taken over, it has been running under its shim"));
                }
                self.logs.follow(&service, self.data.log(&service));
                self.services.up(&service, link, hello).await;
            }
            News::ShimFailed { service, reason } => {
                self.say(&format!("{service}: cannot start: {reason}"));
                self.event(&service, LifecycleActivity::Stop, &reason, Severity::High);
                self.order.settled(&service);
                self.services.failed(&service, reason);
            }
            News::Attached { service, sockets } => {
                self.peers.introduce(&service, sockets, &self.services).await
            }
            News::Workload { service, listener } => {
                if let Some(netns) = self.services.netns(&service) {
                    self.peers.serve_workload(service, netns, &listener).await;
                }
            }
        }
        Ok(())
    }

    async fn shim(&mut self, news: shim::ShimNews) {
        match news {
            shim::ShimNews::Update(service, status) => {
                let line = services::describe(&status);
                if self.services.update(&service, status) {
                    self.say(&format!("{service}: {line}"));
                }
                let ready = self.services.is_ready(&service);
                if ready || self.services.is_over(&service) {
                    self.order.settled(&service);
                }
                self.peers.ready(&service, ready).await;
            }
            shim::ShimNews::Gone(service) => {
                if let Some(why) = self.services.gone(&service) {
                    self.say(&format!("{service}: {why}"));
                    self.event(&service, LifecycleActivity::Stop, why, Severity::Medium);
                    self.order.want(&self.fence, [service.clone()]);
                }
                self.peers.forget(&service).await;
            }
        }
    }

    fn ended(&mut self, (role, status): (Role, std::process::ExitStatus)) {
        let message = format!("{} ended ({status}); starting it again, services go on", role.name());
        self.say(&message);
        self.event(role.name(), LifecycleActivity::Restart, &message, Severity::High);
    }

    /// Says what the operator should know, once.
    fn warn(&mut self, warnings: &[String]) {
        for warning in warnings {
            if !self.warnings.contains(warning) {
                self.say(warning);
                self.warnings.push(warning.clone());
            }
        }
    }

    /// Offers a changed fence to control; it decides.
    async fn offer(&mut self, texts: Texts) {
        self.texts.clone_from(&texts);
        // One that is refused is refused by control, which says why.
        if let Ok(fence) = Fence::parse(texts.files.clone()) {
            self.peers.federate(&fence);
        }
        self.warn(&texts.warnings);
        self.peers.offer(&texts).await;
    }

    async fn apply(&mut self, applied: Applied) {
        // Control parsed these very texts; if they moved on since, the next look brings them.
        if let Ok(fence) = Fence::parse(self.texts.files.clone()) {
            self.fence = fence;
        }
        let first = self.applied.is_none();
        if !first {
            self.say(&format!("the fence changed: revision {} is in force", applied.revision));
        }
        self.event(
            "fence",
            LifecycleActivity::Update,
            &format!("revision {}", applied.revision),
            Severity::Informational,
        );
        self.rejected = None;
        self.notice_moved();
        self.applied = Some(applied.clone());
        if let Err(e) = self.peers.serve_gateway(&self.fence).await {
            self.say(&e.to_string());
        }
        self.serve_metrics().await;
        let (wanted, removed) = self.services.reconcile(&self.fence, applied).await;
        removed.iter().for_each(|name| self.order.forget(name));
        for problem in self.services.problems() {
            self.say(&problem);
        }
        self.order.want(&self.fence, wanted);
    }

    /// Counters are not worth ending for: it is said that they cannot be served, and tried again.
    async fn serve_metrics(&mut self) {
        let trouble = self.peers.serve_metrics(&self.fence).await.err().map(|e| e.to_string());
        if let Some(old) = self.trouble.take_if(|old| trouble.as_ref() != Some(old)) {
            self.warnings.retain(|warning| *warning != old);
        }
        if let Some(trouble) = trouble {
            self.warn(std::slice::from_ref(&trouble));
            self.trouble = Some(trouble);
        }
    }

    /// Where this host is reached is bound at the start: what changed of it since counts at the next.
    fn notice_moved(&mut self) {
        let host = match &self.options.member {
            Some(_) => self.options.host.as_ref().and_then(|name| self.fence.host(name)),
            None => self.fence.control_host(),
        };
        let now = host.map(|host| (host.name.clone(), host.mesh, host.control));
        let before = self.options.host.is_some() || self.options.member.is_some();
        let moved = match (&now, before) {
            (Some((name, mesh, control)), true) => {
                Some(name) != self.options.host.as_ref()
                    || *mesh != self.peers.mesh()
                    || *control != self.peers.control_address()
            }
            (now, before) => now.is_some() != before,
        };
        if moved {
            let text = "the fence says otherwise where this host is reached than when it was started: start it again to follow";
            self.warn(&[text.to_owned()]);
        }
    }

    /// A refused fence is fatal at the start only: later the old one stays.
    fn refuse(&mut self, reason: String) -> Result<(), UpError> {
        if self.applied.is_none() {
            return Err(UpError::Fence(reason));
        }
        self.say(&format!("the fence changed and is not valid; the one before stays in force\n{reason}"));
        self.event("fence", LifecycleActivity::Disable, &reason, Severity::Medium);
        self.rejected = Some(reason);
        Ok(())
    }

    async fn start_services(&mut self) {
        for service in self.order.due(self.services.any_starting()) {
            self.event(&service, LifecycleActivity::Start, "starting", Severity::Informational);
            self.services.start(&service);
        }
        if !self.announced && self.applied.is_some() && self.services.all_settled() && self.peers.serving() {
            self.announced = true;
            let text = banner::text(
                &self.fence,
                &self.data,
                self.options.host.as_deref(),
                self.services.ready_count(),
            );
            self.say(&text);
        }
    }

    /// For the counters: binds where it could not, and looks every few seconds at what our processes use.
    async fn measure(&mut self) {
        self.serve_metrics().await;
        if self.fence.metrics.is_some() && self.measured.elapsed() >= usage::EVERY {
            self.measured = Instant::now();
            let usage = usage::of(&self.peers.report());
            self.peers.tell_control(&ToControl::Usage(usage)).await;
        }
    }

    async fn report(&mut self) {
        let report = Report {
            fence: self.fence.name.clone(),
            path: self.options.fence.clone(),
            gateway: self
                .fence
                .gateway
                .iter()
                .filter(|gateway| {
                    self.options.host.as_ref().is_none_or(|host| self.fence.runs_at(&gateway.at, host))
                })
                .flat_map(|g| g.listen.iter().map(ToString::to_string))
                .collect(),
            mesh: self.peers.mesh().to_string(),
            isolation: if self.options.isolation == Isolation::On { "on".into() } else { "off".into() },
            warnings: self.warnings.clone(),
            rejected: self.rejected.clone(),
            processes: self.peers.report(),
            services: self.services.report(&self.fence),
        };
        let text = serde_json::to_string(&report).unwrap_or_default();
        if text != self.reported {
            self.reported = text;
            self.peers.tell_control(&ToControl::Report(report)).await;
        }
    }

    fn say(&self, line: &str) {
        self.logs.say(&mut io::stdout(), line).ok();
        io::stdout().flush().ok();
    }

    fn event(&self, name: &str, activity: LifecycleActivity, message: &str, severity: Severity) {
        let revision = self.applied.as_ref().map_or(0, |a| a.revision);
        let lifecycle = Lifecycle { name, activity, message, severity };
        self.emitter.emit(&Event::new(Kind::Lifecycle(lifecycle)).revision(revision));
    }
}

/// The master key as it was chosen: a passphrase is asked for, a file is read by the keeper.
pub(crate) fn master(choice: &MasterChoice, data: &DataDir, env: &Env) -> Result<MasterSource, UpError> {
    match choice {
        MasterChoice::File(path) => Ok(MasterSource::KeyFile { path: path.clone().unwrap_or_else(|| data.master_key()) }),
        MasterChoice::Credential => match &env.credentials {
            Some(folder) => Ok(MasterSource::Credential { path: folder.join("ringfence-master") }),
            None => Err(UpError::Usage(
                "--master credential needs CREDENTIALS_DIRECTORY: start under systemd with LoadCredential=ringfence-master:…"
                    .into(),
            )),
        },
        MasterChoice::Passphrase => match &env.passphrase {
            Some(passphrase) => Ok(MasterSource::Passphrase { passphrase: Secret::new(passphrase.clone()) }),
            None => crate::prompt::passphrase("master passphrase: ")
                .map(|passphrase| MasterSource::Passphrase { passphrase: Secret::new(passphrase) })
                .map_err(|source| UpError::Io { what: "cannot read the passphrase", source }),
        },
    }
}
