//! A fence on several machines: real processes in networks of their own, that join, call each other, lose control and find it again.
#![expect(clippy::unwrap_used, reason = "test")]

mod net;
mod rogue;
#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;
mod workload;

use std::path::PathBuf;

use net::{Host, Net, SOON};
use running::{eventually, text};
use serde_json::Value;

/// The clinic on three machines and more: control on the first, the gateway on the second.
struct Clinic {
    net: Net,
    fence: String,
    main: Host,
    gate: Host,
    ward: Host,
    ca: PathBuf,
    url: String,
}

impl Clinic {
    /// Starts control and lets the others join. `services` are those beside the portal, which runs on the ward.
    fn start(lab: bool, services: &str) -> Self {
        let net = Net::new();
        let at = |n: u32| net.address(n);
        let hosts = if lab { format!("  lab: {{ mesh: {}:8500 }}", at(4)) } else { String::new() };
        let url = format!("https://{}:8443", at(2));
        let fence = format!(
            "fence: clinic
trust_domain: clinic.example
gateway: {{ at: gate, listen: {gate}:8443 }}
hosts:
  main: {{ mesh: {main}:8500, control: {main}:7443 }}
  gate: {{ mesh: {gate}:8500 }}
  ward: {{ mesh: {ward}:8500 }}
{hosts}
services:
  portal:
    at: ward
    run: [python3, app/echo.py, portal]
    listen: 9000
    ready: tcp
    calls: [patients]
    routes:
      - {{ path: / }}
      - {{ path: /results, accept: [api_key] }}
{services}
",
            main = at(1),
            gate = at(2),
            ward = at(3),
        );
        let [mut main, gate, ward] = [1, 2, 3].map(|n| Host::new(&net, n, &fence));
        main.start(&["up", "."]);
        main.says("is up");
        let ca = gate.folder.join(".ringfence/ca.pem");
        let mut clinic = Self { net, fence, main, gate, ward, ca, url };
        clinic.gate.join(&clinic.main, "gate");
        clinic.ward.join(&clinic.main, "ward");
        clinic
    }

    /// Another machine, joined.
    fn another(&self, n: u32, name: &str) -> Host {
        let mut host = Host::new(&self.net, n, &self.fence);
        host.join(&self.main, name);
        host
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.gate.get(&self.ca, &format!("{}{path}", self.url), &[])
    }

    /// Waits until the gateway answers so.
    fn until(&self, path: &str, wanted: (u16, &str)) {
        let mut last = (0, String::new());
        let found = eventually(SOON, || {
            last = self.get(path);
            (last.0 == wanted.0 && last.1.contains(wanted.1)).then_some(())
        });
        assert!(found.is_some(), "{path}: {last:?}, never {wanted:?}");
    }

    fn hosts(&self) -> Vec<Value> {
        self.main.json(&["host", "list", "--json"]).and_then(|v| v.as_array().cloned()).unwrap_or_default()
    }

    fn host(&self, name: &str) -> Value {
        self.hosts().into_iter().find(|host| host["name"] == name).unwrap_or_default()
    }

    fn until_connected(&self, name: &str, wanted: bool) {
        let found = eventually(SOON, || (self.host(name)["connected"] == wanted).then_some(()));
        assert!(found.is_some(), "{name} connected: never {wanted}: {}", self.host(name));
    }
}

