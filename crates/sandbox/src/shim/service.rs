//! A service as the threads of its shim share it: what it is, how it does, and the queue of who supervises it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::PipeWriter;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ringfence_event::{Emitter, Event, Kind, LifecycleActivity, Severity, Tamper};

use super::lifecycle::Supervisor;
use super::networks::Networks;
use super::user::Identity;
use super::{say, service_id};
use crate::exec::{Become, OURSELVES};
use crate::init::FromInit;
use crate::mounts::{SYSTEM, View, WORKLOAD_SOCKET};
use crate::protocol::{Exit, State, Status};
use crate::sense::Sensed;
use crate::sink::Sinks;
use crate::spec::{Isolation, Spec, check_hosts};
use crate::{SandboxError, error::Context as _};

/// One service; shared by the threads of its shim.
#[derive(Clone)]
pub(crate) struct Service(pub(super) Arc<Inner>);

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

pub(super) struct Inner {
    pub(super) spec: Spec,
    pub(super) setting: Setting,
    pub(super) emitter: Mutex<Emitter>,
    pub(super) queue: SyncSender<Message>,
    pub(super) inbox: Mutex<Option<Receiver<Message>>>,
    pub(super) state: Mutex<Shared>,
    pub(super) changed: Condvar,
    /// Counts starts, so that a readiness probe knows whether it is still wanted.
    pub(super) run: AtomicU64,
}

/// What the threads look at.
pub(super) struct Shared {
    pub(super) status: Status,
    /// Counts changes.
    pub(super) version: u64,
    pub(super) hosts: BTreeMap<String, Ipv4Addr>,
    pub(super) ports: BTreeSet<u16>,
    pub(super) workload: Option<OwnedFd>,
    pub(super) ended: bool,
}

/// What the supervising thread is told.
pub(super) enum Message {
    Init(u64, FromInit, Vec<OwnedFd>),
    InitGone(u64),
    Ready(u64),
    Hosts,
    Inside(Become, OwnedFd),
    Restart,
    Stop,
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
        let exit = Supervisor::new(self.clone()).run(&inbox);
        self.shared().ended = true;
        self.0.changed.notify_all();
        exit
    }

    pub(super) fn become_what(&self) -> Become {
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

    pub(super) fn set_state(&self, state: State) {
        let mut shared = self.shared();
        shared.status.state = state;
        shared.version += 1;
        self.0.changed.notify_all();
    }

    pub(super) fn say(&self, activity: LifecycleActivity, message: &str, severity: Severity) {
        let emitter = self.0.emitter.lock().unwrap_or_else(PoisonError::into_inner);
        say(&emitter, &self.0.spec, activity, message, severity);
    }

    pub(super) fn sensed(&self, sensed: &Sensed) {
        let emitter = self.0.emitter.lock().unwrap_or_else(PoisonError::into_inner);
        emitter.emit(&Event::new(Kind::Tamper(Tamper {
            service: &self.0.spec.service,
            what: sensed.what.name(),
            message: &sensed.message,
            count: sensed.count,
        })));
    }

    pub(super) fn send(&self, message: Message) {
        // The supervising thread drains the queue or is gone, and then nobody needs the message.
        let _ = self.0.queue.send(message);
    }

    pub(super) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
