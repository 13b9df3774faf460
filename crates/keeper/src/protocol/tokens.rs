//! What is said about tokens of ours: sessions, transaction tokens, keys for data, and what credentials are judged by.
//!
//! Control relays and attests only what the keeper cannot see for itself: the record of an API key, and what a provider says of an opaque token.

use ringfence_keys::Secret;
use ringfence_snapshot::Identity;
use ringfence_snapshot::node::Mint;
use ringfence_token::KeyRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most transaction tokens that one request may ask for.
pub const MAX_MINT: usize = 256;
/// Longest life of a transaction token in seconds.
pub const MAX_TXN_LIFE: u64 = 120;
/// Longest that keys of a provider are believed, in seconds.
pub const MAX_KEYS_LIFE: u64 = 48 * 3600;

/// What a data key is for. The same purpose always gets the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataPurpose {
    /// Sealing session cookies; each number is a key of its own.
    Cookies {
        /// Which.
        number: u32,
    },
    /// Sealing secrets in control's store.
    Store,
}

impl DataPurpose {
    pub(crate) fn label(self) -> String {
        match self {
            Self::Cookies { number } => format!("cookies/{number}"),
            Self::Store => "store".to_owned(),
        }
    }
}

/// Asks for a session of somebody who signed in. Its end is what the current snapshot says of the provider's logins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// The provider in the fence.
    pub provider: String,
    /// What the provider said; verified here.
    pub id_token: Secret<String>,
    /// What the sign-in was begun with.
    pub nonce: String,
    /// The scopes that were granted; the ID token does not say them, so this is control's word.
    pub scopes: Vec<String>,
}

/// Asks for the same session with what the provider says now.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewSession {
    /// The session token so far. It must hold still.
    pub session: Secret<String>,
    /// A newer ID token of the same user, if the provider gave one.
    pub id_token: Option<Secret<String>>,
}

/// A session token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionToken {
    /// The token.
    pub token: Secret<String>,
    /// The session's id, which stays the same when it is renewed.
    pub id: String,
    /// Whose it is.
    pub identity: Identity,
    /// Its absolute end, which no renewal moves.
    pub expires_at: u64,
}

/// Asks for a transaction token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// What the proxy asked.
    pub ask: Mint,
    /// What control attests.
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// What control says of a credential that says nothing by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// The record of an API key.
    ApiKey(KeyRecord),
    /// What the provider says of an opaque token (RFC 7662).
    Introspected {
        /// What it says.
        claims: Map<String, Value>,
        /// How long this may be believed, Unix time in seconds.
        until: u64,
    },
}

/// A transaction token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TxnToken {
    /// The token.
    pub token: Secret<String>,
    /// When it ends, Unix time in seconds.
    pub expires_at: u64,
}
