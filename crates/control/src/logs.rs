//! The ends of the keeper's logs, kept where the keeper cannot write.
//!
//! The lines of a log are chained, so none can be changed or taken out unnoticed but the last ones; those are missed here. While control runs
//! it knows the ends of a minute ago; the database has those of the last ten minutes, so that a look does not cost a record each.

use ringfence_event::{Entity, Event, Kind};
use ringfence_keeper::protocol::Status;
use ringfence_store::{Batch, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::core::{Core, now};

const KIND: &str = "control";
const NAME: &str = "keeper-logs";
/// How long, in seconds, until what was seen is stored again.
const KEEP: u64 = 600;

/// Entries and hash of a log's end.
type End = (u64, String);

/// The ends of both logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ends {
    signing: End,
    minting: End,
}

/// What is known of the keeper's logs.
#[derive(Debug)]
pub(crate) struct Logs {
    store: Store,
    seen: Option<Ends>,
    kept_at: u64,
}

/// A log that ends before where it had ended.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    log: &'static str,
    had: u64,
    has: u64,
}

impl Logs {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, seen: None, kept_at: 0 }
    }

    /// Holds what the keeper says against what it said before, and keeps it. A log that was cut is said once.
    async fn look(&mut self, status: &Status, now: u64) -> Result<Vec<Cut>, StoreError> {
        let ends = Ends { signing: status.log.clone(), minting: status.minting.clone() };
        let before = match self.seen.take() {
            Some(seen) => Some(seen),
            None => {
                self.store.get(KIND, NAME).await?.map(|document| document.decode::<Ends>()).transpose()?
            }
        };
        let cut = before.as_ref().map(|before| before.cut(&ends)).unwrap_or_default();
        let news = before.as_ref() != Some(&ends);
        if news && (!cut.is_empty() || now >= self.kept_at.saturating_add(KEEP)) {
            let detail = serde_json::json!({ "signing": ends.signing, "minting": ends.minting });
            let batch = Batch::new("control", "keeper logs").detail(detail).put(KIND, NAME, &ends)?;
            self.store.apply(batch).await?;
            self.kept_at = now;
        }
        self.seen = Some(ends);
        Ok(cut)
    }
}

impl Ends {
    /// Which of the logs do not go on from here.
    fn cut(&self, now: &Self) -> Vec<Cut> {
        let logs =
            [("signing.log", &self.signing, &now.signing), ("minting.log", &self.minting, &now.minting)];
        let back = |had: &End, has: &End| has.0 < had.0 || has.0 == had.0 && has.1 != had.1;
        let cut = logs.into_iter().filter(|(_, had, has)| back(had, has));
        cut.map(|(log, had, has)| Cut { log, had: had.0, has: has.0 }).collect()
    }
}

impl Core {
    /// Looks at the ends of the keeper's logs, and tells of one that lost lines.
    pub(crate) async fn watch_logs(&mut self, status: &Status) {
        let revision = self.revision();
        let emitter = &self.emitter;
        let tell = |name: &str, message: &str| {
            let entity = Entity { entity: "log", name, uid: None, activity: 2, granted: false, message };
            emitter.emit(&Event::new(Kind::Entity(entity)).revision(revision));
        };
        match self.logs.look(status, now()).await {
            Ok(cut) => {
                for Cut { log, had, has } in cut {
                    let message = format!(
                        "the keeper's {log} had {had} lines and has {has}, or others at its end: unless you put it aside or this host lost its power, find out who changed it"
                    );
                    tell(log, &message);
                }
            }
            Err(e) => tell("keeper", &format!("the ends of the keeper's logs cannot be kept: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_keeper::protocol::Counts;
    use ringfence_store::Durability;

    use super::*;

    fn status(signing: (u64, &str), minting: (u64, &str)) -> Status {
        Status {
            fence: "clinic".into(),
            trust_domain: "clinic.example".into(),
            generation: 1,
            signed: (1, 1),
            snapshot_expires_at: 0,
            roots: Vec::new(),
            issuing: Vec::new(),
            serving: Vec::new(),
            tokens: Vec::new(),
            txn: Vec::new(),
            counts: Counts::default(),
            log: (signing.0, signing.1.into()),
            minting: (minting.0, minting.1.into()),
        }
    }

    #[tokio::test]
    async fn lines_that_went_missing_are_told_once_also_by_the_control_after() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db"), Durability::Process).await.unwrap();
        let mut logs = Logs::new(store.clone());
        let whole = status((5, "e"), (3, "c"));
        assert_eq!(logs.look(&whole, 1000).await.unwrap(), []);
        assert_eq!(logs.look(&whole, 1060).await.unwrap(), []);
        // More lines are no news; kept a little later.
        assert_eq!(logs.look(&status((7, "g"), (3, "c")), 1120).await.unwrap(), []);
        assert_eq!(store.audit(0).await.unwrap().len(), 1);
        let cut = |log, had, has| Cut { log, had, has };
        assert_eq!(
            logs.look(&status((6, "f"), (3, "x")), 1180).await.unwrap(),
            [cut("signing.log", 7, 6), cut("minting.log", 3, 3)]
        );
        assert_eq!(logs.look(&status((6, "f"), (3, "x")), 1240).await.unwrap(), [], "once");
        assert_eq!(logs.look(&status((9, "i"), (4, "d")), 1180 + KEEP).await.unwrap(), []);

        let mut after = Logs::new(store.clone());
        assert_eq!(after.look(&status((0, ""), (4, "d")), 3000).await.unwrap(), [cut("signing.log", 9, 0)]);
        assert_eq!(Logs::new(store).look(&status((0, ""), (4, "d")), 3060).await.unwrap(), [], "once");
    }
}
