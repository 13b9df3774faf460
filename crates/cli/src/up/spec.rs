//! From a service of the fence to what its shim is started with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringfence_control::supervisor::Applied;
use ringfence_model::{Fence, Kind, Service};
use ringfence_sandbox::spec::{FileRule, Isolation, Ready, Restart, Spec, UidRange};
use ringfence_snapshot::{egress_ip, loopback_egress_ip, loopback_service_ip, service_ip};

/// As root, each service has this many uids of its own, from this one on.
const UID_BASE: u32 = 0x5000_0000;
const UID_COUNT: u32 = 65_536;

/// Folders of programs that every service sees.
const SYSTEM: [&str; 4] = ["/usr", "/bin", "/sbin", "/opt"];

/// What all specs have in common.
#[derive(Clone, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) data: &'a Path,
    /// Where the `ringfence` binary lies.
    pub(crate) binaries: &'a Path,
    pub(crate) path: &'a [PathBuf],
    pub(crate) isolation: Isolation,
    pub(crate) root: bool,
}

/// Why a service cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("{position}: `{program}` of service `{service}` is neither beside the fence, nor beside ringfence, nor on the PATH")]
    Program { position: String, program: String, service: String },
}

/// The spec of `service`, whose command is `command` (the fence's own, or the one given to `ringfence run`).
pub(crate) fn spec(
    ground: &Ground<'_>,
    fence: &Fence,
    applied: &Applied,
    service: &Service,
    command: &[String],
) -> Result<Spec, SpecError> {
    let mut command = command.to_vec();
    if let Some(program) = command.first_mut() {
        let found = find(ground, program).ok_or_else(|| SpecError::Program {
            position: service.position.to_string(),
            program: program.clone(),
            service: service.name.clone(),
        })?;
        *program = found.to_string_lossy().into_owned();
    }
    let number = number(applied, service);
    let base = UID_BASE + u32::from(number) * UID_COUNT;
    Ok(Spec {
        service: service.name.clone(),
        command,
        env: environment(ground, fence, applied, service),
        listen: service.listen,
        ports: ports(ground.isolation, fence, service),
        hosts: hosts(ground.isolation, applied, service),
        files: files(ground, service),
        folder: ground.folder.to_owned(),
        data: ground.data.to_owned(),
        hide: Vec::new(),
        uids: ground.root.then_some(UidRange { base, count: UID_COUNT }),
        ready: match service.ready() {
            None | Some(ringfence_model::Ready::Tcp) => Ready::Tcp,
            Some(ringfence_model::Ready::Http { path }) => Ready::Http { path: path.clone() },
        },
        restart: Restart::default(),
        grace_ms: 10_000,
        isolation: ground.isolation,
    })
}

/// Every name that resolves inside the service's network. Undeclared services are among them: a call to them is then refused by
/// identity, with the line that is missing, instead of failing for a reason that nobody sees.
///
/// Without isolation nobody has a hosts file of its own; the addresses, on the one loopback, are in the environment.
pub(crate) fn hosts(isolation: Isolation, applied: &Applied, service: &Service) -> BTreeMap<String, Ipv4Addr> {
    let caller = number(applied, service);
    let (of_service, of_host): (fn(u16, u16) -> Option<Ipv4Addr>, fn(u16, u16) -> Option<Ipv4Addr>) = match isolation {
        Isolation::On => (|_, n| Some(service_ip(n)), |_, n| Some(egress_ip(n))),
        Isolation::Off => (loopback_service_ip, loopback_egress_ip),
    };
    let others = applied.services.iter().filter(|(name, _)| *name != service.name);
    let declared = applied.egress.iter().filter(|(host, _)| service.egress.iter().any(|e| e.host == *host));
    let services = others.filter_map(|(name, n)| Some((name.clone(), of_service(caller, *n)?)));
    services.chain(declared.filter_map(|(host, n)| Some((host.clone(), of_host(caller, *n)?)))).collect()
}

