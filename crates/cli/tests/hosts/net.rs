//! Machines: network namespaces on one bridge where the tests run as root, loopback addresses where not. Real programs in each, and
//! nothing left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::running::{Who, binary, eventually, make_folder, text};

/// Says to a test that it is a program on a machine.
pub(crate) const FOLDER: &str = "RINGFENCE_TEST_HOST";
/// However busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A network of its own, with as many machines as are wanted.
pub(crate) struct Net {
    /// Namespaces begin with this; none where there are loopback addresses.
    name: Option<String>,
    number: u32,
}

impl Net {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = rustix::process::geteuid().is_root();
        let name = root.then(|| format!("rf{}n{number}", std::process::id()));
        if let Some(name) = &name {
            ip(&format!("netns add {name}"));
            ip(&format!("-n {name} link add br0 type bridge"));
            ip(&format!("-n {name} link set br0 up"));
        } else {
            eprintln!("not root: the hosts of this test are loopback addresses, not networks of their own");
        }
        Self { name, number }
    }

    /// The address of machine `n`.
    pub(crate) fn address(&self, n: u32) -> String {
        match self.name {
            Some(_) => format!("10.91.0.{n}"),
            None => format!("127.91.{}.{n}", self.number + 16 * (std::process::id() % 12)),
        }
    }

    fn namespace(&self, n: u32) -> Option<String> {
        let name = self.name.as_ref()?;
        let namespace = format!("{name}h{n}");
        if !Path::new("/run/netns").join(&namespace).exists() {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {name} link add v{n} type veth peer name eth0 netns {namespace}"));
            ip(&format!("-n {name} link set v{n} master br0 up"));
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", self.address(n)));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        Some(namespace)
    }

    /// Cuts a machine off, or lets it in again; only where there are networks.
    pub(crate) fn cut(&self, n: u32, off: bool) -> bool {
        let Some(name) = &self.name else { return false };
        ip(&format!("-n {name} link set v{n} {}", if off { "down" } else { "up" }));
        true
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let namespace = entry.file_name().to_string_lossy().into_owned();
            if namespace == *name || namespace.strip_prefix(name.as_str()).is_some_and(|r| r.starts_with('h'))
            {
                let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
            }
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", text(&output.stderr));
}

/// A machine of the fence, and what runs there.
pub(crate) struct Host {
    pub(crate) folder: PathBuf,
    namespace: Option<String>,
    child: Option<Child>,
    output: Arc<Mutex<String>>,
}

impl Host {
    /// Machine `n`, with its copy of the fence and a program for its services.
    pub(crate) fn new(net: &Net, n: u32, fence: &str) -> Self {
        let folder = make_folder(Who::Root);
        std::fs::create_dir(folder.join("app")).unwrap();
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
        std::fs::write(folder.join("ringfence.yaml"), fence).unwrap();
        Self { folder, namespace: net.namespace(n), child: None, output: Arc::default() }
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Starts `ringfence up` or `ringfence node …`.
    pub(crate) fn start(&mut self, args: &[&str]) {
        let mut command = self.command(&binary());
        let mut child = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let output = self.output.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut output = output.lock().unwrap();
                    output.push_str(&line);
                    output.push('\n');
                }
            });
        }
        self.child = Some(child);
    }

    pub(crate) fn said(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until it says so.
    pub(crate) fn says(&self, what: &str) {
        let found = eventually(SOON, || self.said().contains(what).then_some(()));
        assert!(found.is_some(), "never said {what:?}:\n{}", self.said());
    }

    /// A test of this very program, run on this machine as a program of its own; it is told its folder.
    pub(crate) fn as_program(&self, test: &str) -> Output {
        let program = std::env::current_exe().unwrap();
        let mut command = self.command(&program);
        command
            .args(["--exact", test, "--nocapture", "--include-ignored"])
            .env(FOLDER, &self.folder)
            .output()
            .unwrap()
    }

    pub(crate) fn ringfence(&self, args: &[&str]) -> Output {
        self.command(&binary()).args(args).output().unwrap()
    }

    pub(crate) fn json(&self, args: &[&str]) -> Option<Value> {
        serde_json::from_slice(&self.ringfence(args).stdout).ok()
    }

    /// Waits for an event that `wanted` accepts.
    pub(crate) fn event(&self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        eventually(SOON, || {
            let output = self.ringfence(&["events", "--json"]);
            text(&output.stdout).lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()).find(&wanted)
        })
    }

    /// Real curl from this machine: status and body. The gateway's authority is the one in `ca`.
    pub(crate) fn get(&self, ca: &Path, url: &str, options: &[&str]) -> (u16, String) {
        let output = self
            .command(Path::new("curl"))
            .args(["--silent", "--max-time", "30", "--write-out", "\n%{http_code}", "--cacert"])
            .arg(ca)
            .args(options)
            .arg(url)
            .output()
            .unwrap();
        let body = text(&output.stdout);
        let (body, code) = body.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or(0), body.to_owned())
    }

    /// Kills the supervisor the hard way; what it started for itself ends with it, services do not.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits for its end by itself.
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let child = self.child.as_mut().unwrap();
        let status = eventually(SOON, || child.try_wait().unwrap())?;
        self.child = None;
        status.code()
    }

    /// Ctrl-C, and waits.
    pub(crate) fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if child.try_wait().unwrap().is_none() {
            Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
            if eventually(SOON, || child.try_wait().unwrap()).is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        self.child = None;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.folder.display(), self.said());
        }
        if self.child.is_none() {
            // One that was killed left its services behind: the next one takes them over and ends them.
            let shims = self.folder.join(".ringfence/run/shim");
            if std::fs::read_dir(shims).is_ok_and(|entries| entries.count() > 0) {
                let how = if self.folder.join(".ringfence/member").exists() { "node" } else { "up" };
                self.start(&[how, "."]);
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Says its name, and what a service that it calls says.
const ECHO: &str = "
import http.server, sys, urllib.request
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body, code = sys.argv[1].encode(), 200
        if self.path.startswith('/call/'):
            try:
                with urllib.request.urlopen('http://' + self.path[6:] + '/', timeout=20) as answer:
                    body += b' < ' + answer.read()
            except urllib.error.HTTPError as e:
                code, body = e.code, body + b' ! ' + str(e.code).encode()
        self.send_response(code)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('', 9000), Echo).serve_forever()
";
