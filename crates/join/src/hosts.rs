//! The members, as the store has them.

use ringfence_keys::digest::sha256;
use ringfence_keys::{VerifyingKey, constant_time_eq, possession, to_hex};
use ringfence_spiffe::SpiffeId;
use ringfence_store::{Batch, Issued, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::token::JoinToken;

/// Most hosts, removed ones too: their names stay known.
pub const MAX_HOSTS: usize = 1024;
/// Longest life of a join token in seconds.
pub const MAX_TTL: u64 = 24 * 3600;
const TOKEN: &str = "join_token";
const HOST: &str = "host";

/// Why a host did not join, or gets nothing. For the operator; the host is told that it was refused and no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No such token: made up, used, replaced, or its host was removed.
    #[error("host `{0}` came with a token that is unknown or was used: make it a new one")]
    Unknown(String),
    /// Too late.
    #[error("host `{0}` came with a token that has ended: make it a new one")]
    Ended(String),
    /// The key is not its own.
    #[error("host `{0}` did not prove that it has the key it wants certified")]
    Possession(String),
    /// Not a member, or with another key.
    #[error("host `{0}` does not belong, or not with this key: it must join with a new token")]
    Stranger(String),
    /// The life of a token.
    #[error("a join token lives 1 second to {MAX_TTL} seconds")]
    Ttl,
    /// Full.
    #[error("there are {MAX_HOSTS} hosts already")]
    Full,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a host shows to join.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its token.
    pub token: &'a JoinToken,
    /// The public key of its SVID.
    pub key: &'a VerifyingKey,
    /// [`possession::prove`] of that key for `spiffe://TRUST_DOMAIN/node/NAME`.
    pub proof: &'a [u8],
}

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostState {
    /// SHA-256 of its public key's SPKI, hexadecimal.
    pub key_digest: String,
    /// When it joined, Unix seconds.
    pub joined_at: u64,
    /// When it was removed, Unix seconds.
    pub removed_at: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord {
    digest: String,
    trust_domain: String,
    ends_at: u64,
}

/// The members. Clones share the store.
#[derive(Clone, Debug)]
pub struct Hosts(Store);

/// A host that belonged at one revision. Worth nothing by itself: [`Seat::issue`] asks the store again.
#[derive(Debug)]
pub struct Seat {
    store: Store,
    host: String,
    revision: u64,
}

impl Hosts {
    /// Those in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Makes `token` good for `ttl` seconds from `now` (Unix seconds), in place of an earlier one for that host. Its digest is stored,
    /// its secret is not.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn admit(&self, token: &JoinToken, ttl: u64, now: u64, actor: &str) -> Result<(), JoinError> {
        if ttl == 0 || ttl > MAX_TTL {
            return Err(JoinError::Ttl);
        }
        let mut names: Vec<String> = self.0.all::<HostState>(HOST).await?.into_keys().collect();
        names.extend(self.0.all::<TokenRecord>(TOKEN).await?.into_keys());
        names.sort_unstable();
        names.dedup();
        if names.len() >= MAX_HOSTS && names.binary_search_by(|name| name.as_str().cmp(token.host())).is_err()
        {
            return Err(JoinError::Full);
        }
        let record = TokenRecord {
            digest: token.digest(),
            trust_domain: token.trust_domain().as_str().to_owned(),
            ends_at: now.saturating_add(ttl),
        };
        let batch = Batch::new(actor, "host.token").detail(json!({ "host": token.host(), "ttl": ttl }));
        self.0.apply(batch.put(TOKEN, token.host(), &record)?).await?;
        Ok(())
    }

    /// Lets a host in, once per token; a host that belongs already gets its new key in place of the old one.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, request: &Request<'_>, now: u64) -> Result<Seat, JoinError> {
        let host = request.token.host();
        let unknown = || JoinError::Unknown(host.to_owned());
        let document = self.0.get(TOKEN, host).await?.ok_or_else(unknown)?;
        let record: TokenRecord = document.decode()?;
        let same = constant_time_eq(record.digest.as_bytes(), request.token.digest().as_bytes());
        if !same || record.trust_domain != request.token.trust_domain().as_str() {
            return Err(unknown());
        }
        if now >= record.ends_at {
            return Err(JoinError::Ended(host.to_owned()));
        }
        let id = SpiffeId::node(request.token.trust_domain(), host).map_err(|_| unknown())?;
        possession::check(request.key, id.as_str(), request.proof)
            .map_err(|_| JoinError::Possession(host.to_owned()))?;
        let state = HostState { key_digest: key_digest(request.key), joined_at: now, removed_at: None };
        let batch = Batch::new(id.as_str(), "host.join")
            .detail(json!({ "host": host, "key_digest": state.key_digest }))
            .expect(TOKEN, host, Some(document.revision))
            .delete(TOKEN, host)
            .put(HOST, host, &state)?;
        let revision = self.0.apply(batch).await.map_err(|why| conflict(why, unknown))?;
        Ok(Seat { store: self.0.clone(), host: host.to_owned(), revision })
    }

    /// The seat of a host that proved this key on its connection.
    ///
    /// # Errors
    /// [`JoinError::Stranger`], when it was removed, never joined, or joined with another key.
    pub async fn seat(&self, host: &str, key: &VerifyingKey) -> Result<Seat, JoinError> {
        let stranger = || JoinError::Stranger(host.to_owned());
        let document = self.0.get(HOST, host).await?.ok_or_else(stranger)?;
        let state: HostState = document.decode()?;
        if state.removed_at.is_some() || state.key_digest != key_digest(key) {
            return Err(stranger());
        }
        Ok(Seat { store: self.0.clone(), host: host.to_owned(), revision: document.revision })
    }

    /// Every host by name, removed ones too.
    ///
    /// # Errors
    /// [`JoinError::Store`].
    pub async fn list(&self) -> Result<std::collections::BTreeMap<String, HostState>, JoinError> {
        Ok(self.0.all(HOST).await?)
    }

    /// Removes a host and its token. From this revision on nothing is issued to it. Answers whether there was anything to remove.
    ///
    /// # Errors
    /// [`JoinError::Store`], a conflict too: somebody changed that host in between.
    pub async fn remove(&self, host: &str, now: u64, actor: &str) -> Result<bool, JoinError> {
        let token = self.0.get(TOKEN, host).await?;
        let document = self.0.get(HOST, host).await?;
        let mut batch = Batch::new(actor, "host.remove")
            .detail(json!({ "host": host }))
            .expect(TOKEN, host, token.as_ref().map(|document| document.revision))
            .expect(HOST, host, document.as_ref().map(|document| document.revision));
        let mut found = token.is_some();
        if found {
            batch = batch.delete(TOKEN, host);
        }
        if let Some(document) = document {
            let mut state: HostState = document.decode()?;
            if state.removed_at.is_none() {
                state.removed_at = Some(now);
                batch = batch.put(HOST, host, &state)?;
                found = true;
            }
        }
        if found {
            self.0.apply(batch).await?;
        }
        Ok(found)
    }
}

impl Seat {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Records what is issued to the host, before it is handed over. It is recorded only if the host still belongs with the same key, which
    /// the store finds out in the same transaction.
    ///
    /// # Errors
    /// [`JoinError::Stranger`]: hand nothing over.
    pub async fn issue(&self, records: Vec<Issued>) -> Result<u64, JoinError> {
        let batch = Batch::new(format!("host {}", self.host), "host.issue")
            .expect(HOST, &self.host, Some(self.revision))
            .issued(records);
        let stranger = || JoinError::Stranger(self.host.clone());
        self.store.apply(batch).await.map_err(|why| conflict(why, stranger))
    }
}

fn conflict(why: StoreError, meaning: impl Fn() -> JoinError) -> JoinError {
    match why {
        StoreError::Conflict { .. } => meaning(),
        other => JoinError::Store(other),
    }
}

fn key_digest(key: &VerifyingKey) -> String {
    to_hex(&sha256(&key.to_spki()))
}
