//! Which database, as whom, and how long to wait for it.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence_keys::Secret;
use ringfence_tls::EgressRoots;
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, SslMode, TargetSessionAttrs};

use crate::error::StoreError;

/// Longest password file in bytes.
const MAX_PASSWORD: u64 = 4096;

/// A database of a PostgreSQL server, or of one of several of which one takes writes.
///
/// Over the network it is always TLS, with the server's certificate checked against the host's name, and a password is bound to that
/// connection: there is no way to switch either off. Without TLS it is a Unix socket.
#[derive(Clone, Debug)]
pub struct Postgres {
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) sockets: Vec<(PathBuf, u16)>,
    database: String,
    user: String,
    password: Option<PathBuf>,
    pub(super) roots: Option<EgressRoots>,
    pub(super) limits: Limits,
}

/// How much is asked of the database, and how long it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that read. One more writes, one more follows.
    pub readers: u32,
    /// Longest to wait for a connection.
    pub connect: Duration,
    /// Longest to wait for an answer.
    pub read: Duration,
    /// Longest to wait until something is written, reconnecting as needed.
    pub write: Duration,
    /// How often to ask for a newer revision, should nobody tell.
    pub poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            readers: 4,
            connect: Duration::from_secs(3),
            read: Duration::from_secs(10),
            write: Duration::from_secs(15),
            poll: Duration::from_secs(1),
        }
    }
}

impl Postgres {
    /// A database, used as `user`.
    pub fn new(database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            hosts: Vec::new(),
            sockets: Vec::new(),
            database: database.into(),
            user: user.into(),
            password: None,
            roots: None,
            limits: Limits::default(),
        }
    }

    /// At a host, by TLS. Of several, the first that takes writes is used.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>, port: u16) -> Self {
        self.hosts.push((name.into(), port));
        self
    }

    /// At a Unix socket of this machine: the folder that holds it, and the port that is part of its name.
    #[must_use]
    pub fn socket(mut self, folder: impl Into<PathBuf>, port: u16) -> Self {
        self.sockets.push((folder.into(), port));
        self
    }

    /// Where the password is. The file is read at each connection, so a new password needs no restart.
    #[must_use]
    pub fn password_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.password = Some(path.into());
        self
    }

    /// Whom to believe who the server is.
    #[must_use]
    pub fn roots(mut self, roots: EgressRoots) -> Self {
        self.roots = Some(roots);
        self
    }

    /// Other limits than the usual ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        let wrong = match (self.hosts.is_empty(), self.sockets.is_empty()) {
            (true, true) => "the database has neither a host nor a socket",
            (false, false) => "the database has both hosts and sockets: name one kind",
            (false, true) if self.roots.is_none() => {
                "a database at a host is reached by TLS only: name the root certificates that its own is issued under"
            }
            _ if self.limits.readers == 0 => "the database needs at least one connection that reads",
            _ => return Ok(()),
        };
        Err(StoreError::Setup(wrong.to_owned()))
    }

    /// What the library is told. Made anew for each connection.
    pub(super) fn config(&self, name: &str) -> Result<Config, StoreError> {
        let mut config = Config::new();
        config
            .dbname(&self.database)
            .user(&self.user)
            .application_name(name)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(self.limits.connect)
            .tcp_user_timeout(self.limits.write)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        for (host, port) in &self.hosts {
            config.host(host).port(*port);
        }
        for (folder, port) in &self.sockets {
            config.host_path(folder).port(*port);
        }
        let by_network = !self.hosts.is_empty();
        config.ssl_mode(if by_network { SslMode::Require } else { SslMode::Disable });
        config.channel_binding(ChannelBinding::Disable);
        if let Some(path) = &self.password {
            config.password(read_password(path)?.expose());
            if by_network {
                config.channel_binding(ChannelBinding::Require);
            }
        }
        Ok(config)
    }
}

fn read_password(path: &Path) -> Result<Secret<String>, StoreError> {
    let unreadable = |e| StoreError::Io(path.to_owned(), e);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let setup = |why: &str| StoreError::Setup(format!("the database's password {}: {why}", path.display()));
    if !metadata.is_file() || metadata.size() > MAX_PASSWORD {
        return Err(setup("not a file, or a large one"));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(setup("others may read it; `chmod 600` it"));
    }
    let mut text = String::with_capacity(MAX_PASSWORD as usize);
    file.take(MAX_PASSWORD).read_to_string(&mut text).map_err(unreadable)?;
    let text = Secret::new(text);
    let password = text.expose().trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(setup("empty"));
    }
    Ok(Secret::new(password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_from_a_private_file_only_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o640);
        let postgres = Postgres::new("ringfence", "ringfence").socket("/run", 5432).password_file(&path);
        assert!(postgres.config("test").unwrap_err().to_string().contains("chmod 600"));
        mode(0o600);
        let config = postgres.config("test").unwrap();
        assert_eq!(config.get_password(), Some(b"hunter2".as_slice()));
        for shown in [format!("{postgres:?}"), format!("{config:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(postgres.config("test").is_err());
    }

    #[test]
    fn over_the_network_there_is_no_way_without_tls() {
        let error = Postgres::new("ringfence", "ringfence").host("db.example", 5432).check().unwrap_err();
        assert!(error.to_string().contains("TLS only"), "{error}");
        let socket = Postgres::new("ringfence", "ringfence").socket("/run", 5432);
        assert!(socket.check().is_ok());
        assert!(socket.host("db.example", 5432).check().is_err());
    }
}
