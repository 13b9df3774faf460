//! The root out of the machine and back: the fence works without it, and no accident on the way loses it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::keys;
use crate::master::{Place, state};
use crate::running::{eventually, text};

const WORDS: (&str, &str) = ("RINGFENCE_ROOT_PASSPHRASE", "correct horse battery");
const WRONG: (&str, &str) = ("RINGFENCE_ROOT_PASSPHRASE", "incorrect horse battery");

/// A command that ends with this code; what it printed and what it complained about.
fn run(place: &Place, words: &[&str], env: (&str, &str), code: i32) -> (String, String) {
    let output: Output = place.command(words).env(env.0, env.1).output().unwrap();
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}{complained}");
    (said, complained)
}

fn json(place: &Place, words: &[&str]) -> Value {
    serde_json::from_str(&run(place, words, WORDS, 0).0).unwrap()
}

/// Whether a private key of a root is in the keeper's folder.
fn online(place: &Place) -> bool {
    keys::of_keeper(&place.data()).iter().any(|key| key.role == "root")
}

fn package(place: &Place, name: &str) -> (PathBuf, String) {
    let path = place.folder.join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn a_fence_runs_while_its_root_is_elsewhere_and_says_what_needs_it() {
    let place = Place::new("offline");
    let (path, out) = package(&place, "root.package");
    let (_, said) = run(&place, &["ca", "root", "export", "--out", &out], WORDS, 3);
    assert!(said.contains("start the fence once"), "{said}");
    place.up(&[], &[], || {
        let (_, said) = run(&place, &["ca", "root", "export", "--out", &out], WORDS, 3);
        assert!(said.contains("another `ringfence up` works in") && !path.exists(), "{said}");
    });
    assert!(online(&place));
    let exported = json(&place, &["ca", "root", "export", "--out", &out, "--json"]);
    assert_eq!(exported["online"], false);
    assert!(!online(&place), "the key is gone from here");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (_, said) = run(&place, &["ca", "root", "export", "--out", &package(&place, "again").1], WORDS, 3);
    assert!(said.contains("offline already") && !place.folder.join("again").exists(), "{said}");

    let issuing = place.up(&[], &[], || {
        let shown = json(&place, &["ca", "show", "--json"]);
        assert_eq!(shown["roots"][0]["online"], false);
        assert!(shown["counts"]["x509"].as_u64().unwrap() > 0, "it issues as before: {shown}");
        let (said, _) = run(&place, &["ca", "show"], WORDS, 0);
        assert!(
            said.contains("offline") && said.contains("ringfence ca rotate issuing --package FILE"),
            "{said}"
        );
        let (_, said) = run(&place, &["ca", "rotate", "issuing"], WORDS, 3);
        assert!(
            said.contains("offline") && said.contains("ringfence ca rotate issuing --package FILE"),
            "{said}"
        );
        // Signing with the package is for a fence that does not run.
        let (_, said) = run(&place, &["ca", "rotate", "issuing", "--package", &out], WORDS, 3);
        assert!(said.contains("another `ringfence up` works in"), "{said}");
        shown["issuing"][0]["id"].clone()
    });

    let before = state(&place.data());
    let (_, said) = run(&place, &["ca", "rotate", "issuing", "--package", &out], WRONG, 3);
    assert!(said.contains("wrong passphrase"), "{said}");
    let (_, said) = run(&place, &["ca", "rotate", "root", "--package", &out], WORDS, 2);
    assert!(said.contains("does not need the old one"), "{said}");
    assert_eq!(without_log(state(&place.data())), without_log(before));
    let rotated = json(&place, &["ca", "rotate", "issuing", "--package", &out, "--json"]);
    assert_ne!(rotated["issuing"][0]["id"], issuing);
    assert!(!online(&place), "it was here for that one signature");
    place.up(&[], &[], || {
        assert_eq!(json(&place, &["ca", "show", "--json"])["issuing"][0]["id"], rotated["issuing"][0]["id"]);
        let (said, _) = run(&place, &["events", "--json"], WORDS, 0);
        for told in ["taken offline by the operator", "signed a new issuing CA from its package"] {
            assert!(said.contains(told), "{told}: {said}");
        }
        // A new root needs nothing of the old one.
        for step in ["prepare", "activate"] {
            run(&place, &["ca", "rotate", "root", "--step", step], WORDS, 0);
        }
    });
    // The package is of the root before.
    assert!(online(&place));
    let (_, said) = run(&place, &["ca", "root", "import", "--package", &out], WORDS, 3);
    assert!(said.contains("the export of something else"), "{said}");
}

#[test]
fn a_root_that_was_brought_back_signs_as_before() {
    let place = Place::new("import");
    let (_, out) = package(&place, "root.package");
    place.up(&[], &[], || ());
    run(&place, &["ca", "root", "export", "--out", &out], WORDS, 0);
    let (_, said) = run(&place, &["ca", "root", "import", "--package", &out], WRONG, 3);
    assert!(said.contains("wrong passphrase") && !online(&place), "{said}");
    let imported = json(&place, &["ca", "root", "import", "--package", &out, "--json"]);
    assert_eq!(imported["online"], true);
    assert!(online(&place));
    place.up(&[], &[], || run(&place, &["ca", "rotate", "issuing"], WORDS, 0));
}

#[test]
fn what_would_lose_the_root_or_lay_it_open_is_refused_and_leaves_no_file() {
    let place = Place::new("careful");
    place.up(&[], &[], || ());
    let (path, out) = package(&place, "root.package");
    let inside = place.data().join("root.package");
    let (_, said) = run(&place, &["ca", "root", "export", "--out", inside.to_str().unwrap()], WORDS, 2);
    assert!(said.contains("inside the data directory") && !inside.exists(), "{said}");
    let nowhere = place.folder.join("missing/root.package");
    run(&place, &["ca", "root", "export", "--out", nowhere.to_str().unwrap()], WORDS, 2);
    std::fs::write(&path, "something else").unwrap();
    run(&place, &["ca", "root", "export", "--out", &out], WORDS, 3);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else");
    std::fs::remove_file(&path).unwrap();
    let (_, said) =
        run(&place, &["ca", "root", "export", "--out", &out], ("RINGFENCE_ROOT_PASSPHRASE", "short"), 3);
    assert!(said.contains("at least 12 bytes") && !path.exists(), "{said}");
    assert!(online(&place));
    // Nobody to ask.
    let asked = Command::new("setsid")
        .arg("--wait")
        .arg(env!("CARGO_BIN_EXE_ringfence"))
        .args(["ca", "root", "export", "--out", &out])
        .current_dir(&place.folder)
        .env_remove(WORDS.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(asked.status.code(), Some(3));
    assert!(
        text(&asked.stderr).contains("RINGFENCE_ROOT_PASSPHRASE") && !path.exists(),
        "{}",
        text(&asked.stderr)
    );
    assert!(online(&place));
}

#[test]
fn whenever_an_export_is_killed_the_root_is_here_or_in_the_package() {
    let place = Place::new("killed");
    place.up(&[], &[], || ());
    let (path, out) = package(&place, "root.package");
    let whole = {
        let start = std::time::Instant::now();
        run(&place, &["ca", "root", "export", "--out", &out], WORDS, 0);
        start.elapsed()
    };
    let mut offline = 0;
    for n in 0..=12 {
        if !online(&place) {
            offline += 1;
            run(&place, &["ca", "root", "import", "--package", &out], WORDS, 0);
        }
        assert!(online(&place));
        let _ = std::fs::remove_file(&path);
        let mut child = place
            .command(&["ca", "root", "export", "--out", &out])
            .env(WORDS.0, WORDS.1)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * n / 10);
        let _ = child.kill();
        child.wait().unwrap();
        // Its keeper ends with it, in a moment.
        let gone = eventually(Duration::from_secs(60), || works_in(&place.folder).is_empty().then_some(()));
        assert!(gone.is_some(), "{:?}", works_in(&place.folder));
    }
    assert!(offline > 0, "some ran to their end");
}

/// Processes whose working directory this is.
fn works_in(folder: &Path) -> Vec<std::ffi::OsString> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let here = |process: &std::fs::DirEntry| {
        std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    processes.filter(here).map(|process| process.file_name()).collect()
}

/// Types a passphrase twice at a terminal.
const TYPE: &str = r#"
import signal
signal.alarm(120)
import os, pty, signal, sys
signal.alarm(120)
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said, typed = b'', 0
while True:
    try: more = os.read(terminal, 1024)
    except OSError: break
    if not more: break
    said += more
    if said.count(b': ') > typed and said.endswith(b': '):
        typed += 1
        os.write(terminal, sys.argv[1].encode() + b'\n')
print(said.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn at_a_terminal_the_passphrase_is_asked_for_twice_and_not_shown() {
    let place = Place::new("terminal");
    place.up(&[], &[], || ());
    let (_, out) = package(&place, "root.package");
    let typed = |words: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", TYPE, WORDS.1, env!("CARGO_BIN_EXE_ringfence")]).args(words);
        text(&command.current_dir(&place.folder).env_remove(WORDS.0).output().unwrap().stdout)
    };
    let said = typed(&["ca", "root", "export", "--out", &out]);
    assert!(said.trim_end().ends_with(" 0") && said.contains("the same again: "), "{said}");
    assert!(!said.contains(WORDS.1), "{said}");
    assert!(!online(&place) && Path::new(&out).exists());
    let said = typed(&["ca", "root", "import", "--package", &out]);
    assert!(said.trim_end().ends_with(" 0") && !said.contains("again: "), "{said}");
    assert!(online(&place));
}

/// What was tried is in the signing log, as it should be.
fn without_log(
    mut state: std::collections::BTreeMap<PathBuf, String>,
) -> std::collections::BTreeMap<PathBuf, String> {
    state.remove(Path::new("keeper/signing.log"));
    state
}
