//! The fence as types. Only [`Fence::load`] and [`Fence::parse`] make one, so holding one means that it is valid.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::{Access, Provider};
use crate::diagnostic::Diagnostic;
use crate::pattern::{self, PathPattern};
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

/// A service: who it is, what it runs, whom it may call and where it may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, a DNS label that begins with a letter.
    pub name: String,
    /// How it comes to run.
    pub kind: Kind,
    /// The port on which it listens inside its network; none when nobody may call it.
    pub listen: Option<u16>,
    /// The port at which callers find it, besides 80; the same as `listen` unless `port:` says otherwise.
    pub port: Option<u16>,
    /// What it speaks.
    pub protocol: Protocol,
    /// What of it is reachable through the gateway.
    pub routes: Vec<Route>,
    /// Who may pass at its own sidecar, besides what a route or an edge says; none for an external service.
    pub access: Access,
    /// Whom it may call. Holds only calls that are in force.
    pub calls: Vec<Call>,
    /// Calls that it declares and the callee's fragment has not accepted: not in force.
    pub proposed: Vec<Call>,
    /// Callers that its fragment accepts, where consent is required.
    pub accepts: Vec<Accept>,
    /// Hosts outside that it may reach.
    pub egress: Vec<Egress>,
    /// Where its name stands.
    pub position: Position,
}

/// How a service comes to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `up` starts it in a network of its own.
    Run {
        /// Program and arguments, at least the program.
        command: Vec<String>,
        /// Variables added to its environment.
        env: BTreeMap<String, String>,
        /// What it may read and write beyond the read-only system.
        files: Vec<FileRule>,
        /// What shows that it is ready.
        ready: Option<Ready>,
    },
    /// Already running elsewhere: proxied, not isolated.
    External {
        /// Where.
        address: HostPort,
        /// How it is reached.
        tls: ExternalTls,
    },
    /// Started by `ringfence run NAME -- CMD`.
    Waits {
        /// Variables added to its environment.
        env: BTreeMap<String, String>,
        /// What it may read and write beyond the read-only system.
        files: Vec<FileRule>,
        /// What shows that it is ready.
        ready: Option<Ready>,
    },
}

/// A file or folder a service may use; relative to the fence's folder unless absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRule {
    /// The path, without `..`.
    pub path: PathBuf,
    /// Whether it may write there.
    pub write: bool,
    /// Where it is declared.
    pub position: Position,
}

/// What shows that a service is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// Its port accepts a connection.
    Tcp,
    /// A GET of this path answers with a 2xx or 3xx status.
    Http {
        /// The path.
        path: String,
    },
}

/// How an external service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalTls {
    /// Plain text.
    Off,
    /// Mutual TLS with SPIFFE identities.
    Spiffe {
        /// The identity it must prove; the one of its name in this trust domain when none is given.
        id: Option<String>,
    },
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2.
    #[default]
    Http,
    /// gRPC over HTTP/2.
    Grpc,
    /// Bytes.
    Tcp,
}

/// A way through the gateway to a service, by host and path prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host, lower case; any host when absent. Always present for a `tcp` service, which is chosen by SNI.
    pub host: Option<String>,
    /// The path prefix, in whole segments: `/a` covers `/a` and `/a/b`, not `/ab`; `{name}` stands for any one segment.
    pub path: String,
    /// Who may pass.
    pub access: Access,
    /// Where it is declared.
    pub position: Position,
}

/// A declared edge from a service to a callee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The callee.
    pub service: String,
    /// What may pass: a request that matches any of these. Empty means everything.
    pub allow: Vec<Allow>,
    /// Whether only a request on somebody's behalf passes, with a transaction token.
    pub on_behalf: bool,
    /// Where the callee is named.
    pub position: Position,
}

/// A caller from another fragment that this service's fragment accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// The caller.
    pub caller: String,
    /// Where it is accepted.
    pub position: Position,
}

/// A request may pass when its method and its path are among these; an empty list means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    /// HTTP methods, upper case.
    pub methods: Vec<String>,
    /// Path patterns.
    pub paths: Vec<PathPattern>,
    /// Where it is declared.
    pub position: Position,
}

