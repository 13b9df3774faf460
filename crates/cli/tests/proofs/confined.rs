//! Keeper, control and node, looked at from outside: what they may, and who may look into them.

use std::process::Command;
use std::time::Duration;

use crate::is_root;
use crate::running::{Clinic, Who, children, eventually, text};

/// As another process of the same user: the memory by /proc and by a system call, the environment, descriptors, and tracing.
const LOOK: &str = r#"
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
class iovec(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
def vm(address):
    buffer = ctypes.create_string_buffer(8)
    local, remote = iovec(ctypes.addressof(buffer), 8), iovec(address, 8)
    return libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
def attempt(name, look):
    try: print(name, 'DONE' if look() else 'nothing')
    except OSError as e: print(name, 'refused')
attempt('mem', lambda: open(f'/proc/{pid}/mem', 'rb', 0))
attempt('maps', lambda: open(f'/proc/{pid}/maps').read())
attempt('environ', lambda: open(f'/proc/{pid}/environ', 'rb').read())
attempt('descriptors', lambda: os.listdir(f'/proc/{pid}/fd'))
attempt('process_vm_readv', lambda: any(vm(a) > 0 for a in (0x400000, 0x555555554000)) or ctypes.get_errno() not in (1, 13))
attempt('ptrace', lambda: libc.ptrace(16, pid, None, None) == 0)
attempt('pidfd_getfd', lambda: libc.syscall(438, os.pidfd_open(pid), 0, 0) >= 0)
"#;

#[test]
fn nobody_of_the_same_user_looks_into_ringfence_s_processes() {
    let clinic = Clinic::start(Who::Nobody);
    let look = |pid: u32| {
        let mut command = Command::new("/usr/bin/python3");
        if is_root("becoming another user") {
            command = Command::new("setpriv");
            command.args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
                "/usr/bin/python3",
            ]);
        }
        // Programs of the system: those of a person's own folder are not for everybody.
        let output =
            command.args(["-c", LOOK, &pid.to_string()]).env("PATH", "/usr/bin:/bin").output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    // The looking works where nothing forbids it: at a process of the same user that is like any other.
    let mut plain = Command::new("setpriv");
    let mut plain = plain
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "sleep", "600"])
        .spawn()
        .unwrap();
    let comm = || std::fs::read_to_string(format!("/proc/{}/comm", plain.id())).unwrap_or_default();
    let sleeps = eventually(Duration::from_secs(60), || (comm().trim() == "sleep").then_some(()));
    assert!(sleeps.is_some(), "{}", comm());
    let seen = look(plain.id());
    plain.kill().unwrap();
    plain.wait().unwrap();
    for way in ["mem", "maps", "environ", "descriptors"] {
        assert!(seen.contains(&format!("{way} DONE")), "{seen}");
    }
    for (name, pid) in processes(&clinic) {
        let seen = look(pid);
        assert_eq!(seen.lines().count(), 7, "{seen}");
        assert!(!seen.contains("DONE"), "{name}:\n{seen}");
    }
}

#[test]
fn ringfence_s_processes_can_do_no_more_than_they_need() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start(who);
        for role in ["keeper", "control", "node"] {
            let pid = clinic.process(role);
            for entry in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
                // A thread that nobody needed has ended meanwhile.
                let Ok(status) = std::fs::read_to_string(entry.unwrap().path().join("status")) else {
                    continue;
                };
                let field =
                    |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
                for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
                    assert_eq!(u64::from_str_radix(&field(set), 16), Ok(0), "{who:?} {role} {set}\n{status}");
                }
                assert_eq!(field("Seccomp:"), "2", "{who:?} {role}: every thread is behind a filter");
                assert_eq!(field("NoNewPrivs:"), "1", "{who:?} {role}");
            }
        }
        // None of them has a child, and none could have one that does more.
        for role in ["keeper", "control", "node"] {
            assert_eq!(children(clinic.process(role)), [0; 0], "{who:?} {role}");
        }
    }
}

fn processes(clinic: &Clinic) -> Vec<(&'static str, u32)> {
    let mut all: Vec<_> = ["keeper", "control", "node"].map(|role| (role, clinic.process(role))).to_vec();
    all.push(("up", clinic.up_pid()));
    let status = clinic.json(&["status", "--json"]);
    for service in status["report"]["services"].as_array().unwrap() {
        all.push(("shim", u32::try_from(service["shim"].as_u64().unwrap()).unwrap()));
    }
    all
}
