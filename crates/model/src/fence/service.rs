//! A service of the fence, and how it comes to run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Accept, Call, Egress, HostPort, LimitRule, OpenApi, Route};
use crate::access::Access;
use crate::position::Position;

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
    /// The description of its API that what comes through the gateway is held to.
    pub openapi: Option<OpenApi>,
    /// How much may come to it, from outside and from other services.
    pub limit: Vec<LimitRule>,
    /// Whom it may call. Holds only calls that are in force.
    pub calls: Vec<Call>,
    /// Calls that it declares and the callee's fragment has not accepted: not in force.
    pub proposed: Vec<Call>,
    /// Callers that its fragment accepts, where consent is required.
    pub accepts: Vec<Accept>,
    /// Hosts outside that it may reach.
    pub egress: Vec<Egress>,
    /// On which hosts it runs (`at:`); on the one that has control where nobody says.
    pub at: Vec<String>,
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
        /// Where else: the same service, of which any will do.
        more: Vec<HostPort>,
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
