//! Messages between the supervisor (`up`) and control, and the report that `status` shows.

use std::path::PathBuf;

use ringfence_keys::{MasterSource, Secret, constant_time_eq};
use ringfence_snapshot::{Content, ContentPart, Der, Policies};
use serde::{Deserialize, Serialize};

use crate::home::Chosen;

/// From the supervisor to control.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToControl {
    /// First message, with one descriptor: the listening control socket.
    Start {
        /// The data directory.
        data: PathBuf,
        /// Life of SVIDs in seconds.
        svid_life: u64,
        /// The database that the state is in, unless it is in a file.
        #[serde(default)]
        store: Option<Chosen>,
    },
    /// First message to the stand-in of control on a host that joins, with one descriptor: the listening control socket.
    Member(MemberStart),
    /// With one descriptor: a channel to the keeper. Comes again when the keeper was restarted.
    Keeper,
    /// With one descriptor: a channel to a proxy, speaking `snapshot::node`. Comes again when it was restarted.
    Proxy {
        /// The node's id.
        node: String,
        /// Number of the introduction, for [`FromControl::NodeLost`].
        introduction: u64,
    },
    /// With one descriptor: a channel to the process that speaks with OpenID providers, `ringfence_oidc::protocol`. Comes again
    /// when it was restarted.
    Federation,
    /// With one descriptor: the listening socket of a service's Workload API.
    Workload {
        /// The service.
        service: String,
        /// Inode of the service's network namespace: what callers must prove to live in.
        netns: u64,
    },
    /// A service's shim is gone.
    WorkloadGone {
        /// The service.
        service: String,
    },
    /// A part of a file that a fence to come names.
    Content(ContentPart),
    /// The fence as read from disk; answered by [`FromControl::Fence`].
    Fence {
        /// Name and text of each file.
        files: Vec<(String, String)>,
        /// Its policies and their data, or why they cannot be read.
        policies: Result<Option<Policies>, String>,
        /// What else it names beside itself, or why that cannot be read.
        beside: Result<Beside, String>,
        /// Rules and descriptions that it names, which came before it, in order of name; or why they cannot be read.
        content: Result<Vec<Content>, String>,
    },
    /// To [`FromControl::Attest`]; a caller's pidfd and, if it could be opened, its program come with it.
    Attested {
        /// The question's number.
        id: u64,
        /// Who it is, or why that is not told.
        outcome: Result<Caller, String>,
    },
    /// What runs, whenever it changed.
    Report(Report),
    /// With a descriptor: the listener at which counters are served from now on. Without: they are served no more.
    Metrics,
    /// With a descriptor: the listener that other hosts come to from now on. Without: none is served.
    Hosts {
        /// SubjectPublicKeyInfo of the key that signs snapshots, for hosts that join.
        snapshot_key: Der,
    },
    /// What our own processes use, every few seconds while counters are served: control can look at no other process.
    Usage(Vec<Usage>),
}

/// What a host needs to join, or to come back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberStart {
    /// The data directory.
    pub data: PathBuf,
    /// What opens the host's key.
    pub master: MasterSource,
    /// The join token; none for a host that has joined.
    pub token: Option<Secret<String>>,
}

/// What a fence names beside itself, as read from disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// Providers of which something lies beside it.
    pub providers: Vec<ProviderFiles>,
    /// Authorities of client certificates: the file as the fence names it, and PEM.
    pub authorities: Vec<(String, String)>,
    /// The private authority of the server of entity data, PEM.
    pub entities: Option<String>,
}

/// What lies beside a fence of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderFiles {
    /// The provider.
    pub name: String,
    /// Its private authority, PEM.
    pub ca: Option<String>,
    /// What proves who we are there.
    pub proof: Option<Proof>,
}

