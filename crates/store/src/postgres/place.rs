//! A database as an operator names it: one line without a secret in it.
//!
//! `postgresql://USER@HOST[:PORT][,HOST[:PORT]]/DATABASE?ca=FILE[&password_file=FILE]`, always by TLS, or
//! `postgresql://USER@/DATABASE?socket=FOLDER[&port=PORT][&password_file=FILE]`. It looks like the addresses that other programs take
//! and is read more strictly: what is not understood is refused, and so is a password in it, because command lines are no secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ringfence_tls::EgressRoots;
use serde::{Deserialize, Serialize};

use super::options::Postgres;
use crate::error::StoreError;

/// Where PostgreSQL listens unless it is told otherwise.
const PORT: u16 = 5432;
/// Longest line, and most hosts in it.
const MAX_LINE: usize = 4096;
const MAX_HOSTS: usize = 8;
/// Largest file of root certificates in bytes.
const MAX_ROOTS: u64 = 4 * 1024 * 1024;

/// Which database, and where what it takes to get in lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    user: String,
    database: String,
    hosts: Vec<(String, u16)>,
    socket: Option<(PathBuf, u16)>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        if line.len() > MAX_LINE || line.chars().any(|c| c.is_control() || c.is_whitespace() || c == '%') {
            return Err("no spaces, control characters and `%` in it, and at most 4096 bytes".to_owned());
        }
        let rest = line
            .strip_prefix("postgresql://")
            .or_else(|| line.strip_prefix("postgres://"))
            .ok_or("it begins with postgresql://")?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, rest) =
            rest.split_once('@').ok_or("a user is missing: postgresql://USER@HOST/DATABASE")?;
        if user.contains(':') {
            return Err(
                "a password does not belong here, where others can read it: use ?password_file=FILE".into()
            );
        }
        let (at, database) =
            rest.split_once('/').ok_or("a database is missing: postgresql://USER@HOST/DATABASE")?;
        if user.is_empty() || database.is_empty() || database.contains(['/', '@', '#']) {
            return Err("a user and a database are needed: postgresql://USER@HOST/DATABASE".into());
        }
        let hosts = at.split(',').filter(|_| !at.is_empty()).map(host).collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > MAX_HOSTS {
            return Err(format!("at most {MAX_HOSTS} hosts"));
        }
        let mut place = Self {
            user: user.into(),
            database: database.into(),
            hosts,
            socket: None,
            password_file: None,
            ca: None,
        };
        let (mut folder, mut port) = (None, None);
        for option in options.split('&').filter(|_| !options.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let twice = match name {
                _ if value.is_empty() => return Err(format!("`{name}` has no value")),
                "password_file" => place.password_file.replace(value.into()).is_some(),
                "ca" => place.ca.replace(value.into()).is_some(),
                "socket" => folder.replace(PathBuf::from(value)).is_some(),
                "port" => port.replace(number(value)?).is_some(),
                _ => {
                    return Err(format!(
                        "`{name}` is not known: there are ca, password_file, socket and port"
                    ));
                }
            };
            if twice {
                return Err(format!("`{name}` is there twice"));
            }
        }
        match (place.hosts.is_empty(), folder) {
            (true, Some(folder)) if place.ca.is_some() => {
                Err(format!("there is no TLS at the socket in {}: leave out ca", folder.display()))
            }
            (true, Some(folder)) => {
                place.socket = Some((folder, port.unwrap_or(PORT)));
                Ok(place)
            }
            (true, None) => Err("a host is missing, or ?socket=FOLDER".into()),
            (false, Some(_)) => Err("either a host or a socket".into()),
            (false, None) if port.is_some() => Err("the port stands behind the host: HOST:PORT".into()),
            (false, None) if place.ca.is_none() => Err(
                "a host is reached by TLS only: name the root certificates that its own is issued under with ?ca=FILE \
                 (/etc/ssl/certs/ca-certificates.crt has the public ones)"
                    .into(),
            ),
            (false, None) => Ok(place),
        }
    }
}

