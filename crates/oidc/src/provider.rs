//! One provider over time: its metadata and keys, fetched again and again, believed for a bounded time when it does not answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use ringfence_keys::digest::sha256;
use ringfence_token::{Fetched, JwkError, KeySet, KeySource, SourceConfig};
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::discovery::Metadata;
use crate::fetch::{Call, Fetcher, Reply};
use crate::introspection::{Cache, IntrospectionError};
use crate::known::Known;
use crate::party::{Party, unavailable};
use crate::protocol::{FromFederation, Introspected, ProviderConfig, Refusal, RefusalCode};
use crate::replay::Replays;

/// How often a provider that was never reached is tried, in seconds: it may be starting with us.
const EAGER: u64 = 2;
/// The longest wait between such tries.
const EAGER_BACKOFF: u64 = 60;
/// Age at which metadata is fetched again, with the keys, in seconds.
const METADATA_FRESH: u64 = 3600;
/// How often it is looked at whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// How long a request waits for metadata and keys.
const PATIENCE: Duration = Duration::from_secs(11);

/// How this process keeps the keys of its providers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    source: SourceConfig,
}

impl Pace {
    /// The pace of production. Providers are asked at slightly different intervals by each process, so that many fences do not ask
    /// one provider at once.
    pub(crate) fn new() -> Self {
        let [byte] = ringfence_keys::random::<1>();
        let fresh = 270 + u64::from(byte) * 60 / 255;
        Self { source: SourceConfig { fresh, ..SourceConfig::default() } }
    }

    /// Until the first keys are there.
    fn eager(self) -> SourceConfig {
        let interval = EAGER.min(self.source.interval);
        SourceConfig { interval, backoff: EAGER_BACKOFF.min(self.source.backoff), ..self.source }
    }
}

/// A provider, shared by its upkeep and by requests.
pub(crate) struct Provider {
    pub(crate) config: ProviderConfig,
    pub(crate) fetcher: Fetcher,
    pace: Pace,
    start: Instant,
    state: Mutex<State>,
    /// Counts rounds of upkeep.
    rounds: watch::Sender<u64>,
    wake: Notify,
    news: mpsc::Sender<FromFederation>,
    answers: Mutex<Answers>,
}

struct State {
    source: KeySource,
    /// Whether keys ever came.
    settled: bool,
    metadata: Option<(Arc<Metadata>, u64)>,
    trouble: Option<String>,
}

#[derive(Default)]
struct Answers {
    cache: Cache,
    /// One question at a time per token.
    asking: HashMap<[u8; 32], Arc<tokio::sync::Mutex<()>>>,
    replays: Replays,
}

impl Provider {
    pub(crate) fn new(
        config: ProviderConfig,
        fetcher: Fetcher,
        pace: Pace,
        news: mpsc::Sender<FromFederation>,
    ) -> Self {
        let source = KeySource::new(pace.eager());
        Self {
            config,
            fetcher,
            pace,
            start: Instant::now(),
            state: Mutex::new(State { source, settled: false, metadata: None, trouble: None }),
            rounds: watch::channel(0).0,
            wake: Notify::new(),
            news,
            answers: Mutex::default(),
        }
    }

    /// Keeps metadata and keys fresh until it is aborted.
    pub(crate) async fn upkeep(&self) {
        loop {
            let ticket = self.state().source.poll(self.now());
            if let Some(ticket) = ticket {
                let (document, error) = match self.fetch().await {
                    Ok(document) => (Some(document), None),
                    Err(error) => (None, Some(error)),
                };
                let news = self.round(ticket, document.as_ref(), error);
                self.rounds.send_modify(|rounds| *rounds += 1);
                for message in news {
                    // Nobody listens: the process is about to end.
                    let _ = self.news.send(message).await;
                }
            }
            let _ = timeout(TICK, self.wake.notified()).await;
        }
    }

    /// What may be relied on; waits for the first round, and then no longer.
    pub(crate) async fn known(&self) -> Result<Known, Refusal> {
        let mut rounds = self.rounds.subscribe();
        if let Some(known) = self.current() {
            return Ok(known);
        }
        if *rounds.borrow_and_update() == 0 {
            let _ = timeout(PATIENCE, rounds.changed()).await;
        }
        self.current().ok_or_else(|| {
            let why = self.state().trouble.clone();
            let why = why.unwrap_or_else(|| "it was not reached yet".to_owned());
            unavailable(format!("provider `{}` is not available: {why}", self.config.name))
        })
    }