/// Where listening sockets are needed.
pub(crate) fn listeners(isolation: Isolation, fence: &Fence, applied: &Applied, service: &Service) -> Vec<Listen> {
    let hosts = hosts(isolation, applied, service);
    let at = |port: u16| {
        let callable = fence.services.iter().filter(|s| s.port == Some(port) || port == 80).map(|s| &s.name);
        let names = callable.chain(service.egress.iter().filter(|e| e.port == port).map(|e| &e.host));
        names.filter_map(|name| hosts.get(name).copied()).collect()
    };
    callable(fence, service)
        .map(|port| Listen {
            port,
            bound: bound(isolation, port),
            addresses: if isolation == Isolation::On { Vec::new() } else { at(port) },
        })
        .collect()
}

fn number(applied: &Applied, service: &Service) -> u16 {
    applied.services.iter().find(|(name, _)| *name == service.name).map_or(0, |(_, n)| *n)
}

/// Every port at which something can be called from inside the service's network.
pub(crate) fn ports(isolation: Isolation, fence: &Fence, service: &Service) -> BTreeSet<u16> {
    callable(fence, service).map(|port| bound(isolation, port)).collect()
}

/// The port on which a callee's port is listened for. Without isolation the callee itself has its own, on all addresses.
fn bound(isolation: Isolation, port: u16) -> u16 {
    const SHIFT: u16 = 20_000;
    match isolation {
        Isolation::On => port,
        Isolation::Off => port.checked_add(SHIFT).unwrap_or_else(|| port - SHIFT),
    }
}

fn callable<'a>(fence: &'a Fence, service: &'a Service) -> impl Iterator<Item = u16> + 'a {
    let services = fence.services.iter().filter(|s| s.name != service.name).filter_map(|s| s.port);
    services.chain([80]).chain(service.egress.iter().map(|e| e.port)).collect::<BTreeSet<_>>().into_iter()
}

/// Listening sockets of one port, as the supervisor asks a shim for them.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    /// The port that callers mean.
    pub(crate) port: u16,
    /// The port that is bound.
    pub(crate) bound: u16,
    /// Without isolation, the addresses; with it, none: the wildcard of a network that only this service is in.
    pub(crate) addresses: Vec<Ipv4Addr>,
}

fn environment(ground: &Ground<'_>, fence: &Fence, applied: &Applied, service: &Service) -> BTreeMap<String, String> {
    let path = std::env::join_paths(ground.path).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let mut env = BTreeMap::from([
        ("HOME".to_owned(), "/tmp".to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("PATH".to_owned(), path),
        ("RINGFENCE_SERVICE".to_owned(), service.name.clone()),
    ]);
    let addresses = hosts(ground.isolation, applied, service);
    for call in &service.calls {
        let Some(callee) = fence.service(&call.service) else { continue };
        let name = callee.name.to_ascii_uppercase().replace('-', "_");
        let host = match (ground.isolation, addresses.get(&callee.name)) {
            (Isolation::Off, Some(address)) => address.to_string(),
            _ => callee.name.clone(),
        };
        let url = match callee.port.map(|port| bound(ground.isolation, port)) {
            Some(port) => format!("http://{host}:{port}"),
            None => format!("http://{host}"),
        };
        env.insert(format!("RINGFENCE_{name}_URL"), url);
    }
    env.extend(service.env().cloned().unwrap_or_default());
    env
}

fn files(ground: &Ground<'_>, service: &Service) -> Vec<FileRule> {
    let rule = |rule: &ringfence_model::FileRule| FileRule { path: ground.folder.join(&rule.path), write: rule.write };
    service.files().iter().map(rule).collect()
}

/// Looks a program up beside the fence, then beside the `ringfence` binary, then on the `PATH`.
fn find(ground: &Ground<'_>, program: &str) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(ground.folder.join(program)).filter(runs);
    }
    // A fenced service sees the system's folders only, so a program found there will run; one in a home folder may not.
    let (system, other): (Vec<_>, Vec<_>) =
        ground.path.iter().partition(|p| SYSTEM.iter().any(|s| p.starts_with(s)));
    let path = system.into_iter().chain(other).map(PathBuf::as_path);
    [ground.folder, ground.binaries].into_iter().chain(path).map(|folder| folder.join(program)).find(runs)
}

/// The command of a service that `up` starts.
pub(crate) fn command(service: &Service) -> Option<&[String]> {
    match &service.kind {
        Kind::Run { command, .. } => Some(command),
        Kind::External { .. } | Kind::Waits { .. } => None,
    }
}
