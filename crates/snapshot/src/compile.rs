//! From the fence to a snapshot.

use ringfence_model::{Fence, Kind};

use crate::{Addresses, Bundle, Egress, Service, Snapshot, Target};

/// What a snapshot has besides the fence.
#[derive(Clone, Debug)]
pub struct Header {
    /// See [`Snapshot::epoch`].
    pub epoch: u64,
    /// See [`Snapshot::revision`].
    pub revision: u64,
    /// See [`Snapshot::issued_at`].
    pub issued_at: u64,
    /// See [`Snapshot::expires_at`].
    pub expires_at: u64,
    /// See [`Snapshot::lease`].
    pub lease: u64,
    /// See [`Snapshot::bundle`].
    pub bundle: Bundle,
}

/// Why a valid fence has no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// More names over time than addresses.
    #[error(
        "the fence has used up all addresses for services or egress hosts: start with a new data directory"
    )]
    Addresses,
}

/// Compiles `fence`; numbers new names in `addresses`. Policies, which are files of their own, are added by whoever read them.
///
/// # Errors
/// [`CompileError::Addresses`] when there are no numbers left.
pub fn compile(fence: &Fence, addresses: &mut Addresses, header: Header) -> Result<Snapshot, CompileError> {
    if !addresses.assign(fence) {
        return Err(CompileError::Addresses);
    }
    let mut services = Vec::with_capacity(fence.services.len());
    for service in &fence.services {
        let target = match &service.kind {
            Kind::External { address, tls } => {
                Target::External { address: address.clone(), tls: tls.clone() }
            }
            Kind::Run { .. } | Kind::Waits { .. } => Target::Fenced,
        };
        let mut egress = Vec::with_capacity(service.egress.len());
        for rule in &service.egress {
            let address = addresses.egress(&rule.host).ok_or(CompileError::Addresses)?;
            egress.push(Egress { address, rule: rule.clone() });
        }
        services.push(Service {
            name: service.name.clone(),
            address: addresses.service(&service.name).ok_or(CompileError::Addresses)?,
            target,
            listen: service.listen,
            port: service.port,
            protocol: service.protocol,
            routes: service.routes.clone(),
            calls: service.calls.clone(),
            egress,
            position: service.position.clone(),
        });
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Snapshot {
        fence: fence.name.clone(),
        trust_domain: fence.trust_domain.clone(),
        epoch: header.epoch,
        revision: header.revision,
        issued_at: header.issued_at,
        expires_at: header.expires_at,
        lease: header.lease,
        gateway: fence.gateway.clone(),
        providers: fence.providers.clone(),
        policies: None,
        services,
        limits: fence.limits.clone(),
        bundle: header.bundle,
    })
}