    /// What may be relied on once the provider was asked for its keys again, which is not done too often.
    pub(crate) async fn known_again(&self) -> Result<Known, Refusal> {
        let mut rounds = self.rounds.subscribe();
        self.unknown_key();
        let _ = timeout(PATIENCE, rounds.changed()).await;
        self.known().await
    }

    /// Somebody used a key that is not there.
    pub(crate) fn unknown_key(&self) {
        self.state().source.miss();
        self.wake.notify_one();
    }

    /// What an opaque token is, asked at most once per token and time that answers are kept.
    pub(crate) async fn introspect(&self, token: &str) -> Result<Introspected, Refusal> {
        let digest = sha256(token.as_bytes());
        let not_believed = |e: IntrospectionError| {
            Refusal::new(RefusalCode::NotBelieved, format!("provider `{}`: {e}", self.config.name))
        };
        if let Some(answer) = self.answers().cache.find(&digest, unix_now()) {
            return answer.map_err(not_believed);
        }
        let known = self.known().await?;
        let turn = self.answers().asking.entry(digest).or_default().clone();
        // Whoever waits behind a provider that does not answer gives up when it would have.
        let Ok(_turn) = timeout(PATIENCE, turn.lock()).await else {
            return Err(unavailable(format!("provider `{}` does not say what a token is", self.config.name)));
        };
        if let Some(answer) = self.answers().cache.find(&digest, unix_now()) {
            return answer.map_err(not_believed);
        }
        let party = Party { config: &self.config, known: &known, fetcher: &self.fetcher };
        let answer = party.introspect(token, unix_now()).await;
        let mut answers = self.answers();
        answers.asking.remove(&digest);
        let answer = answer?;
        if matches!(answer, Err(IntrospectionError::Signature(_))) {
            // Perhaps by a key that is new.
            self.unknown_key();
        }
        answers.cache.keep(digest, answer.clone(), unix_now());
        answer.map_err(not_believed)
    }

    /// Whether a logout token with this id is new.
    pub(crate) fn is_new_logout(&self, id: &str, until: u64) -> bool {
        self.answers().replays.is_new(id, until, unix_now())
    }

    fn current(&self) -> Option<Known> {
        let state = self.state();
        let keys = state.source.keys(self.now())?.clone();
        let (metadata, _) = state.metadata.as_ref()?;
        Some(Known { metadata: metadata.clone(), keys })
    }

    /// Fetches metadata where it is due, and keys.
    async fn fetch(&self) -> Result<Reply, String> {
        let have = self.state().metadata.clone();
        let metadata = match have {
            Some((metadata, at)) if self.now().saturating_sub(at) < METADATA_FRESH => metadata,
            _ => {
                let metadata = Arc::new(self.fetch_metadata().await?);
                self.tell_metadata(&metadata).await;
                self.state().metadata = Some((metadata.clone(), self.now()));
                metadata
            }
        };
        let keys = self.get(&metadata.keys, "its keys").await;
        if keys.is_err()
            && let Some((_, at)) = &mut self.state().metadata
        {
            // The keys may have moved.
            *at = at.saturating_sub(METADATA_FRESH);
        }
        keys
    }

    async fn fetch_metadata(&self) -> Result<Metadata, String> {
        let config = &self.config;
        let place = Metadata::place(&config.issuer, config.allow_private)
            .map_err(|e| format!("its issuer `{}` is not usable: {e}", config.issuer))?;
        let reply = self.get(&place, "its metadata").await?;
        Metadata::parse(&reply.body, &config.issuer, config.allow_private).map_err(|e| e.to_string())
    }

    async fn get(&self, endpoint: &crate::endpoint::Endpoint, what: &str) -> Result<Reply, String> {
        let reply = self.fetcher.call(endpoint, Call::default()).await;
        let reply = reply.map_err(|e| format!("{what} cannot be fetched: {e}"))?;
        if reply.status == StatusCode::OK {
            return Ok(reply);
        }
        Err(format!(
            "{what} cannot be fetched: {} answers with status {}",
            endpoint.authority(),
            reply.status.as_u16()
        ))
    }

