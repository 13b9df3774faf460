//! A fence of Python services for one story each, and clients that speak to them from outside and from inside.

#[expect(dead_code, reason = "the stories of the clinic use the rest")]
#[path = "../../clinic/running.rs"]
pub(crate) mod running;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) use running::{Clinic, Stalls, Who, eventually, text};

/// However busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Python that a fenced service can see; it gets only the packages that it is given (`-S`).
const PYTHON: &str = "/usr/bin/python3";
/// Where the packages of the tests lie in the fence's folder.
const SITE: &str = "site";

/// A running fence.
pub(crate) struct Lab {
    pub(crate) clinic: Clinic,
}

/// Lets so many seconds pass, and as many as a busy machine needs to do as much: at most three times that.
pub(crate) fn pause(seconds: f64) {
    let (begun, stalls) = (Instant::now(), Stalls::begin());
    eventually(Duration::from_secs_f64(seconds * 3.0), || {
        (stalls.without(begun.elapsed().as_secs_f64()) >= seconds).then_some(())
    });
}

/// From where a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// From this host, through the gateway, over TLS.
    Outside,
    /// From the service `caller`, through its sidecar and the callee's.
    Caller,
    /// From its network too, by a process beside it: for clients that take longer than a request may.
    Beside,
}

pub(crate) const BOTH: [From; 2] = [From::Outside, From::Caller];

impl Lab {
    /// Starts the services that `services` declares; in it `PY NAME` stands for how a Python service of the lab is run.
    /// `packages` are what they import besides the standard library.
    pub(crate) fn start(who: Who, services: &str, packages: &[&str]) -> Self {
        Self::start_before(who, services, packages, Vec::new(), |_| {})
    }

    /// The same with words before `up`, and more in the folder.
    pub(crate) fn start_before(
        who: Who,
        services: &str,
        packages: &[&str],
        before: Vec<String>,
        fill: impl FnOnce(&Path),
    ) -> Self {
        let fence = fence(services);
        let clinic = Clinic::start_fence(who, &fence, before, |folder| {
            copy(&source(), folder);
            copy_packages(&folder.join(SITE), packages);
            fill(folder);
        });
        Self { clinic }
    }

    /// Changes the fence of a running lab.
    pub(crate) fn change(&self, change: impl FnOnce(String) -> String) {
        let path = self.clinic.folder.join("ringfence.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "the change changes something");
        let next = path.with_extension("next");
        std::fs::write(&next, after).unwrap();
        std::fs::rename(next, path).unwrap();
        // Now, and not when it is noticed.
        let hup = Command::new("kill").args(["-HUP", &self.clinic.up_pid().to_string()]).status().unwrap();
        assert!(hup.success());
    }

    /// Has a client tell a story, and gives back what it says.
    pub(crate) fn tell(&self, from: From, client: &str, story: &str, target: &Value) -> Value {
        let answer = self.try_tell(from, client, story, target);
        let answer = answer.unwrap_or_else(|| panic!("{client}.{story} {from:?} gave no answer, see above"));
        assert!(
            answer.get("said").is_some(),
            "{client}.{story} {from:?}: {answer}\n{}",
            answer["failed"].as_str().unwrap_or("")
        );
        answer["said"].clone()
    }

    /// The same, if there is an answer.
    pub(crate) fn try_tell(&self, from: From, client: &str, story: &str, target: &Value) -> Option<Value> {
        let (stdout, stderr) = match from {
            From::Caller => {
                let asked = json!({ "client": client, "story": story, "target": target }).to_string();
                let output = self.clinic.curl(&["--max-time", "300", "--data-binary", &asked, "/caller"]);
                (output.stdout, output.stderr)
            }
            From::Beside => {
                let folder = self.clinic.folder.display();
                let script = format!(
                    "import sys, json; sys.dont_write_bytecode = True; sys.path[:0] = ['{folder}', '{folder}/{SITE}']\n\
                     import {client}; print(json.dumps({{'said': {client}.run('{story}', json.loads('{target}'))}}))"
                );
                (self.clinic.inside("caller", &script).into_bytes(), Vec::new())
            }
            From::Outside => {
                let output = Command::new(venv_python())
                    .args(["outside.py", client, story, &target.to_string()])
                    .env("PYTHONDONTWRITEBYTECODE", "1")
                    .current_dir(source())
                    .stdin(Stdio::null())
                    .output()
                    .unwrap();
                (output.stdout, output.stderr)
            }
        };
        let answer = serde_json::from_slice(&stdout);
        if let Err(e) = &answer {
            eprintln!("{client}.{story} {from:?}: {e}: {} {}", text(&stdout), text(&stderr));
        }
        answer.ok()
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.clinic.folder.join(".ringfence/ca.pem")
    }

    /// Events so far that `wanted` accepts.
    pub(crate) fn events(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let output = self.clinic.ringfence(&["events", "--json"]);
        text(&output.stdout).lines().filter_map(|l| serde_json::from_str(l).ok()).filter(wanted).collect()
    }
}

/// The fence with these services; `caller` runs clients on request. Nobody looks for attacks: bodies would be held until they can be judged, and
/// what is told here is how each protocol streams.
fn fence(services: &str) -> String {
    let (services, rest) = services.split_once("\n---\n").unwrap_or((services, ""));
    let mut fence = format!(
        "fence: lab\ntrust_domain: lab.example\ngateway: {{ listen: 127.0.0.1:8443 }}\nwaf: off\n{rest}\nservices:\n{}\n",
        services.trim_end()
    );
    while let Some(at) = fence.find("PY ") {
        let end = fence[at..].find([',', '\n']).map_or(fence.len(), |n| at + n);
        let words: Vec<String> = fence[at + 3..end].split_whitespace().map(|w| format!("\"{w}\"")).collect();
        // In a block mapping the second key needs a line of its own.
        let block = fence[..at].ends_with("\n    ");
        let between = if block { "\n    " } else { ", " };
        let run =
            format!("run: [{PYTHON}, -S, -B, {}]{between}env: {{ PYTHONPATH: {SITE} }}", words.join(", "));
        fence.replace_range(at..end, &run);
    }
    fence
}

fn source() -> PathBuf {
    running::workspace().join("crates/cli/tests/protocols/lab")
}

/// The Python that has the real clients.
pub(crate) fn venv_python() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_ringfence")).ancestors().nth(2).unwrap();
    let python = target.join("venv/bin/python3");
    assert!(python.exists(), "{} is missing: `cargo xtask test` makes it", python.display());
    python
}

/// Copies packages to where a fenced service sees them.
fn copy_packages(to: &Path, packages: &[&str]) {
    std::fs::create_dir_all(to).unwrap();
    let output = Command::new(venv_python())
        .args(["-c", "import sysconfig; print(sysconfig.get_path('platlib'))"])
        .output()
        .unwrap();
    let site = PathBuf::from(text(&output.stdout).trim());
    for package in packages {
        let found = std::fs::read_dir(&site).unwrap().flatten().map(|e| e.path()).filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name == *package
                || name
                    .strip_prefix(package)
                    .is_some_and(|rest| rest.starts_with('.') || rest.starts_with('-'))
        });
        let found: Vec<PathBuf> = found.collect();
        assert!(!found.is_empty(), "{package} is not in {}: `cargo xtask test` installs it", site.display());
        let status = Command::new("cp").arg("-r").args(&found).arg(to).status().unwrap();
        assert!(status.success());
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
