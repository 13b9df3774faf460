//! Nonsense on the channels of a running fence, written into the very descriptors of its processes: the fence heals, and says so.

use std::fs::File;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde_json::Value;

use crate::running::{Clinic, Who, eventually, text};

const NONSENSE: &[u8] = b"\x04\0\0\0nope";
const SOON: Duration = Duration::from_secs(60);

#[test]
fn whoever_speaks_nonsense_is_replaced_or_introduced_again_and_told() {
    if !crate::is_root("to write into the descriptors of another process") {
        return;
    }
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start(who);
        let pid = |name: &str| clinic.process(name);
        let (control, node) = (pid("control"), pid("node"));

        // The node speaks nonsense to control: another node takes its place.
        descriptor(node, Some(control)).write_all(NONSENSE).unwrap();
        healed(&clinic, ("node", node));
        told(&clinic, &["node is ended, because its channel failed: to control: malformed", "node ended"]);
        assert_eq!(pid("control"), control, "control goes on");

        // The node speaks nonsense to the supervisor: the same.
        let node = pid("node");
        descriptor(node, None).write_all(NONSENSE).unwrap();
        healed(&clinic, ("node", node));
        told(&clinic, &["node is ended, because its channel failed: malformed"]);

        // Control speaks nonsense to the node, which gives up that channel: they get another, and both go on.
        let node = pid("node");
        descriptor(control, Some(node)).write_all(NONSENSE).unwrap();
        told(&clinic, &["control spoke nonsense", "control and node lost their channel"]);
        healed(&clinic, ("keeper", 0));
        assert_eq!((pid("control"), pid("node")), (control, node));

        // Control speaks nonsense to the supervisor: another control takes its place.
        descriptor(control, None).write_all(NONSENSE).unwrap();
        healed(&clinic, ("control", control));
        told(&clinic, &["control is ended, because its channel failed: malformed"]);
        assert_eq!(clinic.stop(), [""; 0]);
    }
}

/// Waits until a process is another, control and node know each other, and take each other's word: a changed fence is in force.
fn healed(clinic: &Clinic, (name, before): (&str, u32)) {
    let path = clinic.folder.join("ringfence.yaml");
    let fence = std::fs::read_to_string(&path).unwrap();
    let revision = |status: &Value| status["snapshot"]["revision"].as_u64();
    let status = || serde_json::from_slice::<Value>(&clinic.ringfence(&["status", "--json"]).stdout).ok();
    let first = eventually(SOON, || {
        let status = status()?;
        let processes = status["report"]["processes"].as_array()?;
        let now = processes.iter().find(|p| p["name"] == name)?["pid"].as_u64()?;
        (now != 0 && now != u64::from(before)).then(|| revision(&status))?
    });
    let first = first.unwrap_or_else(|| panic!("no other {name}:\n{}", clinic.said()));
    let next = path.with_extension("next");
    std::fs::write(&next, fence + "# changed\n").unwrap();
    std::fs::rename(next, path).unwrap();
    let in_force = eventually(SOON, || {
        let status = status()?;
        let node = &status["nodes"].as_array()?.first()?["revision"];
        (node.as_u64()? > first && node.as_u64() == revision(&status)).then_some(())
    });
    assert!(in_force.is_some(), "nothing new is in force at the node:\n{:?}\n{}", status(), clinic.said());
    let served = eventually(SOON, || (clinic.get("/patients/p-1001").0 == 200).then_some(()));
    assert!(served.is_some(), "{}", clinic.said());
}

fn told(clinic: &Clinic, messages: &[&str]) {
    for message in messages {
        let event = clinic.event(SOON, |e| e["message"].as_str().is_some_and(|m| m.contains(message)));
        assert!(event.is_some(), "no event says {message:?}:\n{}", clinic.said());
    }
}

/// The descriptor of the channel from a process to another, or to the supervisor, which is its standard input.
fn descriptor(pid: u32, to: Option<u32>) -> File {
    let process = pidfd_open(Pid::from_raw(pid.try_into().unwrap()).unwrap(), PidfdFlags::empty()).unwrap();
    let number = match to {
        None => 0,
        Some(to) => eventually(SOON, || shared(pid, to)).expect("they have a channel"),
    };
    pidfd_getfd(process, number, PidfdGetfdFlags::empty()).unwrap().into()
}

/// The socket of one process whose peer is a socket of the other.
fn shared(pid: u32, to: u32) -> Option<i32> {
    let listed = Command::new("ss").args(["--unix", "--no-header", "--numeric"]).output().unwrap();
    let listed = text(&listed.stdout);
    let theirs: Vec<String> = sockets(to).into_iter().map(|(_, inode)| inode).collect();
    sockets(pid).into_iter().find_map(|(number, inode)| {
        let words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut peers = words.filter(|w| w.get(5) == Some(&&*inode)).filter_map(|w| w.get(7).copied());
        peers.any(|peer| theirs.iter().any(|t| t == peer)).then_some(number)
    })
}

/// Number and inode of each socket of a process.
fn sockets(pid: u32) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let socket = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some((entry.file_name().to_str()?.parse().ok()?, inode))
    };
    entries.filter_map(socket).collect()
}
