//! When keys were last used.

use ringfence_store::{Batch, Store, StoreError};
use ringfence_token::KeyPrefix;
use serde_json::json;
use tokio::sync::mpsc;

use super::{KIND, USE};

/// Writes what proxies report, of keys that are there: a proxy parses what comes from outside, and must not fill the disk.
pub(super) async fn note_uses(store: Store, mut reported: mpsc::Receiver<Vec<(KeyPrefix, u64)>>) {
    while let Some(used) = reported.recv().await {
        // What is lost is a time to the minute.
        let _ = note(&store, used).await;
    }
}

async fn note(store: &Store, used: Vec<(KeyPrefix, u64)>) -> Result<(), StoreError> {
    // A proxy's clock is this host's.
    let latest = crate::core::now();
    let (mut batch, mut count) = (Batch::new("node", "key use"), 0);
    for (prefix, at) in used {
        let name = prefix.to_string();
        if at <= latest && store.get(KIND, &name).await?.is_some() {
            batch = batch.put(USE, &name, &at)?;
            count += 1;
        }
    }
    if count > 0 {
        store.apply(batch.detail(json!({ "keys": count }))).await?;
    }
    Ok(())
}
