//! A fence for one service, and what every story asks of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringfence_channel::BlockingChannel;
use ringfence_event::{Filter, Record, read_dir};
use ringfence_sandbox::client::{Shim, socket_path};
use ringfence_sandbox::launch;
use ringfence_sandbox::protocol::{Hello, ProxyReply, ProxyRequest, Reply, Request, State};
use ringfence_sandbox::spec::{Isolation, Ready, Restart, Spec, UidRange};

const TURN: &str = "
import os, time
while not os.path.exists('turn/now'): time.sleep(0.02)";

static RANGES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Fence {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Spec,
    child: Option<Child>,
    pub(crate) hello: Option<Hello>,
}

impl Fence {
    /// A service that runs a Python script.
    pub(crate) fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("clinic");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let uids = rustix::process::getuid().is_root().then(|| UidRange {
            base: 1_000_000_000 + 65_536 * RANGES.fetch_add(1, Ordering::Relaxed),
            count: 65_536,
        });
        let spec = Spec {
            service: "portal".into(),
            command: ["/usr/bin/python3", "-u", "-c", script].map(String::from).into(),
            env: [("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())].into(),
            listen: None,
            ports: [80, 9001].into(),
            hosts: [("patients".to_owned(), Ipv4Addr::new(198, 18, 1, 1))].into(),
            files: Vec::new(),
            data: folder.join(".ringfence"),
            folder,
            hide: Vec::new(),
            fence: Vec::new(),
            uids,
            ready: Ready::Tcp,
            restart: Restart { enabled: false, ..Restart::default() },
            grace_ms: 2000,
            isolation: Isolation::On,
        };
        Self { dir, spec, child: None, hello: None }
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) fn up(mut self) -> Self {
        let launched = launch(&self.spec).unwrap();
        self.child = Some(launched.child);
        self.hello = Some(launched.hello);
        self
    }

    /// One whose script begins when it is its turn: what it dials is there then.
    pub(crate) fn waiting(script: &str) -> Self {
        let fence = Self::new(&format!("{TURN}{script}"));
        std::fs::create_dir(fence.spec.folder.join("turn")).unwrap();
        std::fs::set_permissions(fence.spec.folder.join("turn"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        fence
    }

    /// Lets the script of [`Self::waiting`] begin.
    pub(crate) fn turn(&self) {
        std::fs::write(self.spec.folder.join("turn/now"), "").unwrap();
    }

    pub(crate) fn shim(&self) -> Shim {
        // The connection before this one may not be gone yet.
        wait("a shim that is free", || {
            let shim = Shim::connect(&self.spec.data, &self.spec.service).ok()?;
            shim.hello().is_ok().then_some(shim)
        })
    }

    pub(crate) fn log(&self) -> String {
        let path = self.spec.data.join(format!("logs/{}.log", self.spec.service));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits for a line in the log that starts with `key` and `=`; its value.
    pub(crate) fn said(&self, key: &str) -> String {
        let find = || {
            let log = self.log();
            // The last line may be half written.
            let mut whole = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            whole.find_map(|l| l.strip_prefix(key)?.strip_prefix('=').map(str::to_owned))
        };
        wait_or(|| format!("{key} in the log:\n{}", self.log()), find)
    }

    pub(crate) fn events(&self) -> Vec<Record> {
        read_dir(&self.spec.data.join("events"), &Filter::default()).unwrap()
    }

    /// Waits for an event whose JSON holds all of `parts`; how long that took, but for the time in which somebody on this machine waited for
    /// a processor or the disk: what is promised within a time is promised on a machine that has time for it.
    pub(crate) fn event(&self, parts: &[&str]) -> Duration {
        let (start, before) = (Instant::now(), stalled());
        let folder = self.spec.data.join("events/shim-portal.jsonl");
        let find = || {
            let text = std::fs::read_to_string(&folder).unwrap_or_default();
            text.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
        };
        wait_or(
            || {
                format!(
                    "an event with {parts:?} in\n{}",
                    std::fs::read_to_string(&folder).unwrap_or_default()
                )
            },
            find,
        );
        start.elapsed().saturating_sub(stalled() - before)
    }

    pub(crate) fn state(&self) -> State {
        self.shim().hello().unwrap().status.state
    }

    pub(crate) fn init_pid(&self) -> u32 {
        wait("PID 1", || Some(self.shim().hello().unwrap().status.init_pid).filter(|pid| *pid != 0))
    }

    pub(crate) fn shim_pid(&self) -> u32 {
        self.hello.as_ref().unwrap().pid
    }

    pub(crate) fn listener(&self, port: u16) -> TcpListener {
        let (_, mut fds) = self.shim().ask(&Request::Listeners { port, count: 1, address: None }).unwrap();
        assert_eq!(fds.len(), 1);
        let listener = TcpListener::from(fds.remove(0));
        listener.set_nonblocking(false).unwrap();
        listener
    }

    /// What a proxy is given.
    pub(crate) fn proxy(&self) -> BlockingChannel<ProxyRequest, ProxyReply> {
        let (reply, mut fds) = self.shim().ask(&Request::ProxyChannel).unwrap();
        assert!(matches!(reply, Reply::ProxyChannel));
        BlockingChannel::new(fds.remove(0).into())
    }

    /// Connects to the service as its proxy would.
    pub(crate) fn connect_inside(&self, port: u16) -> TcpStream {
        let proxy = self.proxy();
        wait(&format!("a connection to port {port} inside"), || {
            proxy.send(&ProxyRequest::Sockets { count: 1 }, &[]).unwrap();
            let (_, mut fds) = proxy.recv().unwrap();
            let socket = socket2::Socket::from(fds.remove(0));
            socket.set_nonblocking(false).unwrap();
            let address = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            socket.connect(&address.into()).ok()?;
            Some(TcpStream::from(socket))
        })
    }

    pub(crate) fn stop(&mut self) {
        self.shim().ask(&Request::Stop).unwrap();
        self.reap();
    }

    pub(crate) fn kill_shim(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        self.reap();
    }

    pub(crate) fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// No process of the service's network is left, and so no namespace.
    pub(crate) fn assert_nothing_left(&self) {
        let netns = self.hello.as_ref().unwrap().netns;
        wait_or(
            || format!("processes in network {netns}: {:?}", processes_in(netns)),
            || processes_in(netns).is_empty().then_some(()),
        );
    }

    /// Whether a shim answers. As root its socket lies in a folder that it may not write to, and stays behind for root to remove.
    pub(crate) fn answers(&self) -> bool {
        let path = socket_path(&self.spec.data, &self.spec.service);
        let answers = std::os::unix::net::UnixStream::connect(&path).is_ok();
        assert!(answers || self.spec.uids.is_some() || !path.exists(), "left behind");
        answers
    }

    pub(crate) fn owner(&self) -> String {
        self.spec.uids.map_or_else(|| rustix::process::getuid().as_raw().to_string(), |_| "1000".into())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processes whose network namespace has this inode. (As an unprivileged user only one's own can be looked at; all of a
/// fence's are.)
fn processes_in(netns: u64) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let inside = |path: &Path| std::fs::metadata(path.join("ns/net")).is_ok_and(|m| m.ino() == netns);
    processes.filter(|p| inside(&p.path())).map(|p| p.file_name().to_string_lossy().into_owned()).collect()
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// How long somebody on this machine has waited for a processor or the disk so far.
fn stalled() -> Duration {
    let total = |what: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/pressure/{what}")).ok()?;
        text.lines().next()?.rsplit_once("total=")?.1.parse().ok()
    };
    Duration::from_micros(["cpu", "io"].into_iter().filter_map(total).sum())
}

pub(crate) fn wait<T>(what: &str, attempt: impl FnMut() -> Option<T>) -> T {
    wait_or(|| what.to_owned(), attempt)
}

pub(crate) fn wait_or<T>(what: impl Fn() -> String, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn inode(fd: &OwnedFd) -> String {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().to_string_lossy().into_owned()
}

pub(crate) fn hosts(pairs: &[(&str, [u8; 4])]) -> BTreeMap<String, Ipv4Addr> {
    pairs.iter().map(|(name, address)| ((*name).to_owned(), Ipv4Addr::from(*address))).collect()
}
