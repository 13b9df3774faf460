//! SVIDs of ten seconds, an issuing rotation, a root rotation and a new snapshot each second: no request fails.

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{Clinic, Who, eventually, text};
use crate::traffic::Traffic;
use crate::{ca, clinic, gateway, length};

/// What the old root signed has surely ended this long after it signed last: a life of ten seconds, and a minute for clocks.
const RETIRED: Duration = Duration::from_secs(72);
/// A change of the fence is in force within this.
const IN_FORCE: Duration = Duration::from_secs(60);

#[test]
fn no_request_fails_while_certificates_authorities_and_snapshots_change() {
    let length = length(Duration::from_secs(20));
    let clinic = clinic(Who::Root);
    let services = pids(&clinic);
    let (before, issued) = (revision(&clinic), count(&clinic, "x509"));
    let traffic = Traffic::start(gateway(&clinic), &ca(&clinic));
    let mut plan = Plan::new(length);
    let start = Instant::now();
    let mut edits = 0_u32;
    // A busy machine takes longer for all steps.
    while start.elapsed() < length || !plan.is_done() && start.elapsed() < length * 6 {
        edits += 1;
        edit(&clinic, edits);
        // Changes that come quicker than they are put in force would become one.
        let wanted = before + u64::from(edits);
        assert!(eventually(IN_FORCE, || (revision(&clinic) >= wanted).then_some(())).is_some(), "{wanted}");
        plan.go_on(&clinic, start.elapsed());
        std::thread::sleep((Duration::from_secs(1) * edits).saturating_sub(start.elapsed()));
    }
    let after = revision(&clinic);
    let issued = count(&clinic, "x509") - issued;
    let (seen, line) = traffic.stop();
    println!(
        "{line}\nsnapshots {}, SVIDs {issued}, rotation steps {}, retired: {}",
        after - before,
        count(&clinic, "rotations"),
        plan.retired
    );
    assert_eq!(seen.failures.load(Ordering::Relaxed), 0, "{line}\n{}", clinic.said());
    assert!(seen.requests.load(Ordering::Relaxed) > 2 * length.as_secs(), "{line}");
    assert!(after - before >= u64::from(edits), "{} snapshots for {edits} changes", after - before);
    assert!(issued > length.as_secs(), "six SVIDs, each renewed at half of ten seconds: {issued}");
    assert_eq!(pids(&clinic), services, "no change of this kind restarts a service");
    plan.check(&clinic);
    assert_eq!(refused(&clinic), [""; 0], "every snapshot and certificate was taken, in order");
    assert_eq!(clinic.stop(), [""; 0]);
}

/// What is rotated when.
struct Plan {
    steps: Vec<(Duration, &'static [&'static str])>,
    activated: Option<Instant>,
    refused: bool,
    retired: bool,
    waits: bool,
}

impl Plan {
    fn new(length: Duration) -> Self {
        let at = |part: u32| (length / 10 * part).min(Duration::from_secs(8) * part);
        Self {
            steps: vec![
                (at(1), &["ca", "rotate", "issuing"]),
                (at(3), &["ca", "rotate", "root", "--step", "prepare"]),
                (at(4), &["ca", "rotate", "root", "--step", "activate"]),
            ],
            activated: None,
            refused: false,
            retired: false,
            waits: length > at(4) + RETIRED + Duration::from_secs(10),
        }
    }

    /// Every step was taken, and the last one refused while too early.
    fn is_done(&self) -> bool {
        self.steps.is_empty() && self.refused
    }

    fn go_on(&mut self, clinic: &Clinic, now: Duration) {
        if let Some((_, step)) = self.steps.first().filter(|(at, _)| *at <= now) {
            let output = clinic.ringfence(step);
            assert!(output.status.success(), "{step:?}: {}\n{}", text(&output.stderr), clinic.said());
            self.steps.remove(0);
            self.activated = self.steps.is_empty().then(Instant::now);
            return;
        }
        let Some(activated) = self.activated else { return };
        let due = activated.elapsed() > RETIRED;
        if self.retired || (self.refused && !due) {
            return;
        }
        // The calendar may have been quicker.
        if due && roots(clinic) == 1 {
            self.retired = true;
            return;
        }
        let output = clinic.ringfence(&["ca", "rotate", "root", "--step", "retire"]);
        let said = text(&output.stderr);
        if due {
            assert!(output.status.success() || roots(clinic) == 1, "{said}");
            self.retired = true;
        } else {
            assert!(!output.status.success(), "retired while its SVIDs may be valid");
            assert!(said.contains("may be valid for"), "{said}");
            self.refused = true;
        }
    }

    fn check(&self, clinic: &Clinic) {
        assert!(self.is_done(), "every step was taken, and the last one refused while too early");
        assert_eq!(self.retired, self.waits, "retired once it may be");
        assert_eq!(roots(clinic), if self.waits { 1 } else { 2 });
    }
}

/// A change of the fence that changes nothing that anybody could notice, put in force at once.
fn edit(clinic: &Clinic, n: u32) {
    let path = clinic.folder.join("ringfence.yaml");
    let fence = std::fs::read_to_string(&path).unwrap();
    let kept = fence.split("\nlimits:").next().unwrap().trim_end();
    let next = path.with_extension("next");
    std::fs::write(&next, format!("{kept}\nlimits: {{ idle: {}s }}\n", 300 + n)).unwrap();
    std::fs::rename(next, path).unwrap();
    let hup = Command::new("kill").args(["-HUP", &clinic.up_pid().to_string()]).status().unwrap();
    assert!(hup.success());
}

/// What of snapshots and certificates was refused by anybody.
fn refused(clinic: &Clinic) -> Vec<String> {
    let events =
        ringfence_event::read_dir(&clinic.folder.join(".ringfence/events"), &Default::default()).unwrap();
    assert!(events.iter().any(|e| e.producer == "control"), "control tells what it does");
    let wanted = |json: &Value| {
        let entity = json["entity"]["type"].as_str();
        json["action_id"] == 2 && matches!(entity, Some("snapshot" | "certificate"))
    };
    let refused = events.iter().map(|e| &e.json).filter(|json| wanted(json));
    refused.map(|json| format!("{}: {}", json["entity"]["name"], json["message"])).collect()
}

fn revision(clinic: &Clinic) -> u64 {
    clinic.json(&["status", "--json"])["snapshot"]["revision"].as_u64().unwrap()
}

fn show(clinic: &Clinic) -> Value {
    clinic.json(&["ca", "show", "--json"])
}

fn count(clinic: &Clinic, what: &str) -> u64 {
    show(clinic)["counts"][what].as_u64().unwrap()
}

fn roots(clinic: &Clinic) -> usize {
    show(clinic)["roots"].as_array().unwrap().len()
}

fn pids(clinic: &Clinic) -> Vec<(String, u64)> {
    let status = clinic.json(&["status", "--json"]);
    let services = status["report"]["services"].as_array().unwrap();
    services.iter().map(|s| (s["name"].as_str().unwrap().to_owned(), s["init"].as_u64().unwrap())).collect()
}
