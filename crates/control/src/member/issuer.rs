//! The CA as a host that joined sees it: every question goes to control, over the session that is open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence_ca::workload::{Answering, Issuer};
use ringfence_ca::{CaError, IssuedSvid};
use ringfence_keeper::protocol::X509Request;
use ringfence_keys::Secret;
use ringfence_snapshot::Bundle;
use ringfence_snapshot::node::{FromProxy, Issued, Revocations, Subject, ToProxy};
use ringfence_spiffe::certificate::Certificate;
use ringfence_token::{Revocation, SVID, What};
use ringfence_wire::Way;
use tokio::sync::{oneshot, watch};

/// Requests of ours have numbers from here on: those of the proxy count from one.
const OURS: u64 = 1 << 63;
/// Questions that wait at once, and how long one does.
const WAITING: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(15);

/// An answer to one of ours.
enum Answered {
    X509(Result<Issued, String>),
    Jwt(Result<(Secret<String>, u64), String>),
}

/// Asks control. Clones share it.
#[derive(Clone)]
pub(super) struct Remote(Arc<Inner>);

struct Inner {
    trust_domain: String,
    bundle: watch::Sender<Arc<Bundle>>,
    renewals: watch::Sender<u64>,
    way: Mutex<Option<Way>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answered>>>,
    /// By SPIFFE ID, up to when what it was issued counts no more; and the list that is being told.
    revoked: Mutex<(HashMap<String, u64>, HashMap<String, u64>)>,
    next: AtomicU64,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("trust_domain", &self.0.trust_domain).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    pub(super) fn new(trust_domain: &str) -> Self {
        Self(Arc::new(Inner {
            trust_domain: trust_domain.to_owned(),
            bundle: watch::Sender::new(Arc::default()),
            renewals: watch::Sender::new(0),
            way: Mutex::default(),
            waiting: Mutex::default(),
            revoked: Mutex::default(),
            next: AtomicU64::new(OURS),
        }))
    }

    /// A session is open, or there is none any more: whoever waits is told.
    pub(super) fn set_way(&self, way: Option<Way>) {
        *lock(&self.0.way) = way;
        lock(&self.0.waiting).clear();
    }

    /// Whom to believe, by a snapshot that was verified.
    pub(super) fn set_bundle(&self, bundle: &Bundle) {
        self.0.bundle.send_if_modified(|known| {
            let news = **known != *bundle;
            if news {
                *known = Arc::new(bundle.clone());
            }
            news
        });
    }

    /// Whether the proxy may say this: it asks in its own name only.
    pub(super) fn is_its_own(message: &FromProxy) -> bool {
        match message {
            FromProxy::SignJwt { .. } => false,
            FromProxy::Sign { request, .. } => *request < OURS,
            _ => true,
        }
    }

    /// Takes what is for us; hands back what is for the proxy, which some of what is for us is too.
    pub(super) fn take(&self, message: ToProxy) -> Option<ToProxy> {
        match message {
            ToProxy::Signed { request, outcome } if request >= OURS => {
                self.answered(request, Answered::X509(outcome));
                None
            }
            ToProxy::SignedJwt { request, outcome } => {
                self.answered(request, Answered::Jwt(outcome));
                None
            }
            ToProxy::Renew => {
                self.0.renewals.send_modify(|count| *count += 1);
                Some(ToProxy::Renew)
            }
            ToProxy::Revocations(told) => {
                self.revoked(&told);
                Some(ToProxy::Revocations(told))
            }
            other => Some(other),
        }
    }

    fn answered(&self, request: u64, answer: Answered) {
        if let Some(asked) = lock(&self.0.waiting).remove(&request) {
            let _ = asked.send(answer);
        }
    }

    /// Whoever holds an SVID gets another when those of an identity were revoked.
    fn revoked(&self, told: &Revocations) {
        let news = {
            let (counts, coming) = &mut *lock(&self.0.revoked);
            let note = |list: &mut HashMap<String, u64>, one: &Revocation| {
                if let (SVID, What::Subject(id)) = (one.issuer.as_str(), &one.what) {
                    let until = list.entry(id.clone()).or_default();
                    *until = one.issued_until.max(*until);
                }
            };
            match told {
                Revocations::Part { first, last, entries } => {
                    if *first {
                        coming.clear();
                    }
                    entries.iter().for_each(|one| note(coming, one));
                    let news = *last && counts != coming;
                    if *last {
                        *counts = std::mem::take(coming);
                    }
                    news
                }
                Revocations::Added(entries) => {
                    let before = counts.clone();
                    entries.iter().for_each(|one| note(counts, one));
                    *counts != before
                }
            }
        };
        if news {
            self.0.renewals.send_modify(|count| *count += 1);
        }
    }

    async fn ask(&self, question: impl FnOnce(u64) -> FromProxy) -> Result<Answered, CaError> {
        let away = || CaError::Elsewhere("control cannot be reached".to_owned());
        let request = self.0.next.fetch_add(1, Ordering::Relaxed);
        let way = lock(&self.0.way).clone().ok_or_else(away)?;
        let (answer, wait) = oneshot::channel();
        {
            let mut waiting = lock(&self.0.waiting);
            if waiting.len() >= WAITING {
                return Err(CaError::Elsewhere("too much is asked at once".to_owned()));
            }
            waiting.insert(request, answer);
        }
        let answered = async {
            way.send(&question(request)).await.map_err(|_| away())?;
            tokio::time::timeout(PATIENCE, wait).await.map_err(|_| away())?.map_err(|_| away())
        };
        let answered = answered.await;
        lock(&self.0.waiting).remove(&request);
        answered
    }
}

impl Issuer for Remote {
    fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// Control decides.
    fn svid_life(&self) -> u64 {
        3600
    }

    fn bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.0.bundle.subscribe()
    }

    fn renewals(&self) -> watch::Receiver<u64> {
        self.0.renewals.subscribe()
    }

    fn is_revoked(&self, id: &str, issued_at: u64) -> bool {
        // Revocations are by the beginning of certificates, which is before they are issued.
        let backdate = ringfence_keeper::protocol::SVID_BACKDATE;
        lock(&self.0.revoked).0.get(id).is_some_and(|until| issued_at <= until.saturating_add(backdate))
    }

    fn issue(&self, request: X509Request) -> Answering<'_, IssuedSvid> {
        Box::pin(async move {
            let X509Request { id, spki, proof, .. } = request;
            let subject = Subject::Svid(id);
            let answer = self.ask(|request| FromProxy::Sign { request, subject, spki, proof }).await?;
            let Answered::X509(outcome) = answer else { return Err(CaError::Closed) };
            let Issued { chain, not_after } = outcome.map_err(CaError::Elsewhere)?;
            let leaf = chain.first().and_then(|der| Certificate::parse(&der.0).ok());
            let leaf = leaf.ok_or_else(|| CaError::Elsewhere("control sent no certificate".to_owned()))?;
            let (serial, not_before) = (leaf.serial_hex(), u64::try_from(leaf.not_before).unwrap_or(0));
            Ok(IssuedSvid { serial, not_before, not_after, chain })
        })
    }

    fn sign_jwt<'a>(&'a self, id: &'a str, audiences: Vec<String>) -> Answering<'a, (String, u64)> {
        Box::pin(async move {
            let id = id.to_owned();
            let answer = self.ask(|request| FromProxy::SignJwt { request, id, audiences }).await?;
            let Answered::Jwt(outcome) = answer else { return Err(CaError::Closed) };
            let (token, ends_at) = outcome.map_err(CaError::Elsewhere)?;
            Ok((token.expose().clone(), ends_at))
        })
    }
}
