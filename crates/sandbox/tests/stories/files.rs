//! What a service may read and write.

use std::os::unix::fs::PermissionsExt;

use ringfence_sandbox::protocol::{Exit, Request, State};
use ringfence_sandbox::spec::{FileRule, Isolation, Restart};

use crate::Story;
use crate::fence::{Fence, hosts, wait};

pub(crate) const STORIES: &[Story] = &[
    Story("declared_files_are_there_and_everything_else_is_not", declared),
    Story("private_folders_are_writable_empty_and_gone_with_the_service", private),
    Story("a_supervisor_that_keeps_its_files_to_itself_starts_services_all_the_same", private_umask),
    Story("a_hidden_file_of_the_folder_reads_as_empty", hidden),
    Story("no_service_reads_the_fence_neither_before_nor_after_an_editor_replaced_it", the_fence),
    Story("a_link_to_the_fence_leads_nowhere", linked_fence),
    Story("a_fence_among_too_much_says_so", crowded),
    Story("without_isolation_kill_9_of_the_shim_still_ends_the_service", off_and_killed),
    Story("without_isolation_a_service_is_still_supervised_and_filtered", isolation_off),
];

fn declared() {
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (read, write, other) =
        (outside.path().join("read.txt"), outside.path().join("state"), outside.path().join("other.txt"));
    std::fs::write(&read, "readable").unwrap();
    std::fs::write(&other, "secret").unwrap();
    std::fs::create_dir(&write).unwrap();
    std::fs::set_permissions(&write, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = format!(
        "
import os, time
def attempt(what):
    try: return what()
    except OSError as e: return str(e.errno)
print('read=' + attempt(lambda: open({read:?}).read()))
print('change=' + attempt(lambda: str(open({read:?}, 'a'))))
print('write=' + attempt(lambda: str(open({write:?} + '/x', 'w').write('kept'))))
print('other=' + attempt(lambda: open({other:?}).read()))
print('sibling=' + ' '.join(sorted(os.listdir(os.path.dirname({read:?})))))
time.sleep(600)"
    );
    let fence = Fence::new(&script)
        .change(|s| {
            s.files.push(FileRule { path: read.clone(), write: false });
            s.files.push(FileRule { path: write.clone(), write: true });
        })
        .up();
    assert_eq!(fence.said("read"), "readable");
    assert!(["13", "30"].contains(&fence.said("change").as_str()));
    assert_eq!(fence.said("write"), "4");
    assert_eq!(fence.said("other"), "2");
    wait("the write", || std::fs::read_to_string(write.join("x")).ok().filter(|t| t == "kept"));
}

/// Stories are told one after the other: nobody else sees the mask.
fn private_umask() {
    let before = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let fence = Fence::new(
        "
import os, time
open('/var/tmp/x', 'w').write('kept')
print('read=' + open('/var/tmp/x').read() + str(len(open('/etc/hosts').read()) > 0))
time.sleep(600)",
    )
    .up();
    rustix::process::umask(before);
    assert_eq!(fence.said("read"), "keptTrue");
}

fn private() {
    let script = "
import os, time
for d in ['/tmp', '/run', '/dev/shm', '/var/tmp']:
    print(d[1:].replace('/', '_') + '=' + ','.join(sorted(os.listdir(d))))
    open(d + '/mine', 'w').write('x')
print('null=' + str(open('/dev/null', 'w').write('x')))
print('random=%d' % len(open('/dev/urandom', 'rb').read(8)))
print('dev=' + ' '.join(sorted(os.listdir('/dev'))))
print('top=' + ' '.join(sorted(os.listdir('/'))))
for path in ['/usr/x', '/etc/x', '/x', '/opt/x']:
    try: open(path, 'w'); print('wrote ' + path)
    except OSError: pass
import multiprocessing; multiprocessing.Lock(); print('shm=fine')
m, s = os.openpty(); print('pty=fine'); time.sleep(600)";
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("run"), "ringfence");
    for folder in ["dev_shm", "var_tmp"] {
        assert_eq!(fence.said(folder), "");
    }
    // The fence of this story lies in /tmp: its way there exists, and nothing beside it.
    assert_eq!(format!("/tmp/{}", fence.said("tmp")), fence.dir.path().to_string_lossy());
    assert_eq!((fence.said("null").as_str(), fence.said("random").as_str()), ("1", "8"));
    assert_eq!(fence.said("dev"), "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero");
    assert!(
        !fence.said("top").contains("root") && !fence.said("top").contains("home"),
        "{}",
        fence.said("top")
    );
    assert_eq!((fence.said("shm").as_str(), fence.said("pty").as_str()), ("fine", "fine"));
    assert!(!fence.log().contains("wrote"));
    assert!(!std::path::Path::new("/tmp/mine").exists() && !std::path::Path::new("/dev/shm/mine").exists());
}

