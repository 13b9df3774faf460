//! What an operator may want to know of a store.

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::store::Store;

/// A store, as the database tells it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `sqlite` or `postgresql`.
    pub engine: String,
    /// The newest revision in the database.
    pub revision: u64,
    /// The newest revision that this process knows of.
    pub known: u64,
    /// Version of the tables.
    pub schema: u64,
    /// Bytes of the whole database.
    pub size: u64,
}

impl Store {
    /// Asks the database about itself.
    ///
    /// # Errors
    /// The database.
    pub async fn about(&self) -> Result<About, StoreError> {
        let sql = if self.engine() == "sqlite" {
            "SELECT (SELECT revision FROM head WHERE id = 1), (SELECT MAX(version) FROM schema_version), \
             (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())"
        } else {
            "SELECT (SELECT revision FROM head WHERE id = 1), (SELECT MAX(version) FROM schema_version), \
             pg_database_size(current_database())"
        };
        let rows = self.rows(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Database("it has no tables".to_owned()))?;
        Ok(About {
            engine: self.engine().to_owned(),
            revision: row.number(0)?,
            known: self.revision(),
            schema: row.number(1)?,
            size: row.number(2)?,
        })
    }
}
