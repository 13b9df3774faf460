//! PID 1 of a service, from outside: how the shim starts it, hears it and ends it.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::mpsc::sync_channel;

use ringfence_channel::{BlockingChannel, cloexec_pair, sys};
use rustix::thread::UnshareFlags;

use super::service::{Message, Service};
use super::spawn;
use crate::init::{Arrange, FromInit, ToInit};
use crate::spec::Isolation;
use crate::{SandboxError, capability, error::Context as _, role};

/// PID 1 as the supervising thread knows it.
pub(super) struct Init {
    pub(super) number: u64,
    pub(super) channel: BlockingChannel<ToInit, FromInit>,
    pidfd: Option<OwnedFd>,
}

impl Init {
    /// Starts the one with this number, and a thread that passes on what it says.
    pub(super) fn start(of: &Service, number: u64) -> Result<Self, SandboxError> {
        let service = of.clone();
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
        of.shared().status.init_pid = pid;
        let channel: BlockingChannel<ToInit, FromInit> = BlockingChannel::new(ours);
        let incoming = channel.try_clone()?;
        let service = of.clone();
        spawn("init-channel", move || {
            while let Ok((said, fds)) = incoming.recv() {
                service.send(Message::Init(number, said, fds));
            }
        })?;
        let inner = &of.0;
        let isolated = inner.spec.isolation == Isolation::On;
        channel.send(
            &ToInit::Arrange(Arrange {
                service: inner.spec.service.clone(),
                view: inner.setting.view.clone(),
                staged: inner.setting.identity.is_root(),
                owner: inner.setting.identity.service_inside(),
                hosts: of.shared().hosts.clone(),
                isolated,
            }),
            &[],
        )?;
        Ok(Self { number, channel, pidfd })
    }

    /// Kills it and waits a moment for its end.
    pub(super) fn kill(self) {
        // Without a pidfd the closed channel ends it.
        if let Some(pidfd) = &self.pidfd {
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
            let mut ended = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
            let _ = rustix::event::poll(&mut ended, Some(&timeout));
        }
    }
}
