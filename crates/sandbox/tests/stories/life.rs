//! Start, readiness, restart, end.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ringfence_sandbox::launch;
use ringfence_sandbox::protocol::{Exit, Reply, Request, State};
use ringfence_sandbox::spec::{Ready, Restart};

use crate::Story;
use crate::fence::{Fence, alive, wait};

/// `ringfence run` in the words of this binary.
const RUN: &str = "--run-here";

pub(crate) const STORIES: &[Story] = &[
    Story("run_in_the_foreground_prints_and_ends_as_its_service_does", foreground),
    Story("ctrl_c_ends_a_foreground_run_and_leaves_nothing", ctrl_c),
    Story("a_service_starts_in_its_own_namespaces_and_is_ready", starts),
    Story("a_service_is_ready_when_it_answers_http", http_ready),
    Story("a_failing_service_is_started_again_with_growing_pauses", backoff),
    Story("a_restart_on_request_starts_it_once_more", restart),
    Story("stop_leaves_no_process_namespace_or_socket", stop),
    Story("a_service_that_ignores_sigterm_is_killed_after_the_grace_time", stubborn),
    Story("sigterm_ends_a_shim_and_all_of_its_service", sigterm),
    Story("kill_9_of_the_shim_ends_the_service", kill_shim),
    Story("kill_9_of_pid_1_ends_the_service_and_the_shim_starts_it_again", kill_init),
    Story("what_a_service_leaves_behind_ends_with_it", orphans),
    Story("one_supervisor_at_a_time_and_one_shim_per_service", one_at_a_time),
    Story("the_workload_api_socket_is_served_from_outside", workload),
    Story("a_command_that_does_not_exist_says_so_in_the_log", no_command),
    Story("a_path_that_is_missing_is_named_and_nothing_is_left", missing_path),
];

pub(crate) fn role(arguments: &[String]) -> Option<ExitCode> {
    let [role, spec] = arguments else { return None };
    (role == RUN).then(|| ringfence_sandbox::run_here(&serde_json::from_str(spec).unwrap()).unwrap())
}

fn run_here(fence: &Fence) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([RUN, &serde_json::to_string(&fence.spec).unwrap()]);
    command
}

fn foreground() {
    let fence = Fence::new("import sys; print('hello'); sys.exit(7)");
    let output = run_here(&fence).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n");
    assert!(!fence.answers());
}

fn ctrl_c() {
    let mut fence = Fence::new(SLEEP);
    let mut child = run_here(&fence).stdout(Stdio::null()).spawn().unwrap();
    assert_eq!(fence.said("up"), "yes");
    fence.hello = Some(fence.shim().hello().unwrap());
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!fence.answers());
    fence.assert_nothing_left();
}

const SLEEP: &str = "import time; print('up=yes'); time.sleep(600)";

fn starts() {
    let script = "
import os, socket, time
print('pid=%d' % os.getpid()); print('uid=%d' % os.getuid()); print('cwd=' + os.getcwd())
print('host=' + socket.gethostname()); print('links=' + ' '.join(sorted(n for _, n in socket.if_nameindex())))
print('spiffe=' + os.environ['SPIFFE_ENDPOINT_SOCKET'])
s = socket.socket(); s.bind(('127.0.0.1', 9000)); s.listen(); print('done=yes'); time.sleep(600)";
    let fence = Fence::new(script).change(|s| s.listen = Some(9000)).up();
    assert_eq!(fence.said("done"), "yes");
    assert!(fence.said("pid").parse::<u32>().unwrap() < 10, "its own PID namespace");
    assert_eq!(fence.said("uid"), fence.owner());
    assert_eq!(fence.said("cwd"), fence.spec.folder.to_string_lossy());
    assert_eq!(fence.said("host"), "portal");
    assert_eq!(fence.said("links"), "eth0 lo");
    assert_eq!(fence.said("spiffe"), "unix:///run/ringfence/workload.sock");
    wait("readiness", || (fence.state() == State::Ready).then_some(()));
    fence.event(&["lifecycle", "the service is ready"]);
    assert_eq!(fence.shim().hello().unwrap().digest, fence.spec.digest());
}