impl Host {
    /// Joins with a token that `main` makes.
    fn join(&mut self, main: &Self, name: &str) {
        let made = main.ringfence(&["host", "token", name]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        std::fs::write(self.folder.join("token"), made.stdout).unwrap();
        self.start(&["node", ".", "--join", "token"]);
        self.says("is up");
    }
}

const PATIENTS: &str = "  patients:
    at: lab
    run: [python3, app/echo.py, patients]
    listen: 9000
    ready: tcp
";

#[test]
fn hosts_join_once_and_services_call_each_other_across_them_along_edges_only() {
    let mut clinic = Clinic::start(true, PATIENTS);
    assert_eq!(clinic.host("lab")["state"], "absent");
    let lab = clinic.another(4, "lab");
    clinic.until("/call/patients", (200, "portal < patients"));
    clinic.until_connected("lab", true);
    let named = |name: &str| (clinic.host(name)["state"].clone(), clinic.host(name)["services"].clone());
    assert_eq!(named("main"), ("control".into(), serde_json::json!([])));
    assert_eq!(named("ward"), ("joined".into(), serde_json::json!(["portal"])));
    assert_eq!(named("lab"), ("joined".into(), serde_json::json!(["patients"])));

    // Nobody holds a certificate of what runs elsewhere.
    let certificates = |node: &str| {
        let status = clinic.main.json(&["status", "--json"]).unwrap();
        let node = status["nodes"].as_array().unwrap().iter().find(|n| n["node"] == node).unwrap().clone();
        let ids = node["certificates"].as_array().unwrap().iter().map(|c| c[0].as_str().unwrap().to_owned());
        ids.filter(|id| id.starts_with("spiffe:")).collect::<Vec<_>>()
    };
    let found = eventually(SOON, || {
        let all = [("ward", "service/portal"), ("lab", "service/patients"), ("gate", "gateway/clinic")];
        all.iter()
            .all(|(node, id)| certificates(node) == [format!("spiffe://clinic.example/{id}")])
            .then_some(())
    });
    assert!(found.is_some(), "{:?}", clinic.main.json(&["status", "--json"]));
    assert!(certificates("main").is_empty());

    // Each host tells of itself.
    let shown = lab.ringfence(&["status"]);
    assert!(
        shown.status.success() && text(&shown.stdout).contains("host lab  connected to control"),
        "{shown:?}"
    );
    let found = eventually(SOON, || {
        let checked = lab.json(&["doctor", "--json"])?;
        let nodes = checked["checks"].as_array()?.iter().find(|check| check["check"] == "nodes")?.clone();
        (nodes["seen"] == "1 enforce revision 1").then_some(())
    });
    assert!(found.is_some(), "{:?}", lab.json(&["doctor", "--json"]));
    let top = lab.ringfence(&["top", "--json", "--count", "1"]);
    assert!(top.status.success(), "{}", text(&top.stderr));

    // The way back is no edge: refused on the caller's own host, and said there.
    let init = lab.json(&["status", "--json"]).unwrap()["report"]["services"][0]["init"].as_u64().unwrap();
    let service = running::children(u32::try_from(init).unwrap())[0].to_string();
    let asked = std::process::Command::new("nsenter")
        .args(["--target", &service, "--all", "--preserve-credentials", "--wd=/", "--", "python3", "-c"])
        .arg("import urllib.request as u\ntry:\n    print(u.urlopen('http://portal/', timeout=20).status)\nexcept u.HTTPError as e:\n    print(e.code)")
        .output()
        .unwrap();
    assert_eq!(text(&asked.stdout).trim(), "403", "{}", text(&asked.stderr));

    // A token is good once: whoever finds it later gets nothing, and control's host says so.
    let theirs = clinic.fence.replace(&clinic.net.address(4), &clinic.net.address(5));
    let mut thief = Host::new(&clinic.net, 5, &theirs);
    std::fs::copy(lab.folder.join("token"), thief.folder.join("token")).unwrap();
    thief.start(&["node", ".", "--join", "token"]);
    assert_eq!(thief.ends(), Some(3), "{}", thief.said());
    assert!(thief.said().contains("control refuses host `lab`"), "{}", thief.said());
    let refused = clinic.main.event(|e| {
        e["entity"]["name"] == "lab"
            && e["message"].as_str().unwrap_or_default().contains("unknown or was used")
    });
    assert!(refused.is_some(), "{}", text(&clinic.main.ringfence(&["events"]).stdout));
    assert_eq!(clinic.get("/call/patients"), (200, "portal < patients".into()), "the host itself goes on");
    for (name, why) in [("main", "has control"), ("cellar", "has no host")] {
        let made = clinic.main.ringfence(&["host", "token", name]);
        assert_eq!(made.status.code(), Some(3), "{name}");
        assert!(text(&made.stderr).contains(why), "{}", text(&made.stderr));
    }
    clinic.main.stop();
}

#[test]
fn hosts_go_on_without_control_find_it_again_and_learn_what_was_revoked_meanwhile() {
    let mut clinic = Clinic::start(false, &PATIENTS.replace("at: lab", "at: ward"));
    clinic.until("/call/patients", (200, "portal < patients"));
    let made = clinic.main.ringfence(&["key", "create", "--client", "labs"]);
    let key = text(&made.stdout).trim().to_owned();
    let field = format!("X-API-Key: {key}");
    let results =
        |clinic: &Clinic| clinic.gate.get(&clinic.ca, &format!("{}/results", clinic.url), &["-H", &field]).0;
    assert!(eventually(SOON, || (results(&clinic) == 200).then_some(())).is_some(), "{}", results(&clinic));

    clinic.main.kill();
    clinic.gate.says("control is gone");
    for _ in 0..5 {
        assert_eq!(clinic.get("/call/patients").0, 200, "{}", clinic.gate.said());
        // What is done on somebody's behalf needs a token of the keeper's, which is with control: refused, not let through.
        assert!(matches!(results(&clinic), 200 | 503), "a token may still be good: {}", results(&clinic));
    }
    let closed = eventually(SOON, || (results(&clinic) == 503).then_some(()));
    assert!(closed.is_some(), "{}", results(&clinic));
    // The keys of services are on no disk: one that is started anew meanwhile takes its services over, and waits.
    clinic.ward.kill();
    clinic.ward.start(&["node", "."]);
    clinic.ward.says("portal: taken over");

    clinic.main.start(&["up", "."]);
    for name in ["gate", "ward"] {
        clinic.until_connected(name, true);
    }
    clinic.until("/call/patients", (200, "portal < patients"));
    // Cut off by the network, not by an end: nothing is said, and nothing is lost.
    let cut = clinic.net.cut(2, true);
    let revoked = clinic.main.ringfence(&["key", "revoke", &key[3..15]]);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    if cut {
        clinic.until_connected("gate", false);
        clinic.net.cut(2, false);
    }
    let found = eventually(SOON, || (results(&clinic) == 401).then_some(()));
    assert!(found.is_some(), "{}: {}", results(&clinic), clinic.gate.said());
    clinic.until("/call/patients", (200, "portal < patients"));
}

#[test]
fn a_host_that_was_removed_gets_nothing_and_comes_back_with_a_new_token_only() {
    let mut clinic = Clinic::start(false, &PATIENTS.replace("at: lab", "at: ward"));
    clinic.until("/call/patients", (200, "portal < patients"));
    let removed = clinic.main.ringfence(&["host", "remove", "ward"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    clinic.ward.says("control refuses host");
    clinic.until_connected("ward", false);
    assert_eq!(clinic.host("ward")["state"], "removed");
    // What it held counts no more: nobody is let in who shows it, and nobody believes it.
    let refused = eventually(SOON, || (clinic.get("/call/patients").0 != 200).then_some(()));
    assert!(refused.is_some(), "{}", clinic.ward.said());
    let said = clinic.main.event(|e| {
        e["entity"]["name"] == "ward" && e["message"].as_str().unwrap_or_default().contains("does not belong")
    });
    assert!(said.is_some(), "{}", text(&clinic.main.ringfence(&["events"]).stdout));
    // Started anew it is no better off.
    clinic.ward.kill();
    clinic.ward.start(&["node", "."]);
    let refused =
        eventually(SOON, || (clinic.ward.said().matches("control refuses host").count() > 1).then_some(()));
    assert!(refused.is_some(), "{}", clinic.ward.said());
    assert_eq!(clinic.host("ward")["connected"], false);

    clinic.ward.stop();
    clinic.ward.join(&clinic.main, "ward");
    clinic.until_connected("ward", true);
    assert_eq!(clinic.host("ward")["state"], "joined");
    clinic.until("/call/patients", (200, "portal < patients"));
}

#[test]
fn a_service_on_two_hosts_answers_while_one_of_them_is_down() {
    let clinic = Clinic::start(true, &PATIENTS.replace("at: lab", "at: [gate, lab]"));
    let mut lab = clinic.another(4, "lab");
    clinic.until("/call/patients", (200, "portal < patients"));
    lab.stop();
    clinic.until_connected("lab", false);
    let all = eventually(SOON, || (0..20).all(|_| clinic.get("/call/patients").0 == 200).then_some(()));
    assert!(all.is_some(), "{:?}", clinic.get("/call/patients"));
    lab.start(&["node", "."]);
    clinic.until_connected("lab", true);
    clinic.gate.says("patients: ready");
    clinic.until("/call/patients", (200, "portal < patients"));
}
