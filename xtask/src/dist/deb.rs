//! A Debian package (deb(5), format 2.0): an `ar` archive of a version, a control archive and a data archive. Written by hand, so that
//! nothing of the machine that packs gets into it.

use std::fmt::Write as _;
use std::io;

use md5::{Digest as _, Md5};

use super::tree::{Tree, gzip};

/// What `control` says.
#[derive(Debug)]
pub(crate) struct Control<'a> {
    pub(crate) version: &'a str,
    /// Debian's name, such as `amd64`.
    pub(crate) architecture: &'a str,
    pub(crate) depends: &'a str,
}

/// Scripts that the package manager runs: name and text.
pub(crate) type Scripts<'a> = &'a [(&'a str, &'a str)];

/// The package, of all files at `time` (Unix time in seconds). Files below `etc` are the administrator's once installed.
pub(crate) fn pack(
    control: &Control<'_>,
    tree: &Tree,
    scripts: Scripts<'_>,
    time: u64,
) -> io::Result<Vec<u8>> {
    let mut inside = Tree::default();
    inside.add("control", 0o644, text(control, tree));
    let configured = tree.files().filter(|(path, _)| path.starts_with("etc/"));
    inside.add("conffiles", 0o644, configured.map(|(path, _)| format!("/{path}\n")).collect::<String>());
    inside.add("md5sums", 0o644, sums(tree));
    for (name, script) in scripts {
        inside.add(*name, 0o755, *script);
    }
    let mut archive = b"!<arch>\n".to_vec();
    member(&mut archive, "debian-binary", b"2.0\n", time)?;
    member(&mut archive, "control.tar.gz", &gzip(&inside.tar("./", time)?)?, time)?;
    member(&mut archive, "data.tar.gz", &gzip(&tree.tar("./", time)?)?, time)?;
    Ok(archive)
}

fn text(control: &Control<'_>, tree: &Tree) -> String {
    let Control { version, architecture, depends } = control;
    let kib = tree.size().div_ceil(1024);
    let depends = if depends.is_empty() { String::new() } else { format!("Depends: {depends}\n") };
    format!(
        "Package: ringfence\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: Ringfence <ringfence@localhost>\n\
         Installed-Size: {kib}\n{depends}Section: net\nPriority: optional\nDescription: security platform for microservices\n \
         One declaration says which services exist, who may call whom and what each may\n see. Ringfence enforces it by mutual TLS, \
         networks of their own and a gateway,\n and explains each refusal.\n"
    )
}

/// What `dpkg --verify` compares with: the format knows no other digest here.
fn sums(tree: &Tree) -> String {
    let mut text = String::new();
    for (path, bytes) in tree.files().filter(|(path, _)| !path.starts_with("etc/")) {
        for byte in Md5::digest(bytes) {
            let _ = write!(text, "{byte:02x}");
        }
        let _ = writeln!(text, "  {path}");
    }
    text
}

fn member(archive: &mut Vec<u8>, name: &str, bytes: &[u8], time: u64) -> io::Result<()> {
    let head = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", bytes.len());
    if head.len() != 60 {
        return Err(io::Error::other(format!("{name} does not fit into an archive")));
    }
    archive.extend_from_slice(head.as_bytes());
    archive.extend_from_slice(bytes);
    if bytes.len() % 2 == 1 {
        archive.push(b'\n');
    }
    Ok(())
}