fn http_ready() {
    let script = "
import http.server, time
busy = True
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global busy
        self.send_response(503 if busy else 200); busy = False; self.end_headers()
http.server.HTTPServer(('127.0.0.1', 9000), H).serve_forever()";
    let fence = Fence::new(script)
        .change(|s| (s.listen, s.ready) = (Some(9000), Ready::Http { path: "/healthz".into() }))
        .up();
    wait("readiness", || (fence.state() == State::Ready).then_some(()));
    assert!(fence.log().contains("503"), "the first answer was no: {}", fence.log());
}

fn backoff() {
    let restart = Restart { enabled: true, first_ms: 100, longest_ms: 400, stable_ms: 60_000 };
    let fence = Fence::new("import sys; print('run'); sys.exit(3)").change(|s| s.restart = restart).up();
    let shim = fence.shim();
    shim.ask(&Request::Watch).unwrap();
    let mut pauses = Vec::new();
    while pauses.len() < 4 {
        if let State::Backoff { exit, pause_ms } = shim.next_update().unwrap().state {
            assert_eq!(exit, Exit::Code(3));
            if pauses.last() != Some(&pause_ms) || pause_ms == 400 {
                pauses.push(pause_ms);
            }
        }
    }
    assert_eq!(pauses[pauses.len() - 2..], [400, 400]);
    fence.event(&["lifecycle", "exited with code 3"]);
}

fn restart() {
    let fence = Fence::new(SLEEP).up();
    assert_eq!(fence.said("up"), "yes");
    fence.shim().ask(&Request::Restart).unwrap();
    wait("a second start", || (fence.log().matches("up=yes").count() == 2).then_some(()));
    wait("its count", || (fence.shim().hello().unwrap().status.restarts == 1).then_some(()));
}

fn stop() {
    let mut fence = Fence::new(SLEEP).up();
    assert_eq!(fence.said("up"), "yes");
    let (shim, init) = (fence.shim_pid(), fence.init_pid());
    assert!(alive(shim) && alive(init));
    fence.stop();
    assert!(!alive(shim) && !alive(init) && !fence.answers());
    fence.assert_nothing_left();
}

fn stubborn() {
    let script = "
import os, signal, time
# A line of its own, even if the signal comes in the middle of another print.
signal.signal(signal.SIGTERM, lambda *a: os.write(1, b'\\nterm=ignored\\n'))
print('up=yes')
while True: time.sleep(1)";
    let mut fence = Fence::new(script).change(|s| s.grace_ms = 300).up();
    assert_eq!(fence.said("up"), "yes");
    let start = std::time::Instant::now();
    fence.stop();
    assert_eq!(fence.said("term"), "ignored");
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < Duration::from_secs(120));
    fence.assert_nothing_left();
}

