//! A gateway of its own: the real binary with a fence, in a folder that is gone afterwards.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Mode, backend, exchange};
use crate::environment::{binaries, target};
use crate::process::cargo;

const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Gateway {
    pub(super) port: u16,
    folder: PathBuf,
    up: Child,
}

/// What Ringfence told of one request.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Rules of the firewall that matched.
    pub(super) ids: Vec<u64>,
    /// What each of them said.
    pub(super) lines: Vec<String>,
    /// The rule by which it was refused, and why.
    pub(super) refused: Option<(String, String)>,
}

impl Gateway {
    /// Builds the binary, writes the fence and waits until it is served.
    pub(super) fn start(
        rules: &Path,
        tests: &Path,
        mode: Mode,
        binary: Option<&Path>,
    ) -> Result<Self, String> {
        let built = || {
            let built = crate::process::run(&mut cargo(["build", "--quiet", "--package", "ringfence"]));
            built.map(|()| binaries().join("ringfence")).map_err(|error| error.to_string())
        };
        let binary = binary.map_or_else(built, |path| Ok(path.to_owned()))?;
        let told = |error: std::io::Error| error.to_string();
        let upstream = backend::start().map_err(told)?;
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map_err(told)?.port();
        let folder = target().join(format!("conform-crs-{}", std::process::id()));
        let set = folder.join("crs");
        copy(&rules.join("rules"), &set.join("rules"))?;
        let setup = rules.join("crs-setup.conf.example");
        let setup =
            fs::read_to_string(&setup).map_err(|e| format!("cannot read {}: {e}", setup.display()))?;
        let settings = settings(&tests.join("README.md"), mode)?;
        fs::write(set.join("crs-setup.conf"), format!("{setup}\n{settings}\n")).map_err(told)?;
        let (mode, threshold) = match mode {
            Mode::Observe => ("observe", "{ inbound: 5, outbound: 4 }"),
            // Whatever scores is refused.
            Mode::Enforce => ("enforce", "{ inbound: 1, outbound: 1 }"),
        };
        let fence = format!(
            "fence: crs
trust_domain: crs.example
gateway: {{ listen: 127.0.0.1:{port}, tls: off }}
waf:
  mode: {mode}
  crs: crs
  paranoia: 4
  threshold: {threshold}
  responses: true
external:
  echo:
    address: {upstream}
    routes: [{{ path: / }}]
"
        );
        fs::write(folder.join("ringfence.yaml"), fence).map_err(told)?;
        let log = fs::File::create(folder.join("up.log")).map_err(told)?;
        let up = Command::new(binary)
            .args(["up", "."])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(told)?)
            .stderr(log)
            .spawn()
            .map_err(told)?;
        let mut gateway = Self { port, folder, up };
        gateway.wait()?;
        Ok(gateway)
    }

    fn wait(&mut self) -> Result<(), String> {
        let start = Instant::now();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ready\r\nAccept: */*\r\nConnection: close\r\n\r\n";
        while start.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.up.try_wait() {
                return Err(format!("`ringfence up` ended: {status}\n{}", self.said()));
            }
            if exchange::ask(Ipv4Addr::LOCALHOST, self.port, request) == exchange::Answer::Status(200) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err(format!("the gateway does not serve\n{}", self.said()))
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("up.log")).unwrap_or_default()
    }

    /// What was told of each request, by the address that it came from.
    pub(super) fn events(&self) -> Result<HashMap<Ipv4Addr, Told>, String> {
        // A last request marks the end: what came before it has been written when its event has.
        let last = Ipv4Addr::new(127, 255, 0, 1);
        let request = b"GET /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        exchange::ask(last, self.port, request);
        let start = Instant::now();
        loop {
            let told = self.read_events()?;
            if told.contains_key(&last) {
                // Other threads write theirs within the same time.
                thread::sleep(Duration::from_millis(500));
                return self.read_events();
            }
            if start.elapsed() > PATIENCE {
                return Err("the gateway does not write its events".to_owned());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn read_events(&self) -> Result<HashMap<Ipv4Addr, Told>, String> {
        let mut told: HashMap<Ipv4Addr, Told> = HashMap::new();
        let mut files = Vec::new();
        lines_below(&self.folder.join(".ringfence/events"), &mut files);
        for file in files {
            let file = fs::File::open(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
            for line in BufReader::new(file).lines() {
                let Ok(event) = serde_json::from_str::<Value>(&line.map_err(|e| e.to_string())?) else {
                    continue;
                };
                let source = event["src_endpoint"]["ip"].as_str().and_then(|ip| ip.parse().ok());
                if let Some(source) = source {
                    told.entry(source).or_default().add(&event);
                }
            }
        }
        Ok(told)
    }

    /// Ctrl-C, and the folder is gone.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.up.id().to_string()]).status();
        let start = Instant::now();
        while matches!(self.up.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(20) {
                let _ = self.up.kill();
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if matches!(self.up.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

impl Told {
    fn add(&mut self, event: &Value) {
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        let id =
            |finding: &Value| -> Option<u64> { finding["rule"].as_str()?.strip_prefix("waf.")?.parse().ok() };
        let findings: Vec<&Value> = event["unmapped"]["findings"].as_array().into_iter().flatten().collect();
        for finding in &findings {
            let Some(rule) = id(finding) else { continue };
            if !self.ids.contains(&rule) {
                self.ids.push(rule);
            }
            // What one link of a chain found is told of the value that another looked at.
            for other in findings.iter().filter(|other| id(other) == Some(rule)) {
                let (found, target, value) =
                    (text(finding, "value"), text(other, "target"), text(other, "value"));
                let line = format!(
                    "{}: Matched Data: {found} found within {target}: {value}",
                    text(finding, "message")
                );
                // One line of a log is one line.
                self.lines.push(line.replace('\r', "\\r").replace('\n', "\\n"));
            }
        }
        if event["action_id"] == 2 || event["status_id"] == 2 {
            let rule = event["firewall_rule"]["uid"].as_str().unwrap_or_default();
            // What comes behind a request on its connection is told after it.
            self.refused.get_or_insert_with(|| (rule.to_owned(), text(event, "status_detail")));
        }
    }
}

fn lines_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            lines_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|e| e.to_string())?;
    for entry in fs::read_dir(from).map_err(|e| format!("cannot read {}: {e}", from.display()))?.flatten() {
        if entry.path().is_file() {
            fs::write(to.join(entry.file_name()), fs::read(entry.path()).map_err(|e| e.to_string())?)
                .map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// The rule with which the tests' own instructions configure an engine. Whether it refuses is for the fence to say.
fn settings(readme: &Path, mode: Mode) -> Result<String, String> {
    let text = fs::read_to_string(readme).map_err(|e| format!("cannot read {}: {e}", readme.display()))?;
    let rule = text.find("SecAction \"id:900005").and_then(|start| {
        let length = text[start..].find("```")?;
        Some(text[start..start + length].to_owned())
    });
    let rule = rule.ok_or_else(|| format!("{} gives no rule 900005", readme.display()))?;
    let types = "SecResponseBodyMimeType text/plain text/html text/xml application/json\n";
    Ok(match mode {
        Mode::Observe => format!("{types}{rule}"),
        Mode::Enforce => format!("{types}{}", rule.replace("  ctl:ruleEngine=DetectionOnly,\\\n", "")),
    })
}
