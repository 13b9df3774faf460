//! The service's life: started, ready, ended, started again; and its PID 1's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::PipeWriter;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfence_channel::{BlockingChannel, cloexec_pair, sys};
use ringfence_event::{Emitter, Event, Kind, LifecycleActivity, Severity, Tamper};
use rustix::thread::UnshareFlags;

use super::networks::Networks;
use super::user::Identity;
use super::{ready, say, service_id, spawn};
use crate::exec::{Become, OURSELVES};
use crate::init::{Arrange, FromInit, ToInit};
use crate::mounts::{SYSTEM, View, WORKLOAD_SOCKET};
use crate::protocol::{Exit, State, Status};
use crate::sense::Sensed;
use crate::sink::Sinks;
use crate::spec::{Isolation, Spec, check_hosts};
use crate::{SandboxError, capability, error::Context as _, role};

/// Time over the grace time after which PID 1 itself is killed.
const INIT_GRACE: Duration = Duration::from_secs(2);

/// One service; shared by the threads of its shim.
#[derive(Clone)]
pub(crate) struct Service(Arc<Inner>);

/// What a service stands on.
pub(crate) struct Setting {
    pub(crate) view: View,
    pub(crate) identity: Identity,
    pub(crate) networks: Option<Arc<Networks>>,
    pub(crate) sinks: Option<Sinks>,
    /// What is written here gets into the service's log.
    pub(crate) log: PipeWriter,
    /// Whether the shim ends with its service, as `ringfence run` does.
    pub(crate) foreground: bool,
}

struct Inner {
    spec: Spec,
    setting: Setting,
    emitter: Mutex<Emitter>,
    queue: SyncSender<Message>,
    inbox: Mutex<Option<Receiver<Message>>>,
    state: Mutex<Shared>,
    changed: Condvar,
    /// Counts starts, so that a readiness probe knows whether it is still wanted.
    run: AtomicU64,
}

/// What the threads look at.
struct Shared {
    status: Status,
    /// Counts changes.
    version: u64,
    hosts: BTreeMap<String, Ipv4Addr>,
    ports: BTreeSet<u16>,
    workload: Option<OwnedFd>,
    ended: bool,
}

enum Message {
    Init(u64, FromInit, Vec<OwnedFd>),
    InitGone(u64),
    Ready(u64),
    Hosts,
    Inside(Become, OwnedFd),
    Restart,
    Stop,
}

/// PID 1 as the supervising thread knows it.
struct Init {
    number: u64,
    channel: BlockingChannel<ToInit, FromInit>,
    pidfd: Option<OwnedFd>,
}

/// What the supervising thread waits for.
#[derive(Clone, Copy, PartialEq)]
enum Plan {
    /// PID 1 to be ready.
    Arranging,
    /// The service to end by itself.
    Running { since: Instant },
    /// The service to end because it must; then it starts again.
    Restarting,
    /// A pause to pass.
    Pausing { until: Instant },
    /// Nothing: it ended for good.
    Resting,
    /// The service to end because everything ends.
    Stopping { until: Instant },
}

impl Service {
    pub(crate) fn new(spec: &Spec, setting: Setting, emitter: Emitter) -> Self {
        let (queue, inbox) = sync_channel(64);
        let status = Status { state: State::Starting, restarts: 0, init_pid: 0, isolation: spec.isolation };
        let state = Shared {
            status,
            version: 0,
            hosts: spec.hosts.clone(),
            ports: spec.ports.clone(),
            workload: None,
            ended: false,
        };
        Self(Arc::new(Inner {
            spec: spec.clone(),
            setting,
            emitter: Mutex::new(emitter),
            queue,
            inbox: Mutex::new(Some(inbox)),
            state: Mutex::new(state),
            changed: Condvar::new(),
            run: AtomicU64::new(0),
        }))
    }

    pub(crate) fn spec(&self) -> &Spec {
        &self.0.spec
    }

