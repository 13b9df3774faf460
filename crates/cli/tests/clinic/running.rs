//! A clinic behind a fence of its own: real processes, a free port, a temporary folder, and nothing left behind.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// As whom `ringfence up` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Ourselves: root where the tests run as root.
    Root,
    /// A user without any privilege.
    Nobody,
}

const NOBODY: u32 = 65_534;
/// However long a busy machine takes for what is about to be so.
const SETTLED: Duration = Duration::from_secs(60);

pub(crate) struct Clinic {
    pub(crate) who: Who,
    pub(crate) folder: PathBuf,
    pub(crate) port: u16,
    before: Vec<String>,
    up: Child,
    output: Arc<Mutex<String>>,
}

impl Clinic {
    /// Starts the clinic and waits until all its services are ready.
    pub(crate) fn start(who: Who) -> Self {
        Self::start_with(who, |fence| fence)
    }

    /// The same with a changed fence.
    pub(crate) fn start_with(who: Who, change: impl FnOnce(String) -> String) -> Self {
        Self::start_fence(who, &change(spine()), Vec::new(), services)
    }

    /// Another fence altogether, in a folder that `fill` fills; `up` is started by the words `before`, if there are any.
    pub(crate) fn start_fence(who: Who, fence: &str, before: Vec<String>, fill: impl FnOnce(&Path)) -> Self {
        let port = free_port();
        let folder = make_folder(who);
        fill(&folder);
        assert!(fence.contains("127.0.0.1:8443"));
        std::fs::write(folder.join("ringfence.yaml"), fence.replace(":8443", &format!(":{port}"))).unwrap();
        own(&folder, who);
        let (up, output) = spawn(who, &folder, &before);
        let mut clinic = Self { who, folder, port, before, up, output };
        clinic.wait_ready();
        clinic
    }

    /// Waits until every service is ready; panics with what `up` said otherwise.
    pub(crate) fn wait_ready(&mut self) {
        let ready = eventually(Duration::from_secs(240), || {
            assert!(self.up.try_wait().unwrap().is_none(), "up ended:\n{}", self.said());
            let status = self.try_json(&["status", "--json"])?;
            let services = status["report"]["services"].as_array()?;
            let all = !services.is_empty()
                && services
                    .iter()
                    .all(|s| matches!(s["state"].as_str(), Some("ready" | "external" | "waiting")));
            let served = self.curl(&["/"]).status.success();
            (all && served && is_settled(&status)).then_some(())
        });
        assert!(ready.is_some(), "not ready: {:?}\n{}", self.try_json(&["status", "--json"]), self.said());
    }

    /// Waits until what control last put in force is so in every thread of the node: one that is asked over a new connection may be behind
    /// the one that answered before.
    pub(crate) fn settle(&self) {
        let settled = eventually(SETTLED, || self.try_json(&["status", "--json"]).filter(is_settled));
        assert!(settled.is_some(), "{:?}\n{}", self.try_json(&["status", "--json"]), self.said());
    }

    /// Waits until a request is answered so over every one of many connections, and so by every thread of the gateway: what is no part of a
    /// snapshot, such as the keys of a provider, each of them learns in its own moment.
    pub(crate) fn settle_at(&self, options: &[&str], path: &str, wanted: u16) {
        let each = ["--http1.1", "-H", "connection: close", "-o", "/dev/null", "-w", "%{http_code}\n"];
        let many = format!("{path}#[1-12]");
        let mut last = String::new();
        let settled = eventually(SETTLED, || {
            last = text(&self.curl(&[&each, options, &[&many]].concat()).stdout);
            let all = last.lines().count() == 12 && last.lines().all(|code| code == wanted.to_string());
            // Guessing is limited.
            (!all).then(|| std::thread::sleep(Duration::from_millis(300)));
            all.then_some(())
        });
        assert!(settled.is_some(), "{path}: {last:?}, not {wanted} only\n{}", self.said());
    }

