//! One connection, and what its end means.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, Error};

use super::options::Postgres;
use super::tls::Tls;
use crate::error::StoreError;

/// What writers say and followers listen to. Only a hint: who misses it asks soon all the same.
pub(super) const CHANNEL: &str = "ringfence";
/// The oldest server whose answers to what is asked here were seen.
const OLDEST_SERVER: u32 = 14;

/// A connection. Dropped, its socket is closed at once, whatever is under way.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    driver: AbortHandle,
    /// Somebody wrote.
    pub(super) told: Arc<Notify>,
    warned: Arc<AtomicBool>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a step on a connection did not work.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// The database refuses this, and would again.
    Refused(String),
    /// Connection or server are gone, or too slow, or another transaction was in the way. Trying anew may help.
    Lost(String),
    /// A person has to do something.
    Setup(String),
}

impl Trouble {
    pub(super) fn why(self) -> String {
        match self {
            Self::Refused(why) | Self::Lost(why) | Self::Setup(why) => why,
        }
    }
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        let Some(said) = e.as_db_error() else {
            let source = std::error::Error::source(&e).map(|source| format!(": {source}"));
            return Self::Lost(format!("{e}{}", source.unwrap_or_default()));
        };
        let why = format!("{}: {}", said.code().code(), said.message());
        let fatal = !matches!(said.parsed_severity(), Some(Severity::Error));
        match said.code() {
            &SqlState::INVALID_PASSWORD
            | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            | &SqlState::INVALID_CATALOG_NAME => Self::Setup(why),
            code if fatal || passes(code) => Self::Lost(why),
            _ => Self::Refused(why),
        }
    }
}

/// Whether the same may work a moment later, perhaps at another server.
fn passes(code: &SqlState) -> bool {
    // Connection, transaction rollback, lack of resources, operator's intervention, the system under it.
    let classes = ["08", "40", "53", "57", "58"];
    classes.iter().any(|class| code.code().starts_with(class))
        || *code == SqlState::LOCK_NOT_AVAILABLE
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::IN_FAILED_SQL_TRANSACTION
}

impl Link {
    /// A new connection to whichever server takes writes. Statements of it take at most `patience`.
    pub(super) async fn open(postgres: &Postgres, name: &str, deadline: Instant) -> Result<Self, Trouble> {
        let deadline = deadline.min(Instant::now() + postgres.limits.connect);
        timeout_at(deadline, Self::open_now(postgres, name)).await.map_err(|_| slow())?
    }

    async fn open_now(postgres: &Postgres, name: &str) -> Result<Self, Trouble> {
        let config = postgres.config(name).map_err(|e| Trouble::Setup(e.to_string()))?;
        let (client, mut connection) = config.connect(Tls::new(postgres.roots.as_ref())).await?;
        let version = connection.parameter("server_version").unwrap_or_default();
        let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok());
        if major.is_none_or(|major: u32| major < OLDEST_SERVER) {
            return Err(Trouble::Setup(format!(
                "the database server has version {version}: use {OLDEST_SERVER} or later"
            )));
        }
        let (told, warned) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (tell, warn) = (told.clone(), warned.clone());
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    AsyncMessage::Notification(_) => tell.notify_one(),
                    AsyncMessage::Notice(notice) if notice.parsed_severity() == Some(Severity::Warning) => {
                        warn.store(true, Ordering::Release);
                    }
                    _ => {}
                }
            }
        });
        let link = Self { client, driver: driver.abort_handle(), told, warned };
        // The client gives up first; these end what it has left behind.
        let (read, write) = (postgres.limits.read.as_millis(), postgres.limits.write.as_millis());
        let longest = read.max(write) + 1000;
        link.client
            .batch_execute(&format!(
                "SET statement_timeout = {longest}; SET lock_timeout = {longest}; \
                 SET idle_in_transaction_session_timeout = {longest}; SET client_connection_check_interval = 1000; \
                 SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = off; \
                 SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            ))
            .await?;
        Ok(link)
    }

    /// Whether the server has warned of anything since this was last asked.
    pub(super) fn was_warned(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }
}

/// Runs one step, no longer than until `deadline`.
pub(super) async fn step<T>(
    deadline: Instant,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    Ok(timeout_at(deadline, step).await.map_err(|_| slow())??)
}

fn slow() -> Trouble {
    Trouble::Lost("no answer in time".to_owned())
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(why) => Self::Database(why),
            Trouble::Lost(why) => Self::Unavailable(why),
            Trouble::Setup(why) => Self::Setup(format!("the database: {why}")),
        }
    }
}
