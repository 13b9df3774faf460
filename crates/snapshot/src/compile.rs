//! From the fence to a snapshot.

use ringfence_model::{Entities, Fence, Kind, Provider};

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

/// Compiles `fence`; numbers new names in `addresses`. Policies and authorities of client certificates, which are
/// files of their own, are added by whoever read them.
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
            Kind::External { address, more, tls } => {
                Target::External { address: address.clone(), more: more.clone(), tls: tls.clone() }
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
            access: service.access.clone(),
            openapi: service.openapi.clone(),
            limit: service.limit.clone(),
            calls: service.calls.clone(),
            egress,
            at: service.at.clone(),
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
        providers: fence.providers.iter().map(public).collect(),
        authorities: Vec::new(),
        policies: None,
        entities: match &fence.entities {
            Some(Entities::Url(server)) => Some(server.clone()),
            Some(Entities::File(_)) | None => None,
        },
        waf: fence.waf.clone(),
        content: Vec::new(),
        hosts: fence.hosts.clone(),
        services,
        limits: fence.limits.clone(),
        bundle: header.bundle,
    })
}

/// A provider as enforcement points see it: where we keep what proves who we are there is not for them.
fn public(provider: &Provider) -> Provider {
    let mut provider = provider.clone();
    if let Some(client) = &mut provider.client {
        client.proof = None;
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_snapshot_says_where_a_secret_is() {
        let text = "fence: t\ntrust_domain: t.example\nproviders:\n  a: { issuer: https://a.example, client: { id: gateway, secret: { file: secrets/hunter2 } }, login: {} }\n  b: { issuer: https://b.example, client: { id: gateway, secret: { env: HUNTER2 } } }\n  c: { issuer: https://c.example, client: { id: gateway, key: { file: hunter2.pem } } }\nservices: { a: { } }\n";
        let fence = Fence::parse(vec![("ringfence.yaml", text)]).unwrap();
        let header = Header {
            epoch: 1,
            revision: 1,
            issued_at: 0,
            expires_at: 1,
            lease: 1,
            bundle: Bundle::default(),
        };
        let snapshot = compile(&fence, &mut Addresses::default(), header).unwrap();
        let json = serde_json::to_string(&snapshot).unwrap();
        assert!(!json.to_lowercase().contains("hunter2") && json.contains("gateway"), "{json}");
        assert!(snapshot.provider("a").unwrap().login.is_some());
    }
}
