//! The certificates of this node: keys made here, certificates asked for, renewed at half of their life.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ringfence_keys::{Algorithm, SigningKey, possession};
use ringfence_model::GatewayTls;
use ringfence_snapshot::node::{FromProxy, Issued, Subject};
use ringfence_snapshot::{Der, Service, Snapshot, Target};
use ringfence_spiffe::{CertificateDer, LeafKey, SpiffeId, TrustDomain};
use ringfence_tls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use ringfence_tls::{GatewayCertificate, Identity};
use zeroize::Zeroizing;

use crate::worker::unix_now;

/// Names under which clients on the gateway's own host find it.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest wait after a refusal.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));

/// A certificate that arrived.
#[derive(Debug)]
pub(crate) enum Arrived {
    Identity(Identity),
    Serving(GatewayCertificate),
}

/// What this node needs certificates for, and how far each is.
#[derive(Default)]
pub(crate) struct Renewer {
    entries: HashMap<String, Entry>,
    last_request: u64,
}

struct Entry {
    subject: Subject,
    pending: Option<Pending>,
    next: Instant,
    backoff: Duration,
    not_after: u64,
}

struct Pending {
    request: u64,
    key: SigningKey,
    asked: Instant,
}

/// What a snapshot makes this node need.
fn wanted(snapshot: &Snapshot, node: &str) -> Vec<Subject> {
    let Ok(trust_domain) = TrustDomain::new(&snapshot.trust_domain) else { return Vec::new() };
    let here = |s: &&Service| s.target == Target::Fenced && snapshot.runs_at(s, node);
    let fenced = snapshot.services.iter().filter(here);
    let mut ids: Vec<_> = fenced.filter_map(|s| SpiffeId::service(&trust_domain, &s.name).ok()).collect();
    let mut subjects = Vec::new();
    if let Some(gateway) = snapshot.gateway.as_ref().filter(|_| snapshot.gateway_at(node)) {
        ids.extend(SpiffeId::gateway(&trust_domain, &snapshot.fence));
        if gateway.tls == GatewayTls::Internal {
            let routes = snapshot.services.iter().flat_map(|s| &s.routes).filter_map(|r| r.host.clone());
            let mut hosts: BTreeSet<String> = gateway.hosts.iter().cloned().chain(routes).collect();
            hosts.extend(
                gateway.listen.iter().filter(|a| !a.ip().is_unspecified()).map(|a| a.ip().to_string()),
            );
            hosts.extend(LOCAL.map(str::to_owned));
            subjects.push(Subject::Serving(hosts.into_iter().collect()));
        }
    }
    subjects.extend(ids.into_iter().map(|id| Subject::Svid(id.as_str().to_owned())));
    subjects
}

/// What a subject is called in proofs, by control and keeper as well.
fn name(subject: &Subject) -> String {
    match subject {
        Subject::Svid(id) => id.clone(),
        Subject::Serving(hosts) => format!("serving:{}", hosts.join(",")),
    }
}

