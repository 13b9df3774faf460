//! The clinic end to end, with the real processes, as root and as an unprivileged user: what is declared works, what is not is
//! refused by identity and told, and nothing reaches around.
#![expect(clippy::unwrap_used, reason = "test")]

mod down;
mod metrics;
mod running;
mod trace;

use std::process::Command;
use std::time::{Duration, Instant};

use running::{Clinic, Stalls, Who, children, eventually, text};

/// However busy the machine is.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn every_declared_call_works_as_root() {
    declared_calls_work(Who::Root);
}

#[test]
fn every_declared_call_works_as_an_unprivileged_user() {
    declared_calls_work(Who::Nobody);
}

fn declared_calls_work(who: Who) {
    let clinic = Clinic::start(who);
    // portal → patients, appointments, billing; appointments → patients; billing → patients.
    let (code, page) = clinic.get("/patients/p-1001");
    assert_eq!(code, 200, "{page}");
    for path in ["/api/appointments", "/api/invoices?patient=p-1003"] {
        let (code, body) = clinic.get(path);
        assert_eq!(code, 200, "{path}: {body}");
        assert!(body.contains("p-1"), "{path}: {body}");
    }
    // appointments → mailer, whose mail server does not exist here: it answers, and says so.
    let output = clinic.curl(&["-X", "POST", "-w", "%{http_code}", "/api/appointments/a-2001/reminder"]);
    assert!(text(&output.stdout).ends_with("502"), "{}", text(&output.stdout));
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn an_undeclared_call_is_refused_by_identity_and_told_with_the_missing_line() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start(who);
        let said = clinic.inside(
            "mailer",
            "import urllib.request, urllib.error\n\
             try: print(urllib.request.urlopen('http://patients:9001/patients/p-1001', timeout=60).status)\n\
             except urllib.error.HTTPError as e: print(e.code, e.headers['content-type'], e.read().decode())",
        );
        assert!(said.starts_with("403 application/problem+json"), "{who:?}: {said}");
        assert!(!said.contains("ringfence.yaml"), "nothing of the inside is told to the caller: {said}");
        let event = clinic
            .event(SOON, |e| {
                e["src_endpoint"]["svc_name"] == "mailer" && e["dst_endpoint"]["svc_name"] == "patients"
            })
            .expect("an event");
        assert_eq!(event["action_id"], 2);
        let missing = event["unmapped"]["missing"].as_str().unwrap();
        assert!(missing.contains("calls") && missing.contains("patients"), "{missing}");
        assert!(event["unmapped"]["position"].as_str().unwrap().starts_with("ringfence.yaml:"));
        assert_eq!(event["trace"]["uid"].as_str().unwrap().len(), 32);
        // A path that the edge does not allow, along an edge that exists.
        let said = clinic.inside(
            "appointments",
            "import urllib.request, urllib.error\n\
             try: print(urllib.request.urlopen('http://patients:9001/patients', timeout=60).status)\n\
             except urllib.error.HTTPError as e: print(e.code)",
        );
        assert!(said.starts_with("403"), "{who:?}: {said}");
    }
}

#[test]
fn a_direct_dial_reaches_nothing_and_is_told_within_a_second() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start(who);
        let gateway = clinic.port;
        // (what, address, port): outside, the host's loopback, another service's port by way of its address.
        for (address, port) in [("203.0.113.9", 443), ("127.0.0.1", gateway), ("198.18.1.2", 22)] {
            let said = clinic.inside(
                "mailer",
                &format!(
                    "import socket\ntry: socket.create_connection(('{address}', {port}), 30).getpeername(); print('CONNECTED')\n\
                     except OSError as e: print('refused', e)"
                ),
            );
            assert!(said.starts_with("refused"), "{who:?} {address}:{port}: {said}");
            let (refused, stalls) = (Instant::now(), Stalls::begin());
            let event = clinic.event(SOON, |e| {
                e["unmapped"]["event"] == "dial"
                    && e["dst_endpoint"]["ip"] == address
                    && e["dst_endpoint"]["port"] == port
            });
            assert_eq!(event.expect(address)["src_endpoint"]["svc_name"], "mailer");
            // A second for the event, and some to start the command that reads it.
            let told = stalls.without(refused.elapsed().as_secs_f64());
            assert!(told < 3.0, "{who:?} {address}:{port}: told after {told} s");
        }
    }
}

#[test]
fn a_service_sees_no_key_no_socket_and_no_process_of_others() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start(who);
        let folder = clinic.folder.display().to_string();
        let said = clinic.inside(
            "mailer",
            &format!(
                "import os\n\
                 print(os.listdir('{folder}/.ringfence') if os.path.isdir('{folder}/.ringfence') else [])\n\
                 print(sorted(p for p in os.listdir('/proc') if p.isdigit())[:8])"
            ),
        );
        assert!(said.starts_with("[]\n"), "{who:?}: the data directory is not to be seen: {said}");
        let visible = said.lines().nth(1).unwrap();
        assert!(visible.matches('\'').count() <= 8, "{who:?}: only its own processes: {visible}");
    }
}