/// A host outside that a service may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Its name, lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the service must speak TLS with this host's name as SNI; true by default for port 443.
    pub tls: bool,
    /// Whether its name may resolve to a private, loopback, link-local or metadata address.
    pub allow_private: bool,
    /// Where it is declared.
    pub position: Position,
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
    /// Streams of an HTTP/2 connection at once.
    pub streams: u32,
    /// How long a drain waits for what is under way.
    pub drain: Duration,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// A DNS name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
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
            streams: 256,
            drain: Duration::from_secs(10),
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

    /// The service of that name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.index.get(name).and_then(|at| self.services.get(*at))
    }
}

impl Service {
    /// Whether it runs elsewhere, without isolation.
    #[must_use]
    pub const fn is_external(&self) -> bool {
        matches!(self.kind, Kind::External { .. })
    }

    /// What it may read and write beyond the read-only system.
    #[must_use]
    pub fn files(&self) -> &[FileRule] {
        match &self.kind {
            Kind::Run { files, .. } | Kind::Waits { files, .. } => files,
            Kind::External { .. } => &[],
        }
    }

    /// Variables added to its environment; none for an external service.
    #[must_use]
    pub const fn env(&self) -> Option<&BTreeMap<String, String>> {
        match &self.kind {
            Kind::Run { env, .. } | Kind::Waits { env, .. } => Some(env),
            Kind::External { .. } => None,
        }
    }

    /// What shows that it is ready.
    #[must_use]
    pub const fn ready(&self) -> Option<&Ready> {
        match &self.kind {
            Kind::Run { ready, .. } | Kind::Waits { ready, .. } => ready.as_ref(),
            Kind::External { .. } => None,
        }
    }
}

impl Call {
    /// Whether a request with this method and normalized path may pass along the edge.
    #[must_use]
    pub fn allows(&self, method: &str, path: &str) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|allow| allow.matches(method, path))
    }
}

impl Allow {
    /// Whether method and normalized path are both among those named.
    #[must_use]
    pub fn matches(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m == method))
            && (self.paths.is_empty() || self.paths.iter().any(|p| p.matches(path)))
    }
}

impl Route {
    /// Whether a normalized path lies under the prefix, in whole segments.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let prefix = if self.path == "/" { "" } else { &self.path };
        if self.has_names() {
            return pattern::begins(prefix, path);
        }
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether segments of the prefix are named.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.path.contains('{')
    }

    /// Which of two that cover a path decides, the lesser: segment by segment, a word before a name, and a longer before a
    /// shorter one.
    #[must_use]
    pub fn specificity(&self, other: &Self) -> std::cmp::Ordering {
        pattern::specificity(&self.path, &other.path)
    }
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

impl Protocol {
    /// The word for it in the fence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_covers_whole_segments() {
        let route = |path: &str| Route {
            host: None,
            path: path.to_owned(),
            access: Access::default(),
            position: Position::whole("t".into()),
        };
        assert!(route("/").covers("/") && route("/").covers("/a/b"));
        assert!(route("/a").covers("/a") && route("/a").covers("/a/") && route("/a").covers("/a/b"));
        assert!(!route("/a").covers("/ab") && !route("/a").covers("/") && !route("/a").covers("/b/a"));
        let named = route("/a/{x}/b");
        assert!(named.covers("/a/1/b") && named.covers("/a/1/b/") && named.covers("/a/b/b/c"));
        for other in ["/a", "/a/", "/a//b", "/a/1", "/a/1/", "/a/1/bc", "/b/1/b"] {
            assert!(!named.covers(other), "{other}");
        }
    }

    #[test]
    fn the_more_specific_route_decides() {
        let route = |path: &str| Route {
            host: None,
            path: path.to_owned(),
            access: Access::default(),
            position: Position::whole("t".into()),
        };
        let mut routes = ["/", "/a", "/a/{x}", "/a/{y}/c", "/a/b", "/a/b/c"].map(route);
        routes.sort_by(Route::specificity);
        let decides = |path: &str| &*routes.iter().find(|route| route.covers(path)).unwrap().path;
        for (path, by) in [
            ("/a/b/c", "/a/b/c"),
            ("/a/b/d", "/a/b"),
            ("/a/1/c", "/a/{y}/c"),
            ("/a/1/d", "/a/{x}"),
            ("/a/", "/a"),
            ("/b", "/"),
        ] {
            assert_eq!(decides(path), by, "{path}");
        }
    }
}
