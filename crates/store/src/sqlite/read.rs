//! Reading from the file.

use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use crate::row::Value;

/// The connections that read.
#[derive(Clone, Debug)]
pub(crate) struct Reader(pub(crate) SqlitePool);

impl Reader {
    pub(crate) async fn rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let query = values.iter().fold(sqlx::query(sql), |query, value| match value {
            Value::Text(text) => query.bind((*text).to_owned()),
            Value::Number(number) => query.bind(*number),
        });
        query.fetch_all(&self.0).await
    }
}
