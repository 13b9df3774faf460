//! Whether isolation is possible here, found by doing: `unshare` alone proves nothing, since on some systems it succeeds and
//! gives no capabilities.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use ringfence_channel::sys;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

use crate::netlink::Netlink;
use crate::shim::Identity;
use crate::spec::UidRange;
use crate::{SandboxError, error::Context as _, role};

/// Uids for a trial as root; nobody runs with them.
const TRIAL: UidRange = UidRange { base: 2_000_000_000, count: 65_536 };

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What failed; `None` if isolation is possible.
    pub missing: Option<String>,
    /// How to allow it, one step a line, most likely first.
    pub advice: Vec<String>,
}

impl Probe {
    /// Whether services can be isolated.
    pub fn is_possible(&self) -> bool {
        self.missing.is_none()
    }
}

/// Tries everything that isolation needs, in a child that leaves nothing behind.
pub fn probe() -> Probe {
    match attempt() {
        Ok(()) => Probe { missing: None, advice: Vec::new() },
        Err(missing) => {
            let advice = advice(&System::read());
            Probe { missing: Some(missing), advice }
        }
    }
}

fn attempt() -> Result<(), String> {
    let (mut command, ours) = role::command(role::PROBE).map_err(|e| e.to_string())?;
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start a trial process: {e}"))?;
    drop(ours);
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // Its one line of error; more would be somebody else's.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if said.is_empty() => Err(format!("a trial process ended with {status}")),
        Ok(_) => Err(said.trim().trim_start_matches("ringfence: ").to_owned()),
        Err(e) => Err(format!("cannot wait for a trial process: {e}")),
    }
}

/// The trial: a user namespace, a network with a link that is up, and a child in a PID namespace.
pub(crate) fn main() -> Result<(), SandboxError> {
    let uid = rustix::process::getuid();
    let identity = if uid.is_root() {
        Identity::Range(TRIAL)
    } else {
        Identity::Same { uid: uid.as_raw(), gid: rustix::process::getgid().as_raw() }
    };
    identity.enter()?;
    sys::unshare_namespaces(
        UnshareFlags::NEWNET
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP,
    )
    .step(|| "make network, mount, PID, IPC, UTS and cgroup namespaces".into())?;
    let mut netlink = Netlink::open()?;
    let loopback = netlink.index("lo")?;
    netlink.up(loopback)?;
    let here = fs::File::open("/proc/self/ns/net").step(|| "open a network".into())?;
    netlink.add_veth("trial0", "trial1", std::os::fd::AsFd::as_fd(&here))?;
    crate::capability::pass_on(crate::capability::ARRANGE)?;
    let (mut command, ours) = role::command(role::PROBE_PID1)?;
    let status = command.status().step(|| "start a process in a PID namespace".into())?;
    drop(ours);
    if status.success() { Ok(()) } else { Err(SandboxError::Refused(String::new())) }
}

/// PID 1 of the trial: mounts.
pub(crate) fn pid1() -> Result<(), SandboxError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step(|| "make the mounts private".into())?;
    mount("ringfence", "/tmp", "tmpfs", MountFlags::NOSUID, None)
        .step(|| "mount a folder in memory".into())?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID, None).step(|| "mount /proc".into())?;
    sys::mount_setattr(std::path::Path::new("/tmp"), 1, 0, true)
        .step(|| "make a mount read-only (Linux 5.12 or later)".into())
}

/// What the system says about itself, where it does.
#[derive(Debug, Default)]
struct System {
    apparmor: Option<u64>,
    clone: Option<u64>,
    most: Option<u64>,
    container: bool,
    seccomp: bool,
}

impl System {
    fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            most: number("/proc/sys/user/max_user_namespaces"),
            container: ["/.dockerenv", "/run/.containerenv"].iter().any(|p| fs::exists(p).unwrap_or(false)),
            seccomp: status.lines().any(|l| l.starts_with("Seccomp:") && !l.ends_with('0')),
        }
    }
}

fn advice(system: &System) -> Vec<String> {
    let mut advice = Vec::new();
    if system.apparmor == Some(1) {
        advice.push(
            "AppArmor restricts unprivileged user namespaces: sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, \
             or give the ringfence binary an AppArmor profile with `userns,`"
                .into(),
        );
    }
    if system.clone == Some(0) {
        advice
            .push("user namespaces are for root only: sudo sysctl kernel.unprivileged_userns_clone=1".into());
    }
    if system.most == Some(0) {
        advice.push("user namespaces are switched off: sudo sysctl user.max_user_namespaces=15000".into());
    }
    if system.container || system.seccomp {
        advice.push(
            "this looks like a container whose runtime forbids namespaces: start it with --security-opt \
             seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined"
                .into(),
        );
    }
    advice.push("or run without isolation, at your own risk: ringfence up --isolation off".into());
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_known_obstacle_has_its_own_advice() {
        let open = System { apparmor: Some(0), clone: Some(1), most: Some(100), ..System::default() };
        assert_eq!(advice(&open).len(), 1);
        let ubuntu = System { apparmor: Some(1), ..System::default() };
        assert!(advice(&ubuntu)[0].contains("kernel.apparmor_restrict_unprivileged_userns=0"));
        let debian = System { clone: Some(0), ..System::default() };
        assert!(advice(&debian)[0].contains("kernel.unprivileged_userns_clone=1"));
        let closed = System { most: Some(0), container: true, ..System::default() };
        assert_eq!(advice(&closed).len(), 3);
    }
}