fn host(text: &str) -> Result<(String, u16), String> {
    let wrong =
        || format!("`{text}` is no host: a name or address, with `:PORT` behind it if it is not {PORT}");
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or_else(wrong)?;
            name.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            (name, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    if name.is_empty()
        || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))
    {
        return Err(wrong());
    }
    Ok((name.to_owned(), port.map_or(Ok(PORT), number)?))
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{text}` is no port"))
}

impl Place {
    /// With paths that do not depend on where a process runs.
    ///
    /// # Errors
    /// There is no present folder.
    pub fn absolute(mut self) -> std::io::Result<Self> {
        let socket = self.socket.as_mut().map(|(folder, _)| folder);
        for path in [self.password_file.as_mut(), self.ca.as_mut(), socket].into_iter().flatten() {
            *path = std::path::absolute(&*path)?;
        }
        Ok(self)
    }

    /// How to reach it. The root certificates are read now, the password at each connection.
    ///
    /// # Errors
    /// The root certificates.
    pub fn postgres(&self) -> Result<Postgres, StoreError> {
        let mut postgres = Postgres::new(&self.database, &self.user);
        for (host, port) in &self.hosts {
            postgres = postgres.host(host, *port);
        }
        if let Some((folder, port)) = &self.socket {
            postgres = postgres.socket(folder, *port);
        }
        if let Some(path) = &self.password_file {
            postgres = postgres.password_file(path);
        }
        if let Some(path) = &self.ca {
            let unreadable = |e| StoreError::Io(path.clone(), e);
            if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_ROOTS {
                return Err(StoreError::Setup(format!(
                    "the root certificates {} are too large a file",
                    path.display()
                )));
            }
            let pem = std::fs::read(path).map_err(unreadable)?;
            let roots = EgressRoots::from_pem(&pem)
                .map_err(|e| StoreError::Setup(format!("the root certificates {}: {e}", path.display())))?;
            postgres = postgres.roots(roots);
        }
        Ok(postgres)
    }

    /// Files that are read to get in.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.password_file.iter().chain(&self.ca).map(PathBuf::as_path)
    }

    /// The folder of its Unix socket, if it is reached by one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_ref().map(|(folder, _)| folder.as_path())
    }

    /// The TCP ports that it is reached by.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        self.hosts.iter().map(|(_, port)| *port).collect()
    }
}

/// Without the files.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}@", self.user)?;
        for (n, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            if host.contains(':') {
                write!(f, "{comma}[{host}]:{port}")?
            } else {
                write!(f, "{comma}{host}:{port}")?
            }
        }
        write!(f, "/{}", self.database)?;
        match &self.socket {
            Some((folder, port)) => write!(f, "?socket={}&port={port}", folder.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: &str) -> Result<Place, String> {
        line.parse()
    }

    #[test]
    fn a_line_says_where_the_database_is_and_what_it_says_is_shown_without_files() {
        for (line, shown) in [
            ("postgresql://rf@db.example/state?ca=/ca.pem", "postgresql://rf@db.example:5432/state"),
            (
                "postgres://rf@a:1,[::1]:2,[::2]/s?password_file=p&ca=c",
                "postgresql://rf@a:1,[::1]:2,[::2]:5432/s",
            ),
            ("postgresql://rf@/s?socket=/run/pg", "postgresql://rf@/s?socket=/run/pg&port=5432"),
            ("postgresql://rf@/s?socket=/run/pg&port=6", "postgresql://rf@/s?socket=/run/pg&port=6"),
        ] {
            assert_eq!(place(line).unwrap().to_string(), shown);
        }
        let both = place("postgresql://rf@a:7/s?password_file=p&ca=c").unwrap();
        assert_eq!(both.ports(), [7]);
        assert!(both.absolute().unwrap().files().all(Path::is_absolute));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_to_do() {
        for (line, said) in [
            ("mysql://rf@a/s", "begins with"),
            ("postgresql://a/s", "user is missing"),
            ("postgresql://rf@a", "database is missing"),
            ("postgresql://@a/s?ca=c", "are needed"),
            ("postgresql://rf:hunter2@a/s?ca=c", "password_file=FILE"),
            ("postgresql://rf@a/s", "?ca=FILE"),
            ("postgresql://rf@a/s?ca=c&sslmode=disable", "`sslmode` is not known"),
            ("postgresql://rf@a/s?ca=c&ca=d", "twice"),
            ("postgresql://rf@a/s?ca=", "no value"),
            ("postgresql://rf@a:0/s?ca=c", "no port"),
            ("postgresql://rf@a:70000/s?ca=c", "no port"),
            ("postgresql://rf@[::1/s?ca=c", "no host"),
            ("postgresql://rf@a,,b/s?ca=c", "no host"),
            ("postgresql://rf@a/s?ca=c&port=1", "behind the host"),
            ("postgresql://rf@a/s?ca=c&socket=/run", "either"),
            ("postgresql://rf@/s?socket=/run&ca=c", "leave out ca"),
            ("postgresql://rf@/s", "host is missing"),
            ("postgresql://rf@a/s%20?ca=c", "no spaces"),
        ] {
            let refused = place(line).unwrap_err();
            assert!(refused.contains(said) && !refused.contains("hunter2"), "{line}: {refused}");
        }
    }
}
