//! Writing a group of batches, until it is known what became of it.
//!
//! When a connection ends between a commit and its answer, the database knows what happened and we do not. So every batch has a key that is
//! written with it, and the group is tried again as a whole: under the lock on the head, behind whatever the lost
//! transaction did, the keys say whether it is there already. Nothing is acknowledged before that, and nothing is written twice.

use std::collections::HashMap;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Error;
use tokio_postgres::types::{ToSql, Type};

use super::again;
use super::link::{CHANNEL, Link, Trouble, step};
use super::options::Postgres;
use crate::batch::Batch;
use crate::error::Failure;
use crate::plan::{Found, Head, Outcome, Plan};
use crate::row::{now, signed, unsigned};

/// What one attempt came to, when it did not succeed.
enum Lost {
    /// The database refused it.
    Refused(String),
    /// See [`Failure::Rewound`].
    Rewound(u64, String),
    /// The connection is gone.
    Link {
        /// The lock on the head was had: whatever was under way before is decided.
        locked: bool,
        /// The commit was sent.
        committing: bool,
        why: String,
    },
}

/// The connection that writes, and what it saw last.
#[derive(Debug)]
pub(crate) struct Writer {
    postgres: Postgres,
    name: String,
    link: Option<Link>,
    /// Where the counters stood after our last commit. A database that does not have this any more is another one.
    last: Head,
    newest: watch::Receiver<u64>,
}

impl Writer {
    pub(super) fn new(postgres: Postgres, name: String, newest: watch::Receiver<u64>) -> Self {
        Self { postgres, name, link: None, last: Head::default(), newest }
    }

    /// Writes all batches in one transaction. Answers their outcomes and the newest revision.
    pub(crate) async fn write(
        &mut self,
        batches: &[Batch],
        deadline: Instant,
    ) -> Result<(Vec<Outcome>, u64), Failure> {
        let (mut pause, mut unknown) = (again(), false);
        loop {
            let failure = match self.attempt(batches, deadline).await {
                Ok((outcomes, head)) => {
                    let revision = head.revision;
                    self.last = head;
                    return Ok((outcomes, revision));
                }
                Err(Lost::Refused(why)) => return Err(Failure::Refused(why)),
                // Perhaps a server that was taken over from and does not know it yet.
                Err(Lost::Rewound(seen, found)) => Failure::Rewound(seen, found),
                Err(Lost::Link { locked, committing, why }) => {
                    unknown = committing || (unknown && !locked);
                    if unknown { Failure::Unknown(why) } else { Failure::Unavailable(why) }
                }
            };
            self.link = None;
            let until = Instant::now() + pause.next();
            if until >= deadline {
                return Err(failure);
            }
            sleep_until(until).await;
        }
    }

    /// How long a group may take that waits since then.
    pub(crate) fn deadline(&self, since: Instant) -> Instant {
        since + self.postgres.limits.write
    }

    async fn attempt(&mut self, batches: &[Batch], deadline: Instant) -> Result<(Vec<Outcome>, Head), Lost> {
        let seen = *self.newest.borrow();
        let before = |trouble: Trouble| Lost::Link { locked: false, committing: false, why: trouble.why() };
        if self.link.as_ref().is_none_or(|link| link.client.is_closed()) {
            let link = Link::open(&self.postgres, &self.name, deadline).await.map_err(before)?;
            // What we left behind may still hold the lock, for a client that is gone or a standby that does not answer.
            step(deadline, link.client.query_typed(OUR_OTHERS, &[(&self.name, Type::TEXT)]))
                .await
                .map_err(before)?;
            self.link = Some(link);
        }
        let Some(link) = &self.link else { return Err(before(Trouble::Lost("no connection".to_owned()))) };

        let (found, ours) = match find(link, batches, &self.last, deadline).await {
            Ok(found) => found,
            Err(trouble) => return Err(before(trouble)),
        };
        if found.head.revision < seen {
            return Err(Lost::Rewound(seen, format!("stands at {}", found.head.revision)));
        }
        if !ours {
            return Err(Lost::Rewound(self.last.revision, "has another one there".to_owned()));
        }
        let plan = Plan::of(found, batches, now());
        let during = |trouble| match trouble {
            Trouble::Refused(why) => Lost::Refused(why),
            trouble => Lost::Link { locked: true, committing: false, why: trouble.why() },
        };
        if !plan.is_needed() {
            step(deadline, link.client.batch_execute("ROLLBACK")).await.map_err(during)?;
            return Ok((plan.outcomes, plan.head));
        }
        let carried_out = step(deadline, carry_out(link, &plan)).await;
        if let Err(trouble) = carried_out {
            // A refused transaction is over; a connection that cannot even say so is replaced.
            if step(deadline, link.client.batch_execute("ROLLBACK")).await.is_err() {
                self.link = None;
            }
            return Err(during(trouble));
        }
        link.was_warned();
        let committed = step(deadline, link.client.batch_execute("COMMIT")).await;
        let unsure = |why| Lost::Link { locked: true, committing: true, why };
        match committed {
            // Such as: it is written here, but a standby that must have it too did not say so.
            Ok(()) if link.was_warned() => Err(unsure("the database warned while it committed".to_owned())),
            Ok(()) => Ok((plan.outcomes, plan.head)),
            Err(Trouble::Refused(why)) => Err(Lost::Refused(why)),
            Err(trouble) => Err(unsure(trouble.why())),
        }
    }
}

