//! Services that are held to descriptions of their API, end to end: a tool that searches for what a gateway lets through, and a description
//! drafted from what it saw.
#![expect(clippy::unwrap_used, reason = "test")]

mod learn;
#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The long form is `cargo xtask conform schemathesis`.
#[test]
fn schemathesis_gets_nothing_past_descriptions_and_is_refused_nothing_that_they_allow() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("python3")
        .arg(root().join("conformance/openapi/drive.py"))
        .args(["--binary", env!("CARGO_BIN_EXE_ringfence"), "--examples", "5", "--folder"])
        .arg(folder.path())
        .arg(root().join("crates/cli/tests/described/openapi/shop.yaml"))
        .arg(root().join("crates/cli/tests/described/openapi/tickets.json"))
        .arg(root().join("examples/clinic/openapi/patients.yaml"))
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("\nschemathesis: "), "{said}");
}

#[test]
fn descriptions_are_checked_with_their_places() {
    let ringfence = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence")).args(arguments).output().unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    for name in ["examples/clinic/openapi/portal.yaml", "crates/cli/tests/described/openapi/tickets.json"] {
        let file = root().join(name);
        let (code, said) = ringfence(&["openapi", "check", file.to_str().unwrap()]);
        assert!(code == Some(0) && said.contains("valid, "), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.yaml");
    let text = std::fs::read_to_string(root().join("examples/clinic/openapi/patients.yaml")).unwrap();
    std::fs::write(&file, text.replacen("maxLength: 80", "maxLength: many", 1)).unwrap();
    let (code, said) = ringfence(&["openapi", "check", file.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("broken.yaml:28:7: error: this is no valid schema"), "{said}");
    let (code, said) =
        ringfence(&["openapi", "learn", "--service", "none", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(3), "{said}");
}
