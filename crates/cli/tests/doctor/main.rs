//! Things that go wrong, each done for real, and what the doctor says of them.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use running::{Clinic, Who, binary, eventually, make_folder, text};
use serde_json::Value;

/// However busy the machine is.
const SOON: Duration = Duration::from_secs(60);

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
services:
  portal: { run: [python3, -m, http.server, '9000'], listen: 9000, ready: tcp, routes: [{ path: / }] }
";

fn found(output: &Output, check: &str) -> Value {
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr));
    });
    said["checks"].as_array().unwrap().iter().find(|c| c["check"] == check).cloned().unwrap_or_default()
}

fn status(output: &Output, check: &str) -> String {
    found(output, check)["status"].as_str().unwrap_or_default().to_owned()
}

/// Looks at a folder in which nothing runs.
fn doctor(folder: &Path) -> Output {
    Command::new(binary()).args(["doctor", "--json"]).current_dir(folder).output().unwrap()
}

#[test]
fn what_is_wrong_before_anything_runs_is_named_with_the_next_step() {
    let folder = make_folder(Who::Root);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let write = |fence: &str| std::fs::write(folder.join("ringfence.yaml"), fence).unwrap();
    write(&FENCE.replace("8443", &port.to_string()));
    let said = doctor(&folder);
    assert_eq!(said.status.code(), Some(1));
    assert_eq!(status(&said, "listeners"), "fail");
    assert!(found(&said, "listeners")["next"].as_str().unwrap().contains(&port.to_string()));
    for good in ["fence", "programs", "kernel", "protections"] {
        assert_eq!(status(&said, good), "ok", "{}", found(&said, good));
    }
    for unknown in ["control", "nodes", "data-folder"] {
        assert_eq!(status(&said, unknown), "unknown", "{}", found(&said, unknown));
    }

    write(&FENCE.replace("python3", "./not-there").replace("gateway: {", "waf: observe\ngateway: {"));
    let said = doctor(&folder);
    assert_eq!(status(&said, "programs"), "fail");
    let seen = found(&said, "programs");
    assert!(seen["seen"].as_str().unwrap().contains("ringfence.yaml:6"), "{seen}");
    assert_eq!(status(&said, "protections"), "warn");
    write("fence: [");
    assert_eq!(status(&doctor(&folder), "fence"), "fail");

    write(FENCE);
    let data = folder.join(".ringfence");
    std::fs::create_dir(&data).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&data, 0o755);
    std::fs::write(data.join("master.key"), "ab".repeat(32)).unwrap();
    mode(&data.join("master.key"), 0o644);
    let said = doctor(&folder);
    assert_eq!((status(&said, "data-folder"), status(&said, "master-key")), ("fail".into(), "fail".into()));
    mode(&data, 0o700);
    mode(&data.join("master.key"), 0o600);
    let said = doctor(&folder);
    assert_eq!((status(&said, "data-folder"), status(&said, "master-key")), ("ok".into(), "warn".into()));

    let few = Command::new("sh")
        .args(["-c", "ulimit -n 512 && exec \"$0\" doctor --json"])
        .arg(binary())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert_eq!(status(&few, "open-files"), "warn", "{}", found(&few, "open-files"));
    // A person reads the same.
    let shown = Command::new(binary()).arg("doctor").current_dir(&folder).output().unwrap();
    let shown = text(&shown.stdout);
    assert!(shown.contains("master-key") && shown.contains('→'), "{shown}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_goes_wrong_while_it_runs_is_named_too() {
    let clinic = Clinic::start_fence(Who::Nobody, FENCE, Vec::new(), |_| ());
    let doctor = || clinic.ringfence(&["doctor", "--json"]);
    let until = |check: &str, wanted: &str| {
        let all = eventually(SOON, || (status(&doctor(), check) == wanted).then_some(()));
        assert!(all.is_some(), "{}\n{}", found(&doctor(), check), clinic.said());
    };
    for good in
        ["control", "fence-in-force", "nodes", "certificates", "authorities", "clock", "store", "hosts"]
    {
        until(good, "ok");
    }
    // A fence that is wrong stays on disk, and an older one in force.
    let path = clinic.folder.join("ringfence.yaml");
    let fence = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, fence.replace("listen: 9000", "lisen: 9000")).unwrap();
    until("fence-in-force", "fail");
    assert_eq!(status(&doctor(), "fence"), "fail");
    std::fs::write(&path, fence).unwrap();
    until("fence-in-force", "ok");
    // A process of ours that had to be started again.
    let node = clinic.process("node").to_string();
    assert!(Command::new("kill").args(["-KILL", &node]).status().unwrap().success());
    until("processes", "fail");
    assert!(found(&doctor(), "processes")["seen"].as_str().unwrap().contains("node was started again"));
}