/// Ends connections that this writer lost and the server has not noticed to be lost.
const OUR_OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                          WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()";

/// Takes the lock on the head and reads what a plan needs, in one round trip. Says too whether `last` is part of this database's past.
async fn find(
    link: &Link,
    batches: &[Batch],
    last: &Head,
    deadline: Instant,
) -> Result<(Found, bool), Trouble> {
    let keys: Vec<&str> = batches.iter().filter_map(|batch| batch.key.as_deref()).collect();
    let expected = batches.iter().flat_map(|batch| &batch.expectations);
    let (kinds, names): (Vec<&str>, Vec<&str>) =
        expected.map(|(kind, name, _)| (kind.as_str(), name.as_str())).unzip();
    let at = [last.revision];
    let (keys, documents) = ([Column::Texts(keys)], [Column::Texts(kinds), Column::Texts(names)]);
    let (keys, documents) = (parameters(&keys), parameters(&documents));
    let at = [numbers(&at, |at| *at)];
    let at = parameters(&at);
    let client = &link.client;
    step(deadline, async {
        // Each statement sees what was committed before it began: all but the first begin with the lock held.
        let (begin, head, applied, documents, past) = tokio::join!(
            biased;
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"),
            client.query_typed_one("SELECT revision, audit_hash FROM head WHERE id = 1 FOR UPDATE", &[]),
            client.query_typed("SELECT key, revision FROM applied WHERE key = ANY($1)", &keys),
            client.query_typed(
                "SELECT d.kind, d.name, d.revision FROM document d \
                 JOIN UNNEST($1, $2) AS e (kind, name) ON d.kind = e.kind AND d.name = e.name",
                &documents,
            ),
            client.query_typed("SELECT hash FROM audit WHERE revision = ANY($1)", &at),
        );
        begin?;
        let head = head?;
        let mut found = Found {
            head: Head { revision: unsigned(head.try_get(0)?), hash: head.try_get(1)? },
            ..Found::default()
        };
        let mut known = HashMap::new();
        for row in applied? {
            known.insert(row.try_get(0)?, unsigned(row.try_get(1)?));
        }
        found.applied = known;
        for row in documents? {
            found.documents.insert((row.try_get(0)?, row.try_get(1)?), unsigned(row.try_get(2)?));
        }
        let past = past?;
        let hash: Option<String> = past.first().map(|row| row.try_get(0)).transpose()?;
        Ok((found, last.revision == 0 || hash.is_some_and(|hash| hash == last.hash)))
    })
    .await
}