fn sigterm() {
    let mut fence = Fence::new(SLEEP).up();
    assert_eq!(fence.said("up"), "yes");
    let pid = rustix::process::Pid::from_raw(fence.shim_pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    fence.reap();
    assert!(!fence.answers());
    fence.assert_nothing_left();
}

fn kill_shim() {
    let mut fence = Fence::new(
        "
import os, time
for _ in range(5):
    if os.fork() == 0: os.setsid(); time.sleep(600)
print('up=yes'); time.sleep(600)",
    )
    .up();
    assert_eq!(fence.said("up"), "yes");
    let init = fence.init_pid();
    fence.kill_shim();
    wait("the end of PID 1", || (!alive(init)).then_some(()));
    fence.assert_nothing_left();
    // The stale socket does not stand in the way of the next start.
    let again = launch(&fence.spec).unwrap();
    fence.hello = Some(again.hello);
    fence.shim().ask(&Request::Stop).unwrap();
    let mut child = again.child;
    assert!(child.wait().unwrap().success());
}

fn kill_init() {
    let restart = Restart { enabled: true, first_ms: 50, ..Restart::default() };
    let mut fence = Fence::new(SLEEP).change(|s| s.restart = restart).up();
    assert_eq!(fence.said("up"), "yes");
    let init = fence.init_pid();
    let pid = rustix::process::Pid::from_raw(init as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    fence.event(&["lifecycle", "PID 1 was killed"]);
    wait("a second start", || (fence.log().matches("up=yes").count() == 2).then_some(()));
    assert_ne!(fence.init_pid(), init);
    assert!(!alive(init));
    fence.stop();
    fence.assert_nothing_left();
}

fn orphans() {
    let script = "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open('/tmp/pid', 'w').write('x'); time.sleep(600)
    os._exit(0)
while not os.path.exists('/tmp/pid'): time.sleep(0.01)
print('done=yes')";
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("done"), "yes");
    wait("the end", || (fence.state() == State::Exited(Exit::Code(0))).then_some(()));
    let parent = format!("PPid:\t{}", fence.init_pid());
    let is_inside = |p: &std::fs::DirEntry| {
        std::fs::read_to_string(p.path().join("status")).is_ok_and(|s| s.lines().any(|l| l == parent))
    };
    wait("the end of what it left", || {
        (!std::fs::read_dir("/proc").unwrap().flatten().any(|p| is_inside(&p))).then_some(())
    });
}

fn one_at_a_time() {
    let fence = Fence::new(SLEEP).up();
    let first = fence.shim();
    let second = ringfence_sandbox::client::Shim::connect(&fence.spec.data, "portal").unwrap();
    assert!(second.hello().unwrap_err().to_string().contains("another supervisor"));
    drop(first);
    assert_eq!(fence.shim().hello().unwrap().service, "portal");
    let twice = launch(&fence.spec).unwrap_err();
    assert!(twice.to_string().contains("has a running shim already"), "{twice}");
}

fn workload() {
    let script = "
import socket, time
s = socket.socket(socket.AF_UNIX); s.settimeout(90)
s.connect('/run/ringfence/workload.sock'); s.sendall(b'svid?'); print('answer=' + s.recv(100).decode())
for path in ['/run/ringfence/hosts', '/etc/hosts', '/run/ringfence/workload.sock']:
    try: open(path, 'a'); print('open')
    except OSError as e: pass
try: socket.socket(socket.AF_UNIX).bind('/run/ringfence/other.sock'); print('bind=possible')
except OSError as e: print('bind=%d' % e.errno)
time.sleep(600)";
    let fence = Fence::new(script).up();
    let (reply, mut fds) = wait("the listener", || fence.shim().ask(&Request::WorkloadListener).ok());
    assert!(matches!(reply, Reply::WorkloadListener));
    let listener = UnixListener::from(fds.remove(0));
    let (mut peer, _) = listener.accept().unwrap();
    let mut asked = [0; 5];
    peer.read_exact(&mut asked).unwrap();
    peer.write_all(b"yes").unwrap();
    assert_eq!((&asked, fence.said("answer").as_str()), (b"svid?", "yes"));
    assert_eq!(fence.said("bind"), "30", "EROFS");
    assert!(!fence.log().contains("open"));
}

fn no_command() {
    let fence = Fence::new("").change(|s| s.command = vec!["no-such-program".into()]).up();
    wait("the end", || matches!(fence.state(), State::Exited(Exit::Code(126))).then_some(()));
    assert!(fence.log().contains("cannot start no-such-program"), "{}", fence.log());
}

fn missing_path() {
    let fence = Fence::new(SLEEP).change(|s| {
        let path = s.folder.join("gone");
        s.files.push(ringfence_sandbox::spec::FileRule { path, write: true });
    });
    let refused = launch(&fence.spec).unwrap_err();
    assert!(refused.to_string().contains("gone does not exist"), "{refused}");
    assert!(!fence.answers());
}
