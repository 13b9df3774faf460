//! A real PostgreSQL server of Debian's package: its own folder, its own user, a Unix socket.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// The server refuses to run as root: `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// What this machine's power supply would need and no story does: a killed process leaves its writes to the system.
pub(crate) const FAST: &[&str] = &["fsync=off", "full_page_writes=off", "autovacuum=off"];

/// A server that runs until it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    process: Mutex<Option<Child>>,
    settings: Vec<String>,
    databases: AtomicU32,
    port: u16,
}

impl Server {
    /// The one that stories running at the same time share; the last of them ends it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::new(FAST));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server of its own, with further settings.
    pub(crate) fn new(settings: &[&str]) -> Self {
        Self::create(settings, 5432).unwrap_or_else(|log| panic!("PostgreSQL does not start:\n{log}"))
    }

    /// The same at a port, which somebody else may have: then there is none.
    pub(crate) fn try_new(settings: &[&str], port: u16) -> Option<Self> {
        match Self::create(settings, port) {
            Ok(server) => Some(server),
            Err(log) if log.contains("Address already in use") => None,
            Err(log) => panic!("PostgreSQL does not start:\n{log}"),
        }
    }

    fn create(settings: &[&str], port: u16) -> Result<Self, String> {
        let server = Self::prepare(settings, port);
        let mut initdb = server.command("initdb");
        initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", "--pgdata"]);
        succeed(initdb.arg(server.data()));
        server.try_start()?;
        Ok(server)
    }

    /// A standby of another, fed by it.
    pub(crate) fn standby(primary: &Self, settings: &[&str]) -> Self {
        let server = Self::prepare(settings, 5432);
        let mut copy = server.command("pg_basebackup");
        copy.arg("--port=5432")
            .arg("--host")
            .arg(primary.socket())
            .args(["--username=postgres", "--checkpoint=fast"]);
        copy.args(["--no-sync", "--write-recovery-conf", "--pgdata"]).arg(server.data());
        succeed(&mut copy);
        server.start();
        server
    }

    fn prepare(settings: &[&str], port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("rf-pg-").tempdir_in("/tmp").unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, process: Mutex::new(None), settings, databases: AtomicU32::new(0), port }
    }

    /// The folder of its socket.
    pub(crate) fn socket(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts it and waits until it takes connections.
    pub(crate) fn start(&self) {
        self.try_start().unwrap_or_else(|log| panic!("PostgreSQL does not start:\n{log}"));
    }

    fn try_start(&self) -> Result<(), String> {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.socket());
        let small = ["listen_addresses=", "shared_buffers=16MB", "max_connections=60", "max_wal_senders=2"];
        for setting in small.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let errors = log.try_clone().unwrap();
        // A group of its own: an interrupt at the terminal is for the stories.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(180);
        while !self.is_ready(child.id()) {
            let ended = child.try_wait().unwrap().is_some();
            if ended || Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.process.lock().unwrap() = Some(child);
        Ok(())
    }

    /// While it is down: from its next start on it waits for no standby.
    pub(crate) fn sync_with_nobody(&self) {
        fs::write(self.data().join("postgresql.auto.conf"), "").unwrap();
    }

    /// `kill -9`, all of it, and nothing is left of it when this returns.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.process.lock().unwrap().take() else { return };
        // Stopped, it makes no more processes while these are looked up; each is in a group of its own.
        kill_process(pid(&child), Signal::STOP).unwrap();
        let list = format!("/proc/{0}/task/{0}/children", child.id());
        let children: Vec<i32> =
            fs::read_to_string(list).unwrap().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        child.kill().unwrap();
        for pid in &children {
            let _ = kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
        }
        child.wait().unwrap();
        // They are init's children now. A dead one that nobody has asked for yet holds nothing any more.
        let is_there = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
        };
        while children.iter().any(is_there) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What an orderly restart does to it.
    pub(crate) fn stop(&self) {
        let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let _ = kill_process(pid(&child), Signal::INT);
        let until = Instant::now() + Duration::from_secs(20);
        while child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A new empty database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}")).await;
        name
    }

    pub(crate) async fn sql(&self, database: &str, sql: &str) {
        self.client(database).await.batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn client(&self, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket()).port(self.port).user("postgres").dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// A program of the package, as the user that the server runs as.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.current_dir("/");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn is_ready(&self, pid: u32) -> bool {
        // A server that was killed leaves this file behind, with its own number in it.
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        lines.next() == Some(&pid.to_string()) && matches!(lines.next_back(), Some("ready" | "standby"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where the newest version of Debian's package has its programs.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/postgres").exists())
        .max_by_key(version)
        .expect("PostgreSQL is missing: `apt-get install postgresql`, as `cargo xtask test` does");
    newest.join("bin")
}
