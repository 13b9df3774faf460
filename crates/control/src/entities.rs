//! What is known of the server that has the data policies are judged with.
//!
//! The last good data is kept on disk: whoever cannot ask the server goes on with it, after a restart too, and says how old it is.

use std::time::Instant;

use ringfence_model::EntitiesUrl;
use ringfence_oidc::protocol::EntitiesConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::{Offer, now};

/// Data of a server, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) url: String,
    pub(crate) text: String,
    /// When it came, Unix time in seconds.
    pub(crate) fetched: u64,
}

/// A fence that cannot be judged before the first data is there.
pub(crate) struct Waiting {
    pub(crate) offer: Offer,
    pub(crate) config: EntitiesConfig,
    pub(crate) since: Instant,
    /// What the last try came to.
    pub(crate) trouble: Option<String>,
}

/// What is known.
#[derive(Default)]
pub(crate) struct Entities {
    pub(crate) kept: Option<Kept>,
    /// Whether the store was looked into.
    pub(crate) loaded: bool,
    pub(crate) waiting: Option<Waiting>,
    /// When the server last said that this is its data.
    confirmed: Option<u64>,
    /// Why the server cannot be asked.
    silent: Option<String>,
    /// Why what it says now is not taken.
    refused: Option<String>,
}

impl Entities {
    /// Good data of this server.
    pub(crate) fn of(&self, url: &str) -> Option<&Kept> {
        self.kept.as_ref().filter(|kept| kept.url == url)
    }

    /// New data was taken.
    pub(crate) fn keep(&mut self, kept: Kept) {
        *self = Self { confirmed: Some(kept.fetched), kept: Some(kept), loaded: true, ..Self::default() };
    }

    /// The server said that its data is what it was; whether that is news to the operator.
    pub(crate) fn confirm(&mut self) -> bool {
        if self.refused.is_none() {
            self.confirmed = Some(now());
        }
        self.silent.take().is_some()
    }

    /// The server cannot be asked; whether that is news.
    pub(crate) fn silent(&mut self, reason: &str) -> bool {
        self.silent.replace(reason.to_owned()).as_deref() != Some(reason)
    }

    /// What the server says is not taken.
    pub(crate) fn refuse(&mut self, reason: &str) {
        self.silent = None;
        self.refused = Some(reason.to_owned());
    }

    /// For `status`.
    pub(crate) fn status(&self, server: &EntitiesUrl) -> Value {
        let kept = self.of(&server.url);
        json!({
            "url": server.url,
            "every": server.every.as_secs(),
            "fetched_at": kept.map(|kept| kept.fetched),
            "confirmed_at": self.confirmed.or_else(|| kept.map(|kept| kept.fetched)),
            "trouble": self.silent.as_ref().or(self.refused.as_ref()),
        })
    }
}

/// What the process that asks is told.
pub(crate) fn config(server: &EntitiesUrl, ca: Option<String>) -> EntitiesConfig {
    EntitiesConfig {
        url: server.url.clone(),
        every_ms: u64::try_from(server.every.as_millis()).unwrap_or(u64::MAX),
        ca,
        allow_private: server.allow_private,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_data_is_not_called_fresh_because_bad_data_stays_the_same() {
        let mut entities = Entities::default();
        let kept = Kept { url: "https://a.example".into(), text: "[]".into(), fetched: 7 };
        entities.keep(kept.clone());
        assert_eq!((entities.of("https://a.example"), entities.of("https://b.example")), (Some(&kept), None));
        assert!(entities.silent("down") && !entities.silent("down") && entities.silent("slow"));
        assert!(entities.confirm() && !entities.confirm());
        assert!(entities.confirmed > Some(7));
        entities.confirmed = Some(7);
        entities.refuse("nonsense");
        assert!(!entities.confirm());
        assert_eq!(entities.confirmed, Some(7));
    }
}