/// What proves who we are at a provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A secret, perhaps with the end of its line.
    Secret(Secret<String>),
    /// A private key, PKCS#8 in PEM.
    Key(Secret<String>),
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(a), Self::Secret(b)) | (Self::Key(a), Self::Key(b)) => {
                constant_time_eq(a.expose().as_bytes(), b.expose().as_bytes())
            }
            (Self::Secret(_), Self::Key(_)) | (Self::Key(_), Self::Secret(_)) => false,
        }
    }
}

impl Eq for Proof {}

/// A caller of the Workload API, as the supervisor sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Process number.
    pub pid: u32,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Inode of its network namespace.
    pub netns: u64,
    /// Path of its program, as it sees it.
    pub program: String,
    /// Its control group.
    pub cgroup: String,
}

/// From control to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromControl {
    /// It serves.
    Ready,
    /// This host belongs, and snapshots that this key signed count: SubjectPublicKeyInfo.
    Belongs {
        /// The key.
        snapshot_key: Der,
    },
    /// Control can be spoken with: the proxy is to be introduced, unless that happened since this introduction.
    Introduce {
        /// Which introduction's channel was not taken, or given up.
        introduction: u64,
    },
    /// The serving CA's roots as PEM, for clients of the gateway: to be written where they find it.
    Trust(String),
    /// How the fence was taken.
    Fence(Result<Applied, String>),
    /// With one descriptor: a connection to the Workload API of `service`. Whoever opened it is looked at by the supervisor,
    /// because control, under Landlock, can look at no other process.
    Attest {
        /// Number of the question, for its answer.
        id: u64,
        /// The service.
        service: String,
    },
    /// The channel to a proxy ended. Where the proxy did not end with it, it has to be introduced again.
    NodeLost {
        /// Which introduction's channel it was.
        introduction: u64,
        /// What the proxy said that makes no sense, if it was that: such a process is not to be believed any more.
        nonsense: Option<String>,
    },
    /// Somebody asked over the control socket.
    Command(Command),
    /// What it waits for before it serves.
    Waiting(String),
    /// Control cannot go on; it will exit.
    Fatal(String),
}

/// A fence in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// Its revision.
    pub revision: u64,
    /// Name and address number of each service ([`ringfence_snapshot::service_ip`]).
    pub services: Vec<(String, u16)>,
    /// Egress host and address number ([`ringfence_snapshot::egress_ip`]).
    pub egress: Vec<(String, u16)>,
}

/// What the control socket can ask of the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Restart a service.
    Restart {
        /// Which.
        service: String,
    },
    /// Stop everything.
    Down,
}

/// What runs, as the supervisor sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Name of the fence.
    pub fence: String,
    /// The fence's file or folder.
    pub path: PathBuf,
    /// Where the gateway listens.
    pub gateway: Vec<String>,
    /// Where this host's mesh listener is.
    #[serde(default)]
    pub mesh: String,
    /// `on`, or `off` and why.
    pub isolation: String,
    /// What the operator should know at all times.
    pub warnings: Vec<String>,
    /// The last fence that was refused, if it is newer than the one in force.
    pub rejected: Option<String>,
    /// Ringfence's own processes.
    pub processes: Vec<ProcessReport>,
    /// The services.
    pub services: Vec<ServiceReport>,
}

/// What one process of Ringfence uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// `up`, `keeper`, `control`, `node`, `federation`.
    pub process: String,
    /// Processor time so far in milliseconds, user and system.
    pub cpu_ms: u64,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// One process of Ringfence.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ProcessReport {
    /// `keeper`, `control`, `node`.
    pub name: String,
    /// Process id, 0 while it does not run.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// Unix time in seconds of the last start.
    pub since: u64,
}

/// One service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// `starting`, `ready`, `running`, `exited`, `backoff`, `waiting`, `external`, `stopped`.
    pub state: String,
    /// Details: exit status, seconds until the next start.
    pub detail: String,
    /// Process id of its shim, 0 if there is none.
    pub shim: u32,
    /// Process id of the namespace's init, 0 if there is none.
    pub init: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// `fenced`, `off` or `external`.
    pub isolation: String,
}
