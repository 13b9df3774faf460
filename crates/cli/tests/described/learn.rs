//! A description drafted from the traffic of a service that has none, held against that traffic, and the service that changes.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::running::{Clinic, Who, eventually, text};

const SOON: Duration = Duration::from_secs(30);
const SERVICE: &str = include_str!("patients.py");
const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
services:
  patients:
    run: [python3, app/patients.py]
    listen: 9001
    ready: tcp
    routes: [{ path: / }]
";

/// What honest clients do: method, path, content type, body, status.
const TRAFFIC: [(&str, &str, &str, &str, u16); 7] = [
    ("GET", "/patients?limit=1", "", "", 200),
    ("GET", "/patients", "", "", 200),
    ("GET", "/patients/17", "", "", 200),
    ("GET", "/patients/4711", "", "", 200),
    ("POST", "/patients", "application/json", r#"{"name":"Bert Holm","born":"1980-02-01"}"#, 201),
    (
        "POST",
        "/patients",
        "application/json",
        r#"{"name":"Cleo Rand","born":"1999-12-24","tags":["x"]}"#,
        201,
    ),
    (
        "PUT",
        "/patients/17/consent",
        "application/x-www-form-urlencoded",
        "research=true&until=2030-01-01",
        204,
    ),
];

/// What none of them does: and what becomes of it.
const OTHERS: [(&str, &str, &str, &str, u16); 8] = [
    ("GET", "/visits", "", "", 404),
    ("GET", "/wp-login.php", "", "", 404),
    ("GET", "/patients?debug=1", "", "", 400),
    ("GET", "/patients/anna", "", "", 400),
    ("DELETE", "/patients/17", "", "", 405),
    ("POST", "/patients", "application/json", r#"{"name":17,"born":"1980-02-01"}"#, 400),
    ("POST", "/patients", "application/json", r#"{"born":"1980-02-01"}"#, 400),
    ("POST", "/patients", "application/json", r#"{"name":"x","born":"soon"}"#, 400),
];

/// Texts of which nothing may be in a draft.
const VALUES: [&str; 12] =
    ["Anna", "Bert", "Cleo", "Holm", "Berg", "Rand", "4711", "1970", "1980", "2030", "example.org", "0170"];

fn ask(clinic: &Clinic, (method, path, media, body, _): (&str, &str, &str, &str, u16)) -> (u16, String) {
    let kind = format!("content-type: {media}");
    let mut words = vec!["--request", method, "--write-out", "\n%{http_code}"];
    if !body.is_empty() {
        words.extend(["--header", &kind, "--data", body]);
    }
    words.push(path);
    let said = text(&clinic.curl(&words).stdout);
    let (body, code) = said.rsplit_once('\n').unwrap_or_default();
    (code.parse().unwrap_or_default(), body.to_owned())
}

fn traffic(clinic: &Clinic) {
    for one in TRAFFIC {
        let answer = ask(clinic, one);
        assert_eq!(answer.0, one.4, "{one:?}: {answer:?}");
    }
}

/// What `learn` says, once events tell as much as `enough` wants: the draft, and what is said about it.
fn learn(clinic: &Clinic, enough: impl Fn(&str, &str) -> bool) -> (String, String) {
    let mut last = Default::default();
    let learned = eventually(SOON, || {
        let output = clinic.ringfence(&["openapi", "learn", "--service", "patients"]);
        last = (text(&output.stdout), text(&output.stderr));
        (output.status.success() && enough(&last.0, &last.1)).then(|| last.clone())
    });
    learned.unwrap_or_else(|| panic!("{}\n{}", last.0, last.1))
}

/// Puts a description in force.
fn describe(clinic: &Clinic, description: &str, how: &str) {
    write(&clinic.folder, "openapi/patients.yaml", description);
    let name = "openapi/patients.yaml";
    let check = clinic.ringfence(&["openapi", "check", name]);
    assert_eq!(check.status.code(), Some(0), "{}\n{description}", text(&check.stderr));
    let port = format!(":{}", clinic.port);
    let openapi = format!("    openapi: {}\n", how.replace("FILE", name));
    let revision = || clinic.json(&["status", "--json"])["snapshot"]["revision"].as_u64().unwrap_or_default();
    let before = revision();
    write(&clinic.folder, "ringfence.yaml", &(FENCE.replace(":8443", &port) + &openapi));
    assert!(eventually(SOON, || (revision() > before).then_some(())).is_some(), "{}", clinic.said());
    clinic.settle();
}

fn write(folder: &Path, name: &str, text: &str) {
    // As editors do: whoever looks sees the old file or the new.
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// The event in which a difference was told.
fn told(clinic: &Clinic, rule: &str, target: &str) -> Value {
    let of = |event: &Value| {
        let findings = event["unmapped"]["findings"].as_array().cloned().unwrap_or_default();
        findings.into_iter().find(|finding| finding["rule"] == rule && finding["target"] == target)
    };
    let event = clinic.event(SOON, |event| of(event).is_some());
    of(&event.unwrap_or_else(|| panic!("{rule} {target}"))).unwrap()
}

#[test]
fn a_learned_description_lets_the_traffic_it_was_learned_from_pass_and_nothing_else_and_tells_what_changes() {
    let clinic = Clinic::start_fence(Who::Root, FENCE, Vec::new(), |folder| {
        for name in ["app", "openapi"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("app/patients.py"), SERVICE).unwrap();
    });
    // Without any description events tell which operations there are. What was not there is none.
    traffic(&clinic);
    assert_eq!(clinic.get("/wp-login.php").0, 404);
    let (draft, said) = learn(&clinic, |draft, _| draft.contains("/patients/{patientId}/consent"));
    assert!(said.contains("of 4 only the path is known"), "{said}\n{draft}");
    for path in ["/patients:", "\"/patients/{patientId}\":", "type: integer", "put:", "\"204\":"] {
        assert!(draft.contains(path), "{path}\n{draft}");
    }
    assert!(!draft.contains("wp-login"), "{draft}");

    // Observed, messages are looked at too.
    describe(&clinic, &draft, "{ file: FILE, mode: observe, undocumented: observe }");
    let watched = eventually(SOON, || {
        traffic(&clinic);
        clinic.event(Duration::ZERO, |event| {
            event["unmapped"]["shape"].as_str().is_some_and(|shape| !shape.is_empty())
        })
    });
    assert!(watched.is_some(), "{}", clinic.said());
    traffic(&clinic);
    let wanted = [
        "format: date",
        "format: email",
        "name: limit",
        "tags",
        "research",
        "application/x-www-form-urlencoded",
    ];
    // Events come side by side: until all are there, what only some requests have may look like what all have.
    let optional = |draft: &str| {
        let limit = draft.split("- name: limit").nth(1).and_then(|rest| rest.split("responses").next());
        limit.is_some_and(|limit| !limit.contains("required"))
    };
    let (draft, _) = learn(&clinic, |draft, said| {
        !said.contains("only the path") && wanted.iter().all(|word| draft.contains(word)) && optional(draft)
    });
    for value in VALUES {
        assert!(!draft.contains(value), "{value}\n{draft}");
    }

    describe(&clinic, &draft, "FILE");
    let (_, path, ..) = OTHERS[0];
    let enforced = eventually(SOON, || (clinic.get(path).0 == 404).then_some(()));
    assert!(enforced.is_some(), "{}", clinic.said());
    traffic(&clinic);
    for one in OTHERS {
        let answer = ask(&clinic, one);
        assert_eq!(answer.0, one.4, "{one:?}: {answer:?}\n{draft}");
        assert!(answer.1.contains("violations"), "the gateway refuses it: {one:?} {answer:?}");
    }

    // The service gets a field, an endpoint and a status.
    describe(&clinic, &draft, "{ file: FILE, mode: observe, undocumented: observe, responses: observe }");
    let watched = eventually(SOON, || (clinic.get("/visits").0 == 200).then_some(()));
    assert!(watched.is_some(), "{}", clinic.said());
    let later = r#"{"name":"Dora Lind","born":"1980-02-01","later":true}"#;
    assert_eq!(ask(&clinic, ("POST", "/patients", "application/json", later, 202)).0, 202);
    told(&clinic, "openapi.path", "path");
    told(&clinic, "openapi.body", "body /later");
    told(&clinic, "openapi.status", "status");
    let (draft, _) = learn(&clinic, |draft, _| draft.contains("later"));
    for news in ["/visits:", "\"202\":", "later:"] {
        assert!(draft.contains(news), "{news}\n{draft}");
    }
    assert_eq!(clinic.stop(), [""; 0]);
}
