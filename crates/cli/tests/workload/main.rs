//! The Workload API from inside real fenced services, and from where it must give nothing.
#![expect(clippy::unwrap_used, reason = "test")]

mod discovery;
#[expect(dead_code, reason = "the stories of the protocols use the rest")]
#[path = "../protocols/lab/mod.rs"]
mod lab;
mod program;

use std::process::Command;
use std::time::Duration;

use lab::{From, Lab, Who};
use serde_json::{Value, json};

const SERVICES: &str = "
  agent: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [other] }
  other: { PY caller.py 9101, listen: 9101 }
";

const PACKAGES: [&str; 10] = [
    "spiffe",
    "grpc",
    "google",
    "cryptography",
    "cffi",
    "_cffi_backend",
    "jwt",
    "pem",
    "pyasn1",
    "pyasn1_modules",
];

fn start(who: Who) -> Lab {
    Lab::start(who, SERVICES, &[&PACKAGES[..], &["typing_extensions", "pycparser"]].concat())
}

#[test]
fn the_python_package_spiffe_gets_what_is_its_own_as_an_unprivileged_user() {
    everything(&start(Who::Nobody));
}

#[test]
fn the_python_package_spiffe_gets_what_is_its_own_as_root() {
    everything(&start(Who::Root));
}

fn everything(lab: &Lab) {
    let said = lab.tell(From::Caller, "spiffe_client", "everything", &json!({}));
    let own = "spiffe://lab.example/service/agent";
    assert_eq!(said["x509"], json!({ "id": own, "chain": 2 }), "{said}");
    assert_eq!(said["bundles"], json!({ "roots": 1 }), "{said}");
    assert_eq!(said["jwt"], json!({ "id": own, "audience": ["other"], "valid": own }), "{said}");
    assert_eq!(said["jwt_bundles"], json!({ "keys": 1 }), "{said}");
    assert!(said["wrong_audience"]["error"].is_string(), "{said}");
    assert!(said["foreign"]["error"].is_string(), "{said}");

    // The stream brings the next SVID when the issuing authority changes.
    let said = std::thread::scope(|scope| {
        let streaming = scope.spawn(|| lab.tell(From::Caller, "spiffe_client", "pushed", &json!({})));
        // Once more, if it took the stream so long to begin that it saw nothing of the one before.
        while !streaming.is_finished() {
            lab::pause(3.0);
            let rotated = lab.clinic.ringfence(&["ca", "rotate", "issuing"]);
            assert!(rotated.status.success(), "{}", lab::text(&rotated.stderr));
            lab::eventually(Duration::from_secs(5), || streaming.is_finished().then_some(()));
        }
        streaming.join().unwrap()
    });
    assert!(said["issuers"].as_u64() >= Some(2) && said["ids"] == json!([own]), "{said}");

    // Another control, and another init with a socket of its own: the service asks again and is answered.
    let again = |what: &str| {
        let answered = lab::eventually(4 * lab::SOON, || {
            let said = lab.try_tell(From::Caller, "spiffe_client", "everything", &json!({}))?;
            (said["said"]["x509"]["id"] == own).then_some(())
        });
        assert!(answered.is_some(), "after {what}");
    };
    let kill = |pid: u64| {
        assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success())
    };
    kill(lab.clinic.process("control").into());
    again("control was killed");
    kill(init(lab));
    again("the service's init was killed");
}

/// PID 1 of the agent's namespaces, as the host sees it.
fn init(lab: &Lab) -> u64 {
    let status = lab.clinic.json(&["status", "--json"]);
    let services = status["report"]["services"].as_array().unwrap();
    services.iter().find(|s| s["name"] == "agent").unwrap()["init"].as_u64().unwrap()
}

#[test]
fn a_process_that_is_not_the_service_gets_nothing_from_its_socket() {
    for who in [Who::Root, Who::Nobody] {
        let lab = start(who);
        let socket = format!("/proc/{}/root/run/ringfence/workload.sock", init(&lab));
        assert!(std::path::Path::new(&socket).exists(), "{who:?}");
        // The tests' own user may open the socket by this path; it lives in another network.
        let said = lab.tell(From::Outside, "spiffe_client", "everything", &json!({ "socket": socket }));
        let refused = said.as_object().unwrap();
        assert_eq!(refused.len(), 6);
        for (call, answer) in refused {
            let error = answer["error"].as_str().unwrap_or_else(|| panic!("{who:?} {call}: {answer}"));
            assert!(error.contains("PERMISSION_DENIED"), "{who:?} {call}: {error}");
            assert!(!error.contains("spiffe://"), "{who:?} {call}: {error}");
        }
        let told = lab::eventually(lab::SOON, || {
            lab.events(|e: &Value| e.to_string().contains("network namespace")).pop()
        });
        assert!(told.is_some(), "{who:?}: an event says so");
    }
}
