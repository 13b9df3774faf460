//! What a service does against Ringfence itself is told, and telling costs neither side much.

use std::io::Read as _;

use ringfence_sandbox::client::Shim;
use ringfence_sandbox::protocol::{Reply, Request};

use crate::Story;
use crate::fence::{Fence, wait};

pub(crate) const STORIES: &[Story] = &[
    Story("a_signal_to_pid_1_a_trace_and_a_look_at_the_data_directory_are_told", told),
    Story("a_flood_of_signals_is_counted_in_a_few_events_and_answered_by_the_kernel", flood),
    Story("signals_among_a_service_s_own_processes_are_its_own_business", own_business),
    Story("a_data_directory_elsewhere_has_its_empty_stand_in_too", elsewhere),
    Story("what_runs_beside_a_service_has_no_more_than_the_service", beside),
];

fn tampering(fence: &Fence, what: &str) -> Vec<u64> {
    let events = fence.events();
    let alike = events.iter().filter(|e| e.kind() == "tamper" && e.json["finding_info"]["uid"] == what);
    alike.map(|e| e.json["count"].as_u64().unwrap()).collect()
}

fn told() {
    let script = "
import os, ctypes, time
libc = ctypes.CDLL(None, use_errno=True)
try: os.kill(1, 0); print('kill=possible')
except OSError as e: print('kill=%d' % e.errno)
print('trace=%d %d' % (libc.ptrace(16, 1, 0, 0), ctypes.get_errno()))
print('data=' + repr(os.listdir('.ringfence')))
time.sleep(600)";
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("trace"), "-1 1", "the kernel refuses, not the sensor");
    for (what, part) in
        [("signal", "a signal to PID 1 by process"), ("trace", "ptrace of PID 1"), ("decoy", ".ringfence")]
    {
        let took = fence.event(&["\"tamper\"", &format!("\"uid\":\"{what}\""), part, "portal"]);
        assert!(took.as_secs() < 2, "{took:?}");
    }
}

fn flood() {
    const CALLS: u64 = 20_000;
    let script = format!(
        "
import os, time
t = time.time()
for _ in range({CALLS}):
    try: os.kill(1, 0)
    except OSError: pass
print('took=%d' % ((time.time() - t) * 1000)); time.sleep(600)"
    );
    let fence = Fence::new(&script).up();
    let took: u64 = fence.said("took").parse().unwrap();
    let counts =
        wait("all of them", || Some(tampering(&fence, "signal")).filter(|c| c.iter().sum::<u64>() == CALLS));
    assert!(counts.len() as u64 <= 3 + took / 900, "{counts:?} in {took} ms");
    println!("      {} us per signal to PID 1", took * 1000 / CALLS);
}

fn own_business() {
    let script = "
import os, signal, subprocess, time
child = subprocess.Popen(['sleep', '60'])
os.kill(child.pid, 0); os.kill(os.getpid(), 0); child.send_signal(signal.SIGTERM)
print('child=%d' % child.wait())
os.listdir('.'); os.listdir('/'); print('done=yes'); time.sleep(600)";
    let fence = Fence::new(script).up();
    assert_eq!(fence.said("child"), "-15");
    fence.said("done");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(fence.events().iter().all(|e| e.kind() != "tamper"), "{:?}", fence.events());
}

fn elsewhere() {
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    let data = other.path().join("deep/data");
    let script = format!("import os, time\nprint('data=' + repr(os.listdir({data:?}))); time.sleep(600)");
    let fence = Fence::new(&script).change(|spec| spec.data = data).up();
    assert_eq!(fence.said("data"), "[]");
    fence.event(&["\"uid\":\"decoy\"", "portal"]);
}

fn beside() {
    let fence = Fence::new("import time; print('up=yes'); time.sleep(600)").up();
    fence.said("up");
    // While a supervisor is connected, too: its place is not taken.
    let supervisor = fence.shim();
    let beside = |args: &[&str]| {
        let shim = Shim::connect(&fence.spec.data, "portal").unwrap();
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let (Reply::Inside, mut fds) = shim.ask(&Request::Inside { args }).unwrap() else {
            panic!("another reply")
        };
        let mut said = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut said).unwrap();
        said
    };
    let said = beside(&["beside"]);
    let line = |key: &str| {
        said.lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap_or_else(|| panic!("{key} in {said}"))
            .trim()
            .to_owned()
    };
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(line("CapEff:"), "0000000000000000");
    assert_eq!(line("CapBnd:"), "0000000000000000");
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Seccomp:"), "2");
    assert_eq!(line("Uid:").split_whitespace().next(), Some(fence.owner().as_str()), "{host}");
    assert_eq!(line("data="), "[]");
    assert_eq!(line("net="), format!("net:[{}]", fence.hello.as_ref().unwrap().netns));
    supervisor.hello().unwrap();
}

/// The trial process of [`beside`].
pub(crate) fn role(arguments: &[String]) -> Option<std::process::ExitCode> {
    if arguments.first()? != "beside" {
        return None;
    }
    print!("{}", std::fs::read_to_string("/proc/self/status").unwrap());
    let names: Vec<_> = std::fs::read_dir(".ringfence").unwrap().flatten().map(|e| e.file_name()).collect();
    println!("data={names:?}");
    println!("net={}", std::fs::read_link("/proc/self/ns/net").unwrap().display());
    Some(std::process::ExitCode::SUCCESS)
}
