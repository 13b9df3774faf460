//! Learning what other servers write.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::link::{CHANNEL, Link, Trouble, step};
use super::options::Postgres;
use super::{Away, HEAD, again};
use crate::row::unsigned;
use crate::writer::grow;

/// Asks for the newest revision: at once when somebody tells that there is one, otherwise every so often. What is asked decides.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(super) postgres: Postgres,
    pub(super) name: String,
    pub(super) newest: Arc<watch::Sender<u64>>,
    pub(super) away: watch::Sender<Option<Away>>,
}

impl Follower {
    pub(crate) async fn run(self) {
        let mut pause = again();
        loop {
            let connected = Instant::now();
            let Err(lost) = self.follow().await;
            self.away.send_modify(|away| {
                let since = away.as_ref().map_or_else(Instant::now, |away| away.since);
                *away = Some(Away { since, why: lost.why() });
            });
            if connected.elapsed() > self.postgres.limits.poll {
                pause = again();
            }
            sleep(pause.next()).await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Trouble> {
        let patience = self.postgres.limits.read;
        let link = Link::open(&self.postgres, &self.name, Instant::now() + patience).await?;
        step(Instant::now() + patience, link.client.batch_execute(&format!("LISTEN {CHANNEL}"))).await?;
        loop {
            let row = step(Instant::now() + patience, link.client.query_typed_one(HEAD, &[])).await?;
            grow(&self.newest, unsigned(row.try_get(0)?));
            self.away.send_if_modified(|away| away.take().is_some());
            let _ = timeout(self.postgres.limits.poll, link.told.notified()).await;
        }
    }
}
