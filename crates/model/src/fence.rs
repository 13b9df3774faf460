//! The fence as types. Only [`Fence::load`] and [`Fence::parse`] make one, so holding one means that it is valid.

mod breaker;
mod date;
mod fault;
mod handling;
mod host;
mod inspect;
mod limit;
mod metrics;
mod mode;
mod response;
mod service;
mod split;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::breaker::{Bound, Breaker, Trip};
pub use self::date::Date;
pub use self::fault::Fault;
pub(crate) use self::handling::GRPC_STATUSES;
pub use self::handling::{Handling, Retries, Timeout};
pub use self::host::{Host, MAX_HOSTS};
pub use self::inspect::{Beyond, Excluded, Exclusion, OpenApi, Waf};
pub use self::limit::{Amount, By, Guards, LimitRule, Priority, WhenFull};
pub use self::metrics::Metrics;
pub use self::mode::Mode;
pub use self::response::{Cors, Header, Headers, Responses};
pub use self::service::{ExternalTls, FileRule, Kind, Protocol, Ready, Service};
pub use self::split::{Branch, Cohort, Split, Which};
pub use self::traffic::{Accept, Allow, Call, Egress, Route};
use crate::access::Provider;
use crate::diagnostic::Diagnostic;
use crate::position::Position;

/// A valid declaration: which services exist, who may call whom, and where each may reach.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fence {
    /// `fence:`, the name of the whole.
    pub name: String,
    /// `trust_domain:`, a SPIFFE trust domain that is also a DNS name, since it is part of SNI.
    pub trust_domain: String,
    /// `gateway:`, when anything is reachable from outside.
    pub gateway: Option<Gateway>,
    /// `providers:`, in order of declaration.
    pub providers: Vec<Provider>,
    /// `policies:`, when policies decide on top of the edges.
    pub policies: Option<Policies>,
    /// `entities:`, where data about users, groups and things is.
    pub entities: Option<Entities>,
    /// `waf:`, how attacks are looked for at the gateway; by the embedded rules where nobody says. None where nothing could be looked into.
    pub waf: Option<Waf>,
    /// `metrics:`, where counters are served to whoever on this host asks; nowhere without it.
    pub metrics: Option<Metrics>,
    /// `hosts:`, in order of declaration; none where one machine is all there is.
    pub hosts: Vec<Host>,
    /// All services, those of `services:` and `external:`, in order of declaration.
    pub services: Vec<Service>,
    /// `limits:`, filled up with defaults.
    pub limits: Limits,
    /// `consent: required`: an edge into another fragment holds only when that fragment accepts it.
    pub consent_required: bool,
    /// Where `fence:` stands.
    pub position: Position,
    /// The files it was read from.
    pub files: Vec<SourceFile>,
    /// The folder they lie in; empty when it was parsed from text.
    pub folder: PathBuf,
    /// What is valid and probably not meant.
    pub warnings: Vec<Diagnostic>,
    pub(crate) index: BTreeMap<String, usize>,
}

/// Cedar policies beside the fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Files, or patterns whose last part begins with `*`; relative to the fence's folder, without `..`.
    pub files: Vec<String>,
    /// Where `policies:` stands.
    pub position: Position,
}

/// Where the data that policies are judged with comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entities {
    /// A file beside the fence.
    File(String),
    /// A server that is asked again and again.
    Url(EntitiesUrl),
}

/// A server that knows users, groups and things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntitiesUrl {
    /// Where, https.
    pub url: String,
    /// How often it is asked.
    pub every: Duration,
    /// Its private authority, PEM, relative to the fence's folder; the public ones without it.
    pub ca: Option<PathBuf>,
    /// Whether it may lie at a loopback or private address.
    pub allow_private: bool,
    /// Where it is declared.
    pub position: Position,
}

/// One file of the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name relative to the fence's folder.
    pub name: Arc<str>,
    /// `owner:`, who answers for it.
    pub owner: Option<String>,
    /// Its text, for pictures.
    pub text: Arc<str>,
}

/// The way in from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Where it listens, at least one address.
    pub listen: Vec<SocketAddr>,
    /// Its certificate.
    pub tls: GatewayTls,
    /// Host names that its certificate from the internal serving CA carries, besides those of the routes.
    pub hosts: Vec<String>,
    /// How much may come in from outside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limit: Vec<LimitRule>,
    /// What sign-ins and failed credentials are held to, unless it is said otherwise.
    #[serde(default)]
    pub guards: Guards,
    /// What its responses say and do not say, if routes and services do not say otherwise.
    #[serde(default)]
    pub responses: Responses,
    /// On which hosts it is (`at:`); on the one that has control where nobody says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<String>,
    /// Where `gateway:` stands.
    pub position: Position,
}

