//! What goes into a question to the database and comes out of it, alike for both engines.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::error::StoreError;

/// A value of a question.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

/// A row of an answer.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(tokio_postgres::Row),
}

impl Row {
    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => row.try_get(column).map_err(unlike),
        }
    }

    pub(crate) fn number(&self, column: usize) -> Result<u64, StoreError> {
        let number = match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column).map_err(unlike)?,
        };
        Ok(unsigned(number))
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => row.try_get(column).map_err(unlike),
        }
    }
}

/// A column is not of the type that our own tables give it.
fn unlike(e: tokio_postgres::Error) -> StoreError {
    StoreError::Database(e.to_string())
}

/// SQL has signed integers only; times and revisions are far from their end.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