fn hidden() {
    let script = "
import os, time
print('key=%d' % len(open('neighbour.key').read())); print('open=' + open('ringfence.yaml').read())
print('dir=' + repr(os.listdir('secrets'))); time.sleep(600)";
    let fence = Fence::new(script).change(|s| {
        s.hide = vec![s.folder.join("neighbour.key"), s.folder.join("secrets"), "/no/such/path".into()];
        std::fs::write(s.folder.join("neighbour.key"), "secret").unwrap();
        std::fs::write(s.folder.join("ringfence.yaml"), "fence").unwrap();
        std::fs::create_dir(s.folder.join("secrets")).unwrap();
        std::fs::write(s.folder.join("secrets/one"), "secret").unwrap();
    });
    let fence = fence.up();
    assert_eq!(fence.said("key"), "0");
    assert_eq!(fence.said("open"), "fence");
    assert_eq!(fence.said("dir"), "[]");
}

/// Looks at everything that a service can reach in the fence's folder, before and after `turn` appears, for a text.
const SEARCH: &str = "
import os, time
def search():
    found = []
    for folder, _, names in os.walk('.'):
        for name in names:
            try: found += [os.path.join(folder, name)] if 'hunter2' in open(os.path.join(folder, name)).read() else []
            except OSError: pass
    return ' '.join(sorted(found))
print('before=' + search())
print('names=' + ' '.join(sorted(os.listdir('.'))))
print('program=' + open('app.py').read() + open('assets/page.html').read())
print('asked=' + open('.git/config').read() if os.path.exists('.git') else 'asked=nothing')
while not os.path.exists('assets/turn'): time.sleep(0.02)
print('after=' + search() + open('ringfence.yaml').read())
print('live=' + open('assets/page.html').read())
time.sleep(600)";

fn the_fence() {
    const TEXT: &str = "env: { PASSWORD: hunter2 }";
    // A fence in one file and one of fragments, with what editors and version control leave beside them.
    for asked in [false, true] {
        let fence = Fence::new(SEARCH).change(|s| {
            let file = |name: &str| s.folder.join(name);
            for folder in ["assets", ".git", ".ringfence"] {
                std::fs::create_dir(file(folder)).unwrap();
            }
            let fence = ["ringfence.yaml", "billing.yaml"];
            let copies = ["ringfence.yaml~", ".billing.yaml.swp", "ringfence.yaml.orig", ".git/object"];
            for name in fence.iter().chain(&copies) {
                std::fs::write(file(name), TEXT).unwrap();
            }
            std::fs::write(file(".git/config"), "config").unwrap();
            std::fs::write(file("app.py"), "app+").unwrap();
            std::fs::write(file("assets/page.html"), "page").unwrap();
            s.fence = fence.map(file).into();
            if asked {
                std::fs::remove_file(file(".git/object")).unwrap();
                s.files.push(FileRule { path: file(".git"), write: false });
                // Redundant, and no way around.
                s.files.push(FileRule { path: s.folder.clone(), write: false });
                s.files.push(FileRule { path: s.folder.parent().unwrap().into(), write: false });
            }
        });
        std::fs::set_permissions(fence.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let fence = fence.up();
        let replace = |name: &str, text: &str| {
            let (new, name) = (fence.spec.folder.join("4913"), fence.spec.folder.join(name));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, name).unwrap();
        };
        assert_eq!(fence.said("before"), "");
        let git = if asked { ".git " } else { "" };
        assert_eq!(fence.said("names"), format!("{git}.ringfence app.py assets billing.yaml ringfence.yaml"));
        assert_eq!(fence.said("program"), "app+page");
        assert_eq!(fence.said("asked"), if asked { "config" } else { "nothing" });
        for name in ["ringfence.yaml", "billing.yaml", "ringfence.yaml~", "a-new-fragment.yaml"] {
            replace(name, TEXT);
        }
        replace("assets/page.html", "new page");
        replace("assets/turn", "");
        assert_eq!(fence.said("after"), "", "empty, and nowhere else either");
        assert_eq!(fence.said("live"), "new page", "folders beside the fence show what happens in them");
    }
}

