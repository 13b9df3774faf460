//! Reading, over a few connections that are kept.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::link::{Link, Trouble, step};
use super::options::Postgres;
use super::{HEAD, Health, again};
use crate::error::StoreError;
use crate::row::{Value, unsigned};

/// The connections that read.
#[derive(Clone, Debug)]
pub(crate) struct Reader(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    postgres: Postgres,
    name: String,
    idle: Mutex<Vec<Link>>,
    permits: Arc<Semaphore>,
    newest: watch::Receiver<u64>,
    health: Health,
}

impl Reader {
    pub(super) fn new(
        postgres: Postgres,
        name: String,
        newest: watch::Receiver<u64>,
        health: Health,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(postgres.limits.readers as usize));
        Self(Arc::new(Pool { postgres, name, idle: Mutex::default(), permits, newest, health }))
    }

    /// The answer to a question. What was acknowledged or seen before it was asked is in it, also after another server took over.
    pub(crate) async fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.0.health.patience(self.0.postgres.limits.read);
        let _permit = self.0.permit(deadline).await?;
        let seen = *self.0.newest.borrow();
        let values: Vec<(&(dyn ToSql + Sync), Type)> = values
            .iter()
            .map(|value| match value {
                Value::Text(text) => (text as &(dyn ToSql + Sync), Type::TEXT),
                Value::Number(number) => (number as &(dyn ToSql + Sync), Type::INT8),
            })
            .collect();
        let mut pause = again();
        loop {
            let failure = match self.0.ask(sql, &values, deadline).await {
                Ok((head, rows)) if head >= seen => return Ok(rows),
                Ok((head, _)) => StoreError::Rewound { seen, found: format!("stands at {head}") },
                Err(Trouble::Lost(why)) => StoreError::Unavailable(why),
                Err(trouble) => return Err(trouble.into()),
            };
            let until = Instant::now() + pause.next();
            if until >= deadline {
                return Err(failure);
            }
            sleep_until(until).await;
        }
    }

    /// What was written under a key. Waits for whoever is writing, so that the answer is final.
    pub(crate) async fn outcome(&self, key: &str) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.0.health.patience(self.0.postgres.limits.read);
        let _permit = self.0.permit(deadline).await?;
        let link = self.0.link(deadline).await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&key, Type::TEXT)];
        let found = step(deadline, async {
            let (begin, head, rows, end) = tokio::join!(
                biased;
                link.client.batch_execute("BEGIN"),
                link.client.query_typed("SELECT revision FROM head WHERE id = 1 FOR SHARE", &[]),
                link.client.query_typed("SELECT revision FROM applied WHERE key = $1", &parameters),
                link.client.batch_execute("COMMIT"),
            );
            begin.and(head).and(end).and(rows)
        })
        .await?;
        self.0.keep(link);
        Ok(found)
    }
}

impl Pool {
    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, StoreError> {
        let busy = || StoreError::Unavailable("all connections that read are busy".to_owned());
        let permit = timeout_at(deadline, self.permits.clone().acquire_owned()).await.map_err(|_| busy())?;
        permit.map_err(|_| StoreError::Closed)
    }

    async fn link(&self, deadline: Instant) -> Result<Link, Trouble> {
        loop {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match kept {
                Some(link) if link.client.is_closed() => {}
                Some(link) => return Ok(link),
                None => return Link::open(&self.postgres, &self.name, deadline).await,
            }
        }
    }

    fn keep(&self, link: Link) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
    }

    /// Asks once. The head is read first: what is read after it is at least as new.
    async fn ask(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
        deadline: Instant,
    ) -> Result<(u64, Vec<Row>), Trouble> {
        let link = self.link(deadline).await?;
        let (head, rows) = step(deadline, async {
            let (head, rows) = tokio::join!(
                biased;
                link.client.query_typed_one(HEAD, &[]),
                link.client.query_typed(sql, values),
            );
            let head: i64 = head?.try_get(0)?;
            Ok((unsigned(head), rows?))
        })
        .await?;
        self.keep(link);
        Ok((head, rows))
    }
}
