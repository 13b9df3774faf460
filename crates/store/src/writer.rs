//! The one task of a process that writes.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::batch::Batch;
use crate::error::{Failure, StoreError};
use crate::plan::Outcome;
use crate::{postgres, sqlite};

/// Batches that share one commit.
const GROUP: usize = 64;

/// A batch that somebody waits for, since when.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) batch: Batch,
    pub(crate) since: Instant,
    pub(crate) reply: oneshot::Sender<Result<u64, StoreError>>,
}

/// What writes.
#[derive(Debug)]
pub(crate) enum Writer {
    Sqlite(sqlite::Writer),
    Postgres(Box<postgres::Writer>),
}

/// Writes what comes in until nobody can send any more.
pub(crate) async fn run(mut writer: Writer, mut jobs: mpsc::Receiver<Job>, newest: Arc<watch::Sender<u64>>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.recv_many(&mut group, GROUP).await > 0 {
        // Those that queued behind a database that does not answer have waited already.
        let since = group.iter().map(|job| job.since).max().unwrap_or_else(Instant::now);
        let (batches, replies): (Vec<Batch>, Vec<_>) =
            group.drain(..).map(|job| (job.batch, job.reply)).unzip();
        let told = writer.group(&batches, since, &newest).await;
        for (reply, outcome) in replies.into_iter().zip(told) {
            // Whoever stopped waiting can read the revision.
            let _ = reply.send(outcome);
        }
    }
    if let Writer::Sqlite(writer) = writer {
        writer.close().await;
    }
}

impl Writer {
    /// What each caller is to be told.
    async fn group(
        &mut self,
        batches: &[Batch],
        since: Instant,
        newest: &watch::Sender<u64>,
    ) -> Vec<Result<u64, StoreError>> {
        match self.write(batches, since, newest).await {
            Ok(outcomes) => outcomes.into_iter().map(Outcome::tell).collect(),
            // One of them is to blame, the others are not.
            Err(Failure::Refused(_)) if batches.len() > 1 => {
                let mut told = Vec::with_capacity(batches.len());
                for batch in batches {
                    let outcome = self.write(std::slice::from_ref(batch), since, newest).await;
                    let outcome = outcome.map_err(|failure| failure.tell(batch.key.as_deref()));
                    let first = |outcomes: Vec<Outcome>| outcomes.into_iter().next().map(Outcome::tell);
                    told.push(
                        outcome.and_then(|outcomes| first(outcomes).unwrap_or(Err(StoreError::Closed))),
                    );
                }
                told
            }
            Err(failure) => {
                batches.iter().map(|batch| Err(failure.clone().tell(batch.key.as_deref()))).collect()
            }
        }
    }

    async fn write(
        &mut self,
        batches: &[Batch],
        since: Instant,
        newest: &watch::Sender<u64>,
    ) -> Result<Vec<Outcome>, Failure> {
        let (outcomes, head) = match self {
            Self::Sqlite(writer) => writer.write(batches).await?,
            Self::Postgres(writer) => writer.write(batches, writer.deadline(since)).await?,
        };
        grow(newest, head);
        Ok(outcomes)
    }
}

/// Tells of a newer revision; never of an older one.
pub(crate) fn grow(newest: &watch::Sender<u64>, revision: u64) {
    newest.send_if_modified(|now| {
        let grows = revision > *now;
        *now = revision.max(*now);
        grows
    });
}
