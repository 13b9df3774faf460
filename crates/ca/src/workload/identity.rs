//! The SVID of one service: made when first asked for, renewed while the socket is served, shared by its streams.

use std::sync::Arc;
use std::time::Duration;

use ringfence_keeper::ClientError;
use ringfence_keeper::protocol::{RefusalCode, X509Request};
use ringfence_keys::{Algorithm, SecretBytes, SigningKey, possession};
use ringfence_snapshot::Der;
use ringfence_spiffe::SpiffeId;
use tokio::sync::watch;
use tokio::time::sleep;

use super::issuer::Issuer;
use super::{Events, WorkloadEvent, now, wait_for_end};
use crate::issuer::CaError;
use crate::renewal::renew_at;

/// Pauses after failures, doubled up to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// An X.509-SVID with its key, as the Workload API gives it out.
#[derive(Debug)]
pub(crate) struct Svid {
    /// DER, leaf first, one after the other.
    pub(crate) chain: Vec<u8>,
    /// PKCS#8.
    pub(crate) key: SecretBytes,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    pub(crate) serial: String,
}

/// Where the SVID is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Not there yet.
    Pending,
    /// There.
    Ready(Arc<Svid>),
    /// The service is not to have one.
    Denied,
    /// The keeper or the store is not reachable.
    Failed(String),
}

/// The identity of one service.
#[derive(Debug)]
pub(crate) struct Identity {
    id: SpiffeId,
    state: watch::Receiver<State>,
    wanted: watch::Sender<bool>,
}

impl Identity {
    /// Starts the task that keeps it.
    pub(crate) fn start(
        ca: Arc<dyn Issuer>,
        id: SpiffeId,
        service: Arc<str>,
        events: Events,
        stopped: watch::Receiver<()>,
    ) -> Arc<Self> {
        let (sender, state) = watch::channel(State::Pending);
        let (wanted, wants) = watch::channel(false);
        let keeper = Keep { ca, id: id.clone(), service, events, state: sender };
        tokio::spawn(async move {
            tokio::select! {
                () = keeper.run(wants) => {}
                () = wait_for_end(stopped) => {}
            }
        });
        Arc::new(Self { id, state, wanted })
    }

    pub(crate) fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The present state and each later one; from now on an SVID is kept.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        self.state.clone()
    }
}

struct Keep {
    ca: Arc<dyn Issuer>,
    id: SpiffeId,
    service: Arc<str>,
    events: Events,
    state: watch::Sender<State>,
}

impl Keep {
    async fn run(self, mut wanted: watch::Receiver<bool>) {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let mut renewals = self.ca.renewals();
        let mut pause = PAUSES.0;
        loop {
            renewals.mark_unchanged();
            let spread = u64::from_le_bytes(ringfence_keys::random());
            let wait = match self.issue().await {
                Ok(svid) => {
                    pause = PAUSES.0;
                    let at = renew_at(svid.not_before.max(now()), svid.not_after, spread);
                    let wait = Duration::from_secs(at.saturating_sub(now())).max(Duration::from_millis(500));
                    self.events.tell(WorkloadEvent::Issued {
                        service: self.service.clone(),
                        kind: "x509",
                        serial: svid.serial.clone(),
                        not_after: svid.not_after,
                    });
                    self.state.send_replace(State::Ready(Arc::new(svid)));
                    wait
                }
                Err(e) => {
                    self.failed(&e);
                    pause = (pause * 2).min(PAUSES.1);
                    pause / 2 + pause.mul_f64(spread as f64 / u64::MAX as f64 / 2.0)
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                // Another authority signs now. Not all at once: there may be many services.
                changed = renewals.changed() => match changed {
                    Ok(()) => sleep(Duration::from_millis(spread % 250)).await,
                    Err(_) => return,
                },
            }
        }
    }

    async fn issue(&self) -> Result<Svid, CaError> {
        let key = SigningKey::generate(Algorithm::P256)?;
        let request = X509Request {
            id: self.id.as_str().to_owned(),
            spki: Der(key.verifying_key().to_spki()),
            proof: Der(possession::prove(&key, self.id.as_str())?),
            ttl: self.ca.svid_life(),
        };
        let issued = self.ca.issue(request).await?;
        Ok(Svid {
            chain: issued.chain.iter().flat_map(|der| der.0.iter().copied()).collect(),
            key: key.to_pkcs8()?,
            not_before: issued.not_before,
            not_after: issued.not_after,
            serial: issued.serial,
        })
    }

    /// A valid SVID stays in use while a new one cannot be had, unless it is no longer to be had at all.
    fn failed(&self, e: &CaError) {
        let denied = matches!(
            e,
            CaError::Keeper(ClientError::Refused(refusal)) if refusal.code == RefusalCode::NotAllowed
        ) || matches!(e, CaError::Revoked(_));
        self.state.send_if_modified(|state| {
            if denied {
                *state = State::Denied;
                return true;
            }
            let in_use = matches!(state, State::Ready(svid) if now() < svid.not_after);
            if !in_use {
                *state = State::Failed(e.to_string());
            }
            !in_use
        });
    }
}
