//! The content of a snapshot.

use std::collections::BTreeMap;

use ringfence_model::{
    Access, Call, EntitiesUrl, ExternalTls, Fence, Gateway, Host, HostPort, Kind, LimitRule, Limits, OpenApi,
    Position, Protocol, Provider, Route, Waf,
};
use serde::{Deserialize, Serialize};

use crate::{Content, Der};

/// The fence compiled for enforcement points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Name of the fence.
    pub fence: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
    /// Raised by a restore from backup: a higher epoch wins over any revision.
    pub epoch: u64,
    /// Only grows within an epoch.
    pub revision: u64,
    /// Unix time in seconds.
    pub issued_at: u64,
    /// Unix time in seconds after which it is no longer valid at all.
    pub expires_at: u64,
    /// Seconds after `issued_at` until which enforcement points may run from it without hearing from control.
    pub lease: u64,
    /// The way in from outside.
    pub gateway: Option<Gateway>,
    /// Whose tokens are believed.
    pub providers: Vec<Provider>,
    /// Who issues the client certificates that are accepted somewhere, each file once.
    pub authorities: Vec<ClientAuthority>,
    /// What decides on top of the edges; without it they decide alone.
    pub policies: Option<Policies>,
    /// The server that knows what policies are judged with, if it is not a file among them.
    pub entities: Option<EntitiesUrl>,
    /// How attacks are looked for at the gateway.
    #[serde(default)]
    pub waf: Option<Waf>,
    /// Files that are needed besides, in order of name, each once: rules, descriptions of APIs.
    #[serde(default)]
    pub content: Vec<Content>,
    /// The machines, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Host>,
    /// All services, in order of name.
    pub services: Vec<Service>,
    /// Bounds.
    pub limits: Limits,
    /// Whom to believe.
    pub bundle: Bundle,
}

/// An authority of client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAuthority {
    /// Its file, as routes and services name it.
    pub file: String,
    /// Its certificates, DER; at least one.
    pub roots: Vec<Der>,
}

/// Most authorities of client certificates, and most certificates of one.
pub const MAX_AUTHORITIES: usize = 64;

/// Cedar policies and the data that they are judged with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Policy files.
    pub files: Vec<Text>,
    /// Entity data, JSON.
    pub entities: Option<Text>,
    /// Where the fence says so.
    pub position: Position,
}

/// A file by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Its name, relative to the fence's folder.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Most policy files, and most bytes of them and of entity data together: a snapshot travels as a whole.
pub const MAX_POLICY_FILES: usize = 256;
/// See [`MAX_POLICY_FILES`].
pub const MAX_POLICY_BYTES: usize = 4 << 20;

/// A service as enforcement points see it: no command, no environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Number of its address inside other services' networks ([`crate::service_ip`]); keeps its value for ever.
    pub address: u16,
    /// Where it is.
    pub target: Target,
    /// The port on which it listens inside its network.
    pub listen: Option<u16>,
    /// The port at which callers find it, besides 80.
    pub port: Option<u16>,
    /// What it speaks.
    pub protocol: Protocol,
    /// What of it the gateway serves.
    pub routes: Vec<Route>,
    /// Who may pass at its own sidecar.
    pub access: Access,
    /// The description of its API that requests through the gateway are held to.
    #[serde(default)]
    pub openapi: Option<OpenApi>,
    /// How much may come to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limit: Vec<LimitRule>,
    /// Whom it may call.
    pub calls: Vec<Call>,
    /// Hosts outside that it may reach.
    pub egress: Vec<Egress>,
    /// The machines that it runs on; where none is named, the one that has control.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<String>,
    /// Where it is declared.
    pub position: Position,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Behind a shim.
    Fenced,
    /// Elsewhere, without isolation.
    External {
        /// Where.
        address: HostPort,
        /// Where else.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more: Vec<HostPort>,
        /// How it is reached.
        tls: ExternalTls,
    },
}

/// A host outside, with its address inside the service's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Number of its address ([`crate::egress_ip`]); keeps its value for ever.
    pub address: u16,
    /// The declaration.
    pub rule: ringfence_model::Egress,
}

