//! What is due by the calendar of the CA, and what is said of it: a change of state, not each look.

use std::time::Duration;

use crate::core::Core;

/// How often the calendar is looked at.
pub(crate) const MAINTAIN: Duration = Duration::from_secs(60);

/// Why the last look could not do what was due, if so. Control forgets it with its end, so that the next one says it again.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    failing: Option<String>,
}

impl Calendar {
    /// Notes a look. What there is to say: nothing if it went as the one before, or why it fails now, or that it does no more.
    fn note(&mut self, outcome: Result<(), String>) -> Option<Result<(), String>> {
        let failing = outcome.clone().err();
        if failing == self.failing {
            return None;
        }
        self.failing = failing;
        Some(outcome)
    }
}

impl Core {
    /// Does what is due.
    pub(crate) async fn maintain(&mut self) {
        if let Err(e) = self.revocations.forget(crate::core::now()).await {
            self.entity("revocation", "forget", 4, false, &e.to_string());
        }
        let Ok(ca) = self.ca() else { return };
        if let Ok(status) = ca.show().await {
            self.watch_logs(&status).await;
        }
        let outcome = match ca.maintain().await {
            // The bundle changed; whether all is done that was due, the next look tells.
            Ok(true) => return self.refresh().await,
            outcome => outcome.map(drop).map_err(|e| e.to_string()),
        };
        match self.calendar.note(outcome) {
            None => {}
            Some(Ok(())) => self.entity("ca", "maintain", 3, true, "what was due is done"),
            Some(Err(reason)) => self.entity("ca", "maintain", 3, false, &reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use ringfence_ca::Options;
    use ringfence_channel::{BlockingChannel, Channel};
    use ringfence_event::{Writer, WriterOptions};
    use ringfence_keeper::protocol::{
        Answer, AuthorityStatus, Call, Counts, Refusal, RefusalCode, Reply, Request, Stage, Status,
    };
    use ringfence_keys::Secret;
    use ringfence_snapshot::Bundle;
    use tokio::sync::mpsc;

    use super::*;
    use crate::state::State;
    use crate::supervisor::{FromControl, ToControl};

    /// A keeper whose issuing CA is due, and whose root may be offline.
    fn keeper(offline: Arc<AtomicBool>) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let channel = BlockingChannel::<Answer, Call>::new(theirs);
            let now = crate::core::now();
            let authority = |id: &str, age| AuthorityStatus {
                id: id.into(),
                stage: Stage::Active,
                online: true,
                not_before: now - age,
                not_after: now + 1000,
            };
            let status = Status {
                fence: "clinic".into(),
                trust_domain: "clinic.example".into(),
                generation: 1,
                signed: (1, 1),
                snapshot_expires_at: 0,
                roots: vec![authority("root", 0)],
                issuing: vec![authority("issuing", 2000)],
                serving: Vec::new(),
                tokens: Vec::new(),
                txn: Vec::new(),
                counts: Counts::default(),
                log: (0, String::new()),
                minting: (0, String::new()),
            };
            while let Ok((Call { id, request }, _)) = channel.recv() {
                let result = match request {
                    Request::RotateIssuing if offline.load(Ordering::Relaxed) => Err(Refusal {
                        code: RefusalCode::RootOffline,
                        reason: "the root key is kept offline".into(),
                    }),
                    Request::Status | Request::RotateIssuing => Ok(Reply::Status(Box::new(status.clone()))),
                    Request::Bundle => Ok(Reply::Bundle(Bundle::default())),
                    Request::Revocations(_) => Ok(Reply::Done),
                    Request::DataKey(_) => Ok(Reply::DataKey { key: Secret::new([7; 32]) }),
                    other => panic!("not expected: {other:?}"),
                };
                channel.send(&Answer { id, result }, &[]).unwrap();
            }
        });
        ours
    }

    /// Control with that keeper, and everything that it says.
    async fn core(folder: &std::path::Path, offline: &Arc<AtomicBool>) -> (Core, Writer) {
        let writer = Writer::open(folder, "control", WriterOptions::default()).unwrap();
        let (supervisor, _) =
            Channel::<FromControl, ToControl>::new(UnixStream::pair().unwrap().0).unwrap().split();
        let state = State::open(&folder.join("state.db")).await.unwrap();
        let federation = crate::federation::Federation::new(mpsc::channel(1).0);
        let (workloads, proxies, admitted) = (mpsc::channel(1).0, mpsc::channel(1).0, mpsc::channel(1).0);
        let ways = crate::core::Ways { workloads, proxies, admitted };
        let mut core = Core::new(state, supervisor, writer.emitter(), Options::default(), ways, federation);
        let keeper = keeper(offline.clone());
        core.supervisor(ToControl::Keeper, vec![keeper.into()]).await.unwrap();
        (core, writer)
    }

    #[tokio::test]
    async fn a_root_that_stays_offline_is_told_once_and_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let offline = Arc::new(AtomicBool::new(true));
        let said = || {
            let text = std::fs::read_to_string(dir.path().join("control.jsonl")).unwrap();
            let told = |what: &str| text.lines().filter(|line| line.contains(what)).count();
            (told("the root key is kept offline"), told("what was due is done"))
        };
        let (mut control, writer) = core(dir.path(), &offline).await;
        for _ in 0..5 {
            control.maintain().await;
        }
        drop((control, writer));
        assert_eq!(said(), (1, 0), "once, however long it lasts");

        let (mut control, writer) = core(dir.path(), &offline).await;
        control.maintain().await;
        for online in [true, true, false, false] {
            offline.store(!online, Ordering::Relaxed);
            control.maintain().await;
        }
        drop((control, writer));
        assert_eq!(said(), (3, 1), "again by another control, and at each change");
    }
}
