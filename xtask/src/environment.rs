//! The one place that reads the environment: where things lie, and what the caller chose.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
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

/// The search path with `first` before everything else.
pub(crate) fn search_path(first: &Path) -> String {
    let rest = variable("PATH").unwrap_or_default();
    format!("{}:{rest}", first.display())
}

/// Finds a program as a shell would; the folders for administrators are searched too, since daemons live there.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/local/sbin"]);
    folders.filter(|f| !f.is_empty()).map(|f| Path::new(f).join(program)).find(|p| p.is_file())
}

#[expect(clippy::disallowed_methods, reason = "this is the one file of xtask that reads the environment")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
