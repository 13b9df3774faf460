//! Who takes part. Each contender is one file that knows how its proxy is told to do a case.

mod envoy;
mod haproxy;
mod nginx;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::case::Case;
use crate::certs::Certs;

/// What a contender is given for a case.
pub(crate) struct Setup<'a> {
    pub(crate) case: Case,
    /// A folder of its own, for configuration and logs.
    pub(crate) folder: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) certs: &'a Certs,
    /// One process without workers, for valgrind.
    pub(crate) alone: bool,
}

/// A proxy that can be measured.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    fn version(&self) -> io::Result<String>;

    /// Writes the configuration and says how to start the proxy, in the foreground, with one working thread.
    fn command(&self, setup: &Setup<'_>) -> io::Result<Command>;

    /// Whether it runs under valgrind.
    fn countable(&self) -> bool {
        false
    }
}

/// Those of these names, or all; nginx first, as what the others are compared with.
pub(crate) fn chosen(names: &[String]) -> io::Result<Vec<Box<dyn Contender>>> {
    let all: [fn() -> Box<dyn Contender>; 3] =
        [|| Box::new(nginx::Nginx), || Box::new(haproxy::Haproxy), || Box::new(envoy::Envoy)];
    let all: Vec<_> = all.into_iter().map(|make| make()).collect();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|c| c.name() != name.as_str())) {
        let known: Vec<_> = all.iter().map(|c| c.name()).collect();
        return Err(io::Error::other(format!("no contender {unknown:?}; there are {}", known.join(", "))));
    }
    let wanted = |c: &dyn Contender| {
        names.is_empty() || c.name() == "nginx" || names.iter().any(|name| name == c.name())
    };
    Ok(all.into_iter().filter(|c| wanted(c.as_ref())).collect())
}
