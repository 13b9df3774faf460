//! The engine for several control servers: one database, any number of processes.
//!
//! The library is `tokio-postgres`: its TLS is a trait that our own door implements, logins are bound to it, and statements go out without
//! waiting for each other's answers, so a commit costs three round trips however much it writes.

mod follow;
mod link;
mod options;
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

pub(crate) use follow::Follower;
pub use options::{Limits, Postgres};
pub(crate) use read::Reader;
pub(crate) use setup::downgrade;
pub(crate) use write::Writer;

const HEAD: &str = "SELECT revision FROM head WHERE id = 1";

/// What an open database consists of.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) follower: Follower,
    pub(crate) newest: Arc<watch::Sender<u64>>,
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
    let reader = Reader::new(postgres.clone(), format!("{name} r"), newest.subscribe());
    let follower = Follower { postgres, name: format!("{name} f"), newest: newest.clone() };
    Ok(Opened { writer, reader, follower, newest })
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
