//! What can be seen without anything running: the fence, this machine, the data directory.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ringfence_model::{ExternalTls, Fence, GatewayTls, Kind, Mode};
use ringfence_sandbox::spec::Isolation;
use rustix::process::{Resource, geteuid, getrlimit};

use super::{Findings, Patient, folder};
use crate::up::spec::{Ground, command, find};

/// The oldest kernel that has what confinement needs.
const KERNEL: (u32, u32) = (5, 13);
/// Descriptors that a busy proxy wants.
const FILES: u64 = 65_536;
/// Space that is little, and that is as good as none, in MiB.
const LITTLE: u64 = 1024;
const NONE: u64 = 128;

pub(super) fn fence(path: &Path, findings: &mut Findings) -> Option<Fence> {
    match Fence::load(path) {
        Ok(fence) if fence.warnings.is_empty() => {
            findings.ok("fence", format!("{}: {} services", fence.name, fence.services.len()));
            Some(fence)
        }
        Ok(fence) => {
            let seen = format!("{}: {} warnings", fence.name, fence.warnings.len());
            findings.warn("fence", seen, "ringfence check shows them");
            Some(fence)
        }
        Err(diagnostics) => {
            let first = diagnostics.errors.first();
            let seen = first.map_or_else(String::new, |e| format!("{}: {}", e.position, e.message));
            findings.fail("fence", seen, "ringfence check shows every error and what to do");
            None
        }
    }
}

pub(super) fn look(patient: &Patient<'_>, findings: &mut Findings) {
    if let Some(fence) = patient.fence {
        protections(fence, findings);
        programs(patient, fence, findings);
        if !patient.data.join("control.sock").exists() {
            listeners(patient, fence, findings);
        }
    }
    kernel(findings);
    isolation(findings);
    open_files(findings);
    data_folder(patient.data, findings);
    disk_space(patient.data, findings);
    master_key(patient.data, findings);
}

fn protections(fence: &Fence, findings: &mut Findings) {
    let mut weak = Vec::new();
    match fence.waf.as_ref().map(|waf| waf.mode) {
        Some(Mode::Off) => weak.push("attacks are not looked for (`waf: off`)".to_owned()),
        Some(Mode::Observe) => weak.push("attacks are seen and let through (`waf: observe`)".to_owned()),
        _ => {}
    }
    if let Some(gateway) = fence.gateway.as_ref().filter(|gateway| gateway.tls == GatewayTls::Off)
        && gateway.listen.iter().any(|address| !address.ip().is_loopback())
    {
        weak.push("the gateway speaks plain text to the network".to_owned());
    }
    for service in &fence.services {
        if let Kind::External { address, more, tls: ExternalTls::Off } = &service.kind {
            for address in [address].into_iter().chain(more) {
                let loopback = address.host == "localhost"
                    || address.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
                if !loopback {
                    weak.push(format!("{} is reached in plain text at {address}", service.name));
                }
            }
        }
    }
    if weak.is_empty() {
        findings.ok("protections", "none is switched off");
    } else {
        findings.warn("protections", weak.join("; "), "switch on what is not meant to be off");
    }
}

fn programs(patient: &Patient<'_>, fence: &Fence, findings: &mut Findings) {
    let (at, binary) = (folder(patient.path), std::env::current_exe().unwrap_or_default());
    let at = std::fs::canonicalize(&at).unwrap_or(at);
    let ground = Ground {
        folder: &at,
        data: patient.data,
        binaries: binary.parent().unwrap_or_else(|| Path::new("/")),
        path: &patient.env.path,
        isolation: Isolation::On,
        root: geteuid().is_root(),
    };
    let here =
        |s: &&ringfence_model::Service| patient.host.as_deref().is_none_or(|host| fence.runs_at(&s.at, host));
    let run = fence.services.iter().filter(here).filter_map(|s| Some((s, command(s)?.first()?)));
    let (mut found, mut missing) = (0, Vec::new());
    for (service, program) in run {
        match find(&ground, program) {
            Some(_) => found += 1,
            None => missing.push(format!("{program} of {} ({})", service.name, service.position)),
        }
    }
    if missing.is_empty() {
        findings.ok("programs", format!("{found} found"));
    } else {
        let next = "put them beside the fence or on the PATH, and make them executable";
        findings.fail("programs", format!("not found: {}", missing.join(", ")), next);
    }
}

