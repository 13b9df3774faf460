//! A real PostgreSQL server of Debian's package: its own folder, its own user, a Unix socket.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// The server refuses to run as root: `nobody`.
const NOBODY: u32 = 65534;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    process: Mutex<Option<Child>>,
    settings: Vec<String>,
    databases: AtomicU32,
}

impl Server {
    /// The one that stories running at the same time share; the last of them ends it.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::new(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server of its own, with further settings.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let server = Self::prepare(settings);
        let mut initdb = server.command("initdb");
        initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", "--pgdata"]);
        succeed(initdb.arg(server.data()));
        server.start();
        server
    }

    /// A standby of another, fed by it.
    pub(crate) fn standby(primary: &Self, settings: &[&str]) -> Self {
        let server = Self::prepare(settings);
        let mut copy = server.command("pg_basebackup");
        copy.arg("--host").arg(primary.socket()).args(["--username=postgres", "--checkpoint=fast"]);
        copy.args(["--no-sync", "--write-recovery-conf", "--pgdata"]).arg(server.data());
        succeed(&mut copy);
        server.start();
        server
    }

    fn prepare(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("rf-pg-").tempdir_in("/tmp").unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, process: Mutex::new(None), settings, databases: AtomicU32::new(0) }
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
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.socket());
        let small = ["listen_addresses=", "shared_buffers=16MB", "max_connections=60", "max_wal_senders=2"];
        for setting in small.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        let errors = log.try_clone().unwrap();
        // A group of its own, so that `kill` reaches the whole server and nobody else.
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while !self.is_ready(child.id()) {
            let ended = child.try_wait().unwrap().is_some();
            if ended || Instant::now() > until {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                panic!("PostgreSQL does not start:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.process.lock().unwrap() = Some(child);
    }

    /// `kill -9`, all of it, and nothing is left of it when this returns.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.process.lock().unwrap().take() else { return };
        let group = pid(&child);
        kill_process_group(group, Signal::KILL).unwrap();
        child.wait().unwrap();
        // Its children are init's now; they are dead when their group is empty.
        while kill_process_group(group, Signal::KILL).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What an orderly restart does to it.
    pub(crate) fn stop(&self) {
        let Some(mut child) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let _ = kill_process(pid(&child), Signal::INT);
        let until = Instant::now() + Duration::from_secs(20);
        while child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                let _ = kill_process_group(pid(&child), Signal::KILL);
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
        config.host_path(self.socket()).user("postgres").dbname(database);
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

fn is_root() -> bool {
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
