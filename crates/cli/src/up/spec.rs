//! From a service of the fence to what its shim is started with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringfence_control::supervisor::Applied;
use ringfence_model::{ClientProof, Fence, GatewayTls, Kind, Service};
use ringfence_sandbox::spec::{FileRule, Isolation, Ready, Restart, Spec, UidRange};
use ringfence_snapshot::{
    OWN_HOST, OWN_IP, REGISTRY_PORT, egress_ip, loopback_egress_ip, loopback_own_ip, loopback_service_ip,
    service_ip,
};

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
    #[error(
        "{position}: `{program}` of service `{service}` is neither beside the fence, nor beside ringfence, nor on the PATH"
    )]
    Program { position: String, program: String, service: String },
    #[error("{position}: service `{service}` may not write to {}: it could change {what} and so declare for itself what it likes; give it a folder of its own", path.display())]
    OwnFence { position: String, service: String, path: PathBuf, what: &'static str },
    #[error("{position}: service `{service}` may not read {}: the fence names the environment of every service; give it a file or folder without the fence", path.display())]
    ReadsFence { position: String, service: String, path: PathBuf },
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
    refuse_own_fence(ground, fence, service)?;
    refuse_reading_fence(ground, fence, service)?;
    Ok(Spec {
        service: service.name.clone(),
        env: environment(ground, fence, applied, service),
        listen: service.listen,
        ports: ports(ground.isolation, fence, service),
        hosts: hosts(ground.isolation, applied, service),
        files: files(ground, service),
        folder: ground.folder.to_owned(),
        data: ground.data.to_owned(),
        hide: keys(ground, fence, &command),
        fence: fence_files(ground, fence),
        command,
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
pub(crate) fn hosts(
    isolation: Isolation,
    applied: &Applied,
    service: &Service,
) -> BTreeMap<String, Ipv4Addr> {
    let caller = number(applied, service);
    type Address = fn(u16, u16) -> Option<Ipv4Addr>;
    let (of_service, of_host): (Address, Address) = match isolation {
        Isolation::On => (|_, n| Some(service_ip(n)), |_, n| Some(egress_ip(n))),
        Isolation::Off => (loopback_service_ip, loopback_egress_ip),
    };
    let others = applied.services.iter().filter(|(name, _)| *name != service.name);
    let declared = applied.egress.iter().filter(|(host, _)| service.egress.iter().any(|e| e.host == *host));
    let services = others.filter_map(|(name, n)| Some((name.clone(), of_service(caller, *n)?)));
    let own = match isolation {
        Isolation::On => Some(OWN_IP),
        Isolation::Off => loopback_own_ip(caller),
    };
    services
        .chain(declared.filter_map(|(host, n)| Some((host.clone(), of_host(caller, *n)?))))
        .chain(own.map(|own| (OWN_HOST.to_owned(), own)))
        .collect()
}

/// Where listening sockets are needed.
pub(crate) fn listeners(
    isolation: Isolation,
    fence: &Fence,
    applied: &Applied,
    service: &Service,
) -> Vec<Listen> {
    let hosts = hosts(isolation, applied, service);
    let at = |port: u16| {
        let callable = fence.services.iter().filter(|s| s.port == Some(port) || port == 80).map(|s| &s.name);
        let names = callable.chain(service.egress.iter().filter(|e| e.port == port).map(|e| &e.host));
        let own = hosts.get(OWN_HOST).filter(|_| port == 80);
        names.filter_map(|name| hosts.get(name)).chain(own).copied().collect()
    };
    callable(isolation, fence, service)
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
    callable(isolation, fence, service).map(|port| bound(isolation, port)).collect()
}

/// The port on which a callee's port is listened for. Without isolation the callee itself has its own, on all addresses.
fn bound(isolation: Isolation, port: u16) -> u16 {
    const SHIFT: u16 = 20_000;
    match isolation {
        Isolation::On => port,
        Isolation::Off => port.checked_add(SHIFT).unwrap_or_else(|| port - SHIFT),
    }
}

fn callable<'a>(
    isolation: Isolation,
    fence: &'a Fence,
    service: &'a Service,
) -> impl Iterator<Item = u16> + 'a {
    // Who runs where is told where it is known who asks.
    let registry = (isolation == Isolation::On).then_some(REGISTRY_PORT);
    let services = fence.services.iter().filter(|s| s.name != service.name).filter_map(|s| s.port);
    services
        .chain([80])
        .chain(registry)
        .chain(service.egress.iter().map(|e| e.port))
        .collect::<BTreeSet<_>>()
        .into_iter()
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

fn environment(
    ground: &Ground<'_>,
    fence: &Fence,
    applied: &Applied,
    service: &Service,
) -> BTreeMap<String, String> {
    let path =
        std::env::join_paths(ground.path).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
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
    let own = match (ground.isolation, addresses.get(OWN_HOST)) {
        (Isolation::Off, Some(address)) => format!("http://{address}:{}", bound(ground.isolation, 80)),
        _ => format!("http://{OWN_HOST}"),
    };
    env.insert("RINGFENCE_URL".to_owned(), own);
    env.extend(service.env().cloned().unwrap_or_default());
    env
}

fn files(ground: &Ground<'_>, service: &Service) -> Vec<FileRule> {
    let rule = |rule: &ringfence_model::FileRule| FileRule {
        path: ground.folder.join(&rule.path),
        write: rule.write,
    };
    service.files().iter().map(rule).collect()
}

/// A service that may write what its fence is made of is not fenced: refused, whatever the owner of the files is.
fn refuse_own_fence(ground: &Ground<'_>, fence: &Fence, service: &Service) -> Result<(), SpecError> {
    let real = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
    let sources = fence_files(ground, fence).into_iter().map(|file| (file, "the fence"));
    let gateway = match fence.gateway.as_ref().map(|g| &g.tls) {
        Some(GatewayTls::Files { cert, key }) => vec![cert, key],
        _ => Vec::new(),
    };
    let gateway = gateway.into_iter().map(|path| (ground.folder.join(path), "the gateway's certificate"));
    let whole = [
        (ground.folder.to_owned(), "the fence"),
        (ground.data.to_owned(), "the data directory"),
        (ground.binaries.join("ringfence"), "Ringfence itself"),
    ];
    let kept: Vec<_> = sources.chain(gateway).chain(whole).map(|(path, what)| (real(path), what)).collect();
    let data = real(ground.data.to_owned());
    for rule in service.files().iter().filter(|rule| rule.write) {
        let path = real(ground.folder.join(&rule.path));
        let covered = kept.iter().find(|(kept, _)| kept.starts_with(&path)).map(|(_, what)| *what);
        let what = if path.starts_with(&data) { Some("the data directory") } else { covered };
        if let Some(what) = what {
            let (position, service) = (rule.position.to_string(), service.name.clone());
            return Err(SpecError::OwnFence { position, service, path, what });
        }
    }
    Ok(())
}

/// The fence's folder is shown without the fence. What is declared beyond it is shown as it is, and must not hold the fence.
fn refuse_reading_fence(ground: &Ground<'_>, fence: &Fence, service: &Service) -> Result<(), SpecError> {
    let real = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
    let folder = real(ground.folder.to_owned());
    let files: Vec<_> = fence_files(ground, fence).into_iter().map(real).collect();
    for rule in service.files() {
        let path = real(ground.folder.join(&rule.path));
        let around = folder.starts_with(&path);
        if files.iter().any(|file| file.starts_with(&path) && !(around && file.parent() == Some(&folder))) {
            let (position, service) = (rule.position.to_string(), service.name.clone());
            return Err(SpecError::ReadsFence { position, service, path });
        }
    }
    Ok(())
}

fn fence_files(ground: &Ground<'_>, fence: &Fence) -> Vec<PathBuf> {
    fence.files.iter().map(|file| ground.folder.join(&*file.name)).collect()
}

/// The gateway's private key and what proves who we are at providers, where they lie among what every service sees: each its
/// folder, so that a renewed one is hidden too, unless that is the fence's own or holds the service's program.
fn keys(ground: &Ground<'_>, fence: &Fence, command: &[String]) -> Vec<PathBuf> {
    let gateway = match fence.gateway.as_ref().map(|g| &g.tls) {
        Some(GatewayTls::Files { key, .. }) => Some(key),
        _ => None,
    };
    let proofs = fence.providers.iter().filter_map(|provider| provider.client.as_ref()?.proof.as_ref());
    let files = proofs.filter_map(|proof| match proof {
        ClientProof::SecretFile(file) | ClientProof::Key(file) => Some(file),
        ClientProof::SecretEnv(_) => None,
    });
    let program = command.first().map(Path::new);
    let hidden = |file: &PathBuf| {
        let file = ground.folder.join(file);
        let folder = file.parent().filter(|folder| {
            folder.starts_with(ground.folder)
                && *folder != ground.folder
                && !program.is_some_and(|p| p.starts_with(folder))
        });
        folder.map_or_else(|| file.clone(), Path::to_owned)
    };
    gateway.into_iter().chain(files).map(hidden).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Looks a program up beside the fence, then beside the `ringfence` binary, then on the `PATH`.
pub(crate) fn find(ground: &Ground<'_>, program: &str) -> Option<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_of(folder: &Path, extra: &str, gateway: &str) -> Result<Spec, SpecError> {
        let text = format!(
            "fence: clinic\ntrust_domain: clinic.example\ngateway: {{ listen: 127.0.0.1:8443{gateway} }}\nservices:\n  \
             portal: {{ run: [/bin/true], listen: 9000, routes: [{{ path: / }}]{extra} }}\n"
        );
        std::fs::write(folder.join("ringfence.yaml"), &text).unwrap();
        let fence = Fence::parse(vec![("ringfence.yaml", &*text)]).unwrap_or_else(|d| panic!("{d}"));
        let service = fence.service("portal").unwrap();
        let applied = Applied { revision: 1, services: vec![("portal".into(), 1)], egress: Vec::new() };
        let data = folder.join(".ringfence");
        let ground = Ground {
            folder,
            data: &data,
            binaries: Path::new("/usr/bin"),
            path: &[],
            isolation: Isolation::On,
            root: false,
        };
        spec(&ground, &fence, &applied, service, command(service).unwrap())
    }

    #[test]
    fn every_service_finds_its_own_sidecar() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec_of(dir.path(), "", "").unwrap();
        assert_eq!(spec.env["RINGFENCE_URL"], "http://ringfence.internal");
        assert_eq!(spec.hosts["ringfence.internal"], OWN_IP);
        assert!(spec.ports.contains(&80) && spec.ports.contains(&8500));
        // On the common loopback it is an address, and listened for.
        let fence =
            Fence::parse(vec![("f", "fence: t\ntrust_domain: t.example\nservices: { portal: {} }\n")])
                .unwrap();
        let applied = Applied { revision: 1, services: vec![("portal".into(), 1)], egress: Vec::new() };
        let portal = fence.service("portal").unwrap();
        let own = hosts(Isolation::Off, &applied, portal)["ringfence.internal"];
        assert!(own.is_loopback());
        let listeners = listeners(Isolation::Off, &fence, &applied, portal);
        let found = listeners.iter().find(|listen| listen.port == 80).unwrap();
        assert_eq!((found.bound, &*found.addresses), (20_080, &[own][..]));
        assert!(!listeners.iter().any(|listen| listen.port == 8500), "the common loopback proves nobody");
    }

    #[test]
    fn no_service_may_write_its_own_fence() {
        let dir = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(dir.path()).unwrap();
        for own in ["data", ".ringfence/logs", "tls"] {
            std::fs::create_dir_all(folder.join(own)).unwrap();
        }
        std::os::unix::fs::symlink(&folder, folder.join("data/around")).unwrap();
        let parent = folder.parent().unwrap().display().to_string();
        for path in [".", "ringfence.yaml", ".ringfence", ".ringfence/logs", "data/around", "/", &parent] {
            let refused = spec_of(&folder, &format!(", files: [{{ path: {path:?}, write: true }}]"), "");
            assert!(matches!(refused, Err(SpecError::OwnFence { .. })), "{path}: {refused:?}");
        }
        let files = ", tls: { cert: tls/cert.pem, key: tls/key.pem }";
        assert!(spec_of(&folder, ", files: [{ path: tls, write: true }]", files).is_err());
        assert!(spec_of(&folder, ", files: [{ path: data, write: true }, .]", "").is_ok());
    }

    #[test]
    fn no_service_may_be_given_the_fence_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = std::fs::canonicalize(dir.path()).unwrap();
        std::fs::create_dir(folder.join("data")).unwrap();
        std::os::unix::fs::symlink("../ringfence.yaml", folder.join("data/link")).unwrap();
        for path in ["ringfence.yaml", "data/link", "./ringfence.yaml"] {
            let refused = spec_of(&folder, &format!(", files: [{path:?}]"), "");
            assert!(matches!(refused, Err(SpecError::ReadsFence { .. })), "{path}: {refused:?}");
        }
        let parent = folder.parent().unwrap();
        let spec = spec_of(&folder, &format!(", files: [data, ., {parent:?}]"), "").unwrap();
        assert_eq!(spec.fence, [folder.join("ringfence.yaml")]);
    }

    #[test]
    fn the_gateway_s_key_is_hidden_from_services() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = |key: &str| {
            let gateway = format!(", tls: {{ cert: cert.pem, key: {key} }}");
            spec_of(dir.path(), "", &gateway).unwrap().hide
        };
        assert_eq!(hidden("tls/key.pem"), [dir.path().join("tls")]);
        assert_eq!(hidden("key.pem"), [dir.path().join("key.pem")]);
        assert!(spec_of(dir.path(), "", "").unwrap().hide.is_empty());
    }

    #[test]
    fn what_proves_who_we_are_at_providers_is_hidden_from_services() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = |proof: &str| {
            let client = format!("{{ issuer: https://a.example, client: {{ id: t, {proof} }} }}");
            spec_of(dir.path(), "", &format!(" }}\nproviders: {{ a: {client}")).unwrap().hide
        };
        assert_eq!(hidden("secret: { file: secrets/a }"), [dir.path().join("secrets")]);
        assert_eq!(hidden("key: { file: a.pem }"), [dir.path().join("a.pem")]);
        assert_eq!(hidden("secret: { env: A }"), [""; 0].map(PathBuf::from));
    }
}
