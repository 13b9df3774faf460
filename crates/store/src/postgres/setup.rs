//! The state a database must be in before it is used.

use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::link::{Link, Trouble, step};
use super::options::Postgres;
use crate::error::StoreError;
use crate::schema;
use crate::store::Durability;

/// Servers that start at the same time take the steps one after another: "ringfenc", as a number.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8244232933037858403)";

/// Refuses a server that would forget what it acknowledged.
pub(super) async fn check(link: &Link, durability: Durability, deadline: Instant) -> Result<(), StoreError> {
    let sql = "SELECT current_setting('server_encoding'), current_setting('fsync'), \
               current_setting('full_page_writes')";
    let row = step(deadline, link.client.query_typed_one(sql, &[])).await?;
    let setting = |column| row.try_get::<_, String>(column).map_err(Trouble::from);
    if setting(0)? != "UTF8" {
        let why = format!("the database is encoded in {}: create it with `ENCODING 'UTF8'`", setting(0)?);
        return Err(StoreError::Setup(why));
    }
    for (column, name) in [(1, "fsync"), (2, "full_page_writes")] {
        if durability == Durability::Full && setting(column)? != "on" {
            let why = format!(
                "the database server runs with `{name} = off` and would lose what it has acknowledged: switch it on"
            );
            return Err(StoreError::Setup(why));
        }
    }
    Ok(())
}

/// Takes the steps that are missing.
pub(super) async fn migrate(link: &mut Link, deadline: Instant) -> Result<(), StoreError> {
    let newer = step(deadline, async {
        let transaction = link.client.transaction().await?;
        let (version, oldest) = version_of(transaction.client()).await?;
        let steps = match schema::missing(version, oldest) {
            Ok(steps) => steps,
            Err(why) => return Ok(Some(why)),
        };
        for step in steps {
            transaction.batch_execute(&dialect(step.up)).await?;
            let values = [(&step.version as _, Type::INT8), (&step.oldest as _, Type::INT8)];
            let sql = "INSERT INTO schema_version (version, oldest) VALUES ($1, $2)";
            transaction.execute_typed(sql, &values).await?;
        }
        transaction.commit().await?;
        Ok(None)
    })
    .await?;
    newer.map_or(Ok(()), |why| Err(StoreError::Newer("in the database".to_owned(), why)))
}

/// Takes the tables back to `version`.
pub(crate) async fn downgrade(postgres: Postgres, version: i64) -> Result<(), StoreError> {
    postgres.check()?;
    let deadline = Instant::now() + postgres.limits.write;
    let mut link = Link::open(&postgres, "ringfence downgrade", deadline).await?;
    let newer = step(deadline, async {
        let transaction = link.client.transaction().await?;
        let (now, _) = version_of(transaction.client()).await?;
        let steps = match schema::undone(now, version) {
            Ok(steps) => steps,
            Err(why) => return Ok(Some(why)),
        };
        for step in steps {
            transaction.batch_execute(&dialect(step.down)).await?;
            let sql = "DELETE FROM schema_version WHERE version = $1";
            transaction.execute_typed(sql, &[(&step.version, Type::INT8)]).await?;
        }
        transaction.commit().await?;
        Ok(None)
    })
    .await?;
    newer.map_or(Ok(()), |why| Err(StoreError::Newer("in the database".to_owned(), why)))
}

/// At which version the tables are, and from which on programs can use them. Nobody else changes that until the transaction ends.
async fn version_of(client: &Client) -> Result<(i64, i64), Error> {
    client.batch_execute(LOCK).await?;
    client.batch_execute(schema::TABLE).await?;
    let sql = "SELECT COALESCE(MAX(version), 0), COALESCE(MAX(oldest), 0) FROM schema_version";
    let row = client.query_typed_one(sql, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The tables are written down once. Texts are ordered by their bytes, as in a file, whatever the database's language.
fn dialect(sql: &str) -> String {
    sql.replace("BLOB", "BYTEA").replace(" TEXT", " TEXT COLLATE \"C\"")
}
