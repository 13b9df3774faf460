//! The one place that reads the environment: where things lie, and what the caller chose.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The workspace's root. Cargo says where it lies at each run: a target folder that several clones share may hold a program that
/// another of them built.
pub(crate) fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let here = variable("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").to_owned());
        Path::new(&here).parent().unwrap_or_else(|| Path::new(".")).to_owned()
    })
}

/// The target folder that this program was built into, and so the one that holds all else.
pub(crate) fn target() -> PathBuf {
    let own = env::current_exe().ok();
    let folder = own.as_deref().and_then(Path::parent).and_then(Path::parent);
    folder.map_or_else(|| root().join("target"), Path::to_owned)
}

/// Where the binaries of the dev profile lie.
pub(crate) fn binaries() -> PathBuf {
    target().join("debug")
}

/// External test data, where the caller named some.
pub(crate) fn golden() -> Option<PathBuf> {
    variable("RINGFENCE_GOLDEN").map(PathBuf::from).filter(|p| p.is_dir())
}

/// Where cargo keeps the sources of other people's packages.
pub(crate) fn cargo_home() -> PathBuf {
    let own = variable("CARGO_HOME").map(PathBuf::from);
    own.unwrap_or_else(|| PathBuf::from(variable("HOME").unwrap_or_default()).join(".cargo"))
}

/// The search path with `first` before everything else.
pub(crate) fn search_path(first: &Path) -> String {
    let rest = variable("PATH").unwrap_or_default();
    format!("{}:{rest}", first.display())
}

/// Finds a program as a shell would; the folders for administrators are searched too, since daemons live there, and those
/// where Debian keeps several versions of PostgreSQL side by side.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = folders.filter(|f| !f.is_empty()).map(PathBuf::from);
    folders.chain(versions.map(|v| v.path().join("bin"))).map(|f| f.join(program)).find(|p| p.is_file())
}

#[expect(clippy::disallowed_methods, reason = "this is the one file of xtask that reads the environment")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
