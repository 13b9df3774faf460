//! Drills against real fences: all of them where all protections stand, and each drill fails where its own is off.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "each test binary uses a part")]
mod running;

mod off;
mod servers;

use std::process::Output;

use running::{Clinic, Who, text};
use serde_json::Value;

const NAMES: &[&str] = &[
    "undeclared-call",
    "forged-svid",
    "expired-svid",
    "wrong-trust-domain",
    "direct-dial",
    "outside-dial",
    "data-directory",
    "neighbour",
    "smuggled-request",
    "spoofed-header",
    "claimed-method",
    "sql-injection",
    "malformed-body",
    "forged-token",
    "replayed-dpop",
    "stolen-token",
    "revoked-session",
    "rate-flood",
];

/// The scorecard of one drill, which must have been tried.
fn score(output: &Output, name: &str) -> Value {
    let card: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
        panic!("{e}: {} {}", text(&output.stdout), text(&output.stderr));
    });
    let drills = card["drills"].as_array().unwrap();
    let one = drills.iter().find(|d| d["name"] == name).unwrap_or_else(|| panic!("{name} is not in {card}"));
    assert_eq!(one["tried"], true, "{one}");
    one.clone()
}

/// The drill ran, and says that the attack was not stopped; the exit code says so too.
fn fails(output: &Output, name: &str) -> Value {
    let one = score(output, name);
    assert_eq!((&one["stopped"], &one["passed"]), (&false.into(), &false.into()), "{one}");
    assert_eq!(output.status.code(), Some(1));
    one
}

#[test]
fn all_of_them_as_root() {
    all_of_them(Who::Root);
}

#[test]
fn all_of_them_as_an_unprivileged_user() {
    all_of_them(Who::Nobody);
}

fn all_of_them(who: Who) {
    let clinic = Clinic::start(who);
    let output = clinic.ringfence(&["drill", "--json"]);
    for name in NAMES.iter().copied() {
        let one = score(&output, name);
        assert_eq!((&one["stopped"], &one["reported"]), (&true.into(), &true.into()), "{one}");
    }
    assert_eq!(output.status.code(), Some(0));
    // Once more at once: what was told a moment ago must be told again.
    let again = clinic.ringfence(&["drill"]);
    let said = text(&again.stdout);
    assert!(said.ends_with(&format!("\n{0} of {0}\n", NAMES.len())), "{said}");
    assert_eq!(again.status.code(), Some(0));
    // Nobody was harmed.
    let status = clinic.json(&["status", "--json"]);
    for service in status["report"]["services"].as_array().unwrap() {
        assert_eq!((&service["state"], &service["restarts"]), (&"ready".into(), &0.into()), "{service}");
    }
    assert_eq!(clinic.get("/").0, 200);
    assert_eq!(clinic.stop(), [""; 0], "{who:?}");
}

#[test]
fn drills_are_listed_chosen_by_name_and_refused_where_nothing_runs() {
    let folder = running::make_folder(Who::Root);
    let ringfence = |args: &[&str]| {
        std::process::Command::new(running::binary()).args(args).current_dir(&folder).output().unwrap()
    };
    let list = ringfence(&["drill", "--list"]);
    assert_eq!(list.status.code(), Some(0));
    for name in NAMES {
        assert!(text(&list.stdout).contains(&format!("{name}\n  tries ")), "{name}");
    }
    let wrong = ringfence(&["drill", "sabotage"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("undeclared-call"), "{}", text(&wrong.stderr));
    let nothing = ringfence(&["drill"]);
    assert_eq!(nothing.status.code(), Some(3));
    assert!(text(&nothing.stderr).contains("ringfence up"), "{}", text(&nothing.stderr));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn where_every_route_wants_a_credential_the_refusal_for_want_of_one_is_the_report() {
    let fence = "fence: clinic\ntrust_domain: clinic.example\ngateway: { listen: 127.0.0.1:8443 }\nservices:\n  portal:\n    run: [python3, -m, http.server, '9000']\n    listen: 9000\n    routes: [{ path: /, accept: [api_key] }]\n";
    let clinic = Clinic::start_fence(Who::Nobody, fence, Vec::new(), |_| {});
    let drills = ["smuggled-request", "spoofed-header", "claimed-method"];
    let output = clinic.ringfence(&[&["drill", "--json"][..], &drills].concat());
    for name in drills {
        let one = score(&output, name);
        assert_eq!((&one["stopped"], &one["reported"]), (&true.into(), &true.into()), "{one}");
    }
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(clinic.stop(), [""; 0]);
}
