//! Who takes part. Each contender is one file that knows how its proxy is told to do a case.

mod envoy;
mod haproxy;
mod nginx;
mod ringfence;

use std::any::Any;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::case::Case;
use crate::certs::{Certs, NAME};
use crate::tokens::Tokens;

/// What a contender is given for a case.
pub(crate) struct Setup<'a> {
    pub(crate) case: Case,
    /// A folder of its own, for configuration and logs.
    pub(crate) folder: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) certs: &'a Arc<Certs>,
    pub(crate) tokens: &'a Tokens,
    /// The folder with the Core Rule Set, where requests are to be inspected.
    pub(crate) rules: Option<PathBuf>,
    /// Under valgrind, which leaves its counts in this file; then one process without workers.
    pub(crate) counted_in: Option<PathBuf>,
}

impl Setup<'_> {
    /// The proxy's program, or valgrind around it.
    pub(crate) fn program(&self, program: &Path) -> io::Result<Command> {
        let Some(file) = &self.counted_in else { return Ok(Command::new(program)) };
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(program)
            .stderr(Stdio::from(File::create(self.folder.join("error.log"))?));
        Ok(command)
    }
}

/// What a contender keeps while its proxy runs.
pub(crate) type Held = Box<dyn Any>;

/// How a proxy is started.
pub(crate) struct Launch {
    pub(crate) command: Command,
    /// What has to be said to it once it runs.
    pub(crate) then: Box<dyn FnOnce() -> io::Result<Held>>,
}

impl From<Command> for Launch {
    fn from(command: Command) -> Self {
        Self { command, then: Box::new(|| Ok(Box::new(()))) }
    }
}

/// A proxy that can be measured.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    fn version(&self) -> io::Result<String>;

    /// Writes the configuration and says how to start the proxy, in the foreground, with one working thread.
    fn launch(&self, setup: &Setup<'_>) -> io::Result<Launch>;

    /// What it can do; tokens only some can.
    fn takes(&self, case: Case) -> bool {
        !case.tokens()
    }

    /// Whom the load asks for when it speaks TLS.
    fn server_name(&self, _case: Case) -> &'static str {
        NAME
    }

    /// Whether it runs under valgrind.
    fn countable(&self) -> bool {
        false
    }
}

/// Who inspects requests, and the same proxies that do not.
pub(crate) fn firewalls() -> [Box<dyn Contender>; 3] {
    [Box::new(nginx::Nginx), Box::new(nginx::Modsecurity), Box::new(ringfence::Gateway)]
}

/// Those of these names, or all; nginx first, as what the others are compared with where it takes part.
pub(crate) fn chosen(names: &[String]) -> io::Result<Vec<Box<dyn Contender>>> {
    let all: Vec<Box<dyn Contender>> = vec![
        Box::new(nginx::Nginx),
        Box::new(haproxy::Haproxy),
        Box::new(envoy::Envoy { logs: false }),
        Box::new(envoy::Envoy { logs: true }),
        Box::new(ringfence::Gateway),
        Box::new(ringfence::Mesh),
    ];
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|c| c.name() != name.as_str())) {
        let known: Vec<_> = all.iter().map(|c| c.name()).collect();
        return Err(io::Error::other(format!("no contender {unknown:?}; there are {}", known.join(", "))));
    }
    let wanted = |c: &dyn Contender| {
        names.is_empty() || c.name() == "nginx" || names.iter().any(|name| name == c.name())
    };
    Ok(all.into_iter().filter(|c| wanted(c.as_ref())).collect())
}
