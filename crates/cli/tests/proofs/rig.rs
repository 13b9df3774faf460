//! The real keeper and control, started as `up` starts them and confined as always; the test plays `up`, and whoever else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringfence_channel::{BlockingChannel, cloexec_pair};
use ringfence_control::supervisor::{Beside, FromControl, ToControl};
use ringfence_keeper::Supervised;
use ringfence_keeper::protocol::Start;
use ringfence_keys::{Algorithm, MasterSource, SigningKey, possession};
use ringfence_oidc::protocol::{FromFederation, ToFederation};
use ringfence_snapshot::node::{Ask, FromProxy, Issued, NoAnswer, Subject, ToProxy, Told};
use ringfence_snapshot::{Der, SignedSnapshot};
use serde_json::Value;

use crate::running::{eventually, text};

/// A gateway, two services of this host, one elsewhere that is called in clear, and one that proves itself.
pub(crate) const FENCE: &str = "
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443, hosts: [clinic.example] }
services:
  portal: { run: [portal], listen: 9000, routes: [{ path: / }], calls: [billing, legacy, partner] }
  billing: { run: [billing], listen: 9003 }
external:
  legacy: { address: '127.0.0.1:9', port: 9010 }
  partner: { address: '127.0.0.1:9', port: 9011, tls: spiffe }
";
pub(crate) const PORTAL: &str = "spiffe://clinic.example/service/portal";
pub(crate) const BILLING: &str = "spiffe://clinic.example/service/billing";
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory with a keeper.
pub(crate) struct Rig {
    pub(crate) data: PathBuf,
    pub(crate) keeper: Process,
    pub(crate) supervised: Supervised,
}

/// A process that ends with this.
pub(crate) struct Process(Child);

/// Control, and what it said of its fence.
pub(crate) struct Control {
    pub(crate) process: Process,
    channel: BlockingChannel<ToControl, FromControl>,
    introductions: std::cell::Cell<u64>,
}

/// The node's end of its channel to control.
pub(crate) struct Node {
    channel: BlockingChannel<FromProxy, ToProxy>,
    last: std::cell::Cell<u64>,
}

/// A request for a certificate, as a node makes it.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) subject: Subject,
    pub(crate) spki: Der,
    pub(crate) proof: Der,
}

