//! Where the master key comes from, and that a wrong or missing one changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringfence_keys::{digest, to_hex};

use crate::running::{eventually, free_port, services, text};

/// A fence in a folder of its own, without services of weight, to be started in many ways.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringfence-master-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        services(&folder);
        let fence = format!(
            "fence: clinic\ntrust_domain: clinic.example\ngateway: {{ listen: '127.0.0.1:{}' }}\nservices:\n  \
             patients: {{ run: [python3, services/patients.py], listen: 9001, routes: [{{ path: / }}] }}\n",
            free_port()
        );
        std::fs::write(folder.join("ringfence.yaml"), fence).unwrap();
        Self { folder }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join(".ringfence")
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.args(words).current_dir(&self.folder).stdin(Stdio::null());
        // No terminal: whoever asks at one is told that there is none.
        for name in ["RINGFENCE_PASSPHRASE", "RINGFENCE_ROOT_PASSPHRASE", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(name);
        }
        command
    }

    /// Starts `up`, waits until all is up, lets `meanwhile` happen, and ends it.
    pub(crate) fn up<T>(&self, words: &[&str], env: &[(&str, &str)], meanwhile: impl FnOnce() -> T) -> T {
        let log = self.folder.join("up.log");
        let file = std::fs::File::create(&log).unwrap();
        let words = [&["up", "."], words].concat();
        let mut child = self
            .command(&words)
            .envs(env.iter().copied())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let said = || std::fs::read_to_string(&log).unwrap();
        let up = eventually(Duration::from_secs(240), || {
            assert!(child.try_wait().unwrap().is_none(), "{}", said());
            said().contains("1 of 1 services ready").then_some(())
        });
        assert!(up.is_some(), "{}", said());
        let result = meanwhile();
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert!(child.wait().unwrap().success(), "{}", said());
        result
    }

    /// `up` that must not come up: its output, and within what time it ended.
    fn refused(&self, words: &[&str], env: &[(&str, &str)]) -> (Output, Duration) {
        let start = Instant::now();
        let output =
            self.command(&[&["up", "."], words].concat()).envs(env.iter().copied()).output().unwrap();
        (output, start.elapsed())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// SHA-256 of each file below a folder; sockets, locks, events and logs are no state. Of the database, whose files change by
/// being looked at, that of its content.
pub(crate) fn state(data: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(data).unwrap().to_owned();
            if kind.is_dir() && !["events", "run", "logs"].iter().any(|f| name == Path::new(f)) {
                folders.push(path);
            } else if kind.is_file() && !name.starts_with("control") {
                found.insert(name, to_hex(&digest::sha256(&std::fs::read(path).unwrap())));
            }
        }
    }
    let dump = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).iterdump())";
    let output =
        Command::new("python3").args(["-c", dump]).arg(data.join("control/state.db")).output().unwrap();
    assert!(
        output.status.success() && text(&output.stdout).contains("CREATE TABLE"),
        "{}",
        text(&output.stderr)
    );
    found.insert("control/state.db".into(), to_hex(&digest::sha256(&output.stdout)));
    found
}

#[test]
fn a_wrong_or_missing_master_key_is_a_clear_error_and_changes_nothing() {
    let place = Place::new("wrong");
    place.up(&[], &[], || ());
    let key = place.data().join("master.key");
    let right = std::fs::read(&key).unwrap();
    let refused = |what: &str, words: &[&str], env: &[(&str, &str)], expected: &str| {
        let before = state(&place.data());
        let (output, took) = place.refused(words, env);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{what}: {said}");
        assert!(said.contains(expected), "{what}: {said}");
        assert!(took < Duration::from_secs(60), "{what}: {took:?}");
        assert_eq!(state(&place.data()), before, "{what}");
    };
    std::fs::remove_file(&key).unwrap();
    refused("missing", &[], &[], "is missing; restore it from a backup");
    let private = |bytes: &[u8]| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&key, bytes).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    };
    private(&[b'0'; 64]);
    refused("wrong", &[], &[], "wrong master key");
    private(b"short");
    refused("short", &[], &[], "must have 32 to 4096");
    private(&right);
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused("readable by others", &[], &[], "chmod 600");
    private(&right);
    let words = [("RINGFENCE_PASSPHRASE", "correct horse battery")];
    refused("a passphrase instead", &["--master", "passphrase"], &words, "protected by a key file");
    place.up(&[], &[], || ());
}

#[test]
fn a_passphrase_starts_the_fence_and_a_wrong_one_does_not() {
    let place = Place::new("passphrase");
    let words = ["--master", "passphrase"];
    let (output, _) = place.refused(&words, &[("RINGFENCE_PASSPHRASE", "short")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("at least 12 bytes"), "{}", text(&output.stderr));
    let right = [("RINGFENCE_PASSPHRASE", "correct horse battery")];
    place.up(&words, &right, || {
        assert!(!place.data().join("master.key").exists(), "nothing on disk opens the keys");
    });
    let before = state(&place.data());
    let (output, _) = place.refused(&words, &[("RINGFENCE_PASSPHRASE", "incorrect horse battery")]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("wrong master key"), "{}", text(&output.stderr));
    assert_eq!(state(&place.data()), before);
    place.up(&words, &right, || ());
}

#[test]
fn a_systemd_credential_starts_the_fence_and_without_one_it_says_how() {
    let place = Place::new("credential");
    let words = ["--master", "credential"];
    let (output, _) = place.refused(&words, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("LoadCredential=ringfence-master"), "{}", text(&output.stderr));
    let credentials = place.folder.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let env = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let (output, _) = place.refused(&words, &env);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("missing"), "{}", text(&output.stderr));
    std::fs::write(credentials.join("ringfence-master"), [7; 32]).unwrap();
    // As systemd does: for the unit's user only.
    std::fs::set_permissions(
        credentials.join("ringfence-master"),
        std::os::unix::fs::PermissionsExt::from_mode(0o400),
    )
    .unwrap();
    place.up(&words, &env, || assert!(!place.data().join("master.key").exists()));
}
