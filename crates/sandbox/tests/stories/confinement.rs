//! Our own processes behind their own walls: a child confines itself and tries what it must not do.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};

use ringfence_sandbox::confine::{Confinement, Sockets};

use crate::Story;

pub(crate) const STORIES: &[Story] = &[
    Story("a_keeper_makes_no_socket_and_writes_only_in_its_folder", keeper),
    Story("a_proxy_makes_no_unix_socket_and_traces_nobody", proxy),
];

const ROLE: &str = "--confined";

/// What a confined child could do, as words.
pub(crate) fn role(arguments: &[String]) -> Option<ExitCode> {
    let [role, who, folder] = arguments else { return None };
    if role != ROLE {
        return None;
    }
    let folder = Path::new(folder);
    let sockets = if who == "proxy" { Sockets::Inet } else { Sockets::None };
    let read = ["/proc/self", "/etc/hosts"].map(Into::into).to_vec();
    let confined = Confinement { read, write: vec![folder.join("mine")], sockets, exec: false, ports: None }
        .enforce()
        .unwrap();
    let parent = rustix::process::getppid().unwrap();
    let attempts: [(&str, bool); 13] = [
        ("landlock", confined.landlock),
        ("tcp", TcpListener::bind("127.0.0.1:0").is_ok()),
        ("udp", UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("unix", UnixListener::bind(folder.join("mine/sock")).is_ok()),
        ("pair", UnixStream::pair().is_ok()),
        ("write", std::fs::write(folder.join("mine/file"), "x").is_ok()),
        ("write-other", std::fs::write(folder.join("other"), "x").is_ok()),
        ("read-other", std::fs::read(folder.join("secret")).is_ok()),
        ("read", std::fs::read("/etc/hosts").is_ok()),
        ("exec", Command::new("/bin/true").status().is_ok()),
        ("kill", rustix::process::test_kill_process(parent).is_ok()),
        ("pidfd", rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty()).is_ok()),
        ("thread", std::thread::spawn(|| ()).join().is_ok()),
    ];
    let can: Vec<_> = attempts.iter().filter(|(_, can)| *can).map(|(what, _)| *what).collect();
    let mut out = std::io::stdout();
    writeln!(out, "{}", can.join(" ")).unwrap();
    Some(ExitCode::SUCCESS)
}

fn can(who: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("mine")).unwrap();
    std::fs::write(dir.path().join("secret"), "x").unwrap();
    let output =
        Command::new(std::env::current_exe().unwrap()).args([ROLE, who]).arg(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn keeper() {
    assert_eq!(can("keeper"), "landlock write read thread");
}

fn proxy() {
    assert_eq!(can("proxy"), "landlock tcp udp write read thread");
}
