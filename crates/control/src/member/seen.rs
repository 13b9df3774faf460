//! What the proxy of a host that joined says of itself on its way to control, for whoever asks on that host.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfence_snapshot::node::{FromProxy, Stats};
use serde_json::{Value, json};

/// The last that it said. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    version: String,
    revision: u64,
    refused: Option<String>,
    stats: Stats,
}

impl Seen {
    pub(super) fn note(&self, message: &FromProxy) {
        let mut said = self.lock();
        match message {
            FromProxy::Hello { version, .. } => said.version.clone_from(version),
            FromProxy::Ack { revision } => (said.revision, said.refused) = (*revision, None),
            FromProxy::Nack { reason, .. } => said.refused = Some(reason.clone()),
            FromProxy::Stats(stats) => said.stats = stats.clone(),
            _ => {}
        }
    }

    /// As control's status shows a proxy.
    pub(super) fn status(&self, host: &str) -> Value {
        let said = self.lock();
        json!([{
            "node": host,
            "version": said.version,
            "revision": said.revision.max(said.stats.revision),
            "refused": said.refused,
            "stale": said.stats.stale,
            "connections": said.stats.connections,
            "certificates": said.stats.certificates,
            "groups": said.stats.groups,
        }])
    }

    /// As control's counters show it.
    pub(super) fn stats(&self, host: &str) -> Value {
        json!([{ "node": host, "stats": self.lock().stats }])
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
