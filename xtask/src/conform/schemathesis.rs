//! Schemathesis (PyPI) against the running gateway, which holds services to the clinic's descriptions and to two as the public has them.
//!
//! `conformance/openapi/drive.py` does the work; a short run of it is among the tests.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::environment::{binaries, target};
use crate::process::cargo;
use crate::tools;

/// Examples of each operation.
const EXAMPLES: &str = "300";
const DESCRIPTIONS: [&str; 4] = [
    "crates/cli/tests/described/openapi/shop.yaml",
    "crates/cli/tests/described/openapi/tickets.json",
    "examples/clinic/openapi/portal.yaml",
    "examples/clinic/openapi/patients.yaml",
];

/// Builds the binary and runs the suite on it.
pub(super) fn run(seed: u64, repository: &Path) -> Result<ExitCode, String> {
    let told = |error: crate::process::Error| error.to_string();
    let python = tools::python().map_err(told)?;
    crate::process::run(&mut cargo(["build", "--quiet", "--package", "ringfence"])).map_err(told)?;
    let folder = target().join(format!("conform-schemathesis-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    let status = Command::new(python.join("python3"))
        .arg(repository.join("conformance/openapi/drive.py"))
        .arg("--binary")
        .arg(binaries().join("ringfence"))
        .arg("--folder")
        .arg(&folder)
        .args(["--examples", EXAMPLES, "--seed", &seed.to_string()])
        .args(DESCRIPTIONS.map(|name| repository.join(name)))
        .status()
        .map_err(|e| format!("cannot start python3: {e}"));
    let _ = std::fs::remove_dir_all(&folder);
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
