//! What control remembers: addresses given out, and the last snapshot.

use std::path::Path;

use ringfence_snapshot::{Addresses, SignedSnapshot};
use ringfence_store::{Batch, Durability, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::entities::Kept;

const KIND: &str = "control";
const ADDRESSES: &str = "addresses";
const SNAPSHOT: &str = "snapshot";
const ENTITIES: &str = "entities";

/// Control's part of the store.
#[derive(Clone, Debug)]
pub(crate) struct State {
    store: Store,
}

/// The last snapshot, as stored.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    epoch: u64,
    revision: u64,
    signed: SignedSnapshot,
}

impl State {
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open(path, Durability::Full).await? })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) async fn addresses(&self) -> Result<Addresses, StoreError> {
        match self.store.get(KIND, ADDRESSES).await? {
            Some(document) => document.decode(),
            None => Ok(Addresses::default()),
        }
    }

    /// Epoch and revision of the next snapshot: above what was stored, and above what the keeper has ever signed, so that a
    /// store that lost its last moments does not ask for a revision twice.
    pub(crate) async fn next_revision(&self, signed: (u64, u64)) -> Result<(u64, u64), StoreError> {
        let stored = match self.store.get(KIND, SNAPSHOT).await? {
            Some(document) => document.decode::<Last>().map(|last| (last.epoch, last.revision))?,
            None => (1, 0),
        };
        let (epoch, revision) = stored.max(signed);
        Ok((epoch.max(1), revision + 1))
    }

    /// The last good entity data of a server.
    pub(crate) async fn entities(&self) -> Result<Option<Kept>, StoreError> {
        self.store.get(KIND, ENTITIES).await?.map(|document| document.decode()).transpose()
    }

    /// Stores entity data that is in force.
    pub(crate) async fn store_entities(&self, kept: &Kept) -> Result<(), StoreError> {
        let batch = Batch::new("control", "entities")
            .detail(json!({ "url": kept.url, "bytes": kept.text.len() }))
            .put(KIND, ENTITIES, kept)?;
        self.store.apply(batch).await.map(drop)
    }

    /// Stores a signed snapshot before anybody gets it.
    pub(crate) async fn store_snapshot(
        &self,
        addresses: &Addresses,
        signed: &SignedSnapshot,
        (epoch, revision): (u64, u64),
    ) -> Result<(), StoreError> {
        let last = Last { epoch, revision, signed: signed.clone() };
        let batch = Batch::new("control", "snapshot")
            .detail(json!({ "epoch": epoch, "revision": revision }))
            .put(KIND, ADDRESSES, addresses)?
            .put(KIND, SNAPSHOT, &last)?;
        self.store.apply(batch).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_revision_is_never_asked_for_twice_even_if_the_store_forgot_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("state.db")).await.unwrap();
        assert_eq!(state.next_revision((0, 0)).await.unwrap(), (1, 1));
        let signed = SignedSnapshot { bytes: "{}".into(), signature: vec![1].into() };
        state.store_snapshot(&Addresses::default(), &signed, (1, 5)).await.unwrap();
        assert_eq!(state.next_revision((1, 3)).await.unwrap(), (1, 6));
        assert_eq!(
            state.next_revision((1, 9)).await.unwrap(),
            (1, 10),
            "the keeper signed more than was stored"
        );
        assert_eq!(state.next_revision((2, 1)).await.unwrap(), (2, 2), "a restore raised the epoch");
    }
}