    /// What `up` printed so far.
    pub(crate) fn said(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// A `ringfence` command on this fence.
    pub(crate) fn ringfence(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    /// The same, not yet started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = as_user(self.who, &binary());
        command.args(args).current_dir(&self.folder);
        command
    }

    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.ringfence(args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("{args:?}: {e}: {} {}", text(&output.stdout), text(&output.stderr));
        })
    }

    fn try_json(&self, args: &[&str]) -> Option<Value> {
        serde_json::from_slice(&self.ringfence(args).stdout).ok()
    }

    /// Real curl against the gateway, trusting its CA only; the last argument is the path.
    pub(crate) fn curl(&self, args: &[&str]) -> Output {
        let (path, options) = args.split_last().unwrap();
        Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
            .arg(self.folder.join(".ringfence/ca.pem"))
            .args(options)
            .arg(format!("https://127.0.0.1:{}{path}", self.port))
            .output()
            .unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let output = self.curl(&["--write-out", "\n%{http_code}", path]);
        let body = text(&output.stdout);
        let (body, code) = body.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or(0), body.to_owned())
    }

    /// Runs Python inside a service's namespaces, as an attacker who has taken the service over would.
    pub(crate) fn inside(&self, service: &str, python: &str) -> String {
        // The namespaces of the service itself, whose parent is its init. A report may be a moment behind.
        let pid = eventually(Duration::from_secs(30), || {
            let status = self.try_json(&["status", "--json"])?;
            let services = status["report"]["services"].as_array()?;
            let init =
                services.iter().find(|s| s["name"] == service)?["init"].as_u64().filter(|init| *init > 1)?;
            children(init as u32).into_iter().next()
        });
        let pid = pid.expect("the service runs");
        let output = Command::new("nsenter")
            .args([
                "--target",
                &pid.to_string(),
                "--all",
                "--preserve-credentials",
                "--wd=/",
                "--",
                "python3",
                "-c",
                python,
            ])
            .output()
            .unwrap();
        text(&output.stdout) + &text(&output.stderr)
    }

    /// Waits for an event that `wanted` accepts.
    pub(crate) fn event(&self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        eventually(within, || {
            let output = self.ringfence(&["events", "--json"]);
            text(&output.stdout).lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).find(&wanted)
        })
    }

    /// Process id by role from `status`, once control is there to be asked.
    pub(crate) fn process(&self, name: &str) -> u32 {
        let pid = eventually(SETTLED, || {
            let status = self.try_json(&["status", "--json"])?;
            let processes = status["report"]["processes"].as_array()?;
            processes.iter().find(|p| p["name"] == name)?["pid"].as_u64().filter(|pid| *pid != 0)
        });
        pid.unwrap_or_else(|| panic!("no {name}\n{}", self.said())) as u32
    }

    pub(crate) fn up_pid(&self) -> u32 {
        // What stands before `up` execs, so the child is `up` itself.
        self.up.id()
    }

    /// Kills `up` the hard way and starts another in its place.
    pub(crate) fn replace_up(&mut self) {
        self.up.kill().unwrap();
        self.up.wait().unwrap();
        (self.up, self.output) = spawn(self.who, &self.folder, &self.before);
        self.wait_ready();
    }

    /// Ctrl-C; returns what is left behind.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.interrupt();
        self.leftovers()
    }

    fn interrupt(&mut self) {
        let pid = self.up.id().to_string();
        if self.up.try_wait().unwrap().is_none() {
            Command::new("kill").args(["-INT", &pid]).status().unwrap();
        }
        let ended = eventually(Duration::from_secs(120), || self.up.try_wait().unwrap());
        if ended.is_none() {
            self.up.kill().unwrap();
            self.up.wait().unwrap();
        }
    }

    /// What is left: processes and sockets that mention the folder. Clients that the test itself has started are none of the fence's.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let data = self.folder.join(".ringfence");
        let mut clients = children(std::process::id());
        clients.retain(|pid| *pid != self.up.id());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            if clients.iter().any(|pid| entry.file_name() == *pid.to_string()) {
                continue;
            }
            let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if cwd.starts_with(&self.folder) || text(&line).contains(self.folder.to_str().unwrap()) {
                found.push(format!("process {:?}: {}", entry.file_name(), text(&line).replace('\0', " ")));
            }
        }
        for socket in [data.join("control.sock"), data.join("run/shim")] {
            let full = if socket.is_dir() {
                std::fs::read_dir(&socket).unwrap().count() > 0
            } else {
                socket.exists()
            };
            if full {
                found.push(format!("socket {}", socket.display()));
            }
        }
        found
    }
}

impl Drop for Clinic {
    fn drop(&mut self) {
        self.interrupt();
        if std::thread::panicking() {
            eprintln!("--- up said:\n{}", self.said());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(who: Who, folder: &Path, before: &[String]) -> (Child, Arc<Mutex<String>>) {
    let plain = as_user(who, &binary());
    let mut words = before.iter().map(std::ffi::OsString::from).collect::<Vec<_>>();
    words.extend([plain.get_program().to_owned()].into_iter().chain(plain.get_args().map(Into::into)));
    let mut child = Command::new(words.remove(0))
        .args(words)
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .args(["up", "."])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let output = Arc::<Mutex<String>>::default();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    for stream in [Box::new(stdout) as Box<dyn std::io::Read + Send>, Box::new(stderr)] {
        let output = output.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut output = output.lock().unwrap();
                output.push_str(&line);
                output.push('\n');
            }
        });
    }
    (child, output)
}