    /// Takes what a round brought, and says what changed by it.
    fn round(
        &self,
        ticket: ringfence_token::Ticket,
        reply: Option<&Reply>,
        error: Option<String>,
    ) -> Vec<FromFederation> {
        let now = self.now();
        let mut news = Vec::new();
        let mut state = self.state();
        let before = state.source.keys(now).cloned();
        let document = reply.map(|reply| &*reply.body);
        let fresh = document.and_then(|document| KeySet::from_json(document).ok());
        let swapped =
            before.as_ref().zip(fresh.as_ref()).and_then(|(old, new)| same_name_other_key(old, new));
        let outcome = match &swapped {
            // An honest provider names a new key anew.
            Some(_) => state.source.fetched(ticket, None, now),
            None => state.source.fetched(ticket, document, now),
        };
        let error = match (error, swapped, &outcome) {
            (Some(error), _, _) => Some(error),
            (None, Some(key), _) => Some(format!(
                "it publishes another key under the id `{}` than before: if that was meant, have it use a new id, or restart ringfence",
                crate::id_token::printable(&key, 60)
            )),
            (None, None, Fetched::Refused(error)) => Some(format!("its keys are not taken: {error}")),
            (None, None, _) => None,
        };
        if error.is_none() && !state.settled {
            self.settle(&mut state, document);
        }
        let keys = state.source.keys(now).cloned();
        if let (None, Some(keys)) = (&error, &keys) {
            if let Fetched::Changed = outcome {
                news.extend(self.notices(before.as_deref(), fresh.as_ref()));
            }
            news.push(FromFederation::Keys {
                provider: self.config.name.clone(),
                issuer: self.config.issuer.clone(),
                generation: keys.generation(),
                jwks: keys.to_json("sig"),
                until: unix_now().saturating_add(self.pace.source.believed),
            });
        }
        let trouble = error.map(|error| match &keys {
            Some(_) => format!(
                "{error}; the keys that it had are believed for at most {} h",
                self.pace.source.believed.div_ceil(3600)
            ),
            None => format!("{error}; until it answers, none of its tokens is believed"),
        });
        if trouble != state.trouble {
            state.trouble.clone_from(&trouble);
            news.push(FromFederation::Trouble { provider: self.config.name.clone(), reason: trouble });
        }
        news
    }

    /// The first keys are there: from now on the provider is asked at the usual pace.
    fn settle(&self, state: &mut State, document: Option<&[u8]>) {
        let mut source = KeySource::new(self.pace.source);
        if let Some(ticket) = source.poll(self.now()) {
            source.fetched(ticket, document, self.now());
            state.source = source;
            state.settled = true;
        }
    }

    fn notices(&self, before: Option<&KeySet>, fresh: Option<&KeySet>) -> Vec<FromFederation> {
        let notice = |text| FromFederation::Notice { provider: self.config.name.clone(), text };
        let mut notices = Vec::new();
        if let (Some(old), Some(new)) = (before.map(by_name), fresh.map(by_name))
            && !old.is_empty()
            && !old.keys().any(|name| new.contains_key(name))
        {
            notices.push(notice(
                "all of its keys were replaced at once: was that rotation announced?".to_owned(),
            ));
        }
        for left in fresh.map_or(&[][..], KeySet::left_out) {
            if matches!(left.reason, JwkError::Weak(_) | JwkError::Unnamed) {
                let name = crate::id_token::printable(left.key_id.as_deref().unwrap_or("without id"), 60);
                notices.push(notice(format!("its key `{name}` is not used: it is {}", left.reason)));
            }
        }
        notices.truncate(8);
        notices
    }

    async fn tell_metadata(&self, metadata: &Metadata) {
        let message = FromFederation::Metadata {
            provider: self.config.name.clone(),
            issuer: metadata.issuer.clone(),
            end_session: metadata.end_session.is_some(),
            introspection: metadata.introspection.is_some(),
            backchannel_logout: metadata.backchannel_logout,
        };
        let _ = self.news.send(message).await;
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix time in seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The name of a key that is another one now.
fn same_name_other_key(old: &KeySet, new: &KeySet) -> Option<String> {
    let new = by_name(new);
    by_name(old).into_iter().find_map(|(name, key)| (*new.get(&name)? != key).then_some(name))
}

/// The keys that have a name, as they are published.
fn by_name(keys: &KeySet) -> BTreeMap<String, Value> {
    let document = serde_json::from_str::<Value>(&keys.to_json("sig")).unwrap_or_default();
    let keys = document.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |key: Value| Some((key.get("kid")?.as_str()?.to_owned(), key));
    keys.into_iter().filter_map(named).collect()
}
