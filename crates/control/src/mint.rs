//! Transaction tokens for proxies: their questions go to the keeper in batches, with what control knows of the credential.
//!
//! What waits while a batch is under way makes the next one, so a proxy that asks once pays no delay, and thousands a second cost few
//! messages. Nothing here passes through control's loop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_keeper::protocol::{Evidence, MAX_MINT, MintRequest, Refusal, RefusalCode, TxnToken};
use ringfence_keeper::{Client, ClientError};
use ringfence_keys::digest::{Sha256, sha256};
use ringfence_snapshot::Snapshot;
use ringfence_snapshot::node::{Mint, NoAnswer, NoAnswerCode, Shown, Subject, Told};
use ringfence_store::Store;
use ringfence_token::{ApiKey, MAX_TOKEN};
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::core::now;
use crate::keys::{Known, record};
use crate::nodes::may_hold;

/// Questions that wait for a batch; more are refused.
const QUEUE: usize = 4096;
/// Batches under way: one is signed while others are read and written.
const UNDER_WAY: usize = 4;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bounds of a question: a batch of the largest still fits a frame.
const MAX_CHAIN: usize = 32 * 1024;
const MAX_TEXT: usize = 1024;
const MAX_MEMBERS: usize = 16;
/// Most introspection answers that are kept, and the largest.
const MAX_KEPT: usize = 16_384;
const MAX_CLAIMS: usize = 16 * 1024;

/// A handle for whoever asks; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Minter {
    queue: mpsc::Sender<Waiting>,
    introspected: Introspected,
}

/// A question, and the keeper that was there when it came.
struct Waiting {
    keeper: Arc<Client>,
    mint: Mint,
    answer: oneshot::Sender<Result<Told, NoAnswer>>,
}

impl Minter {
    /// Finds API keys in `store`. Ends with the last handle.
    pub(crate) fn new(store: Store, known: Known) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let introspected = Introspected::default();
        tokio::spawn(batches(waiting, Arc::new(Ground { store, known, introspected: introspected.clone() })));
        Self { queue, introspected }
    }

    /// Where the answer of a provider about an opaque token is noted.
    pub(crate) fn introspected(&self) -> &Introspected {
        &self.introspected
    }

    /// Has a token signed. Whether the node may ask, [`may_mint`] says.
    pub(crate) async fn mint(&self, keeper: Arc<Client>, mint: Mint) -> Result<Told, NoAnswer> {
        let (answer, outcome) = oneshot::channel();
        let busy =
            |_| NoAnswer::new(NoAnswerCode::Busy, "more transaction tokens are asked for than are signed");
        self.queue.try_send(Waiting { keeper, mint, answer }).map_err(busy)?;
        let late = || NoAnswer::new(NoAnswerCode::Unavailable, "the keeper did not answer in time");
        timeout(PATIENCE, outcome).await.map_err(|_| late())?.map_err(|_| late())?
    }
}

/// Whether a node may ask this: for the gateway or a service of its own, and within bounds. Whether the credential holds, the keeper sees.
pub(crate) fn may_mint(node: &str, snapshot: &Snapshot, mint: &Mint) -> Result<(), NoAnswer> {
    let Mint { shown, workload, scope, request } = mint;
    let fits = match shown {
        Shown::Token { provider, token } | Shown::Opaque { provider, token } => {
            provider.len() <= MAX_TEXT && token.expose().len() <= MAX_TOKEN
        }
        Shown::Session(text) | Shown::ApiKey(text) => text.expose().len() <= MAX_TOKEN,
        Shown::Certificate { authority, chain } => {
            authority.len() <= MAX_TEXT
                && chain.len() <= MAX_MEMBERS
                && chain.iter().map(|der| der.0.len()).sum::<usize>() <= MAX_CHAIN
        }
    };
    let context = serde_json::to_vec(request).map_or(usize::MAX, |text| text.len());
    let short = workload.len() <= MAX_TEXT && scope.len() <= MAX_TEXT;
    if !fits || !short || request.len() > MAX_MEMBERS || context > MAX_TEXT {
        return Err(NoAnswer::new(NoAnswerCode::Malformed, "the request is larger than any honest one"));
    }
    may_hold(snapshot, node, &Subject::Svid(workload.clone()))
        .map_err(|_| NoAnswer::new(NoAnswerCode::Denied, "a node asks for itself and its own services only"))
}

#[derive(Debug)]
struct Ground {
    store: Store,
    known: Known,
    introspected: Introspected,
}

async fn batches(mut waiting: mpsc::Receiver<Waiting>, ground: Arc<Ground>) {
    let turns = Arc::new(Semaphore::new(UNDER_WAY));
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        let mut batch = Vec::new();
        if waiting.recv_many(&mut batch, MAX_MINT).await == 0 {
            return;
        }
        let ground = ground.clone();
        tokio::spawn(async move {
            ground.sign(batch).await;
            drop(turn);
        });
    }
}

