//! The environment, read once and in one place; a test hands in its own.

use std::io::IsTerminal;
use std::path::PathBuf;

use ringfence_keys::Secret;

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Env {
    /// `NO_COLOR` is not set and output goes to a terminal.
    pub(crate) colour: bool,
    /// `CREDENTIALS_DIRECTORY`, where systemd puts secrets.
    pub(crate) credentials: Option<PathBuf>,
    /// `RINGFENCE_PASSPHRASE`, for unattended starts with a passphrase.
    pub(crate) passphrase: Option<String>,
    /// `RINGFENCE_ROOT_PASSPHRASE`, for an exported root without a terminal.
    pub(crate) root_passphrase: Option<String>,
    /// `RINGFENCE_BACKUP_PASSPHRASE`, for backups without a terminal.
    pub(crate) backup_passphrase: Option<String>,
    /// `RINGFENCE_STORE`, the database that the state is in.
    pub(crate) store: Option<String>,
    /// `PATH`.
    pub(crate) path: Vec<PathBuf>,
}

impl Env {
    /// Reads the process's environment.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn read() -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            passphrase: std::env::var("RINGFENCE_PASSPHRASE").ok(),
            root_passphrase: std::env::var("RINGFENCE_ROOT_PASSPHRASE").ok(),
            backup_passphrase: std::env::var("RINGFENCE_BACKUP_PASSPHRASE").ok(),
            store: std::env::var("RINGFENCE_STORE").ok().filter(|store| !store.is_empty()),
            path: std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default(),
        }
    }

    /// A secret that the fence says is in a variable. It is in no copy of the environment that could be printed.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    #[expect(clippy::unused_self, reason = "whoever reads the environment has been handed it")]
    pub(crate) fn secret(&self, name: &str) -> Option<Secret<String>> {
        std::env::var(name).ok().map(Secret::new)
    }
}