#[test]
fn no_service_reads_the_environment_of_another_from_the_fence() {
    let read = "for name in ['ringfence.yaml', 'ringfence.yaml~', 'services/patients.py']:\n\
                \x20try: text = open('FOLDER/' + name).read(); print(len(text) > 0, 'hunter2' in text)\n\
                \x20except OSError as e: print('none', e.errno)";
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start_with(who, |fence| {
            fence.replace("listen: 9001", "listen: 9001\n    env: { PASSWORD: hunter2 }")
        });
        let read = read.replace("FOLDER", &clinic.folder.display().to_string());
        let seen = || clinic.inside("mailer", &read).lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(seen(), ["False False", "none 2", "True False"], "{who:?}: empty, none, and the program");
        // As an editor does it: the old text aside, a new file in its place.
        let (path, new) = (clinic.folder.join("ringfence.yaml"), clinic.folder.join("4913"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::copy(&path, clinic.folder.join("ringfence.yaml~")).unwrap();
        std::fs::write(&new, text.replace("calls: [patients]", "calls: []")).unwrap();
        std::fs::rename(&new, &path).unwrap();
        let applied =
            eventually(SOON, || (clinic.get("/api/invoices?patient=p-1003").0 != 200).then_some(()));
        assert!(applied.is_some(), "{who:?}: the new fence is in force");
        clinic.settle();
        assert_eq!(seen(), ["False False", "none 2", "True False"], "{who:?}: the fence was replaced");
    }
}

#[test]
fn whichever_process_is_killed_the_fence_holds_and_heals() {
    for who in [Who::Root, Who::Nobody] {
        let mut clinic = Clinic::start(who);
        let services = service_pids(&clinic);
        for role in ["node", "control", "keeper"] {
            let pid = clinic.process(role);
            assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
            let healed = eventually(SOON, || (clinic.get("/").0 == 200).then_some(()));
            assert!(healed.is_some(), "{who:?}: after the {role} was killed\n{}", clinic.said());
            clinic.wait_ready();
            clinic.settle_at(&[], "/", 200);
            // The report of what runs follows within a tick of the supervisor.
            let replaced = eventually(SOON, || (clinic.process(role) != pid).then_some(()));
            assert!(replaced.is_some(), "{who:?}: {role} has another process");
            assert_eq!(
                service_pids(&clinic),
                services,
                "{who:?}: services go on while the {role} is replaced"
            );
        }
        let before = clinic.up_pid();
        clinic.replace_up();
        assert_ne!(clinic.up_pid(), before);
        assert_eq!(service_pids(&clinic), services, "{who:?}: the next up takes over what runs");
        assert_eq!(clinic.get("/").0, 200);
        assert_eq!(clinic.stop(), [""; 0], "{who:?}");
    }
}

#[test]
fn a_changed_fence_is_applied_live_and_a_wrong_one_is_refused() {
    let clinic = Clinic::start(Who::Nobody);
    let path = clinic.folder.join("ringfence.yaml");
    let before = std::fs::read_to_string(&path).unwrap();
    assert_eq!(clinic.get("/api/invoices?patient=p-1003").0, 200);
    std::fs::write(
        &path,
        before.replace("[appointments, patients, billing]", "[appointments, patients, biling]"),
    )
    .unwrap();
    let told = eventually(SOON, || clinic.said().contains("did you mean `billing`").then_some(()));
    assert!(told.is_some(), "{}", clinic.said());
    assert_eq!(clinic.get("/api/invoices?patient=p-1003").0, 200, "the fence before stays in force");
    std::fs::write(&path, before.replace("[appointments, patients, billing]", "[appointments, patients]"))
        .unwrap();
    let refused = eventually(SOON, || (clinic.get("/api/invoices?patient=p-1003").0 != 200).then_some(()));
    assert!(refused.is_some(), "the edge is gone");
    std::fs::write(&path, before).unwrap();
    let back = eventually(SOON, || (clinic.get("/api/invoices?patient=p-1003").0 == 200).then_some(()));
    assert!(back.is_some(), "the edge is back");
    clinic.settle();
    assert_eq!(clinic.get("/api/invoices?patient=p-1003").0, 200);
}

/// The process of each service. A report may be a moment behind.
fn service_pids(clinic: &Clinic) -> Vec<u32> {
    let pids = eventually(SOON, || {
        let status = clinic.json(&["status", "--json"]);
        let services = status["report"]["services"].as_array()?.clone();
        let init = |s: &serde_json::Value| s["init"].as_u64().filter(|init| *init > 1);
        let inits = services.iter().map(init).collect::<Option<Vec<_>>>()?;
        let mut pids: Vec<u32> = inits.into_iter().flat_map(|init| children(init as u32)).collect();
        pids.sort_unstable();
        (!pids.is_empty() && pids.len() == services.len()).then_some(pids)
    });
    pids.unwrap_or_else(|| panic!("{}", clinic.json(&["status", "--json"])))
}
