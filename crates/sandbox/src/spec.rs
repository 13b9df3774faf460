//! What a service is started with: the whole input of a shim.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::SandboxError;

/// Most ports that a service's callees may have together: each costs two instructions of the sink's filter.
pub const MAX_PORTS: usize = 512;
/// Most names in a hosts file.
pub const MAX_HOSTS: usize = 20_000;
/// Uid and gid of a service inside the range that it gets as root.
pub const SERVICE_ID: u32 = 1000;

/// Everything a shim needs to know about its service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the service: a DNS label.
    pub service: String,
    /// Program (a path, or a name looked up on the `PATH` of `env`) and arguments.
    pub command: Vec<String>,
    /// The whole environment, but for `SPIFFE_ENDPOINT_SOCKET`, which the shim adds.
    pub env: BTreeMap<String, String>,
    /// Port on which the service listens inside its network.
    pub listen: Option<u16>,
    /// Ports at which callees and egress hosts are reached.
    pub ports: BTreeSet<u16>,
    /// Hosts file: name to address.
    pub hosts: BTreeMap<String, Ipv4Addr>,
    /// What it may read and write beyond the system's files and the fence's folder.
    pub files: Vec<FileRule>,
    /// The fence's folder, its working folder; absolute.
    pub folder: PathBuf,
    /// The data directory, absolute: `run/shim`, `logs` and `events` are used, and the service sees none of it.
    pub data: PathBuf,
    /// More that the service must not see: folders appear empty, files appear empty.
    #[serde(default)]
    pub hide: Vec<PathBuf>,
    /// The fence's own files, in its folder: they appear empty, their copies beside them do not appear.
    #[serde(default)]
    pub fence: Vec<PathBuf>,
    /// The uids and gids that are its own; needed as root, impossible otherwise.
    pub uids: Option<UidRange>,
    /// How it shows that it is ready.
    #[serde(default)]
    pub ready: Ready,
    /// When it is started again.
    #[serde(default)]
    pub restart: Restart,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    #[serde(default = "default_grace")]
    pub grace_ms: u64,
    /// Whether to isolate at all.
    #[serde(default)]
    pub isolation: Isolation,
}

/// A path that a service may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// File or folder, absolute.
    pub path: PathBuf,
    /// Writing too.
    pub write: bool,
}

/// A range of uids (and the same gids) of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UidRange {
    /// First uid of the host.
    pub base: u32,
    /// How many.
    pub count: u32,
}

/// How a service shows that it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ready {
    /// It accepts a connection on its port; ready at once if it has none.
    #[default]
    Tcp,
    /// It answers `GET PATH` with 2xx or 3xx.
    Http {
        /// The path.
        path: String,
    },
    /// It is ready when it runs.
    Started,
}

/// When a service is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// `false`: an exit is final.
    pub enabled: bool,
    /// First pause, in milliseconds; doubled at each exit.
    pub first_ms: u64,
    /// Longest pause, in milliseconds.
    pub longest_ms: u64,
    /// A run of this many milliseconds resets the pause.
    pub stable_ms: u64,
}

/// Whether a service is isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// In its own namespaces.
    #[default]
    On,
    /// As a plain process, still under Landlock and seccomp; its callees' addresses must then be 127.0.0.0/8 ones of its own.
    Off,
}

impl Default for Restart {
    fn default() -> Self {
        Self { enabled: true, first_ms: 500, longest_ms: 30_000, stable_ms: 10_000 }
    }
}

impl Restart {
    /// The pause after the `failures`-th exit in a row (from 1).
    pub fn pause(&self, failures: u32) -> Duration {
        let factor = 1u64.checked_shl(failures.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
        Duration::from_millis(self.first_ms.saturating_mul(factor).min(self.longest_ms))
    }
}

const fn default_grace() -> u64 {
    10_000
}

impl Spec {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// Says which field is wrong and why.
    pub fn validate(&self) -> Result<(), SandboxError> {
        let refuse = |why: String| Err(SandboxError::Spec(format!("service {:?}: {why}", self.service)));
        if !is_label(&self.service) {
            return refuse("its name is not a DNS label (a-z, 0-9 and -, at most 63)".into());
        }
        if self.command.first().is_none_or(String::is_empty) {
            return refuse("it has no command".into());
        }
        if self.ports.len() > MAX_PORTS {
            return refuse(format!("its callees use {} ports; {MAX_PORTS} are possible", self.ports.len()));
        }
        check_hosts(&self.hosts).or_else(refuse)?;
        let paths = [&self.folder, &self.data]
            .into_iter()
            .chain(&self.hide)
            .chain(&self.fence)
            .chain(self.files.iter().map(|f| &f.path));
        for path in paths {
            if !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir) {
                return refuse(format!("{} is not an absolute path without `..`", path.display()));
            }
        }
        if self.restart.enabled && self.restart.first_ms < 10 {
            return refuse("the first pause before a restart must be 10ms or longer".into());
        }
        match self.uids {
            Some(range) if range.base == 0 || range.count <= SERVICE_ID => {
                refuse(format!("its uid range must not start at 0 and must have more than {SERVICE_ID} uids"))
            }
            Some(range) if range.base.checked_add(range.count).is_none() => {
                refuse("its uid range is too high".into())
            }
            _ => Ok(()),
        }
    }

