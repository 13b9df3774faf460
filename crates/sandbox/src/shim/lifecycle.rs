//! The service's life: started, ready, ended, started again; and its PID 1's.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ringfence_event::{LifecycleActivity, Severity};

use super::pid1::Init;
use super::service::{Message, Service};
use super::{ready, spawn};
use crate::init::{FromInit, ToInit};
use crate::protocol::{Exit, State};

/// Time over the grace time after which PID 1 itself is killed.
const INIT_GRACE: Duration = Duration::from_secs(2);

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

/// The supervising thread's own.
pub(super) struct Supervisor {
    service: Service,
    init: Option<Init>,
    inits: u64,
    failures: u32,
    plan: Plan,
}

impl Supervisor {
    pub(super) const fn new(service: Service) -> Self {
        Self { service, init: None, inits: 0, failures: 0, plan: Plan::Resting }
    }

    pub(super) fn run(&mut self, inbox: &Receiver<Message>) -> Option<Exit> {
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
        match Init::start(&self.service, self.inits) {
            Ok(init) => self.init = Some(init),
            Err(e) => {
                self.service.say(LifecycleActivity::Stop, &e.to_string(), Severity::High);
                self.note(&e.to_string());
                self.ended(Exit::Init);
            }
        }
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
            init.kill();
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