pub(crate) fn as_user(who: Who, program: &Path) -> Command {
    if who == Who::Nobody && rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(program);
        command.env("HOME", "/tmp");
        command
    } else {
        Command::new(program)
    }
}

/// Folders of copied binaries begin with this, and end with the process that copied them.
const BINARIES: &str = "ringfence-bin-";

/// Removes what test programs that have ended left.
fn forget_binaries() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_prefix(BINARIES)?.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The binaries where everybody may execute them, whatever the modes above the target directory are.
pub(crate) fn binary() -> PathBuf {
    use std::sync::OnceLock;
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE
        .get_or_init(|| {
            let built = PathBuf::from(env!("CARGO_BIN_EXE_ringfence"));
            let clinic = built.with_file_name("clinic");
            assert!(clinic.exists(), "build the clinic first: cargo build -p clinic");
            forget_binaries();
            let place = std::env::temp_dir().join(format!("{BINARIES}{}", std::process::id()));
            std::fs::create_dir_all(&place).unwrap();
            copy_program(&built, &place);
            copy_program(&clinic, &place);
            place.join("ringfence")
        })
        .clone()
}

/// Copies what is to be executed, by another process: a file that is open for writing here would be so too in whatever another thread
/// starts in this moment, and could not be executed until that has begun.
pub(crate) fn copy_program(program: &Path, to: &Path) {
    assert!(Command::new("cp").arg(program).arg(to).status().unwrap().success(), "{}", program.display());
}

pub(crate) fn make_folder(who: Who) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // No name begins with another: processes are told by it. What an ended program of the same number left is none of ours.
    let folder =
        std::env::temp_dir().join(format!("ringfence-{who:?}-{}-{n:04}", std::process::id()).to_lowercase());
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn own(folder: &Path, who: Who) {
    if who == Who::Nobody && rustix::process::geteuid().is_root() {
        let status =
            Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(folder).status().unwrap();
        assert!(status.success());
    }
}

/// The clinic's services without anybody who signs in: what stands behind all the rest.
pub(crate) fn spine() -> String {
    std::fs::read_to_string(workspace().join("crates/cli/tests/clinic/spine.yaml")).unwrap()
}

/// What those services need in the fence's folder.
pub(crate) fn services(folder: &Path) {
    std::fs::create_dir_all(folder.join("services")).unwrap();
    let source = workspace().join("examples/clinic/services/patients.py");
    std::fs::copy(source, folder.join("services/patients.py")).unwrap();
}

/// Whether the node has in force what control last put in force; it says so when every thread of it has.
fn is_settled(status: &Value) -> bool {
    let newest = &status["snapshot"]["revision"];
    let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    // A control that was started where the fence is wrong puts nothing in force, and the node goes on with what it has.
    let nothing = newest.is_null() && status["report"]["rejected"].is_string();
    nothing || newest.is_u64() && !nodes.is_empty() && nodes.iter().all(|node| node["revision"] == *newest)
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.lines().any(|l| l == format!("PPid:\t{pid}")) {
            found.push(child);
        }
    }
    found
}

/// The time in which somebody on this machine waited for a processor or the disk. What is promised within a time is promised on a machine that
/// has time for it: bounds leave this out, and are strict where nothing else runs.
#[derive(Clone, Copy)]
pub(crate) struct Stalls(u64);

impl Stalls {
    /// From now on.
    pub(crate) fn begin() -> Self {
        let total = |what: &str| -> Option<u64> {
            let text = std::fs::read_to_string(format!("/proc/pressure/{what}")).ok()?;
            text.lines().next()?.rsplit_once("total=")?.1.parse().ok()
        };
        Self(["cpu", "io"].into_iter().filter_map(total).sum())
    }

    /// A number of seconds that passed since then, without it.
    pub(crate) fn without(&self, seconds: f64) -> f64 {
        seconds - (Self::begin().0 - self.0) as f64 / 1e6
    }
}

pub(crate) fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if start.elapsed() > within {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A port that nobody listens at, below those that the kernel gives to connections: one of them cannot take it meanwhile.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Programs that run at the same time begin far from each other.
        let n = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + n % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