    /// Identifies a spec, so that a supervisor sees whether a running shim has this one or an older one (FNV-1a; not a
    /// protection). Leaves out what changes live, and the addresses of callees in the environment, which are conveniences that
    /// the next start brings up to date: a new edge must not restart its caller. Nor must a new fragment of the fence, which a
    /// running service does not see anyhow.
    pub fn digest(&self) -> String {
        let mut lasting = self.clone();
        lasting.hosts.clear();
        lasting.ports.clear();
        lasting.fence.clear();
        lasting.env.retain(|name, _| !name.starts_with("RINGFENCE_"));
        let json = serde_json::to_vec(&lasting).unwrap_or_default();
        let hash = json
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}")
    }
}

/// Hosts files are small and hold no surprise: names are lower-case DNS names.
pub(crate) fn check_hosts(hosts: &BTreeMap<String, Ipv4Addr>) -> Result<(), String> {
    if hosts.len() > MAX_HOSTS {
        return Err(format!("{} hosts are too many; {MAX_HOSTS} are possible", hosts.len()));
    }
    match hosts.keys().find(|name| name.len() > 253 || !name.split('.').all(is_label)) {
        Some(name) => Err(format!("{name:?} is not a host name")),
        None => Ok(()),
    }
}

/// Text of a hosts file.
pub(crate) fn hosts_file(service: &str, hosts: &BTreeMap<String, Ipv4Addr>) -> String {
    let mut text = format!("127.0.0.1 localhost {service}\n::1 localhost ip6-localhost\n");
    for (name, address) in hosts {
        text.push_str(&format!("{address} {name}\n"));
    }
    text
}

fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            service: "portal".into(),
            command: vec!["portal".into()],
            env: BTreeMap::new(),
            listen: Some(80),
            ports: [80].into(),
            hosts: [("patients".to_owned(), Ipv4Addr::new(198, 18, 1, 1))].into(),
            files: Vec::new(),
            folder: "/srv/clinic".into(),
            data: "/srv/clinic/.ringfence".into(),
            hide: Vec::new(),
            fence: Vec::new(),
            uids: None,
            ready: Ready::Tcp,
            restart: Restart::default(),
            grace_ms: 1000,
            isolation: Isolation::On,
        }
    }

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let restart = Restart { enabled: true, first_ms: 100, longest_ms: 1000, stable_ms: 0 };
        let pauses: Vec<_> = (1..=6).map(|n| restart.pause(n).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(restart.pause(u32::MAX).as_millis(), 1000);
    }

    #[test]
    fn what_would_escape_a_file_or_a_range_is_refused() {
        assert!(spec().validate().is_ok());
        let wrong: [fn(&mut Spec); 8] = [
            |s| s.restart.first_ms = 0,
            |s| s.service = "../x".into(),
            |s| s.command.clear(),
            |s| s.folder = "relative".into(),
            |s| s.files.push(FileRule { path: "/a/../b".into(), write: true }),
            |s| s.uids = Some(UidRange { base: 0, count: 65536 }),
            |s| s.uids = Some(UidRange { base: u32::MAX - 10, count: 65536 }),
            |s| s.hosts.extend([("a\n1.2.3.4 b".into(), Ipv4Addr::LOCALHOST)]),
        ];
        for (n, change) in wrong.iter().enumerate() {
            let mut spec = spec();
            change(&mut spec);
            assert!(spec.validate().is_err(), "case {n}");
        }
    }

    #[test]
    fn a_changed_spec_has_another_digest() {
        let mut other = spec();
        other.listen = Some(81);
        assert_ne!(spec().digest(), other.digest());
        let mut live = spec();
        live.ports.insert(9001);
        live.hosts.clear();
        live.fence.push("/srv/clinic/billing.yaml".into());
        live.env.insert("RINGFENCE_PATIENTS_URL".into(), "http://patients".into());
        assert_eq!(spec().digest(), live.digest(), "what changes live needs no restart");
        let again: Spec = serde_json::from_str(&serde_json::to_string(&spec()).unwrap()).unwrap();
        assert_eq!(again.digest(), spec().digest());
    }
}