fn linked_fence() {
    let script = "
import os, time
print('link=' + open('ringfence.yaml').read()); print('target=' + open('conf/clinic.yaml').read())
print('other=' + open('conf/other').read())
while not os.path.exists('assets/turn'): time.sleep(0.02)
print('after=' + open('ringfence.yaml').read() + open('conf/clinic.yaml').read()); time.sleep(600)";
    let fence = Fence::new(script).change(|s| {
        for folder in ["conf", "assets"] {
            std::fs::create_dir(s.folder.join(folder)).unwrap();
        }
        std::fs::write(s.folder.join("conf/clinic.yaml"), "secret").unwrap();
        std::fs::write(s.folder.join("conf/other"), "other").unwrap();
        std::os::unix::fs::symlink("conf/clinic.yaml", s.folder.join("ringfence.yaml")).unwrap();
        s.fence = vec![s.folder.join("ringfence.yaml")];
    });
    let fence = fence.up();
    assert_eq!((fence.said("link"), fence.said("target")), (String::new(), String::new()));
    assert_eq!(fence.said("other"), "other");
    let (new, target) = (fence.spec.folder.join("conf/new"), fence.spec.folder.join("conf/clinic.yaml"));
    std::fs::write(&new, "secret").unwrap();
    std::fs::rename(new, target).unwrap();
    std::fs::write(fence.spec.folder.join("assets/turn"), "").unwrap();
    assert_eq!(fence.said("after"), "");
}

fn crowded() {
    let fence = Fence::new("pass").change(|s| {
        for n in 0..1100 {
            std::fs::write(s.folder.join(format!("{n}.txt")), "").unwrap();
        }
    });
    let started = ringfence_sandbox::launch(&fence.spec);
    let why = match started {
        Err(e) => e.to_string(),
        Ok(launched) => {
            let said = wait("why", || fence.log().lines().find(|l| l.contains("beside")).map(str::to_owned));
            let mut child = launched.child;
            child.kill().unwrap();
            child.wait().unwrap();
            said
        }
    };
    assert!(why.contains("more than 1024 files lie beside the fence"), "{why}");
}

fn off_and_killed() {
    let mut fence =
        Fence::new("import os, time; print('pid=%d' % os.getpid()); time.sleep(600)").change(|s| {
            s.isolation = Isolation::Off;
        });
    std::fs::set_permissions(fence.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    fence = fence.up();
    let pid = fence.said("pid").parse().unwrap();
    assert!(crate::fence::alive(pid));
    fence.kill_shim();
    wait("the end of the service", || (!crate::fence::alive(pid)).then_some(()));
}

fn isolation_off() {
    let script = "
import os, socket, subprocess, sys, time
print('uid=%d' % os.getuid())
try: open('.ringfence/logs/portal.log'); print('data=readable')
except OSError as e: print('data=%d' % e.errno)
try: socket.socket(40, 1, 0); print('vsock=possible')
except OSError as e: print('vsock=%d' % e.errno)
if os.fork() == 0: time.sleep(600)
print('done=yes'); time.sleep(600)";
    let mut fence = Fence::new(script).change(|s| {
        s.isolation = Isolation::Off;
        s.hosts = hosts(&[("patients", [127, 77, 1, 1])]);
        s.ports = [29_001].into();
        s.restart = Restart { enabled: false, ..Restart::default() };
    });
    if fence.spec.uids.is_some() {
        // Nothing is bound to where it is: every folder on the way must let the service's uid through.
        std::fs::set_permissions(fence.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    fence = fence.up();
    assert_eq!(fence.said("done"), "yes");
    assert_eq!(fence.said("vsock"), "1");
    if fence.spec.uids.is_some() {
        assert_eq!(fence.said("data"), "13");
    }
    let status = fence.shim().hello().unwrap().status;
    assert_eq!(status.isolation, Isolation::Off);
    let ask = |address| fence.shim().ask(&Request::Listeners { port: 29_001, count: 2, address });
    assert!(ask(None).is_err() && ask(Some([10, 0, 0, 1].into())).is_err());
    let (_, fds) = ask(Some([127, 77, 1, 1].into())).unwrap();
    assert_eq!(fds.len(), 2);
    std::net::TcpStream::connect("127.77.1.1:29001").unwrap();
    assert!(fence.shim().ask(&Request::WorkloadListener).is_err());
    assert!(!matches!(fence.state(), State::Exited(Exit::Code(_))));
    fence.stop();
    let marker = fence.spec.folder.to_string_lossy().into_owned();
    wait("the end of all", || {
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|p| {
            std::fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy() == marker)
        });
        (!left).then_some(())
    });
}
