//! Why something could not be stored or read.

use std::path::PathBuf;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A record of the audit trail does not fit the one before.
    #[error("the audit trail was altered at revision {0}: restore {1} from a backup and find out by whom")]
    Altered(u64, &'static str),
    /// The body of a document.
    #[error("a document's body is not JSON: {0}")]
    Body(serde_json::Error),
    /// Somebody else wrote in between.
    #[error("{kind} `{name}` was changed in between; read it again and retry")]
    Conflict {
        /// Kind of the document.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The database.
    #[error("state: {0}")]
    Database(String),
    /// The file.
    #[error("state {path}: {why}", path = .0.display(), why = .1)]
    Io(PathBuf, std::io::Error),
    /// It ended.
    #[error("the store was closed")]
    Closed,
    /// A bound of [`crate::Batch`].
    #[error("a batch or a document is larger than the store takes")]
    TooLarge,
    /// A character that a database does not take in names.
    #[error("a name in a batch is empty or has a NUL in it")]
    Name,
    /// The state was written by a newer Ringfence.
    #[error("state {0} was written by a newer ringfence ({1}); use that one")]
    Newer(String, String),
    /// How the database is reached or set up is not good enough.
    #[error("{0}")]
    Setup(String),
    /// The database did not answer in time. Nothing was written by this call; what became of an earlier one under the same key is as it
    /// was.
    #[error("the database cannot be reached ({0}); nothing was written: look whether it runs, then retry")]
    Unavailable(String),
    /// The connection was lost while a commit was under way, and nothing could be asked since.
    #[error(
        "it is not known whether batch {key} was written ({why}): ask for its outcome, or write it again under the same key, \
         which never writes twice"
    )]
    Unknown {
        /// The batch's key.
        key: String,
        /// What happened.
        why: String,
    },
    /// The database has forgotten what it had acknowledged.
    #[error(
        "the database went back: revision {seen} was seen, it now {found}. A standby that lacked it took over, or a backup \
         was restored: stop all control servers, find out, then start them again"
    )]
    Rewound {
        /// The newest revision seen.
        seen: u64,
        /// What is there.
        found: String,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        Self::Database(e.to_string())
    }
}

/// Why a whole group of batches was not written.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The database refused what one of them holds. Nothing was written.
    Refused(String),
    /// Nothing was written.
    Unavailable(String),
    /// Perhaps all of it was written, perhaps nothing.
    Unknown(String),
    /// See [`StoreError::Rewound`].
    Rewound(u64, String),
}

impl Failure {
    /// What the caller is told whose batch has `key`.
    pub(crate) fn tell(self, key: Option<&str>) -> StoreError {
        match self {
            Self::Refused(why) => StoreError::Database(why),
            Self::Unavailable(why) => StoreError::Unavailable(why),
            Self::Unknown(why) => StoreError::Unknown { key: key.unwrap_or_default().to_owned(), why },
            Self::Rewound(seen, found) => StoreError::Rewound { seen, found },
        }
    }
}