/// Whom to believe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Grows with each change.
    pub generation: u64,
    /// X.509 authorities of the mesh (roots), DER.
    pub x509: Vec<Der>,
    /// Keys that sign JWT-SVIDs, and nothing else.
    pub jwt: Vec<JwtKey>,
    /// Keys that sign transaction and session tokens, and nothing else; snapshots of older versions have none.
    #[serde(default)]
    pub txn: Vec<JwtKey>,
    /// Roots of the gateway's serving CA, DER: for clients outside, never for SVIDs.
    pub serving: Vec<Der>,
}

/// A key that signs tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtKey {
    /// `kid`.
    pub kid: String,
    /// SubjectPublicKeyInfo.
    pub spki: Der,
}

impl Policies {
    /// Whether they are few and small enough to be carried.
    pub fn fits(&self) -> bool {
        let bytes: usize = self.files.iter().chain(&self.entities).map(|f| f.name.len() + f.text.len()).sum();
        self.files.len() <= MAX_POLICY_FILES && bytes <= MAX_POLICY_BYTES
    }
}

impl Snapshot {
    /// The fence as far as decisions need it.
    pub fn to_fence(&self) -> Fence {
        let services = self.services.iter().map(|service| ringfence_model::Service {
            name: service.name.clone(),
            kind: match &service.target {
                Target::Fenced => Kind::Waits { env: BTreeMap::new(), files: Vec::new(), ready: None },
                Target::External { address, more, tls } => {
                    Kind::External { address: address.clone(), more: more.clone(), tls: tls.clone() }
                }
            },
            listen: service.listen,
            port: service.port,
            protocol: service.protocol,
            routes: service.routes.clone(),
            access: service.access.clone(),
            openapi: service.openapi.clone(),
            limit: service.limit.clone(),
            calls: service.calls.clone(),
            proposed: Vec::new(),
            accepts: Vec::new(),
            egress: service.egress.iter().map(|egress| egress.rule.clone()).collect(),
            at: service.at.clone(),
            position: service.position.clone(),
        });
        let mut fence = Fence::of_snapshot(
            self.fence.clone(),
            self.trust_domain.clone(),
            self.gateway.clone(),
            self.providers.clone(),
            services.collect(),
        );
        fence.waf.clone_from(&self.waf);
        fence.hosts.clone_from(&self.hosts);
        fence
    }

    /// The certificates of the authority in that file.
    pub fn authority(&self, file: &str) -> Option<&[Der]> {
        self.authorities.iter().find(|authority| authority.file == file).map(|a| a.roots.as_slice())
    }

    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// Whatever a route or service says about who may pass.
    pub fn access(&self) -> impl Iterator<Item = &Access> {
        self.services.iter().flat_map(|s| s.routes.iter().map(|route| &route.access).chain([&s.access]))
    }

    /// The file of that name.
    pub fn content(&self, name: &str) -> Option<&Content> {
        self.content.binary_search_by(|c| c.name.as_str().cmp(name)).ok().map(|at| &self.content[at])
    }

    /// Whatever the gateway, a service, a route or a call says about how much may come in.
    pub fn limits(&self) -> impl Iterator<Item = &LimitRule> {
        let gateway = self.gateway.iter().flat_map(|gateway| &gateway.limit);
        let services = self.services.iter().flat_map(|service| {
            let routes = service.routes.iter().flat_map(|route| &route.limit);
            service.limit.iter().chain(routes).chain(service.calls.iter().flat_map(|call| &call.limit))
        });
        gateway.chain(services)
    }

    /// Whether a service runs on the machine of that name.
    pub fn runs_at(&self, service: &Service, host: &str) -> bool {
        ringfence_model::runs_at(&self.hosts, &service.at, host)
    }

    /// Whether the gateway is on the machine of that name.
    pub fn gateway_at(&self, host: &str) -> bool {
        self.gateway.as_ref().is_some_and(|gateway| ringfence_model::runs_at(&self.hosts, &gateway.at, host))
    }

    /// The machine of that name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.binary_search_by(|s| s.name.as_str().cmp(name)).ok().map(|i| &self.services[i])
    }

    /// The declared edge from `caller` to `callee`.
    pub fn edge(&self, caller: &str, callee: &str) -> Option<&Call> {
        self.service(caller)?.calls.iter().find(|c| c.service == callee)
    }
}