impl Rig {
    pub(crate) fn new(name: &str) -> Self {
        let data = std::env::temp_dir().join(format!("ringfence-proofs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&data);
        for folder in ["keeper", "control", "events", "proxy"] {
            std::fs::create_dir_all(data.join(folder)).unwrap();
        }
        let (keeper, socket) = Process::start("keeper");
        Self { supervised: Supervised::start(socket, start(&data)).unwrap(), keeper, data }
    }

    /// The keeper is killed, `meanwhile` happens, and it is started again.
    pub(crate) fn restart_keeper(&mut self, meanwhile: impl FnOnce()) {
        self.keeper.end();
        meanwhile();
        let (keeper, socket) = Process::start("keeper");
        self.supervised = Supervised::start(socket, start(&self.data)).unwrap();
        self.keeper = keeper;
    }

    /// Control with the fence in force.
    pub(crate) fn control(&self) -> Control {
        let (process, socket) = Process::start("control");
        let path = self.data.join("control.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let channel = BlockingChannel::new(socket);
        channel.set_timeout(Some(PATIENCE)).unwrap();
        let start = ToControl::Start { data: self.data.clone(), svid_life: 3600, store: None };
        channel.send(&start, &[listener.as_fd()]).unwrap();
        let control = Control { process, channel, introductions: std::cell::Cell::new(0) };
        control.keeper(self);
        control.offer(FENCE).unwrap();
        control
    }

    /// Refusals among the events of control, by the name that was asked for.
    pub(crate) fn refused(&self, name: &str) -> bool {
        let path = self.data.join("events/control/control.jsonl");
        let found = eventually(Duration::from_secs(60), || {
            let events = std::fs::read_to_string(&path).unwrap_or_default();
            let mut events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.any(|e| e["entity"]["name"] == name && e["action_id"] == 2).then_some(())
        });
        found.is_some()
    }
}

fn start(data: &Path) -> Start {
    Start {
        master: MasterSource::KeyFile { path: data.join("master.key") },
        fence: "clinic".into(),
        trust_domain: "clinic.example".into(),
        data: data.to_owned(),
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

impl Process {
    fn start(role: &str) -> (Self, UnixStream) {
        let (ours, theirs) = cloexec_pair().unwrap();
        let child = Command::new(Path::new(env!("CARGO_BIN_EXE_ringfence")))
            .arg(role)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        (Self(child), ours)
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Kilobytes of memory in use.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Control {
    /// Makes the keeper known to it.
    pub(crate) fn keeper(&self, rig: &Rig) {
        let keeper = rig.supervised.introduce_control().unwrap();
        self.channel.send(&ToControl::Keeper, &[keeper.as_fd()]).unwrap();
    }

    /// The test plays the process that speaks with providers.
    pub(crate) fn federation(&self) -> BlockingChannel<FromFederation, ToFederation> {
        let (ours, theirs) = cloexec_pair().unwrap();
        self.channel.send(&ToControl::Federation, &[theirs.as_fd()]).unwrap();
        let channel = BlockingChannel::new(ours);
        channel.send(&FromFederation::Ready, &[]).unwrap();
        channel
    }

    pub(crate) fn offer(&self, fence: &str) -> Result<(), String> {
        let files = vec![("ringfence.yaml".to_owned(), fence.to_owned())];
        self.channel
            .send(
                &ToControl::Fence {
                    files,
                    policies: Ok(None),
                    beside: Ok(Beside::default()),
                    content: Ok(Vec::new()),
                },
                &[],
            )
            .unwrap();
        loop {
            match self.channel.recv().unwrap().0 {
                FromControl::Fence(outcome) => return outcome.map(drop),
                FromControl::Fatal(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }

    /// Waits until control says that the last channel of the node ended; with what nonsense, if any.
    pub(crate) fn lost(&self) -> Option<String> {
        loop {
            if let FromControl::NodeLost { introduction, nonsense } = self.channel.recv().unwrap().0
                && introduction == self.introductions.get()
            {
                return nonsense;
            }
        }
    }

    /// A new channel for the node.
    pub(crate) fn node(&self) -> Node {
        let (ours, theirs) = cloexec_pair().unwrap();
        self.introductions.update(|n| n + 1);
        let proxy = ToControl::Proxy { node: "local".into(), introduction: self.introductions.get() };
        self.channel.send(&proxy, &[theirs.as_fd()]).unwrap();
        let channel = BlockingChannel::new(ours);
        channel.set_timeout(Some(PATIENCE)).unwrap();
        let node = Node { channel, last: std::cell::Cell::new(0) };
        node.send(&FromProxy::Hello { version: "1".into(), seen: (0, 0), content: Vec::new() });
        node
    }
}

impl Node {
    pub(crate) fn send(&self, message: &FromProxy) {
        self.channel.send(message, &[]).unwrap();
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        self.channel.socket()
    }

    /// The next snapshot that control sends.
    pub(crate) fn snapshot(&self) -> SignedSnapshot {
        loop {
            if let ToProxy::Snapshot(signed) = self.channel.recv().unwrap().0 {
                return signed;
            }
        }
    }

    /// Asks, and waits for the answer to that question.
    pub(crate) fn ask(&self, wish: &Wish) -> Result<Issued, String> {
        let request = self.request(wish);
        loop {
            if let ToProxy::Signed { request: answered, outcome } = self.channel.recv().unwrap().0
                && answered == request
            {
                return outcome;
            }
        }
    }

    /// Asks something on behalf of a request, and waits for the answer.
    pub(crate) fn question(&self, ask: Ask) -> Result<Told, NoAnswer> {
        let request = self.last.get() + 1;
        self.last.set(request);
        self.send(&FromProxy::Ask { request, ask });
        loop {
            if let ToProxy::Answer { request: answered, outcome } = self.channel.recv().unwrap().0
                && answered == request
            {
                return outcome;
            }
        }
    }

    /// Asks only.
    pub(crate) fn request(&self, wish: &Wish) -> u64 {
        let request = self.last.get() + 1;
        self.last.set(request);
        let Wish { subject, spki, proof } = wish.clone();
        self.send(&FromProxy::Sign { request, subject, spki, proof });
        request
    }
}

impl Wish {
    /// An honest request for whatever `id` is.
    pub(crate) fn svid(id: &str) -> (Self, SigningKey) {
        let key = SigningKey::generate(Algorithm::P256).unwrap();
        (Self::with(Subject::Svid(id.into()), id, &key), key)
    }

    pub(crate) fn serving(hosts: &[&str]) -> Self {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let proven = ringfence_keeper::protocol::serving_subject(&hosts);
        Self::with(Subject::Serving(hosts), &proven, &SigningKey::generate(Algorithm::P256).unwrap())
    }

    /// A request for `subject` with a proof over `proven`.
    pub(crate) fn with(subject: Subject, proven: &str, key: &SigningKey) -> Self {
        let spki = Der(key.verifying_key().to_spki());
        Self { subject, spki, proof: Der(possession::prove(key, proven).unwrap()) }
    }
}

/// What OpenSSL reads in a certificate.
pub(crate) fn openssl(certificate: &Der, options: &[&str]) -> String {
    let path = std::env::temp_dir().join(format!(
        "ringfence-proof-{}-{:?}.der",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, &certificate.0).unwrap();
    let output = Command::new("openssl")
        .args(["x509", "-inform", "der", "-noout", "-in"])
        .arg(&path)
        .args(options)
        .output()
        .unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
