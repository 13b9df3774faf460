//! The engine for several control servers: one database, any number of processes.
//!
//! The library is `tokio-postgres`: its TLS is a trait that our own door implements, logins are bound to it, and statements go out without
//! waiting for each other's answers, so a commit costs three round trips however much it writes.

mod copy;
mod follow;
mod link;
mod options;
mod place;
mod read;
mod setup;
mod tls;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::StoreError;
use crate::row::unsigned;
use crate::store::Durability;
use link::Link;

pub(crate) use copy::fill;
pub(crate) use follow::Follower;
pub use options::{Limits, Postgres};
pub use place::Place;
pub(crate) use read::Reader;
pub(crate) use setup::downgrade;
pub(crate) use write::Writer;

/// How long one waits for a database that has been away for long.
const HURRIED: Duration = Duration::from_secs(2);
const HEAD: &str = "SELECT revision FROM head WHERE id = 1";

/// What an open database consists of.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) follower: Follower,
    pub(crate) newest: Arc<watch::Sender<u64>>,
    pub(crate) health: Health,
}

/// The database does not answer.
#[derive(Clone, Debug)]
struct Away {
    since: Instant,
    why: String,
}

/// Whether the database answers, as the follower sees it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    away: watch::Receiver<Option<Away>>,
    limits: Limits,
}

impl Health {
    /// Why it does not answer, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.away.borrow().as_ref().map(|away| away.why.clone())
    }

    /// How long to wait where one usually waits for `usual`. Once it has been away for longer than a takeover lasts, nobody waits
    /// that long again.
    pub(crate) fn patience(&self, usual: Duration) -> Duration {
        let long = |away: &Away| away.since.elapsed() > self.limits.write;
        if self.away.borrow().as_ref().is_some_and(long) { usual.min(HURRIED) } else { usual }
    }

    /// Since when somebody who comes now counts as waiting to write.
    pub(crate) fn since(&self) -> Instant {
        let now = Instant::now();
        let spent = self.limits.write.saturating_sub(self.patience(self.limits.write));
        now.checked_sub(spent).unwrap_or(now)
    }
}

/// Connects, brings the tables up to date as needed, and looks whether the server keeps what it acknowledges.
pub(crate) async fn open(postgres: Postgres, durability: Durability) -> Result<Opened, StoreError> {
    postgres.check()?;
    let name = format!("ringfence {}", uuid::Uuid::now_v7());
    let deadline = Instant::now() + postgres.limits.write;
    let mut link = Link::open(&postgres, &name, deadline).await?;
    setup::check(&link, durability, deadline).await?;
    setup::migrate(&mut link, deadline).await?;
    let row = link::step(deadline, link.client.query_typed_one(HEAD, &[])).await?;
    let head = row.try_get(0).map_err(link::Trouble::from)?;
    let newest = Arc::new(watch::channel(unsigned(head)).0);
    let writer = Writer::new(postgres.clone(), format!("{name} w"), newest.subscribe());
    let (away, known) = watch::channel(None);
    let health = Health { away: known, limits: postgres.limits };
    let reader = Reader::new(postgres.clone(), format!("{name} r"), newest.subscribe(), health.clone());
    let follower = Follower { postgres, name: format!("{name} f"), newest: newest.clone(), away };
    Ok(Opened { writer, reader, follower, newest, health })
}

/// How long to wait before each further attempt.
#[derive(Debug)]
struct Again(Duration);

fn again() -> Again {
    Again(Duration::from_millis(20))
}

impl Again {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(Duration::from_secs(1));
        now
    }
}
