//! What must be installed beside Rust: a few Debian packages and, in folders of their own, packages of Python and Node.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::{find, root, target};
use crate::process::{Error, run, succeeds};

/// A program and the Debian package that brings it.
pub(crate) type Tool = (&'static str, &'static str);

/// The system's own: one under somebody's home is out of reach for services that run as other users.
const PYTHON: &str = "/usr/bin/python3";

/// For the demo: one of the clinic's services is Python, its OpenID provider is Node, and the tour uses curl.
pub(crate) const DEMO: &[Tool] =
    &[("python3", "python3"), ("curl", "curl"), ("node", "nodejs"), ("npm", "npm")];
/// For tests: real peers, real attackers.
pub(crate) const TEST: &[Tool] = &[
    (PYTHON, "python3"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("lighttpd", "lighttpd"),
    ("postgres", "postgresql"),
    ("slowhttptest", "slowhttptest"),
    ("nmap", "nmap"),
    ("sqlmap", "sqlmap"),
    ("nsenter", "util-linux"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("chromium", "chromium"),
    ("certutil", "libnss3-tools"),
    ("skopeo", "skopeo"),
    ("ip", "iproute2"),
    ("systemd-analyze", "systemd"),
];

/// Installs what is missing, as root or by sudo; says what to type where neither is possible.
pub(crate) fn install(tools: &[Tool]) -> Result<(), Error> {
    let packages: Vec<&str> =
        tools.iter().filter(|(program, _)| find(program).is_none()).map(|(_, p)| *p).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let by_hand = || {
        Error::new(format!("missing programs: install them with `apt-get install {}`", packages.join(" ")))
    };
    let prefix: &[&str] = match () {
        () if find("apt-get").is_none() => return Err(by_hand()),
        () if is_root() => &[],
        () if succeeds(Command::new("sudo").args(["-n", "true"])) => &["sudo", "-n"],
        () => return Err(by_hand()),
    };
    let apt = |arguments: &[&str]| {
        let words: Vec<&str> = prefix.iter().chain(&["apt-get"]).chain(arguments).copied().collect();
        let (program, arguments) = words.split_first().ok_or_else(by_hand)?;
        run(Command::new(program).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update", "-q"])?;
    apt(&[&["install", "-q", "-y", "--no-install-recommends"], packages.as_slice()].concat())
}

/// The folder of programs of a Python environment that has what `requirements.txt` names; made when missing or changed.
pub(crate) fn python() -> Result<PathBuf, Error> {
    let wanted = root().join("xtask/requirements.txt");
    let venv = target().join("venv");
    let (bin, stamp) = (venv.join("bin"), venv.join("requirements.installed"));
    let text = std::fs::read_to_string(&wanted)?;
    if bin.join("python3").exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == text) {
        return Ok(bin);
    }
    if !succeeds(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])) {
        install(&[("python3-venv", "python3-venv")])?;
    }
    run(Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(Command::new(bin.join("pip")).args(["install", "--quiet", "--requirement"]).arg(&wanted))?;
    std::fs::write(&stamp, text)?;
    Ok(bin)
}

/// Installs what tests speak with into `node/node_modules` of the target folder.
pub(crate) fn node() -> Result<(), Error> {
    let folder = target().join("node");
    std::fs::create_dir_all(&folder)?;
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(root().join("xtask").join(name), folder.join(name))?;
    }
    packages(&folder)
}

/// Installs what the clinic's provider runs on, beside it.
pub(crate) fn clinic() -> Result<(), Error> {
    packages(&root().join("examples/clinic/services/id"))
}

/// Installs what a folder's `package-lock.json` names into its `node_modules`, when that is missing or changed. Scripts of packages are
/// not run.
fn packages(folder: &Path) -> Result<(), Error> {
    let stamp = folder.join("node_modules/.installed");
    let text = std::fs::read_to_string(folder.join("package-lock.json"))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == text) {
        return Ok(());
    }
    let arguments = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix"];
    run(Command::new("npm").args(arguments).arg(folder))?;
    std::fs::write(&stamp, text)?;
    Ok(())
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
