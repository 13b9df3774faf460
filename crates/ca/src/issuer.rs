//! Issuing and rotation, on top of the keeper and the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use ringfence_keeper::protocol::{
    JwtRequest, Leaf, MAX_BATCH, Refusal, RefusalCode, ServingRequest, Stage, Status, Step, X509Request,
};
use ringfence_keeper::{Client, ClientError};
use ringfence_keys::{digest::sha256, to_hex};
use ringfence_snapshot::{Bundle, Der, SignedSnapshot};
use ringfence_store::{Batch, Issued, Store, StoreError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Requests that wait to be put into a batch.
const QUEUE: usize = 4096;
/// Batches under way: one is signed while the one before is stored.
const UNDER_WAY: usize = 3;

/// How long what is issued lives, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// X.509-SVIDs.
    pub svid_life: u64,
    /// JWT-SVIDs.
    pub jwt_life: u64,
    /// Certificates of the gateway.
    pub serving_life: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { svid_life: 3600, jwt_life: 300, serving_life: 7 * 24 * 3600 }
    }
}

/// Why something was not issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// This process ends.
    #[error("the certificate authority was closed")]
    Closed,
    /// The keeper is gone or refused.
    #[error(transparent)]
    Keeper(#[from] ClientError),
    /// Whose it would be was revoked as a whole.
    #[error("{0} was revoked as a whole: `ringfence revocations remove ID` takes that back")]
    Revoked(String),
    /// The CA is on another host, and refuses or cannot be reached.
    #[error("{0}")]
    Elsewhere(String),
    /// A key.
    #[error(transparent)]
    Key(#[from] ringfence_keys::KeyError),
    /// It could not be recorded, so it was not given out.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The batch that it was in could not be recorded, so it was not given out.
    #[error("not given out, because it could not be recorded: {0}")]
    Unrecorded(String),
}

/// A certificate with its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedSvid {
    /// DER, leaf first, without the root.
    pub chain: Vec<Der>,
    /// Hexadecimal.
    pub serial: String,
    /// Start of its validity, Unix seconds.
    pub not_before: u64,
    /// End of its validity, Unix seconds.
    pub not_after: u64,
}

/// The certificate authority. Clones share it.
#[derive(Clone, Debug)]
pub struct Ca(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keeper: ArcSwap<Client>,
    store: Store,
    options: Options,
    requests: mpsc::Sender<Waiting>,
    bundle: watch::Sender<Arc<Bundle>>,
    renewals: watch::Sender<u64>,
    trust_domain: String,
    /// By SPIFFE ID: what was issued up to then is revoked; at the end of time, nothing is issued.
    revoked: ArcSwap<HashMap<String, u64>>,
}

type Waiting = (X509Request, oneshot::Sender<Result<IssuedSvid, CaError>>);

impl Ca {
    /// Starts with a keeper and a store. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the keeper does not answer.
    pub async fn start(keeper: Client, store: Store, options: Options) -> Result<Self, CaError> {
        let (bundle, status) = (keeper.bundle().await?, keeper.status().await?);
        let (requests, queue) = mpsc::channel(QUEUE);
        let ca = Self(Arc::new(Inner {
            keeper: ArcSwap::from_pointee(keeper),
            store,
            options,
            requests,
            bundle: watch::Sender::new(Arc::new(bundle)),
            renewals: watch::Sender::new(0),
            trust_domain: status.trust_domain,
            revoked: ArcSwap::default(),
        }));
        tokio::spawn(batches(Arc::downgrade(&ca.0), queue));
        Ok(ca)
    }

    /// Works with another keeper from now on: the one before died and was replaced.
    pub fn set_keeper(&self, keeper: Client) {
        self.0.keeper.store(Arc::new(keeper));
    }

    /// Takes which identities were revoked, by SPIFFE ID: up to when what they were issued counts no more, Unix seconds; [`u64::MAX`] for
    /// those that get nothing at all. If that is news, which is answered, everybody who holds an SVID of the Workload API gets another.
    pub fn set_revoked(&self, revoked: impl IntoIterator<Item = (String, u64)>) -> bool {
        let revoked: HashMap<String, u64> = revoked.into_iter().collect();
        let news = **self.0.revoked.load() != revoked;
        if news {
            self.0.revoked.store(Arc::new(revoked));
            self.0.renewals.send_modify(|count| *count += 1);
        }
        news
    }

    /// Whether what this identity was issued at `issued_at` was revoked with all else of it.
    #[must_use]
    pub fn is_revoked(&self, id: &str, issued_at: u64) -> bool {
        self.0.revoked.load().get(id).is_some_and(|until| issued_at <= *until)
    }

