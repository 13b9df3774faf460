//! Telling: every key to whoever is introduced, page by page, and each change from then on and in between.

use std::sync::Arc;
use std::time::Duration;

use ringfence_snapshot::node::{ApiKeys, MAX_API_KEYS, ToProxy};
use ringfence_store::{Document, Store};
use ringfence_token::KeyRecord;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::{KIND, Stored};
use crate::nodes::{Gone, Teller};

/// Changes that a proxy may be behind before it is told the whole set again.
pub(super) const BEHIND: usize = 1024;
/// Bytes of stored records in one message, about.
const MAX_PART: usize = 1024 * 1024;

/// Tells one proxy, until its channel ends.
pub(super) async fn tell(store: Store, sender: Teller, mut changes: broadcast::Receiver<Arc<ToProxy>>) {
    loop {
        // Whatever is stored from here on comes as a change too.
        changes = changes.resubscribe();
        match whole_set(&store, &sender, &mut changes).await {
            Ok(Whole::Told) => {}
            Ok(Whole::Behind) => continue,
            Err(_) => return,
        }
        loop {
            match changes.recv().await {
                Ok(change) => {
                    if sender.send(&change).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Whether the proxy knows every key.
enum Whole {
    Told,
    /// More has changed meanwhile than is remembered: all over again.
    Behind,
}

/// Every key, with the changes that happen meanwhile in between: a revocation does not wait for a million keys.
async fn whole_set(
    store: &Store,
    sender: &Teller,
    changes: &mut broadcast::Receiver<Arc<ToProxy>>,
) -> Result<Whole, Gone> {
    let (mut after, mut first) = (String::new(), true);
    loop {
        let Ok(page) = store.list(KIND, &after).await else {
            // The database is in trouble: a set that is not whole would refuse clients that are welcome.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        // A change counts at once, and once more after this page, which was read before it: a later part may hold the record as it was.
        let mut again = Vec::new();
        for records in parts(&page) {
            let part = ApiKeys::Part { first: std::mem::take(&mut first), last: false, records };
            sender.send(&ToProxy::ApiKeys(part)).await?;
            loop {
                match changes.try_recv() {
                    Ok(change) => {
                        sender.send(&change).await?;
                        again.push(change);
                    }
                    Err(TryRecvError::Lagged(_)) => return Ok(Whole::Behind),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
                if again.len() > BEHIND {
                    return Ok(Whole::Behind);
                }
            }
        }
        for change in again {
            sender.send(&change).await?;
        }
        match page.last() {
            Some(document) => after.clone_from(&document.name),
            None => break,
        }
    }
    let end = ApiKeys::Part { first, last: true, records: Vec::new() };
    sender.send(&ToProxy::ApiKeys(end)).await?;
    Ok(Whole::Told)
}

/// The records of a page in parts that fit into a message. One that cannot be read is no key.
fn parts(page: &[Document]) -> Vec<Vec<KeyRecord>> {
    let mut parts: Vec<Vec<KeyRecord>> = Vec::new();
    let mut bytes = usize::MAX;
    for document in page {
        let Ok(stored) = document.decode::<Stored>() else { continue };
        bytes = bytes.saturating_add(document.body.len());
        match parts.last_mut() {
            Some(part) if bytes <= MAX_PART && part.len() < MAX_API_KEYS => part.push(stored.record),
            _ => {
                bytes = document.body.len();
                parts.push(vec![stored.record]);
            }
        }
    }
    parts
}
