//! Ringfence's own processes: started with a channel as standard input, and started again when they end.

use std::io;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_channel::cloexec_pair;
use ringfence_control::supervisor::ProcessReport;
use tokio::process::{Child, Command};

/// The roles that `up` starts; each is a hidden subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Keeper,
    Control,
    Node,
    Federation,
    Member,
}

/// One life of one of our processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) role: Role,
    /// How often it had been started again before.
    pub(crate) restarts: u32,
}

/// One of our processes over its lives.
#[derive(Debug)]
pub(crate) struct Process {
    role: Role,
    child: Option<Child>,
    pid: u32,
    restarts: u32,
    started: SystemTime,
    failures: u32,
    next: Option<Instant>,
}

impl Role {
    pub(crate) const ALL: [Self; 5] =
        [Self::Keeper, Self::Control, Self::Node, Self::Federation, Self::Member];

    /// Name as shown, and as the hidden subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::Control => "control",
            Self::Node => "node",
            Self::Federation => "federation",
            Self::Member => "member",
        }
    }
}

impl Process {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            child: None,
            pid: 0,
            restarts: 0,
            started: UNIX_EPOCH,
            failures: 0,
            next: Some(Instant::now()),
        }
    }

    /// Starts it; what comes back is our end of its channel.
    pub(crate) fn start(&mut self) -> io::Result<UnixStream> {
        let (ours, theirs) = cloexec_pair()?;
        if self.started != UNIX_EPOCH {
            self.restarts += 1;
        }
        let child = Command::new("/proc/self/exe")
            .arg(self.role.name())
            // What `up` got in its environment, such as a client's secret, is not for those that parse the internet.
            .env_clear()
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Ctrl-C at the terminal is for `up`, which then stops its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.pid = child.id().unwrap_or(0);
        self.child = Some(child);
        self.started = SystemTime::now();
        self.next = None;
        Ok(ours)
    }

    /// Waits for its end; for ever while it does not run.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(child) = &mut self.child
                && let Ok(status) = child.wait().await
            {
                self.child = None;
                self.pid = 0;
                self.failures = if self.age() > Duration::from_secs(10) { 1 } else { self.failures + 1 };
                let pause = Duration::from_millis(100 << self.failures.min(7));
                self.next = Some(Instant::now() + if self.failures == 1 { Duration::ZERO } else { pause });
                return status;
            }
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn life(&self) -> Life {
        Life { role: self.role, restarts: self.restarts }
    }

    /// Kills it if it still lives this life; its end is noticed as every other.
    pub(crate) fn end(&mut self, life: Life) -> bool {
        let present = self.life() == life;
        self.child.as_mut().is_some_and(|child| present && child.start_kill().is_ok())
    }

    /// Whether it should be started now.
    pub(crate) fn due(&self) -> bool {
        self.child.is_none() && self.next.is_some_and(|at| at <= Instant::now())
    }

    pub(crate) fn running(&self) -> bool {
        self.child.is_some()
    }

    /// Ends it: a moment to end by itself (its channel was closed or it was told), then for sure.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        if let Some(child) = &mut self.child
            && tokio::time::timeout(grace, child.wait()).await.is_err()
        {
            let _ = child.kill().await;
        }
        (self.child, self.pid, self.next) = (None, 0, None);
    }

    pub(crate) fn report(&self) -> ProcessReport {
        ProcessReport {
            name: self.role.name().into(),
            pid: self.pid,
            restarts: self.restarts,
            since: self.started.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        }
    }

    fn age(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }
}