    fn may_issue(&self, id: &str) -> Result<(), CaError> {
        match self.0.revoked.load().get(id) {
            Some(&u64::MAX) => Err(CaError::Revoked(id.to_owned())),
            _ => Ok(()),
        }
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// How long what is issued lives.
    #[must_use]
    pub fn options(&self) -> Options {
        self.0.options
    }

    /// Whom to believe: the present bundle and each newer one.
    #[must_use]
    pub fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.0.bundle.subscribe()
    }

    /// Changes whenever every SVID is to be renewed at once, because another authority signs now.
    #[must_use]
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.0.renewals.subscribe()
    }

    /// Issues an X.509-SVID; whoever asks at the same time shares a batch.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn issue(&self, request: X509Request) -> Result<IssuedSvid, CaError> {
        self.may_issue(&request.id)?;
        let (reply, outcome) = oneshot::channel();
        self.0.requests.send((request, reply)).await.map_err(|_| CaError::Closed)?;
        outcome.await.map_err(|_| CaError::Closed)?
    }

    /// Issues a certificate of the gateway for `hosts`, which it must have in the current snapshot.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn issue_serving(
        &self,
        hosts: Vec<String>,
        spki: Der,
        proof: Der,
    ) -> Result<IssuedSvid, CaError> {
        let subject = hosts.join(",");
        let key_digest = to_hex(&sha256(&spki.0));
        let ttl = self.0.options.serving_life;
        let leaf = self.keeper().issue_serving(ServingRequest { hosts, spki, proof, ttl }).await?;
        let record = issued("serving", subject, key_digest, &leaf);
        self.0.store.issue_log("ca", vec![record]).await?;
        Ok(svid(leaf, &[]))
    }

    /// Signs a JWT-SVID: the token, and when it ends.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn sign_jwt(&self, id: &str, audiences: Vec<String>) -> Result<(String, u64), CaError> {
        self.may_issue(id)?;
        let request = JwtRequest { id: id.to_owned(), audiences, ttl: self.0.options.jwt_life };
        let (token, expires_at) = self.keeper().sign_jwt(request).await?;
        let record = Issued {
            serial: to_hex(&sha256(token.as_bytes())),
            kind: "jwt".into(),
            subject: id.to_owned(),
            key_digest: String::new(),
            not_before: now(),
            not_after: expires_at,
        };
        self.0.store.issue_log("ca", vec![record]).await?;
        Ok((token, expires_at))
    }

    /// Has a snapshot (JSON) signed.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn sign_snapshot(&self, bytes: String) -> Result<SignedSnapshot, CaError> {
        Ok(self.keeper().sign_snapshot(bytes).await?)
    }

    /// What the keeper holds.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn show(&self) -> Result<Status, CaError> {
        Ok(self.keeper().status().await?)
    }

    /// A new issuing CA; everybody renews.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn rotate_issuing(&self, actor: &str) -> Result<Status, CaError> {
        let status = self.keeper().rotate_issuing().await?;
        self.rotated(actor, "ca-rotate-issuing", None, &status, true).await?;
        Ok(status)
    }

    /// A step of changing the root. After `Prepare` and after `Activate` the new bundle must be in a signed snapshot, and in
    /// force everywhere, before the next step.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn rotate_root(&self, actor: &str, step: Step) -> Result<Status, CaError> {
        let status = self.keeper().rotate_root(step).await?;
        self.rotated(actor, "ca-rotate-root", Some(step), &status, step == Step::Activate).await?;
        Ok(status)
    }

    /// A step of changing the serving root.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn rotate_serving(&self, actor: &str, step: Step) -> Result<Status, CaError> {
        let status = self.keeper().rotate_serving(step).await?;
        self.rotated(actor, "ca-rotate-serving", Some(step), &status, step == Step::Activate).await?;
        Ok(status)
    }

    /// A step of changing the key that signs JWT-SVIDs.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn rotate_token(&self, actor: &str, step: Step) -> Result<Status, CaError> {
        let status = self.keeper().rotate_token(step).await?;
        self.rotated(actor, "ca-rotate-token", Some(step), &status, false).await?;
        Ok(status)
    }

    /// A step of changing the key that signs transaction and session tokens.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn rotate_txn(&self, actor: &str, step: Step) -> Result<Status, CaError> {
        let status = self.keeper().rotate_txn(step).await?;
        self.rotated(actor, "ca-rotate-txn", Some(step), &status, false).await?;
        Ok(status)
    }

    /// What is due by the calendar: a new issuing CA at half of its life, retired authorities dropped once nothing needs
    /// them. To be called now and then. Answers whether the bundle changed.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn maintain(&self) -> Result<bool, CaError> {
        let before = self.0.bundle.borrow().generation;
        let status = self.show().await?;
        let due = |a: &&ringfence_keeper::protocol::AuthorityStatus| {
            a.stage == Stage::Active && now() >= renew_half(a.not_before, a.not_after)
        };
        // What else is due does not wait for a root that is kept offline.
        let mut issuing = Ok(());
        if status.issuing.iter().find(due).is_some() {
            issuing = self.rotate_issuing("calendar").await.map(drop);
        }
        let retire = Step::Retire { force: false };
        let retiring = |list: &[ringfence_keeper::protocol::AuthorityStatus]| {
            list.iter().any(|a| a.stage == Stage::Retiring)
        };
        if retiring(&status.roots) {
            unless_too_early(self.rotate_root("calendar", retire).await)?;
        }
        if retiring(&status.serving) {
            unless_too_early(self.rotate_serving("calendar", retire).await)?;
        }
        if retiring(&status.tokens) {
            unless_too_early(self.rotate_token("calendar", retire).await)?;
        }
        if retiring(&status.txn) {
            unless_too_early(self.rotate_txn("calendar", retire).await)?;
        }
        if self.0.bundle.borrow().generation != before { Ok(true) } else { issuing.map(|()| false) }
    }

    /// The keeper that it works with now, for whoever asks it for something else than certificates.
    #[must_use]
    pub fn keeper(&self) -> Arc<Client> {
        self.0.keeper.load_full()
    }

    async fn rotated(
        &self,
        actor: &str,
        action: &str,
        step: Option<Step>,
        status: &Status,
        renew: bool,
    ) -> Result<(), CaError> {
        let detail = serde_json::json!({ "step": step, "generation": status.generation });
        self.0.store.apply(Batch::new(actor, action).detail(detail)).await?;
        let bundle = self.keeper().bundle().await?;
        self.0.bundle.send_if_modified(|old| {
            let changed = **old != bundle;
            if changed {
                *old = Arc::new(bundle);
            }
            changed
        });
        if renew {
            self.0.renewals.send_modify(|count| *count += 1);
        }
        Ok(())
    }
}

