//! Entity data of a server: fetched again and again, told when it changed. What it means is judged by others.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::endpoint::Endpoint;
use crate::fetch::{Call, Fetcher};
use crate::protocol::{EntitiesConfig, EntitiesNews, FromFederation, MAX_ENTITIES_BYTES};

/// How soon a server that has never answered is asked again: it may be starting with us.
const EAGER: Duration = Duration::from_secs(2);
/// Shortest interval, whatever is asked for.
const MIN_EVERY: Duration = Duration::from_secs(1);
/// Longest name of a version that is sent back.
const MAX_ETAG: usize = 256;

/// One server over time.
pub(crate) struct Upkeep {
    config: EntitiesConfig,
    fetcher: Fetcher,
    news: mpsc::Sender<FromFederation>,
    /// The data of the last good answer.
    last: Option<Last>,
}

struct Last {
    etag: Option<HeaderValue>,
    text: String,
}

impl Upkeep {
    pub(crate) fn new(config: EntitiesConfig, fetcher: Fetcher, news: mpsc::Sender<FromFederation>) -> Self {
        Self { config, fetcher, news, last: None }
    }

    /// Fetches until it is aborted. Control is told of every round: that nothing changed is news too, since data that nobody
    /// confirmed grows old.
    pub(crate) async fn run(mut self) {
        let every = Duration::from_millis(self.config.every_ms).max(MIN_EVERY);
        loop {
            let begun = Instant::now();
            let news = self.round().await.unwrap_or_else(EntitiesNews::Trouble);
            let url = self.config.url.clone();
            if self.news.send(FromFederation::Entities { url, news }).await.is_err() {
                // Nobody listens: the process is about to end.
                return;
            }
            let wait = if self.last.is_none() { every.min(EAGER) } else { every };
            sleep_until(begun + wait).await;
        }
    }

    async fn round(&mut self) -> Result<EntitiesNews, String> {
        let endpoint =
            Endpoint::new(&self.config.url, self.config.allow_private).map_err(|e| e.to_string())?;
        let call = Call {
            if_none_match: self.last.as_ref().and_then(|last| last.etag.clone()),
            most: Some(MAX_ENTITIES_BYTES),
            ..Call::default()
        };
        let reply = self.fetcher.call(&endpoint, call).await.map_err(|e| e.to_string())?;
        match reply.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if self.last.is_some() => return Ok(EntitiesNews::Same),
            status => return Err(format!("{} answers {status}", endpoint.authority())),
        }
        let text = String::from_utf8(reply.body.into())
            .map_err(|_| format!("{} answers with something that is no text", endpoint.authority()))?;
        let etag = reply.etag.filter(|etag| etag.len() <= MAX_ETAG);
        let same = self.last.as_ref().is_some_and(|last| last.text == text);
        let news = if same { EntitiesNews::Same } else { EntitiesNews::Data(text.clone()) };
        self.last = Some(Last { etag, text });
        Ok(news)
    }
}
