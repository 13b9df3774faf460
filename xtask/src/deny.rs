//! `deny`: the policy of `deny.toml` on everything that is built in, and known vulnerabilities where they can be had.
//!
//! The advisories come from their public repository. Where that cannot be reached, those of the golden data are used;
//! where there are neither, the rest of the policy still holds and the output says what was not checked.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::environment::{find, golden, root, target};
use crate::process::{Error, cargo, run as run_command, status, succeeds};

/// An exception that nothing needs any more is an error.
const STALE: [&str; 4] = ["--deny", "unnecessary-skip", "--deny", "unmatched-skip"];
/// The folder's name that cargo-deny derives from the repository's address.
const DATABASE: &str = "advisory-db-3157b0e258782691";

pub(crate) fn run() -> Result<ExitCode, Error> {
    if find("cargo-deny").is_none() {
        run_command(&mut cargo(["install", "--locked", "cargo-deny"]))?;
    }
    run_command(&mut cargo(["fetch", "--locked"]))?;
    let policy = ["bans", "licenses", "sources"];
    let mut command = cargo(["deny"]);
    let said = if succeeds(&mut cargo(["deny", "fetch", "db"])) {
        command.arg("check").args(STALE).arg("advisories").args(policy);
        "advisories: checked against the newest of the public database"
    } else if let Some(source) = golden().map(|g| g.join("advisories/rustsec")).filter(|p| p.is_dir()) {
        let config = offline(&source)?;
        command
            .arg("--offline")
            .arg("--config")
            .arg(config)
            .arg("check")
            .args(STALE)
            .arg("advisories")
            .args(policy);
        "advisories: the public database cannot be reached; checked against the golden data's copy"
    } else {
        command.args(["--offline", "check"]).args(STALE).args(policy);
        "advisories: NOT CHECKED, the public database cannot be reached and RINGFENCE_GOLDEN has no copy"
    };
    let status = status(&mut command)?;
    println!("{said}");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A copy of `deny.toml` that reads advisories from a repository made of `source`.
fn offline(source: &Path) -> Result<PathBuf, Error> {
    let folder = target().join("advisories");
    let database = folder.join(DATABASE);
    if !database.join(".git").is_dir() {
        std::fs::create_dir_all(&database)?;
        copy(&source.join("crates"), &database.join("crates"))?;
        let git = |arguments: &[&str]| {
            let name = [
                "-c",
                "user.name=ringfence",
                "-c",
                "user.email=ringfence@localhost",
                "-c",
                "commit.gpgsign=false",
            ];
            run_command(Command::new("git").args(name).args(arguments).current_dir(&database))
        };
        git(&["init", "--quiet", "--initial-branch", "main"])?;
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message", "Advisories"])?;
    }
    let policy = std::fs::read_to_string(root().join("deny.toml"))?;
    let place = format!(
        "[advisories]\ndb-path = {:?}\nmaximum-db-staleness = \"P1Y\"\n",
        folder.display().to_string()
    );
    let policy = policy.replacen("[advisories]\n", &place, 1);
    if !policy.contains(&place) {
        return Err(Error::new("deny.toml has no [advisories]"));
    }
    let path = folder.join("deny.toml");
    std::fs::write(&path, policy)?;
    Ok(path)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::write(to, std::fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
