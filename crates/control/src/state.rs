//! What control remembers: addresses given out, and the last snapshot.

use std::path::{Path, PathBuf};

use ringfence_keys::{Secret, digest::sha256, to_hex};
use ringfence_snapshot::{Addresses, SignedSnapshot};
use ringfence_store::{Batch, Durability, Place, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::entities::Kept;
use crate::home::Note;

const KIND: &str = "control";
const ADDRESSES: &str = "addresses";
const SNAPSHOT: &str = "snapshot";
const ENTITIES: &str = "entities";
const OWNER: &str = "owner";

/// Control's part of the store.
#[derive(Clone, Debug)]
pub(crate) struct State {
    store: Store,
    /// The database that it is in, unless it is in a file.
    database: Option<Database>,
}

#[derive(Clone, Debug)]
struct Database {
    place: Place,
    folder: PathBuf,
    /// State of this fence is known to be there.
    noted: bool,
}

/// Whose state a database holds: others would read it as theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    trust_domain: String,
    /// Digest of a key that only the keeper of that fence can make.
    keeper: String,
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
        Ok(Self { store: Store::open(path, Durability::Full).await?, database: None })
    }

    /// State in a database. `noted`: some of this fence's is known to be there.
    pub(crate) fn of_database(store: Store, place: Place, folder: PathBuf, noted: bool) -> Self {
        Self { store, database: Some(Database { place, folder, noted }) }
    }

    /// Whether a database has to be claimed before anything is written to it.
    pub(crate) fn is_shared(&self) -> bool {
        self.database.is_some()
    }

    /// Makes the database this fence's, or finds that it is; several control servers of one fence may do so at once. `key` is one that
    /// only this fence's keeper can make. Afterwards this machine remembers where its state is.
    pub(crate) async fn claim(&self, trust_domain: &str, key: &Secret<[u8; 32]>) -> Result<(), StoreError> {
        let Some(Database { place, folder, noted }) = &self.database else { return Ok(()) };
        let bound = [b"ringfence store owner\0".as_slice(), key.expose()].concat();
        let owner = Owner { trust_domain: trust_domain.to_owned(), keeper: to_hex(&sha256(&bound)) };
        let found = match self.owner().await? {
            Some(found) => found,
            None if !noted && self.store.revision() > 0 => {
                return Err(StoreError::Setup(format!(
                    "the database {place} holds state that this fence knows nothing of: name an empty one"
                )));
            }
            None => {
                let batch =
                    Batch::new("control", "claim").expect(KIND, OWNER, None).put(KIND, OWNER, &owner)?;
                match self.store.apply(batch).await {
                    Err(StoreError::Conflict { .. }) => {}
                    outcome => drop(outcome?),
                }
                self.owner().await?.ok_or(StoreError::Closed)?
            }
        };
        if found != owner {
            return Err(StoreError::Setup(format!(
                "the database {place} is of another fence ({}, of another keeper): give each a database of its own",
                found.trust_domain
            )));
        }
        let note = Note { store: place.to_string(), revision: self.store.revision() };
        note.write(folder).map_err(|e| StoreError::Io(folder.clone(), e))
    }

    async fn owner(&self) -> Result<Option<Owner>, StoreError> {
        self.store.get(KIND, OWNER).await?.map(|document| document.decode()).transpose()
    }

    /// What is known of the store without asking it.
    pub(crate) fn known(&self) -> Value {
        json!({
            "engine": self.store.engine(),
            "place": self.database.as_ref().map(|database| database.place.to_string()),
            "known": self.store.revision(),
            "trouble": self.store.trouble(),
        })
    }

    /// The same with what the database says.
    pub(crate) fn about(&self) -> impl Future<Output = Value> + use<> {
        let (mut known, store) = (self.known(), self.store.clone());
        async move {
            match store.about().await {
                Ok(about) => {
                    known["lag"] = about.revision.saturating_sub(about.known).into();
                    known["revision"] = about.revision.into();
                    known["schema"] = about.schema.into();
                    known["size"] = about.size.into();
                }
                Err(e) => known["trouble"] = store.trouble().unwrap_or_else(|| e.to_string()).into(),
            }
            known
        }
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

    /// Epoch and revision of the last snapshot that was stored.
    pub(crate) async fn last(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let document = self.store.get(KIND, SNAPSHOT).await?;
        document.map(|document| document.decode::<Last>().map(|last| (last.epoch, last.revision))).transpose()
    }

    /// Raises the epoch: what is signed from now on counts more than whatever was signed before.
    pub(crate) async fn raise(&self, epoch: u64) -> Result<(), StoreError> {
        let Some(document) = self.store.get(KIND, SNAPSHOT).await? else { return Ok(()) };
        let last = Last { epoch, ..document.decode::<Last>()? };
        let batch = Batch::new("operator", "epoch")
            .detail(json!({ "epoch": epoch }))
            .expect(KIND, SNAPSHOT, Some(document.revision))
            .put(KIND, SNAPSHOT, &last)?;
        self.store.apply(batch).await.map(drop)
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
