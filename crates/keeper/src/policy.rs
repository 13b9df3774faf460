//! What the current snapshot allows to be signed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ringfence_model::{Access, Credential, GatewayTls, Provider};
use ringfence_snapshot::{Bundle, Der, Snapshot, login_profile_of, profile_of};
use ringfence_spiffe::{CertificateDer, ClientAuthority, IdError, Kind, SpiffeId, TrustDomain};
use ringfence_token::Profile;

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

/// The SPIFFE ID that control shows to other hosts: it bears the fence's name, as the gateway's does.
///
/// # Errors
/// When the fence's name is not a DNS label.
pub fn control_id(trust_domain: &TrustDomain, fence: &str) -> Result<SpiffeId, IdError> {
    SpiffeId::control(trust_domain, fence)
}

/// A snapshot that was signed, reduced to what signing needs.
#[derive(Debug)]
pub(crate) struct Allowed {
    trust_domain: TrustDomain,
    fence: String,
    gateway: Option<BTreeSet<String>>,
    services: BTreeSet<String>,
    hosts: BTreeSet<String>,
    providers: BTreeMap<String, KnownProvider>,
    /// Who may have transaction tokens made, by SPIFFE ID, and of which credentials: those that it accepts.
    minters: BTreeMap<String, HashSet<Credential>>,
    /// Who issues certificates of clients, by the file that the fence names.
    authorities: BTreeMap<String, ClientAuthority>,
    /// What sessions of this trust domain must be.
    pub(crate) session: Profile,
    pub(crate) revision: (u64, u64),
    pub(crate) expires_at: u64,
    /// Whom everybody who has this snapshot believes.
    pub(crate) bundle: Bundle,
}

/// A provider of the snapshot, and what its tokens must be.
#[derive(Debug)]
pub(crate) struct KnownProvider {
    pub(crate) declared: Provider,
    pub(crate) profile: Profile,
    /// For ID tokens, if people sign in there.
    pub(crate) login: Option<Profile>,
}

impl KnownProvider {
    fn of(declared: &Provider) -> Self {
        Self {
            profile: profile_of(declared),
            login: declared.login.as_ref().and_then(|_| login_profile_of(declared)),
            declared: declared.clone(),
        }
    }
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
            hosts: snapshot.hosts.iter().map(|host| host.name.clone()).collect(),
            providers: snapshot.providers.iter().map(|p| (p.name.clone(), KnownProvider::of(p))).collect(),
            minters: minters(snapshot, trust_domain),
            authorities: snapshot.authorities.iter().map(|a| (a.file.clone(), authority(&a.roots))).collect(),
            session: Profile::session(trust_domain),
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
            Some(Kind::Node(name)) => self.hosts.contains(name),
            Some(Kind::Control(name)) => !self.hosts.is_empty() && name == self.fence,
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

    /// What `workload` accepts, if it is the gateway or a service whose own sidecar looks at credentials.
    pub(crate) fn minter(&self, workload: &str, now: u64) -> Result<&HashSet<Credential>, Refusal> {
        self.fresh(now)?;
        self.minters.get(workload).ok_or_else(|| {
            let name: String = workload.chars().take(256).collect();
            not_allowed(format!(
                "{name:?} accepts no credentials in the snapshot in force (revision {})",
                self.revision.1
            ))
        })
    }

    pub(crate) fn authority(&self, file: &str) -> Option<&ClientAuthority> {
        self.authorities.get(file)
    }

    pub(crate) fn provider(&self, name: &str) -> Result<&KnownProvider, Refusal> {
        self.providers.get(name).ok_or_else(|| {
            let name: String = name.chars().take(256).collect();
            not_allowed(format!("{name:?} is no provider of the snapshot in force"))
        })
    }

    pub(crate) const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(crate) fn fresh(&self, now: u64) -> Result<(), Refusal> {
        if now < self.expires_at {
            return Ok(());
        }
        let reason = "the current snapshot has expired; control must have a new one signed first";
        Err(Refusal::new(RefusalCode::NoSnapshot, reason))
    }
}

/// One that cannot be read vouches for nobody.
fn authority(roots: &[Der]) -> ClientAuthority {
    let roots: Vec<CertificateDer<'_>> =
        roots.iter().map(|der| CertificateDer::from(der.0.as_slice())).collect();
    ClientAuthority::new(&roots).0
}

fn minters(snapshot: &Snapshot, trust_domain: &TrustDomain) -> BTreeMap<String, HashSet<Credential>> {
    let credentials = |access: &Access| {
        access.accept.iter().map(|accepted| accepted.credential.clone()).collect::<Vec<_>>()
    };
    let mut minters = BTreeMap::new();
    let mut add = |id: Result<SpiffeId, IdError>, accepted: HashSet<Credential>| {
        if let (Ok(id), false) = (id, accepted.is_empty()) {
            minters.insert(id.as_str().to_owned(), accepted);
        }
    };
    if snapshot.gateway.is_some() {
        let routes = snapshot.services.iter().flat_map(|s| &s.routes);
        let accepted = routes.flat_map(|route| credentials(&route.access)).collect();
        add(gateway_id(trust_domain, &snapshot.fence), accepted);
    }
    for service in &snapshot.services {
        let accepted = credentials(&service.access).into_iter().collect();
        add(SpiffeId::service(trust_domain, &service.name), accepted);
    }
    minters
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
        || !bundle.txn.iter().all(|key| own.txn.contains(key))
    {
        return Err(not_allowed("the snapshot's bundle has an authority that is not this keeper's".into()));
    }
    Ok(())
}

fn not_allowed(reason: String) -> Refusal {
    Refusal::new(RefusalCode::NotAllowed, reason)
}