impl Ground {
    async fn sign(&self, batch: Vec<Waiting>) {
        let (mut requests, mut answers) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        // The newest: of another one's questions nobody waits for the answer of that one.
        let Some(keeper) = batch.last().map(|waiting| waiting.keeper.clone()) else { return };
        for Waiting { mint, answer, .. } in batch {
            if answer.is_closed() {
                continue;
            }
            match self.evidence(&mint.shown).await {
                Ok(evidence) => {
                    requests.push(MintRequest { ask: mint, evidence });
                    answers.push(answer);
                }
                Err(refusal) => drop(answer.send(Err(refusal))),
            }
        }
        if requests.is_empty() {
            return;
        }
        let minted = keeper.mint(requests).await;
        match minted {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    let _ = answer.send(told(result));
                }
            }
            Err(e) => {
                let why = match e {
                    ClientError::Refused(refusal) => refused(refusal),
                    e => NoAnswer::new(NoAnswerCode::Unavailable, e.to_string()),
                };
                for answer in answers {
                    let _ = answer.send(Err(why.clone()));
                }
            }
        }
    }

    /// What control knows of a credential that says nothing by itself.
    async fn evidence(&self, shown: &Shown) -> Result<Option<Evidence>, NoAnswer> {
        let denied = |reason| NoAnswer::new(NoAnswerCode::Denied, reason);
        match shown {
            Shown::Token { .. } | Shown::Session(_) | Shown::Certificate { .. } => Ok(None),
            Shown::ApiKey(text) => {
                let key = ApiKey::parse(text.expose()).ok_or_else(|| denied("this is no API key"))?;
                let found = record(&self.store, &self.known, key.prefix()).await;
                let found = found.map_err(|e| NoAnswer::new(NoAnswerCode::Unavailable, e.to_string()))?;
                found
                    .map(|record| Some(Evidence::ApiKey(record)))
                    .ok_or_else(|| denied("no API key has this prefix"))
            }
            Shown::Opaque { provider, token } => self
                .introspected
                .find(provider, token.expose(), now())
                .map(|(claims, until)| Some(Evidence::Introspected { claims, until }))
                .ok_or_else(|| denied("the provider was not asked about this token, or its answer is over")),
        }
    }
}

fn told(result: Result<TxnToken, Refusal>) -> Result<Told, NoAnswer> {
    match result {
        Ok(TxnToken { token, expires_at }) => Ok(Told::Minted { token: token.expose().clone(), expires_at }),
        Err(refusal) => Err(refused(refusal)),
    }
}

fn refused(Refusal { code, reason }: Refusal) -> NoAnswer {
    let code = match code {
        RefusalCode::Denied | RefusalCode::NotAllowed => NoAnswerCode::Denied,
        RefusalCode::Malformed => NoAnswerCode::Malformed,
        _ => NoAnswerCode::Unavailable,
    };
    NoAnswer::new(code, reason)
}

/// What providers said of opaque tokens, by the SHA-256 of provider and token, for as long as it may be believed. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Introspected(Arc<Mutex<HashMap<[u8; 32], Answer>>>);

#[derive(Debug)]
struct Answer {
    claims: Map<String, Value>,
    until: u64,
}

impl Introspected {
    /// Notes what was told of a token, for the one who comes with it next.
    pub(crate) fn note(&self, provider: &str, token: &str, told: &Told, now: u64) {
        match told {
            Told::Introspected { active: true, claims, until } => {
                self.keep(provider, token, claims, *until, now)
            }
            Told::Introspected { active: false, .. } => self.forget(provider, token),
            _ => {}
        }
    }

    /// Whether it was said what a token is, and may still be believed.
    pub(crate) fn knows(&self, provider: &str, token: &str, now: u64) -> bool {
        self.kept().get(&key(provider, token)).is_some_and(|answer| answer.until > now)
    }

    /// Keeps what an active token is. What does not fit is not kept: its bearer is let in without a transaction token, or not at all.
    pub(crate) fn keep(
        &self,
        provider: &str,
        token: &str,
        claims: &Map<String, Value>,
        until: u64,
        now: u64,
    ) {
        let large = serde_json::to_vec(claims).map_or(true, |text| text.len() > MAX_CLAIMS);
        if until <= now || large {
            return;
        }
        let mut kept = self.kept();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, answer| answer.until > now);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(key(provider, token), Answer { claims: claims.clone(), until });
        }
    }

    /// Forgets what is not so any more.
    fn forget(&self, provider: &str, token: &str) {
        self.kept().remove(&key(provider, token));
    }

    /// What it is, and until when that may be believed.
    fn find(&self, provider: &str, token: &str, now: u64) -> Option<(Map<String, Value>, u64)> {
        let kept = self.kept();
        let answer = kept.get(&key(provider, token)).filter(|answer| answer.until > now)?;
        Some((answer.claims.clone(), answer.until))
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<[u8; 32], Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(provider: &str, token: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&sha256(provider.as_bytes()));
    hash.update(token.as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests;
