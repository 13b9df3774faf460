//! What a hostile service tries against its neighbours and the kernel.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::Story;
use crate::fence::{Fence, wait};

pub(crate) const STORIES: &[Story] = &[
    Story("a_neighbours_key_of_the_same_uid_cannot_be_read", neighbours_key),
    Story("the_data_directory_and_every_socket_of_ringfence_are_invisible", data_directory),
    Story("a_socket_outside_cannot_be_reached", socket_outside),
    Story("no_process_outside_can_be_seen_signalled_or_traced", processes),
    Story("pid_1_cannot_be_killed_traced_or_looked_into_from_inside", pid_1),
    Story("dangerous_system_calls_are_refused", system_calls),
    Story("no_privilege_is_left_and_none_can_be_gained", privileges),
    Story("isolation_is_found_possible_by_doing", probe),
];

fn neighbours_key() {
    // Outside of every private folder, so that only what is shown decides.
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let key = outside.path().join("key.pem");
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let homes = ["/root", "/home", "/srv", "/work", "/mnt"];
    let script = format!(
        "
import os, time
try: print('key=' + open({key:?}).read())
except OSError as e: print('key=%d' % e.errno)
seen = [p for p in {homes:?} if os.path.exists(p) and os.listdir(p)]
print('homes=' + ','.join(seen)); time.sleep(600)"
    );
    let fence = Fence::new(&script).up();
    assert_eq!(fence.said("key"), "2", "ENOENT");
    assert_eq!(fence.said("homes"), "");
}

fn data_directory() {
    let script = "
import os, time
print('data=' + repr(os.listdir('.ringfence')))
for path in ['.ringfence/master.key', '.ringfence/run/shim/portal.sock']:
    try: os.stat(path); print('found')
    except OSError: pass
try: open('.ringfence/x', 'w'); print('write=possible')
except OSError as e: print('write=%d' % e.errno)
try: open('x', 'w'); print('folder=writable')
except OSError as e: print('folder=%d' % e.errno)
print('mounts=' + ' '.join(l.split()[1] for l in open('/proc/self/mounts')))
time.sleep(600)";
    let fence = Fence::new(script);
    std::fs::create_dir(&fence.spec.data).unwrap();
    std::fs::set_permissions(&fence.spec.data, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(fence.spec.data.join("master.key"), "secret").unwrap();
    let fence = fence.up();
    assert_eq!(fence.said("data"), "[]");
    assert!(["13", "30"].contains(&fence.said("write").as_str()));
    assert!(["13", "30"].contains(&fence.said("folder").as_str()));
    assert!(!fence.log().contains("found"));
    let mode = std::fs::metadata(&fence.spec.data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "closed to others, whatever it was");
    assert!(!fence.said("mounts").contains("/home"));
}

fn socket_outside() {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = outside.path().join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("ringfence-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name)
            .unwrap();
    let hidden = UnixListener::bind_addr(&address).unwrap();
    let script = format!(
        "
import socket, time
def dial(path):
    try: socket.socket(socket.AF_UNIX).connect(path); return 'reached'
    except OSError as e: return str(e.errno)
print('path=' + dial({path:?}))
print('abstract=' + dial(chr(0) + {name:?}))
time.sleep(600)"
    );
    let fence = Fence::new(&script).up();
    assert_eq!(fence.said("path"), "2");
    assert_eq!(fence.said("abstract"), "111");
    for listener in [listener, hidden] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
    }
}

fn processes() {
    let victim = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
    struct Victim(std::process::Child);
    impl Drop for Victim {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut victim = Victim(victim);
    let pid = victim.0.id();
    let script = format!(
        "
import os, ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
try: os.kill({pid}, 9); print('kill=possible')
except OSError as e: print('kill=%d' % e.errno)
print('trace=%d %d' % (libc.ptrace(16, {pid}, 0, 0), ctypes.get_errno()))
print('seen=' + ' '.join(sorted(p for p in os.listdir('/proc') if p.isdigit())))
try: os.kill(-1, 9)
except OSError as e: print('all=%d' % e.errno)
time.sleep(600)"
    );
    let fence = Fence::new(&script).up();
    assert_eq!(fence.said("kill"), "3", "ESRCH");
    assert_eq!(fence.said("trace"), "-1 3");
    let seen = fence.said("seen");
    assert!(seen.split(' ').all(|pid| pid.parse::<u32>().unwrap() < 10), "{seen}");
    assert!(victim.0.try_wait().unwrap().is_none(), "the neighbour lives");
}

fn pid_1() {
    let script = "
import os, ctypes, signal, time
libc = ctypes.CDLL(None, use_errno=True)
for sig in [9, 15, 1, 2, 11, 19]:
    try: os.kill(1, sig)
    except OSError as e: pass
print('trace=%d' % libc.ptrace(16, 1, 0, 0))
r = []
for name in ['environ', 'mem', 'maps', 'fd', 'root/etc/hosts', 'cwd']:
    path = '/proc/1/' + name
    try:
        os.listdir(path) if name in ['fd', 'cwd'] else open(path, 'rb').read(1); r.append(name)
    except OSError: pass
print('readable=' + ','.join(r))
time.sleep(0.3); print('alive=yes'); time.sleep(600)";
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("trace"), "-1");
    assert_eq!(fence.said("readable"), "");
    assert_eq!(fence.said("alive"), "yes");
    assert!(crate::fence::alive(fence.init_pid()));
}

fn system_calls() {
    // Numbers of x86_64; each is what an escape begins with.
    let script = r#"
import ctypes, os, platform, socket, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    return "%d/%d" % (libc.syscall(number, *arguments), ctypes.get_errno())
x86 = platform.machine() == "x86_64"
def pick(a, b): return a if x86 else b
print("io_uring=" + call(425, 8, ctypes.create_string_buffer(256)))
print("mount=" + call(pick(165, 40), b"none", b"/tmp", b"tmpfs", 0, None))
print("open_tree=" + call(428, -100, b"/", 1))
print("unshare_user=" + call(pick(272, 97), 0x10000000))
print("unshare_net=" + call(pick(272, 97), 0x40000000))
print("clone_user=" + call(pick(56, 220), 0x10000000 | 17, 0, 0, 0, 0))
print("clone3=" + call(435, ctypes.create_string_buffer(88), 88))
print("bpf=" + call(pick(321, 280), 0, 0, 0))
print("perf=" + call(pick(298, 241), 0, 0, 0, 0, 0))
print("keyctl=" + call(pick(250, 219), 0, 0))
print("userfaultfd=" + call(pick(323, 282), 0))
print("setns=" + call(pick(308, 268), 0, 0))
print("future=" + call(500))
print("x32=" + call(0x40000000 + 39))
for name, family, kind, protocol in [("vsock", 40, 1, 0), ("packet", 17, 3, 0), ("alg", 38, 5, 0), ("netlink_audit", 16, 3, 9),
        ("netlink_nf", 16, 3, 12), ("raw", 2, 3, 1), ("bluetooth", 31, 1, 0), ("xdp", 44, 3, 0)]:
    try: socket.socket(family, kind, protocol); print(name + "=possible")
    except OSError as e: print("%s=%d" % (name, e.errno))
for name, family, kind, protocol in [("route", 16, 3, 0), ("unix", 1, 1, 0), ("inet", 2, 1, 0), ("inet6", 10, 1, 0)]:
    socket.socket(family, kind, protocol); print(name + "=fine")
import threading; t = threading.Thread(target=lambda: print("thread=fine")); t.start(); t.join()
if os.fork() == 0: print("fork=fine"); os._exit(0)
os.wait(); print("done=yes"); time.sleep(600)
"#;
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("done"), "yes");
    for absent in ["io_uring", "clone3", "future", "x32"] {
        assert_eq!(fence.said(absent), "-1/38", "{absent} does not exist");
    }
    let denied = [
        "mount",
        "open_tree",
        "unshare_user",
        "unshare_net",
        "clone_user",
        "bpf",
        "perf",
        "keyctl",
        "userfaultfd",
        "setns",
    ];
    for name in denied {
        assert_eq!(fence.said(name), "-1/1", "{name} is refused");
    }
    for family in ["vsock", "packet", "alg", "netlink_audit", "netlink_nf", "raw", "bluetooth", "xdp"] {
        assert_eq!(fence.said(family), "1", "{family} is refused");
    }
    for fine in ["route", "unix", "inet", "inet6", "thread", "fork"] {
        assert_eq!(fence.said(fine), "fine");
    }
}

