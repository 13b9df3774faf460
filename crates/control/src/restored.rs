//! A state that comes from a backup: what was done after it is not in it, and nobody who saw more may take it for the newest.
//!
//! The epoch is raised, so that enforcement points that have seen higher revisions take what comes now all the same; what
//! was revoked meanwhile, as far as somebody remembers it, is revoked again; and it is said, in the audit trail and as an event.

use std::path::Path;

use ringfence_store::{Batch, Durability, Store, StoreError};
use ringfence_token::Revocation;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::home::file;
use crate::revocations::replay;
use crate::state::State;

const KIND: &str = "control";
const NAME: &str = "restored";

/// What was done to a restored state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restored {
    /// When the backup was made, Unix time in seconds.
    pub made_at: u64,
    /// When it was restored.
    pub restored_at: u64,
    /// Epoch and revision of the last snapshot in the backup.
    pub from: (u64, u64),
    /// The epoch from now on.
    pub epoch: u64,
    /// Revocations that were not in the backup.
    pub replayed: usize,
    /// API keys that were revoked or got another secret after the backup, as far as the state before tells.
    #[serde(default)]
    pub keys: usize,
    /// Whether there was a state before that could be read.
    #[serde(default)]
    pub compared: bool,
    /// Whether control has said so.
    #[serde(default)]
    told: bool,
}

/// Makes the state in control's `folder` one that goes on after a restore. `revoked` is what others remember to be revoked, `before` a
/// copy of the state that is replaced: whoever was shut out there since stays so.
///
/// # Errors
/// The file: nothing was changed.
pub async fn go_on(
    folder: &Path,
    made_at: u64,
    now: u64,
    mut revoked: Vec<Revocation>,
    before: Option<&Path>,
) -> Result<Restored, StoreError> {
    let state = State::open(&file(folder)).await?;
    let from = state.last().await?.unwrap_or((1, 0));
    let epoch = from.0.saturating_add(1).max(now);
    // One that cannot be read, as after a disaster, says nothing.
    let before = match before {
        Some(path) => Store::open(path, Durability::Full).await.ok(),
        None => None,
    };
    let (mut keys, mut compared) = (0, false);
    if let Some(before) = &before
        && let Ok(of_before) = crate::revocations::of(before).await
    {
        revoked.extend(of_before);
        keys = crate::keys::replay(state.store(), before).await?;
        compared = true;
    }
    let replayed = replay(state.store(), revoked, now).await?;
    let restored = Restored { made_at, restored_at: now, from, epoch, replayed, keys, compared, told: false };
    state.raise(epoch).await?;
    put(state.store(), &restored, "restore").await?;
    Ok(restored)
}

/// Says once, by `say`, that the state comes from a backup.
pub(crate) async fn tell(store: &Store, say: impl FnOnce(&str)) -> Result<(), StoreError> {
    let Some(document) = store.get(KIND, NAME).await? else { return Ok(()) };
    let restored: Restored = document.decode()?;
    if restored.told {
        return Ok(());
    }
    say(&format!(
        "the state was restored from a backup: what was done after revision {} of epoch {} is not in it; this is epoch {}, and {} revocations were added",
        restored.from.1, restored.from.0, restored.epoch, restored.replayed
    ));
    put(store, &Restored { told: true, ..restored }, "restore told").await
}

async fn put(store: &Store, restored: &Restored, action: &str) -> Result<(), StoreError> {
    let batch = Batch::new("operator", action).detail(json!(restored)).put(KIND, NAME, restored)?;
    store.apply(batch).await.map(drop)
}