impl Renewer {
    /// Follows a snapshot, as the machine `node`; the SPIFFE IDs that are not needed any more.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, node: &str) -> Vec<SpiffeId> {
        let wanted: HashMap<String, Subject> =
            wanted(snapshot, node).into_iter().map(|s| (name(&s), s)).collect();
        let gone: Vec<String> =
            self.entries.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        let gone = gone.iter().filter_map(|name| self.entries.remove(name));
        let gone = gone
            .filter_map(|e| if let Subject::Svid(id) = e.subject { SpiffeId::parse(&id).ok() } else { None })
            .collect();
        for (name, subject) in wanted {
            self.entries.entry(name).or_insert_with(|| Entry {
                subject,
                pending: None,
                next: Instant::now(),
                backoff: BACKOFF.0,
                not_after: 0,
            });
        }
        gone
    }

    /// Everything is asked for again, soon: control is new, or an authority was rotated.
    pub(crate) fn renew_all(&mut self) {
        for entry in self.entries.values_mut() {
            entry.pending = None;
            entry.next = Instant::now();
        }
    }

    /// Those SVIDs that `revoked` says are asked for again at once: whose they are.
    pub(crate) fn renew_if(&mut self, revoked: impl Fn(&SpiffeId) -> bool) -> Vec<SpiffeId> {
        let mut gone = Vec::new();
        for entry in self.entries.values_mut() {
            let Subject::Svid(id) = &entry.subject else { continue };
            if let Ok(id) = SpiffeId::parse(id)
                && revoked(&id)
            {
                (entry.pending, entry.next, entry.not_after) = (None, Instant::now(), 0);
                gone.push(id);
            }
        }
        gone
    }

    /// What came is of no use: it is asked for again in a moment.
    pub(crate) fn again(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            (entry.next, entry.not_after) = (Instant::now() + BACKOFF.0, 0);
        }
    }

    /// Questions that were asked over a channel that is gone are asked again.
    pub(crate) fn reconnected(&mut self) {
        for entry in self.entries.values_mut() {
            if entry.pending.take().is_some() {
                entry.next = Instant::now();
            }
        }
    }

    /// What is to be asked for now.
    pub(crate) fn due(&mut self) -> Vec<FromProxy> {
        let now = Instant::now();
        let mut questions = Vec::new();
        for (name, entry) in &mut self.entries {
            if entry.pending.as_ref().is_some_and(|p| now < p.asked + PATIENCE) || now < entry.next {
                continue;
            }
            let Ok(key) = SigningKey::generate(Algorithm::P256) else { continue };
            let Ok(proof) = possession::prove(&key, name) else { continue };
            self.last_request += 1;
            let (request, spki) = (self.last_request, Der(key.verifying_key().to_spki()));
            questions.push(FromProxy::Sign {
                request,
                subject: entry.subject.clone(),
                spki,
                proof: Der(proof),
            });
            entry.pending = Some(Pending { request, key, asked: now });
        }
        questions
    }

    /// Takes an answer. `None` if nobody asked.
    pub(crate) fn answered(
        &mut self,
        request: u64,
        outcome: Result<Issued, String>,
    ) -> Option<(String, Result<Arrived, String>)> {
        let asked = |entry: &Entry| entry.pending.as_ref().is_some_and(|p| p.request == request);
        let (name, entry) = self.entries.iter_mut().find(|(_, entry)| asked(entry))?;
        let pending = entry.pending.take()?;
        let not_after = outcome.as_ref().map_or(0, |issued| issued.not_after);
        let arrived = outcome.and_then(|issued| made(&entry.subject, &issued, &pending.key));
        if arrived.is_ok() {
            entry.not_after = not_after;
            entry.backoff = BACKOFF.0;
            entry.next = Instant::now() + half_life(not_after.saturating_sub(unix_now()));
        } else {
            entry.next = Instant::now() + jitter(entry.backoff);
            entry.backoff = (entry.backoff * 2).min(BACKOFF.1);
        }
        Some((name.clone(), arrived))
    }

    /// When each certificate in use ends.
    pub(crate) fn certificates(&self) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.entries.iter().map(|(name, e)| (name.clone(), e.not_after)).collect();
        all.sort();
        all
    }
}

fn made(subject: &Subject, issued: &Issued, key: &SigningKey) -> Result<Arrived, String> {
    let chain: Vec<CertificateDer<'static>> = issued.chain.iter().map(|der| der.0.clone().into()).collect();
    let pkcs8 = key.to_pkcs8().map_err(|e| e.to_string())?;
    match subject {
        Subject::Svid(id) => {
            let id = SpiffeId::parse(id).map_err(|e| e.to_string())?;
            let key =
                LeafKey::from_pkcs8(Zeroizing::new(pkcs8.expose().to_vec())).map_err(|e| e.to_string())?;
            Identity::new(id, chain, &key).map(Arrived::Identity).map_err(|e| e.to_string())
        }
        Subject::Serving(_) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.expose().as_slice()));
            GatewayCertificate::new(chain, &key).map(Arrived::Serving).map_err(|e| e.to_string())
        }
    }
}

fn half_life(seconds: u64) -> Duration {
    jitter(Duration::from_millis(seconds.saturating_mul(500)))
}

/// Ten per cent more or less, so that a fleet that started together does not ask together.
fn jitter(time: Duration) -> Duration {
    let random = u16::from_le_bytes(ringfence_keys::random());
    time.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX))
}