fn privileges() {
    let script = "
import os, subprocess, time
status = dict(l.rstrip('\\n').split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l)
print('caps=' + ' '.join(status['Cap' + c] for c in ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb']))
print('nnp=' + status['NoNewPrivs']); print('seccomp=' + status['Seccomp']); print('groups=' + status['Groups'].strip())
try: os.setuid(0); print('setuid=possible')
except OSError as e: print('setuid=%d' % e.errno)
print('fds=' + ' '.join(sorted(os.listdir('/proc/self/fd'))))
print('links=' + ' '.join(os.readlink('/proc/self/fd/%d' % n).split(':')[0] for n in range(3)))
print('umask=%o' % os.umask(0)); print('pwd=' + os.environ.get('HOME', 'none'))
print('env=' + ' '.join(sorted(os.environ)))
time.sleep(600)";
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("caps"), ["0000000000000000"; 5].join(" "));
    assert_eq!((fence.said("nnp").as_str(), fence.said("seccomp").as_str()), ("1", "2"));
    assert_eq!(fence.said("setuid"), if fence.spec.uids.is_some() { "1" } else { "22" }, "EPERM or unmapped");
    if fence.spec.uids.is_some() {
        assert_eq!(fence.said("groups"), "");
    }
    assert_eq!(fence.said("fds"), "0 1 2 3", "its three, and the one that lists them");
    assert_eq!(fence.said("links"), "/dev/null pipe pipe");
    assert_eq!(fence.said("umask"), "27");
    assert_eq!(fence.said("env"), "LC_CTYPE PATH SPIFFE_ENDPOINT_SOCKET");
}

fn probe() {
    let probe = ringfence_sandbox::probe();
    assert!(probe.is_possible(), "{probe:?}");
    wait("a second trial", || ringfence_sandbox::probe().is_possible().then_some(()));
}
