//! Callers of the Workload API are looked at by the supervisor: control is under Landlock, which lets a process look at no
//! other, whatever its capabilities. The supervisor decides itself which network namespace is the service's, so control
//! learns nothing of any process but the service's own.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_ca::workload::{self, AttestError, Attested, Attesting, Attestor, Workload};
use ringfence_channel::Sender;
use tokio::sync::oneshot;

use crate::supervisor::{Caller, FromControl, ToControl};

/// Questions that wait for an answer at once.
const WAITING: usize = 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

type Outcome = Result<Attested, AttestError>;

/// Asks the supervisor.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    supervisor: Sender<FromControl>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Outcome>>>>,
    next: Arc<AtomicU64>,
}

impl Asking {
    pub(crate) fn new(supervisor: Sender<FromControl>) -> Self {
        Self { supervisor, waiting: Arc::default(), next: Arc::default() }
    }

    /// The supervisor answered.
    pub(crate) fn answered(&self, id: u64, outcome: Result<Caller, String>, fds: Vec<OwnedFd>) {
        // Without a question, nobody waits for it any more.
        let Some(asked) = self.waiting().remove(&id) else { return };
        let mut fds = fds.into_iter();
        let outcome = match (outcome, fds.next()) {
            (Ok(caller), Some(pidfd)) => {
                Ok(Attested { workload: caller.into(), pidfd, program: fds.next().map(File::from) })
            }
            (Ok(_), None) => Err(AttestError::Told("the supervisor sent no pidfd".into())),
            (Err(reason), _) => Err(AttestError::Told(reason)),
        };
        let _ = asked.send(outcome);
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(self, socket: OwnedFd, service: String) -> Outcome {
        let told = |what: &str| AttestError::Told(what.to_owned());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.len() >= WAITING {
                return Err(told("too many callers are being looked at"));
            }
            waiting.insert(id, sender);
        }
        let asked = self.supervisor.send(&FromControl::Attest { id, service }, &[socket.as_fd()]).await;
        let outcome = match asked {
            Ok(()) => tokio::time::timeout(PATIENCE, answer)
                .await
                .map_err(|_| told("the supervisor did not answer in time")),
            Err(e) => Err(AttestError::Told(e.to_string())),
        };
        self.waiting().remove(&id);
        outcome?.map_err(|_| told("the supervisor is gone"))?
    }
}

impl Attestor for Asking {
    fn attest(&self, socket: OwnedFd, service: &str, _: u64) -> Attesting {
        Box::pin(self.clone().ask(socket, service.to_owned()))
    }
}

impl From<Caller> for Workload {
    fn from(caller: Caller) -> Self {
        let Caller { pid, uid, gid, netns, program, cgroup } = caller;
        Self { pid, uid, gid, netns, program, cgroup }
    }
}

/// The supervisor's part: looks at whoever opened `socket`, who must live in the network namespace with inode `netns`.
/// Blocks; gives the answer for control and the descriptors that go with it.
#[must_use]
pub fn look(id: u64, socket: &OwnedFd, netns: u64) -> (ToControl, Vec<OwnedFd>) {
    match workload::attest(socket.as_fd(), netns) {
        Ok(Attested { workload, pidfd, program }) => {
            let Workload { pid, uid, gid, netns, program: path, cgroup } = workload;
            let caller = Caller { pid, uid, gid, netns, program: path, cgroup };
            let fds = [Some(pidfd), program.map(OwnedFd::from)].into_iter().flatten().collect();
            (ToControl::Attested { id, outcome: Ok(caller) }, fds)
        }
        Err(e) => (ToControl::Attested { id, outcome: Err(e.to_string()) }, Vec::new()),
    }
}
