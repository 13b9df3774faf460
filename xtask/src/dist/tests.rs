//! What is packed, looked at by those who will install it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::*;
use crate::process::status;

const TIME: u64 = 1_700_000_000;

/// The program that was built with the tests, which lie one folder deeper.
fn built() -> PathBuf {
    target().join("ringfence")
}

/// Packs a small program with the pages of the real one.
fn packed(out: &Path) -> Vec<PathBuf> {
    let program = fs::read("/bin/true").unwrap();
    let pages = pages(&built()).expect("`cargo build -p ringfence` makes what tests pack");
    let made = pack(&program, &pages, platform().unwrap(), out, TIME).unwrap();
    made.into_iter().map(|(name, _)| out.join(name)).collect()
}

fn one(files: &[PathBuf], end: &str) -> PathBuf {
    files.iter().find(|f| f.to_string_lossy().ends_with(end)).unwrap().clone()
}

fn said(program: &str, arguments: &[&str]) -> String {
    text(Command::new(program).args(arguments)).unwrap()
}

#[test]
fn debians_package_manager_installs_and_verifies_the_package_and_removes_it_but_for_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let deb = one(&packed(&folder.path().join("out")), ".deb");
    let deb = deb.to_str().unwrap();
    let info = said("dpkg-deb", &["--field", deb]);
    assert!(info.contains("Package: ringfence") && info.contains("Depends: libc6"), "{info}");

    let place = folder.path().join("root");
    for part in ["info", "updates", "triggers"] {
        fs::create_dir_all(place.join("var/lib/dpkg").join(part)).unwrap();
    }
    fs::write(place.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", place.display()));
        // Scripts see that they are to leave this machine alone; its libraries are not in that root.
        command.args(["--force-script-chrootless", "--force-not-root", "--force-depends"]).args(arguments);
        command
    };
    assert!(status(&mut dpkg(&["--install", deb])).unwrap().success());
    let mode = |path: &str| fs::metadata(place.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("usr/bin/ringfence"), 0o755);
    assert_eq!(mode("etc/ringfence/ringfence.yaml"), 0o644);
    assert!(place.join("usr/share/man/man1/ringfence-up.1.gz").is_file());
    assert!(place.join("usr/share/bash-completion/completions/ringfence").is_file());
    assert_eq!(text(&mut dpkg(&["--verify", "ringfence"])).unwrap(), "", "each file is as packed");
    fs::write(place.join("usr/share/ringfence/hello.pl"), "changed").unwrap();
    assert!(
        text(&mut dpkg(&["--verify", "ringfence"])).unwrap().contains("hello.pl"),
        "a changed file is seen"
    );

    assert!(status(&mut dpkg(&["--remove", "ringfence"])).unwrap().success());
    assert!(!place.join("usr/bin/ringfence").exists());
    assert!(place.join("etc/ringfence/ringfence.yaml").is_file(), "configuration stays until it is purged");
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    let unit = packaging("ringfence.service").unwrap();
    // The program that it starts is looked for, and is not installed here.
    let unit =
        unit.replace("/usr/bin/ringfence", "/bin/true").replace("ConditionPathExists=/etc/ringfence\n", "");
    let path = folder.path().join("ringfence.service");
    fs::write(&path, &unit).unwrap();
    let check = |path: &Path| {
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let ours =
        |text: &str| text.lines().filter(|l| l.contains("ringfence.service")).collect::<Vec<_>>().join("\n");
    assert_eq!(ours(&check(&path)), "");
    fs::write(&path, unit.replace("Restart=on-failure", "Restart=perhaps")).unwrap();
    assert!(ours(&check(&path)).contains("perhaps"), "a mistake would be seen");
}

#[test]
fn the_first_fence_of_the_package_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let fence = packaging("ringfence.yaml").unwrap();
    let service = fence.replace("/usr/share/ringfence", root().join("packaging").to_str().unwrap());
    fs::write(folder.path().join("ringfence.yaml"), service).unwrap();
    let check = Command::new(built()).arg("check").arg(folder.path()).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn the_image_has_one_program_and_no_shell_and_other_tools_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let image = one(&packed(folder.path()), ".oci.tar");
    let name = format!("oci-archive:{}", image.display());
    let config: Value = serde_json::from_str(&said("skopeo", &["inspect", "--config", &name])).unwrap();
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/ringfence");
    // Copying checks the digest of each blob, and that of the layer once it is unpacked.
    let copy = folder.path().join("copy");
    said("skopeo", &["copy", "--insecure-policy", &name, &format!("dir:{}", copy.display())]);
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(copy.join("manifest.json")).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let listed = said("tar", &["-tzf", copy.join(layer).to_str().unwrap()]);
    let files: BTreeSet<&str> = listed.lines().filter(|l| !l.ends_with('/')).collect();
    let expected =
        ["usr/bin/ringfence", "usr/share/doc/ringfence/copyright", "usr/share/doc/ringfence/sbom.cdx.json"];
    assert_eq!(files, BTreeSet::from(expected));
}

#[test]
fn the_bill_of_materials_names_what_the_program_is_linked_with_and_nothing_of_its_tests() {
    let text = sbom::write(platform().unwrap().triple, "2026-01-01T00:00:00Z").unwrap();
    let bom: Value = serde_json::from_slice(&text).unwrap();
    let parts = bom["components"].as_array().unwrap();
    let names: BTreeSet<&str> = parts.iter().filter_map(|p| p["name"].as_str()).collect();
    assert!(names.contains("rustls") && names.contains("aws-lc-sys") && names.contains("ringfence-proxy"));
    for absent in ["ring", "openssl-sys", "proptest", "xtask", "clinic"] {
        assert!(!names.contains(absent), "{absent} is in the program");
    }
    let known: BTreeSet<&str> =
        parts.iter().chain([&bom["metadata"]["component"]]).filter_map(|p| p["bom-ref"].as_str()).collect();
    assert_eq!(known.len(), parts.len() + 1, "each part once");
    for entry in bom["dependencies"].as_array().unwrap() {
        for dependency in entry["dependsOn"].as_array().unwrap() {
            assert!(known.contains(dependency.as_str().unwrap()), "{dependency} is not described");
        }
    }
    for part in parts.iter().filter(|p| !p["name"].as_str().unwrap().starts_with("ringfence")) {
        assert_eq!(part["hashes"][0]["content"].as_str().map(str::len), Some(64), "{part}");
    }
}

#[test]
fn the_same_commit_gives_the_same_bytes_and_the_sums_hold() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (packed(&folder.path().join("1")), packed(&folder.path().join("2")));
    for (a, b) in first.iter().zip(&second) {
        assert!(fs::read(a).unwrap() == fs::read(b).unwrap(), "{} differs", a.display());
    }
    let sums = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(folder.path().join("1"))
        .output();
    let sums = sums.unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    assert_eq!(String::from_utf8_lossy(&sums.stdout).lines().count(), first.len() - 1);
}