/// Collects what is asked into batches. The batch that is filling grows while others are under way, so its size follows
/// the load.
async fn batches(inner: std::sync::Weak<Inner>, mut queue: mpsc::Receiver<Waiting>) {
    let turns = Arc::new(Semaphore::new(UNDER_WAY));
    let mut batch = Vec::new();
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        if queue.recv_many(&mut batch, MAX_BATCH / 2).await == 0 {
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        let batch = std::mem::take(&mut batch);
        tokio::spawn(async move {
            issue_batch(&inner, batch).await;
            drop(turn);
        });
    }
}

async fn issue_batch(inner: &Inner, batch: Vec<Waiting>) {
    let (requests, replies): (Vec<X509Request>, Vec<_>) = batch.into_iter().unzip();
    let subjects: Vec<(String, String)> =
        requests.iter().map(|r| (r.id.clone(), to_hex(&sha256(&r.spki.0)))).collect();
    let keeper = inner.keeper.load_full();
    let (issuers, results) = match keeper.issue_x509(requests).await {
        Ok(answer) => answer,
        Err(e) => {
            for reply in replies {
                let _ = reply.send(Err(CaError::Keeper(e.clone())));
            }
            return;
        }
    };
    let records: Vec<Issued> = results
        .iter()
        .zip(subjects)
        .filter_map(|(result, (subject, key))| Some(issued("x509", subject, key, result.as_ref().ok()?)))
        .collect();
    let stored = if records.is_empty() { Ok(0) } else { inner.store.issue_log("ca", records).await };
    let stored = stored.map_err(|e| e.to_string());
    for (reply, result) in replies.into_iter().zip(results) {
        let outcome = match (result, &stored) {
            (Err(refusal), _) => Err(refused(refusal)),
            (Ok(_), Err(e)) => Err(CaError::Unrecorded(e.clone())),
            (Ok(leaf), Ok(_)) => Ok(svid(leaf, &issuers)),
        };
        let _ = reply.send(outcome);
    }
}

fn svid(leaf: Leaf, issuers: &[Der]) -> IssuedSvid {
    IssuedSvid {
        chain: std::iter::once(leaf.certificate).chain(issuers.iter().cloned()).collect(),
        serial: leaf.serial,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    }
}

fn issued(kind: &str, subject: String, key_digest: String, leaf: &Leaf) -> Issued {
    Issued {
        serial: leaf.serial.clone(),
        kind: kind.to_owned(),
        subject,
        key_digest,
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    }
}

fn refused(refusal: Refusal) -> CaError {
    CaError::Keeper(ClientError::Refused(refusal))
}

fn unless_too_early(outcome: Result<Status, CaError>) -> Result<(), CaError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(CaError::Keeper(ClientError::Refused(refusal))) if refusal.code == RefusalCode::NotNow => Ok(()),
        Err(e) => Err(e),
    }
}

const fn renew_half(not_before: u64, not_after: u64) -> u64 {
    not_before + not_after.saturating_sub(not_before) / 2
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
