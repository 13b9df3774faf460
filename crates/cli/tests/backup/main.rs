//! A fence that is lost and comes back: the real programs, a backup made while they run, and what must not come back with it.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;

use std::process::Output;
use std::time::Duration;

use running::{Clinic, Who, eventually, text};
use serde_json::Value;

/// However busy the machine is.
const SOON: Duration = Duration::from_secs(60);

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes:
      - { path: / }
      - { path: /results, accept: [api_key], require: { scopes: [results] } }
";

const ECHO: &str = "
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('', 9000), Echo).serve_forever()
";

fn start() -> Clinic {
    Clinic::start_fence(Who::Nobody, FENCE, Vec::new(), |folder| {
        std::fs::create_dir(folder.join("app")).unwrap();
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
    })
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// A command with the passphrase of the backup in its environment.
fn sealed(clinic: &Clinic, args: &[&str], passphrase: &str) -> Output {
    let mut command = clinic.command(args);
    command
        .env("RINGFENCE_BACKUP_PASSPHRASE", passphrase)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

const PASSPHRASE: &str = "correct horse battery";

fn make(clinic: &Clinic) -> String {
    let output = clinic.ringfence(&["key", "create", "--client", "lab", "--scopes", "results"]);
    assert!(output.status.success(), "{}", said(&output));
    text(&output.stdout).trim_end().to_owned()
}

fn revoke(clinic: &Clinic, key: &str) {
    let output = clinic.ringfence(&["key", "revoke", &key[3..15]]);
    assert!(output.status.success(), "{}", said(&output));
}

/// Waits until the key is answered so.
fn until(clinic: &Clinic, key: &str, wanted: &str) {
    let field = format!("X-API-Key: {key}");
    let code =
        || text(&clinic.curl(&["-o", "/dev/null", "-H", &field, "-w", "%{http_code}", "/results"]).stdout);
    let found = eventually(SOON, || (code() == wanted).then_some(()));
    assert!(found.is_some(), "never {wanted}: {}\n{}", code(), clinic.said());
}

fn epoch(clinic: &Clinic) -> u64 {
    clinic.json(&["status", "--json"])["snapshot"]["epoch"].as_u64().unwrap()
}

#[test]
fn a_fence_that_was_lost_comes_back_and_what_was_revoked_does_not() {
    let mut clinic = start();
    let (lab, gone, later) = (make(&clinic), make(&clinic), make(&clinic));
    for key in [&lab, &gone, &later] {
        until(&clinic, key, "200");
    }
    revoke(&clinic, &gone);
    until(&clinic, &gone, "401");
    let before = epoch(&clinic);
    let ca = std::fs::read(clinic.folder.join(".ringfence/ca.pem")).unwrap();

    // While it runs.
    let made = sealed(&clinic, &["backup", "first.backup", "--json"], PASSPHRASE);
    assert!(made.status.success(), "{}", said(&made));
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made["master_key"], true, "{made}");
    let again = sealed(&clinic, &["backup", "first.backup"], PASSPHRASE);
    assert_eq!(again.status.code(), Some(2), "it is never written over: {}", said(&again));
    let verified = sealed(&clinic, &["restore", "first.backup", "--verify", "--json"], PASSPHRASE);
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(
        (&verified["whole"], &verified["keys"]),
        (&true.into(), &"open with the master key in the backup".into())
    );
    let wrong = sealed(&clinic, &["restore", "first.backup", "--verify"], "another passphrase");
    assert_eq!(wrong.status.code(), Some(3), "{}", said(&wrong));
    assert!(said(&wrong).contains("wrong key or passphrase"), "{}", said(&wrong));
    for (args, why) in [
        (&["restore", "first.backup"][..], "holds something already"),
        (&["restore", "first.backup", "--replace"], "another `ringfence up` works"),
    ] {
        let refused = sealed(&clinic, args, PASSPHRASE);
        assert!(!refused.status.success() && said(&refused).contains(why), "{}", said(&refused));
    }

    // What is done after it: a key is revoked, and everybody's certificates.
    revoke(&clinic, &later);
    until(&clinic, &later, "401");
    let svid = clinic.ringfence(&["revoke", "svid", "portal"]);
    assert!(svid.status.success(), "{}", said(&svid));
    let revocations = clinic.json(&["revocations", "--json"])["revocations"].as_array().unwrap().len();

    // Everything burns but the file and, in this story, the directory that is put aside.
    assert!(clinic.ringfence(&["down"]).status.success());
    let restored = sealed(&clinic, &["restore", "first.backup", "--replace", "--json"], PASSPHRASE);
    assert!(restored.status.success(), "{}", said(&restored));
    let restored: Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert_eq!(
        (&restored["restored"]["compared"], &restored["restored"]["keys"]),
        (&true.into(), &1.into()),
        "{restored}"
    );
    assert!(restored["restored"]["replayed"].as_u64() >= Some(1), "{restored}");
    assert!(std::path::Path::new(restored["aside"].as_str().unwrap()).join("control/state.db").exists());
    clinic.replace_up();
    assert!(epoch(&clinic) > before, "{} after {before}", epoch(&clinic));
    until(&clinic, &lab, "200");
    until(&clinic, &gone, "401");
    until(&clinic, &later, "401");
    assert_eq!(
        std::fs::read(clinic.folder.join(".ringfence/ca.pem")).unwrap(),
        ca,
        "clients go on trusting it"
    );
    let listed = clinic.json(&["revocations", "--json"])["revocations"].as_array().unwrap().len();
    assert!(listed >= revocations, "{listed} of {revocations}");
    let event = clinic.event(SOON, |e| {
        e["entity"]["type"] == "state"
            && e["message"].as_str().unwrap_or_default().contains("restored from a backup")
    });
    assert!(event.is_some(), "{}", clinic.said());

    // With nothing left at all.
    assert!(clinic.ringfence(&["down"]).status.success());
    std::fs::remove_dir_all(clinic.folder.join(".ringfence")).unwrap();
    let restored = sealed(&clinic, &["restore", "first.backup"], PASSPHRASE);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("are good again, revoke them"), "{}", said(&restored));
    clinic.replace_up();
    until(&clinic, &lab, "200");
    until(&clinic, &gone, "401");
}
