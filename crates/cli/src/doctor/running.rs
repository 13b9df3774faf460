//! What only a running fence can tell.

use serde_json::Value;

use super::{Findings, Patient};
use crate::client::Client;
use crate::view::now;

/// A certificate that ends sooner than this, in seconds, has not been renewed when it should have been.
const SOON: u64 = 60;
/// An authority that ends sooner than this wants to be looked after.
const ROOT: u64 = 90 * 24 * 3600;
const ISSUING: u64 = 7 * 24 * 3600;
/// What clocks of one machine may differ by.
const SKEW: u64 = 5;
/// What needs a running fence.
const ASKED: [&str; 8] =
    ["processes", "fence-in-force", "nodes", "certificates", "authorities", "clock", "store", "hosts"];

pub(super) fn look(patient: &Patient<'_>, findings: &mut Findings) {
    let client = match Client::new(patient.data) {
        Ok(client) => client,
        Err(e) => return findings.unknown("control", e.to_string()),
    };
    let status: Value = match client.get("/v1/status") {
        Ok(status) => status,
        Err(e) if !patient.data.join("control.sock").exists() => {
            findings.unknown("control", e.to_string());
            return ASKED
                .iter()
                .for_each(|check| findings.unknown(check, "nothing runs that could be asked"));
        }
        Err(e) => {
            let next = "see what `ringfence up` printed last, and start it again";
            findings.fail("control", e.to_string(), next);
            return ASKED.iter().for_each(|check| findings.unknown(check, "control does not answer"));
        }
    };
    let member = status["member"].is_object();
    if member && status["member"]["connected"] != true {
        let said = status["member"]["said"].as_str().unwrap_or("it was never reached").to_owned();
        let next = "see that the host with control runs and can be reached under its `control` address";
        findings.fail("control", format!("this host has lost control: {said}"), next);
    } else {
        findings.ok("control", if member { "this host is connected to it" } else { "it answers" });
    }
    processes(&status, findings);
    in_force(&status, findings);
    nodes(&status, findings);
    clock(&status, findings);
    store(&status, findings);
    if member {
        ["authorities", "hosts"]
            .iter()
            .for_each(|check| findings.unknown(check, "asked on the host that has control"));
        return;
    }
    match client.get::<Value>("/v1/ca") {
        Ok(ca) => authorities(&ca, findings),
        Err(e) => {
            findings.fail("authorities", e.to_string(), "see whether the keeper runs: ringfence status")
        }
    }
    if patient.fence.is_some_and(|fence| !fence.hosts.is_empty()) {
        match client.get::<Value>("/v1/hosts") {
            Ok(hosts) => hosts_of(&hosts, findings),
            Err(e) => findings.unknown("hosts", e.to_string()),
        }
    } else {
        findings.ok("hosts", "this machine is all there is");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn processes(status: &Value, findings: &mut Findings) {
    let mut wrong = Vec::new();
    for process in list(&status["report"]["processes"]) {
        let (name, restarts) = (word(&process["name"]), process["restarts"].as_u64().unwrap_or(0));
        if process["pid"] == 0 {
            wrong.push(format!("{name} does not run"));
        } else if restarts > 0 {
            wrong.push(format!("{name} was started again {restarts} times"));
        }
    }
    for service in list(&status["report"]["services"]) {
        let state = word(&service["state"]);
        if matches!(state, "failed" | "backoff" | "exited") {
            wrong.push(format!("{} is in {state}: {}", word(&service["name"]), word(&service["detail"])));
        }
    }
    if wrong.is_empty() {
        findings.ok("processes", "all run, none had to be started again");
    } else {
        let next = "ringfence events --since 1h says when and why; logs/NAME.log has what a service printed";
        findings.fail("processes", wrong.join("; "), next);
    }
}

fn in_force(status: &Value, findings: &mut Findings) {
    let report = &status["report"];
    if let Some(rejected) = report["rejected"].as_str() {
        let first = rejected.lines().next().unwrap_or_default();
        let seen = format!("the fence on disk was refused, an older one is in force: {first}");
        return findings.fail("fence-in-force", seen, "ringfence check shows what is wrong with it");
    }
    match (status["snapshot"]["revision"].as_u64(), status["snapshot"]["expires_at"].as_u64()) {
        (Some(revision), Some(ends)) if ends > now() => {
            findings.ok("fence-in-force", format!("revision {revision}"));
        }
        (Some(revision), _) => {
            let next = "see whether keeper and control run: ringfence status";
            findings.fail("fence-in-force", format!("revision {revision} has expired"), next);
        }
        _ => findings.fail("fence-in-force", "none is in force", "see what `ringfence up` printed"),
    }
}

fn nodes(status: &Value, findings: &mut Findings) {
    let newest = status["snapshot"]["revision"].as_u64().unwrap_or(0);
    let (mut wrong, mut old) = (Vec::new(), Vec::new());
    let mut soon = Vec::new();
    for node in list(&status["nodes"]) {
        let name = word(&node["node"]);
        if let Some(reason) = node["refused"].as_str() {
            wrong.push(format!("{name} refused a snapshot: {reason}"));
        } else if node["stale"] == true {
            wrong.push(format!("{name} is stale: its lease has run out"));
        } else if node["revision"].as_u64().unwrap_or(0) < newest {
            old.push(format!("{name} is at revision {}, not {newest}", node["revision"]));
        }
        for certificate in list(&node["certificates"]) {
            let ends = certificate[1].as_u64().unwrap_or(0);
            if ends <= now() + SOON {
                soon.push(format!("{} on {name}", word(&certificate[0])));
            }
        }
    }
    let next = "ringfence events --kind entity --since 1h says why";
    if !wrong.is_empty() {
        findings.fail("nodes", wrong.join("; "), next);
    } else if !old.is_empty() {
        findings.warn("nodes", old.join("; "), "look again in a moment; then see the events");
    } else {
        findings.ok("nodes", format!("{} enforce revision {newest}", list(&status["nodes"]).len()));
    }
    if soon.is_empty() {
        findings.ok("certificates", "none ends before it should be renewed");
    } else {
        findings.fail("certificates", format!("about to end or over: {}", soon.join(", ")), next);
    }
}

/// Control's clock and this one are of one machine; certificates are believed by it.
fn clock(status: &Value, findings: &mut Findings) {
    let Some(issued) = status["snapshot"]["issued_at"].as_u64() else {
        return findings.unknown("clock", "no snapshot says when it was made");
    };
    if issued > now() + SKEW {
        let seen = format!("the snapshot in force was made {} s in the future", issued - now());
        let next =
            "the clock was set back: run a time service; what is signed now may not be believed until then";
        findings.fail("clock", seen, next);
    } else {
        findings.ok("clock", format!("the snapshot in force is {} s old", now() - issued));
    }
}

fn store(status: &Value, findings: &mut Findings) {
    let store = &status["store"];
    match (store["engine"].as_str(), store["trouble"].as_str()) {
        (_, Some(trouble)) => {
            let next = "mend the database; what is in force stays so, nothing can be changed meanwhile";
            findings.fail("store", trouble, next);
        }
        (Some(engine), None) => findings.ok("store", format!("{engine} answers")),
        (None, None) => findings.unknown("store", "asked on the host that has control"),
    }
}

fn authorities(ca: &Value, findings: &mut Findings) {
    let mut ending = Vec::new();
    for (what, least) in [("roots", ROOT), ("serving", ROOT), ("issuing", ISSUING)] {
        for authority in list(&ca[what]) {
            let ends = authority["not_after"].as_u64().unwrap_or(0);
            if authority["stage"] == "active" && ends <= now() + least {
                let days = ends.saturating_sub(now()) / 86_400;
                ending.push(format!("{what} {} ends in {days} days", word(&authority["id"])));
            }
        }
    }
    if ending.is_empty() {
        findings.ok("authorities", "all hold for long enough");
    } else {
        findings.fail(
            "authorities",
            ending.join("; "),
            "ringfence ca rotate root, or issuing, replaces it with overlap",
        );
    }
}

fn hosts_of(hosts: &Value, findings: &mut Findings) {
    let away = list(hosts).iter().filter(|host| host["state"] == "joined" && host["connected"] != true);
    let away: Vec<&str> = away.map(|host| word(&host["name"])).collect();
    let absent = list(hosts).iter().filter(|host| host["state"] == "absent");
    let absent: Vec<&str> = absent.map(|host| word(&host["name"])).collect();
    if !away.is_empty() {
        let next =
            "see there: ringfence status; one that is lost for good is removed with `ringfence host remove`";
        findings.fail("hosts", format!("not connected: {}", away.join(", ")), next);
    } else if !absent.is_empty() {
        let next = "ringfence host token NAME lets one join";
        findings.warn("hosts", format!("never joined: {}", absent.join(", ")), next);
    } else {
        findings.ok("hosts", format!("{} are there", list(hosts).len()));
    }
}
