//! What the current snapshot allows to be signed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ringfence_model::GatewayTls;
use ringfence_snapshot::{Bundle, Snapshot};
use ringfence_spiffe::{IdError, Kind, SpiffeId, TrustDomain};

use crate::protocol::{MAX_SNAPSHOT_LIFE, Refusal, RefusalCode};

/// Names under which clients on the gateway's own host find it.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The gateway's SPIFFE ID: a fence has one gateway, which bears its name.
///
/// # Errors
/// When the fence's name is not a DNS label.
pub fn gateway_id(trust_domain: &TrustDomain, fence: &str) -> Result<SpiffeId, IdError> {
    SpiffeId::gateway(trust_domain, fence)
}

/// A snapshot that was signed, reduced to what signing needs.
#[derive(Debug)]
pub(crate) struct Allowed {
    trust_domain: TrustDomain,
    fence: String,
    gateway: Option<BTreeSet<String>>,
    services: BTreeSet<String>,
    pub(crate) revision: (u64, u64),
    pub(crate) expires_at: u64,
    /// Whom everybody who has this snapshot believes.
    pub(crate) bundle: Bundle,
}

impl Allowed {
    pub(crate) fn of(snapshot: &Snapshot, trust_domain: &TrustDomain) -> Self {
        let gateway = snapshot.gateway.as_ref().map(|gateway| {
            if gateway.tls != GatewayTls::Internal {
                return BTreeSet::new();
            }
            let routes = snapshot.services.iter().flat_map(|s| &s.routes).filter_map(|r| r.host.clone());
            let mut hosts: BTreeSet<String> = gateway.hosts.iter().cloned().chain(routes).collect();
            for address in &gateway.listen {
                if !address.ip().is_unspecified() {
                    hosts.insert(address.ip().to_string());
                }
            }
            hosts.extend(LOCAL.map(str::to_owned));
            hosts
        });
        Self {
            trust_domain: trust_domain.clone(),
            fence: snapshot.fence.clone(),
            gateway,
            services: snapshot.services.iter().map(|s| s.name.clone()).collect(),
            revision: (snapshot.epoch, snapshot.revision),
            expires_at: snapshot.expires_at,
            bundle: snapshot.bundle.clone(),
        }
    }

    /// Whether `id` is somebody of this snapshot.
    pub(crate) fn identity(&self, id: &str, now: u64) -> Result<SpiffeId, Refusal> {
        self.fresh(now)?;
        let id = SpiffeId::parse(id).map_err(|e| Refusal::new(RefusalCode::Malformed, e.to_string()))?;
        if id.trust_domain() != &self.trust_domain {
            return Err(not_allowed(format!("{id} is not of trust domain {}", self.trust_domain.as_str())));
        }
        let known = match id.kind() {
            Some(Kind::Service(name)) => self.services.contains(name),
            Some(Kind::Gateway(name)) => self.gateway.is_some() && name == self.fence,
            _ => false,
        };
        if !known {
            return Err(not_allowed(format!("{id} is not in the fence (revision {})", self.revision.1)));
        }
        Ok(id)
    }

    /// Whether the gateway answers to all of `hosts`.
    pub(crate) fn hosts(&self, hosts: &[String], now: u64) -> Result<(), Refusal> {
        self.fresh(now)?;
        let Some(known) = &self.gateway else { return Err(not_allowed("the fence has no gateway".into())) };
        if hosts.is_empty() || hosts.len() > 256 {
            return Err(Refusal::new(RefusalCode::Malformed, "a serving certificate has 1 to 256 hosts"));
        }
        match hosts.iter().find(|host| !known.contains(canonical(host).as_str())) {
            Some(host) => {
                Err(not_allowed(format!("the gateway does not serve {host:?}; add it to its hosts")))
            }
            None => Ok(()),
        }
    }

    fn fresh(&self, now: u64) -> Result<(), Refusal> {
        if now < self.expires_at {
            return Ok(());
        }
        let reason = "the current snapshot has expired; control must have a new one signed first";
        Err(Refusal::new(RefusalCode::NoSnapshot, reason))
    }
}

/// An IP address in its one spelling; a name as it is.
fn canonical(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), |ip| ip.to_string())
}

/// Whether the keeper may sign `snapshot`: of this fence, newer than all before, bounded in time, and with no authority
/// in it but the keeper's own.
pub(crate) fn check_snapshot(
    snapshot: &Snapshot,
    (fence, trust_domain): (&str, &str),
    own: &Bundle,
    signed: (u64, u64),
    now: u64,
) -> Result<(), Refusal> {
    const SKEW: u64 = 60;
    if snapshot.fence != fence || snapshot.trust_domain != trust_domain {
        return Err(not_allowed(format!(
            "the snapshot is of fence {}, trust domain {}; this keeper serves {fence}, {trust_domain}",
            snapshot.fence, snapshot.trust_domain
        )));
    }
    let offered = (snapshot.epoch, snapshot.revision);
    if offered <= signed {
        let reason = format!(
            "epoch {}, revision {} is not above epoch {}, revision {}, which was signed already",
            offered.0, offered.1, signed.0, signed.1
        );
        return Err(Refusal::new(RefusalCode::Rollback, reason));
    }
    let life = snapshot.expires_at.saturating_sub(now);
    if life == 0 || life > MAX_SNAPSHOT_LIFE || snapshot.issued_at > now + SKEW {
        let reason = format!("a snapshot must be valid now and for at most {MAX_SNAPSHOT_LIFE} s");
        return Err(Refusal::new(RefusalCode::Malformed, reason));
    }
    let bundle = &snapshot.bundle;
    if bundle.x509.is_empty()
        || !bundle.x509.iter().all(|root| own.x509.contains(root))
        || !bundle.serving.iter().all(|root| own.serving.contains(root))
        || !bundle.jwt.iter().all(|key| own.jwt.contains(key))
    {
        return Err(not_allowed("the snapshot's bundle has an authority that is not this keeper's".into()));
    }
    Ok(())
}

fn not_allowed(reason: String) -> Refusal {
    Refusal::new(RefusalCode::NotAllowed, reason)
}