/// Those of this host can be bound, as they are when `up` starts.
fn listeners(patient: &Patient<'_>, fence: &Fence, findings: &mut Findings) {
    let here = |at: &[String]| patient.host.as_deref().is_none_or(|host| fence.runs_at(at, host));
    let gateway = fence.gateway.iter().filter(|g| here(&g.at)).flat_map(|g| g.listen.iter().copied());
    let host = patient.host.as_deref().and_then(|name| fence.host(name));
    let mesh = host.into_iter().flat_map(|host| std::iter::once(host.mesh).chain(host.control));
    let metrics = fence.metrics.iter().map(|metrics| metrics.listen);
    let wanted: Vec<SocketAddr> = gateway.chain(mesh).chain(metrics).collect();
    for address in &wanted {
        let Err(e) = TcpListener::bind(address) else { continue };
        let next = match e.kind() {
            io::ErrorKind::AddrInUse => {
                format!("find who has it (ss -ltnp 'sport = :{}'), or name another port", address.port())
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address: give it one, or name another".to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need root, CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start"
                    .to_owned()
            }
            _ => "see what the system says".to_owned(),
        };
        findings.fail("listeners", format!("{address} cannot be bound: {e}"), next);
    }
    if !findings.has("listeners") {
        findings.ok("listeners", format!("{} addresses are free", wanted.len()));
    }
}

fn kernel(findings: &mut Findings) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL {
        let next = format!("run a Linux of {}.{} or later", KERNEL.0, KERNEL.1);
        findings.fail("kernel", format!("Linux {release} has no Landlock"), next);
    } else {
        findings.ok("kernel", format!("Linux {release}"));
    }
}

fn isolation(findings: &mut Findings) {
    let probe = ringfence_sandbox::probe();
    match probe.missing {
        None => findings.ok("isolation", "a trial process could be isolated"),
        Some(missing) => findings.fail("isolation", missing, probe.advice.join("\n")),
    }
}

fn open_files(findings: &mut Findings) {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most < FILES {
        let next = format!("raise it: LimitNOFILE={FILES} in the unit, or `ulimit -Hn {FILES}`");
        findings.warn("open-files", format!("at most {most} per process"), next);
    } else {
        findings.ok("open-files", format!("up to {most} per process"));
    }
}

fn data_folder(data: &Path, findings: &mut Findings) {
    let metadata = match std::fs::metadata(data) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return findings
                .unknown("data-folder", format!("{} is not there: nothing was started yet", data.display()));
        }
        Err(e) => {
            let next = "run as the user who owns it";
            return findings.fail("data-folder", format!("{}: {e}", data.display()), next);
        }
    };
    let (mode, owner, us) = (metadata.mode() & 0o777, metadata.uid(), geteuid().as_raw());
    if owner != us && us != 0 {
        let seen = format!("{} belongs to user {owner}, and we are {us}", data.display());
        return findings.fail("data-folder", seen, "run as that user, or name another with --data DIR");
    }
    if mode & 0o077 != 0 {
        let seen = format!("{} has mode {mode:o}: others may look in", data.display());
        return findings.fail("data-folder", seen, format!("chmod 700 {}", data.display()));
    }
    findings.ok("data-folder", format!("{}, mode {mode:o}", data.display()));
}

fn disk_space(data: &Path, findings: &mut Findings) {
    let there = data.ancestors().find(|path| path.exists()).unwrap_or(data);
    let Ok(system) = rustix::fs::statvfs(there) else {
        return findings.unknown("disk-space", format!("{} cannot be looked at", there.display()));
    };
    let free = system.f_bavail.saturating_mul(system.f_frsize) >> 20;
    let seen = format!("{free} MiB are free for {}", data.display());
    let next = "free some: what cannot be written is not issued, and events are lost";
    match free {
        0..NONE => findings.fail("disk-space", seen, next),
        NONE..LITTLE => findings.warn("disk-space", seen, next),
        _ => findings.ok("disk-space", seen),
    }
}

fn master_key(data: &Path, findings: &mut Findings) {
    let path = data.join("master.key");
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            findings.ok("master-key", "no plain key lies in the data directory");
        }
        Err(e) => findings.unknown("master-key", format!("{}: {e}", path.display())),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let seen =
                format!("{} has mode {:o}: others may read it", path.display(), metadata.mode() & 0o777);
            let next = format!("chmod 600 {}, and take it for known: use another master key", path.display());
            findings.fail("master-key", seen, next);
        }
        Ok(_) => {
            let next = "for more than a first try start with --master passphrase or --master credential";
            findings.warn("master-key", format!("it is a plain file, {}", path.display()), next);
        }
    }
}