    pub(crate) fn networks(&self) -> Option<&Arc<Networks>> {
        self.0.setting.networks.as_ref()
    }

    pub(crate) fn status(&self) -> Status {
        self.shared().status.clone()
    }

    /// The next status after change number `seen`, or `None` when the shim ends.
    pub(crate) fn status_after(&self, seen: u64) -> Option<(u64, Status)> {
        let mut shared = self.shared();
        while shared.version <= seen && !shared.ended {
            shared = self.0.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        (shared.version > seen).then(|| (shared.version, shared.status.clone()))
    }

    pub(crate) fn workload(&self) -> Result<OwnedFd, SandboxError> {
        match &self.shared().workload {
            Some(fd) => fd.try_clone().step(|| "copy the Workload API's listener".into()),
            None => Err(SandboxError::Refused(
                "the service's mounts do not stand yet, or it is not isolated".into(),
            )),
        }
    }

    pub(crate) fn declares(&self, port: u16) -> bool {
        self.shared().ports.contains(&port)
    }

    pub(crate) fn set_ports(&self, ports: BTreeSet<u16>) -> Result<(), SandboxError> {
        if ports.len() > crate::spec::MAX_PORTS {
            return Err(SandboxError::Spec(format!("{} ports are too many", ports.len())));
        }
        if let Some(sinks) = &self.0.setting.sinks {
            sinks.set_ports(&ports)?;
        }
        self.shared().ports = ports;
        Ok(())
    }

    pub(crate) fn set_hosts(&self, hosts: BTreeMap<String, Ipv4Addr>) -> Result<(), SandboxError> {
        check_hosts(&hosts).map_err(SandboxError::Spec)?;
        self.shared().hosts = hosts;
        self.send(Message::Hosts);
        Ok(())
    }

    /// Starts this binary beside the service; what it prints comes out of the pipe.
    pub(crate) fn inside(&self, args: Vec<String>) -> Result<OwnedFd, SandboxError> {
        if args.len() > crate::protocol::MAX_ARGS {
            return Err(SandboxError::Refused(format!("{} arguments are too many", args.len())));
        }
        let (out, write) = std::io::pipe().step(|| "make a pipe".into())?;
        let command = std::iter::once(OURSELVES.to_owned()).chain(args).collect();
        let what = Become { command, ourselves: true, ..self.become_what() };
        self.send(Message::Inside(what, write.into()));
        Ok(out.into())
    }

    pub(crate) fn restart(&self) {
        self.send(Message::Restart);
    }

    /// Asks for the end; [`Self::supervise`] returns soon after.
    pub(crate) fn stop(&self) {
        self.send(Message::Stop);
    }

    /// Supervises until the service is stopped. Returns how it ended if that was by itself.
    pub(crate) fn supervise(&self) -> Option<Exit> {
        let inbox = self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let mut supervisor =
            Supervisor { service: self.clone(), init: None, inits: 0, failures: 0, plan: Plan::Resting };
        let exit = supervisor.run(&inbox);
        self.shared().ended = true;
        self.0.changed.notify_all();
        exit
    }

    fn become_what(&self) -> Become {
        let (spec, view) = (&self.0.spec, &self.0.setting.view);
        let mut command = spec.command.clone();
        if let Some(real) = &view.command {
            // A symbolic link outside of what is visible does not exist for the service.
            let visible = SYSTEM.iter().any(|s| command[0].starts_with(&format!("{s}/")));
            if !visible {
                command[0] = real.to_string_lossy().into_owned();
            }
        }
        let mut env = spec.env.clone();
        if spec.isolation == Isolation::On {
            env.insert("SPIFFE_ENDPOINT_SOCKET".into(), format!("unix://{WORKLOAD_SOCKET}"));
        }
        let id = service_id(&self.0.setting.identity, spec);
        Become {
            command,
            env,
            view: view.clone(),
            id,
            isolated: spec.isolation == Isolation::On,
            privileged: spec.isolation == Isolation::On || self.0.setting.identity.is_root(),
            ourselves: false,
        }
    }

    fn set_state(&self, state: State) {
        let mut shared = self.shared();
        shared.status.state = state;
        shared.version += 1;
        self.0.changed.notify_all();
    }

    fn say(&self, activity: LifecycleActivity, message: &str, severity: Severity) {
        let emitter = self.0.emitter.lock().unwrap_or_else(PoisonError::into_inner);
        say(&emitter, &self.0.spec, activity, message, severity);
    }

    fn sensed(&self, sensed: &Sensed) {
        let emitter = self.0.emitter.lock().unwrap_or_else(PoisonError::into_inner);
        emitter.emit(&Event::new(Kind::Tamper(Tamper {
            service: &self.0.spec.service,
            what: sensed.what.name(),
            message: &sensed.message,
            count: sensed.count,
        })));
    }

    fn send(&self, message: Message) {
        // The supervising thread drains the queue or is gone, and then nobody needs the message.
        let _ = self.0.queue.send(message);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervising thread's own.
struct Supervisor {
    service: Service,
    init: Option<Init>,
    inits: u64,
    failures: u32,
    plan: Plan,
}

impl Supervisor {
    fn run(&mut self, inbox: &Receiver<Message>) -> Option<Exit> {
        self.start_init();
        loop {
            let message = match self.plan {
                Plan::Pausing { until } | Plan::Stopping { until } => {
                    match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                        Ok(message) => Some(message),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return None,
                    }
                }
                _ => Some(inbox.recv().ok()?),
            };
            match (message, self.plan) {
                (None, Plan::Stopping { .. }) => {
                    self.kill_init();
                    return None;
                }
                (None, _) => self.start_service(),
                (Some(Message::Stop), Plan::Stopping { .. }) => {}
                (Some(Message::Stop), Plan::Running { .. } | Plan::Restarting) => {
                    self.tell_init(&ToInit::Stop { grace_ms: self.service.spec().grace_ms });
                    let grace = Duration::from_millis(self.service.spec().grace_ms) + INIT_GRACE;
                    self.plan = Plan::Stopping { until: Instant::now() + grace };
                }
                (Some(Message::Stop), _) => {
                    self.kill_init();
                    return None;
                }
                (Some(Message::Inside(what, out)), Plan::Running { .. }) => {
                    if let Some(init) = &self.init
                        && let Err(e) = init.channel.send(&ToInit::Inside(what), &[out.as_fd()])
                    {
                        self.note(&e.to_string());
                    }
                }
                (Some(Message::Inside(..)), _) => {}
                (Some(Message::Restart), plan) => self.restart(plan),
                (Some(Message::Hosts), _) => {
                    let hosts = self.service.shared().hosts.clone();
                    self.tell_init(&ToInit::Hosts(hosts));
                }
                (Some(Message::Ready(run)), Plan::Running { .. })
                    if run == self.service.0.run.load(Ordering::Relaxed) =>
                {
                    self.service.set_state(State::Ready);
                    self.service.say(
                        LifecycleActivity::Start,
                        "the service is ready",
                        Severity::Informational,
                    );
                }
                (Some(Message::Ready(_)), _) => {}
                (Some(Message::InitGone(number)), plan) => {
                    if self.init.as_ref().is_some_and(|init| init.number == number) {
                        self.init = None;
                        self.forget_init();
                        if matches!(plan, Plan::Stopping { .. }) {
                            return None;
                        }
                        self.ended(Exit::Init);
                    }
                }
                (Some(Message::Init(number, said, fds)), plan) => {
                    if self.init.as_ref().is_some_and(|init| init.number == number)
                        && let Some(end) = self.heard(said, fds, plan)
                    {
                        self.kill_init();
                        return end;
                    }
                }
            }
            // Under a supervisor the shim stays, to be asked and told to start again.
            if self.service.0.setting.foreground
                && self.plan == Plan::Resting
                && let State::Exited(exit) = self.service.status().state
            {
                self.kill_init();
                return Some(exit);
            }
        }
    }

    /// `Some` ends the shim.
    fn heard(&mut self, said: FromInit, fds: Vec<OwnedFd>, plan: Plan) -> Option<Option<Exit>> {
        match said {
            FromInit::Ready => {
                self.service.shared().workload = fds.into_iter().next();
                self.start_service();
            }
            FromInit::Failed(why) => {
                self.service.say(LifecycleActivity::Stop, &why, Severity::High);
                self.note(&why);
                self.kill_init();
                self.ended(Exit::Init);
            }
            FromInit::Started => {}
            FromInit::Sensed(sensed) => self.service.sensed(&sensed),
            FromInit::Ended(_) if matches!(plan, Plan::Stopping { .. }) => return Some(None),
            FromInit::Ended(_) if plan == Plan::Restarting => self.start_service(),
            FromInit::Ended(exit) => self.ended(exit),
        }
        None
    }

    fn start_service(&mut self) {
        let what = self.service.become_what();
        let Some(init) = &self.init else { return self.start_init() };
        let run = self.service.0.run.fetch_add(1, Ordering::Relaxed) + 1;
        if let Err(e) = init.channel.send(&ToInit::Start(what), &[self.service.0.setting.log.as_fd()]) {
            // PID 1 is gone, and we hear of it in a moment.
            self.note(&e.to_string());
        }
        self.plan = Plan::Running { since: Instant::now() };
        self.service.set_state(State::Starting);
        self.service.say(LifecycleActivity::Start, "the service is started", Severity::Informational);
        let service = self.service.clone();
        let probe = spawn("ready", move || {
            if let Some(networks) = service.networks()
                && networks.enter_service().is_err()
            {
                return;
            }
            let (ready, listen) = (service.spec().ready.clone(), service.spec().listen);
            if ready::wait(&ready, listen, || service.0.run.load(Ordering::Relaxed) == run) {
                service.send(Message::Ready(run));
            }
        });
        if let Err(e) = probe {
            self.note(&e.to_string());
        }
    }

    fn ended(&mut self, exit: Exit) {
        // Whoever still asks whether that run is ready stops asking.
        self.service.0.run.fetch_add(1, Ordering::Relaxed);
        let restart = self.service.spec().restart;
        if let Plan::Running { since } = self.plan
            && since.elapsed() >= Duration::from_millis(restart.stable_ms)
        {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let severity = if exit == Exit::Code(0) { Severity::Informational } else { Severity::Medium };
        self.service.say(LifecycleActivity::Stop, &format!("the service {exit}"), severity);
        if !restart.enabled {
            self.plan = Plan::Resting;
            self.service.set_state(State::Exited(exit));
            return;
        }
        let pause = restart.pause(self.failures);
        self.plan = Plan::Pausing { until: Instant::now() + pause };
        {
            let mut shared = self.service.shared();
            shared.status.restarts = shared.status.restarts.saturating_add(1);
        }
        self.service.set_state(State::Backoff { exit, pause_ms: pause.as_millis() as u64 });
    }

    fn restart(&mut self, plan: Plan) {
        self.failures = 0;
        match plan {
            Plan::Running { .. } => {
                self.service.0.run.fetch_add(1, Ordering::Relaxed);
                self.tell_init(&ToInit::Stop { grace_ms: self.service.spec().grace_ms });
                self.plan = Plan::Restarting;
                self.service.shared().status.restarts += 1;
                self.service.say(
                    LifecycleActivity::Restart,
                    "the service is restarted on request",
                    Severity::Informational,
                );
            }
            Plan::Pausing { .. } | Plan::Resting => self.start_service(),
            Plan::Arranging | Plan::Restarting | Plan::Stopping { .. } => {}
        }
    }

    fn start_init(&mut self) {
        self.inits += 1;
        self.plan = Plan::Arranging;
        match self.try_start_init() {
            Ok(init) => self.init = Some(init),
            Err(e) => {
                self.service.say(LifecycleActivity::Stop, &e.to_string(), Severity::High);
                self.note(&e.to_string());
                self.ended(Exit::Init);
            }
        }
    }

    fn try_start_init(&self) -> Result<Init, SandboxError> {
        let service = self.service.clone();
        let number = self.inits;
        let (ours, theirs) = cloexec_pair().step(|| "make a channel".into())?;
        let log = service.0.setting.log.try_clone().step(|| "copy the log's descriptor".into())?;
        let (told, tell) = sync_channel(1);
        sys::close_on_exec().step(|| "close inherited descriptors".into())?;
        // The thread that starts PID 1 stays with it: PID 1 follows its starter into death, and that is a thread.
        spawn("init", move || {
            let child = service.0.setting.networks.as_ref().map_or(Ok(()), |networks| {
                networks.enter_service()?;
                sys::unshare_namespaces(UnshareFlags::NEWPID).step(|| "make a PID namespace".into())?;
                capability::pass_on(capability::ARRANGE)
            });
            let child = child.and_then(|()| {
                std::process::Command::new("/proc/self/exe")
                    .arg(role::INIT)
                    .env_clear()
                    .stdin(Stdio::from(OwnedFd::from(theirs)))
                    .stdout(Stdio::null())
                    .stderr(log)
                    .spawn()
                    .step(|| "start PID 1".into())
            });
            match child {
                Ok(mut child) => {
                    let _ = told.send(Ok(child.id()));
                    let _ = child.wait();
                    service.send(Message::InitGone(number));
                }
                Err(e) => drop(told.send(Err(e))),
            }
        })?;
        let pid = tell
            .recv()
            .map_err(|_| SandboxError::Refused("the thread that starts PID 1 panicked".into()))??;
        // It cannot be reaped and its number reused before the thread above has reported it gone.
        let pidfd = rustix::process::Pid::from_raw(pid as i32)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
        self.service.shared().status.init_pid = pid;
        let channel: BlockingChannel<ToInit, FromInit> = BlockingChannel::new(ours);
        let incoming = channel.try_clone()?;
        let service = self.service.clone();
        spawn("init-channel", move || {
            while let Ok((said, fds)) = incoming.recv() {
                service.send(Message::Init(number, said, fds));
            }
        })?;
        let inner = &self.service.0;
        let isolated = inner.spec.isolation == Isolation::On;
        channel.send(
            &ToInit::Arrange(Arrange {
                service: inner.spec.service.clone(),
                view: inner.setting.view.clone(),
                staged: inner.setting.identity.is_root(),
                owner: inner.setting.identity.service_inside(),
                hosts: self.service.shared().hosts.clone(),
                isolated,
            }),
            &[],
        )?;
        Ok(Init { number, channel, pidfd })
    }

    fn tell_init(&self, message: &ToInit) {
        if let Some(init) = &self.init
            && let Err(e) = init.channel.send(message, &[])
        {
            // PID 1 is gone, and we hear of it in a moment.
            self.note(&e.to_string());
        }
    }

    fn kill_init(&mut self) {
        if let Some(init) = self.init.take() {
            // Without a pidfd the closed channel ends it.
            if let Some(pidfd) = &init.pidfd {
                let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
                let mut ended = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
                let timeout = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
                let _ = rustix::event::poll(&mut ended, Some(&timeout));
            }
            self.forget_init();
        }
    }

    fn forget_init(&self) {
        let mut shared = self.service.shared();
        shared.status.init_pid = 0;
        shared.workload = None;
    }

    /// A line in the service's log, where its operator looks first.
    fn note(&self, text: &str) {
        use std::io::Write;
        let _ = writeln!(&self.service.0.setting.log, "ringfence: {text}");
    }
}