/// Writes what the plan says, in one round trip. The commit is not part of it: sent before all of this is known to be done, it would
/// answer that it succeeded when it rolled back.
async fn carry_out(link: &Link, plan: &Plan<'_>) -> Result<(), Error> {
    let put: Vec<_> = plan.documents.iter().filter_map(|(name, put)| put.map(|put| (*name, put))).collect();
    let gone: Vec<_> =
        plan.documents.iter().filter(|(_, put)| put.is_none()).map(|(name, _)| *name).collect();
    let documents = [
        texts(&put, |row| row.0.0),
        texts(&put, |row| row.0.1),
        numbers(&put, |row| row.1.0),
        texts(&put, |row| row.1.1),
        Column::Bytes(put.iter().map(|row| row.1.2).collect()),
    ];
    let gone = [texts(&gone, |row| row.0), texts(&gone, |row| row.1)];
    let issued = [
        texts(&plan.issued, |row| &row.1.serial),
        texts(&plan.issued, |row| &row.1.kind),
        texts(&plan.issued, |row| &row.1.subject),
        texts(&plan.issued, |row| &row.1.key_digest),
        numbers(&plan.issued, |row| row.1.not_before),
        numbers(&plan.issued, |row| row.1.not_after),
        numbers(&plan.issued, |row| row.0),
    ];
    let outbox = [
        numbers(&plan.outbox, |row| row.revision),
        numbers(&plan.outbox, |row| row.position),
        texts(&plan.outbox, |row| row.kind),
        texts(&plan.outbox, |row| row.name),
        texts(&plan.outbox, |row| row.effect),
    ];
    let audit = [
        numbers(&plan.audit, |row| row.revision),
        numbers(&plan.audit, |row| row.at),
        texts(&plan.audit, |row| row.actor),
        texts(&plan.audit, |row| row.action),
        texts(&plan.audit, |row| &row.detail),
        texts(&plan.audit, |row| &row.hash),
    ];
    let applied = [texts(&plan.applied, |row| row.0), numbers(&plan.applied, |row| row.1)];
    let head = [numbers(&[()], |()| plan.head.revision), texts(&[()], |()| &plan.head.hash)];
    let forgotten = [Column::Numbers(plan.forgets().map(signed).into_iter().collect())];
    let tell = [texts(&[()], |()| CHANNEL)];
    let outcomes = tokio::join!(
        biased;
        run(
            link,
            "INSERT INTO document (kind, name, revision, body, sealed) SELECT * FROM UNNEST($1, $2, $3, $4, $5) \
             ON CONFLICT (kind, name) DO UPDATE \
             SET revision = excluded.revision, body = excluded.body, sealed = excluded.sealed",
            &documents,
        ),
        run(
            link,
            "DELETE FROM document d USING UNNEST($1, $2) AS gone (kind, name) \
             WHERE d.kind = gone.kind AND d.name = gone.name",
            &gone,
        ),
        run(
            link,
            "INSERT INTO issued (serial, kind, subject, key_digest, not_before, not_after, revision) \
             SELECT * FROM UNNEST($1, $2, $3, $4, $5, $6, $7)",
            &issued,
        ),
        run(
            link,
            "INSERT INTO outbox (revision, position, kind, name, effect) SELECT * FROM UNNEST($1, $2, $3, $4, $5)",
            &outbox,
        ),
        run(
            link,
            "INSERT INTO audit (revision, at, actor, action, detail, hash) \
             SELECT * FROM UNNEST($1, $2, $3, $4, $5, $6)",
            &audit,
        ),
        run(link, "INSERT INTO applied (key, revision) SELECT * FROM UNNEST($1, $2)", &applied),
        run(link, "DELETE FROM applied WHERE revision <= ANY($1)", &forgotten),
        run(
            link,
            "UPDATE head SET (revision, audit_hash) = (SELECT * FROM UNNEST($1, $2)) WHERE id = 1",
            &head,
        ),
        run(link, "SELECT pg_notify(channel, '') FROM UNNEST($1) AS channel", &tell),
        // Cut short while it waits for a standby, a commit says that it succeeded. So only we lose patience with it.
        link.client.batch_execute("SET LOCAL statement_timeout = 0"),
    );
    let (documents, gone, issued, outbox, audit, applied, forgotten, head, tell, set) = outcomes;
    [documents, gone, issued, outbox, audit, applied, forgotten, head, tell, set].into_iter().collect()
}

/// One column of the rows that a statement is about. A statement has one parameter for each, however many rows there are.
pub(super) enum Column<'a> {
    Texts(Vec<&'a str>),
    Numbers(Vec<i64>),
    Bytes(Vec<Option<&'a [u8]>>),
}

fn texts<'a, T>(rows: &'a [T], column: impl Fn(&'a T) -> &'a str) -> Column<'a> {
    Column::Texts(rows.iter().map(column).collect())
}

fn numbers<T>(rows: &[T], column: impl Fn(&T) -> u64) -> Column<'static> {
    Column::Numbers(rows.iter().map(column).map(signed).collect())
}

impl Column<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Texts(values) => values.is_empty(),
            Self::Numbers(values) => values.is_empty(),
            Self::Bytes(values) => values.is_empty(),
        }
    }

    fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Texts(values) => (values, Type::TEXT_ARRAY),
            Self::Numbers(values) => (values, Type::INT8_ARRAY),
            Self::Bytes(values) => (values, Type::BYTEA_ARRAY),
        }
    }
}

/// Runs a statement about rows, when there are any.
pub(super) async fn run(link: &Link, sql: &str, columns: &[Column<'_>]) -> Result<(), Error> {
    if columns.iter().all(Column::is_empty) {
        return Ok(());
    }
    link.client.execute_typed(sql, &parameters(columns)).await.map(drop)
}

fn parameters<'a>(columns: &'a [Column<'_>]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    columns.iter().map(Column::parameter).collect()
}