/// Where the gateway's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayTls {
    /// From the internal serving CA.
    Internal,
    /// From files, reloaded when they change; relative to the fence's folder.
    Files {
        /// The chain, PEM.
        cert: PathBuf,
        /// The private key, PEM.
        key: PathBuf,
    },
    /// None: clients speak plain text (`tls: off`).
    Off,
}

/// Bounds on what one client or caller can make the data plane hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a request or response head.
    pub header_bytes: u64,
    /// Header fields of a head.
    pub headers: u32,
    /// Bytes of a body; none means unbounded.
    pub body: Option<u64>,
    /// How long a connection may say nothing.
    pub idle: Duration,
    /// How long a head may take to arrive.
    pub header_time: Duration,
    /// How long a whole request may take; none means unbounded.
    pub request_time: Option<Duration>,
    /// Connections a listener holds at once.
    pub connections: u32,
    /// Connections of one address at the gateway at once; none means as many as a listener holds.
    #[serde(default)]
    pub connections_per_address: Option<u32>,
    /// TLS handshakes that are under way at a listener at once.
    #[serde(default = "handshakes")]
    pub handshakes: u32,
    /// Those of one address at the gateway.
    #[serde(default = "handshakes_per_address")]
    pub handshakes_per_address: u32,
    /// How long a TLS handshake may take.
    #[serde(default = "handshake_time")]
    pub handshake_time: Duration,
    /// Streams of an HTTP/2 connection at once.
    pub streams: u32,
    /// How long a drain waits for what is under way.
    pub drain: Duration,
    /// Bytes of the table that `limit` counts in.
    #[serde(default = "limit_memory")]
    pub limit_memory: u64,
    /// How long things may wait in a thread's queue before routes give way by their priority.
    #[serde(default = "queue")]
    pub queue: Duration,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// A DNS name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

const fn limit_memory() -> u64 {
    64 << 20
}

const fn queue() -> Duration {
    Duration::from_millis(50)
}

const fn handshakes() -> u32 {
    2_000
}

const fn handshakes_per_address() -> u32 {
    500
}

const fn handshake_time() -> Duration {
    Duration::from_secs(10)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            headers: 100,
            body: None,
            idle: Duration::from_secs(60),
            header_time: Duration::from_secs(10),
            request_time: None,
            connections: 10_000,
            connections_per_address: None,
            handshakes: handshakes(),
            handshakes_per_address: handshakes_per_address(),
            handshake_time: handshake_time(),
            streams: 256,
            drain: Duration::from_secs(10),
            limit_memory: limit_memory(),
            queue: queue(),
        }
    }
}

impl Fence {
    /// The fence that a snapshot tells of: what decisions need, and neither files nor commands.
    #[must_use]
    pub fn of_snapshot(
        name: String,
        trust_domain: String,
        gateway: Option<Gateway>,
        providers: Vec<Provider>,
        services: Vec<Service>,
    ) -> Self {
        let index = services.iter().enumerate().map(|(at, service)| (service.name.clone(), at)).collect();
        Self {
            name,
            trust_domain,
            gateway,
            providers,
            policies: None,
            entities: None,
            waf: None,
            metrics: None,
            hosts: Vec::new(),
            services,
            limits: Limits::default(),
            consent_required: false,
            position: Position::whole("snapshot".into()),
            files: Vec::new(),
            folder: PathBuf::new(),
            warnings: Vec::new(),
            index,
        }
    }

    /// The authorities of client certificates that are accepted somewhere, each file once.
    #[must_use]
    pub fn client_authorities(&self) -> Vec<&str> {
        let routes = self.services.iter().flat_map(|s| s.routes.iter().map(|route| &route.access));
        let all = routes.chain(self.services.iter().map(|service| &service.access));
        let files = all.flat_map(|access| &access.accept).filter_map(|a| a.credential.authority());
        files.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The provider of that name.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// The host that has control, where there are several.
    #[must_use]
    pub fn control_host(&self) -> Option<&Host> {
        self.hosts.iter().find(|host| host.control.is_some())
    }

    /// The host of that name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// Whether what says `at` runs on `host`; where there is one machine, everything does.
    #[must_use]
    pub fn runs_at(&self, at: &[String], host: &str) -> bool {
        runs_at(&self.hosts, at, host)
    }

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.index.get(name).and_then(|at| self.services.get(*at))
    }
}

/// Whether what says `at` runs on `host`: on those that it names, else on the one that has control.
#[must_use]
pub fn runs_at(hosts: &[Host], at: &[String], host: &str) -> bool {
    if hosts.is_empty() {
        return true;
    }
    if at.is_empty() {
        return hosts.iter().any(|known| known.control.is_some() && known.name == host);
    }
    at.iter().any(|name| name == host)
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
