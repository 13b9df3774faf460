//! API keys from the command that makes them to the service that is called: real processes, real curl.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::running::{Clinic, Who, eventually, text};
use crate::{ECHO, SOON, at_once, now, process};

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
      - { path: /results/new, accept: [api_key], require: { scopes: [results, write] } }
";

fn start(who: Who) -> Clinic {
    Clinic::start_fence(who, FENCE, Vec::new(), |folder| {
        std::fs::create_dir(folder.join("app")).unwrap();
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
    })
}

/// A command that must succeed: what it printed.
fn key(clinic: &Clinic, args: &[&str]) -> String {
    let output = clinic.ringfence(&[&["key"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn make(clinic: &Clinic, args: &[&str]) -> String {
    let made = key(clinic, args);
    let made = made.strip_suffix('\n').expect("a line");
    assert!(made.starts_with("rf_") && made.len() == 74 && !made.contains('\n'), "the key alone: {made}");
    made.to_owned()
}

fn id(key: &str) -> &str {
    &key[3..15]
}

fn ask(clinic: &Clinic, path: &str, field: &str) -> (u16, String) {
    let said =
        text(&clinic.curl(&["-H", field, "-H", "ringfence-user: root", "-w", "\n%{http_code}", path]).stdout);
    let (body, code) = said.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

fn code(clinic: &Clinic, path: &str, key: &str) -> u16 {
    ask(clinic, path, &format!("X-API-Key: {key}")).0
}

/// Waits until the key is answered so.
fn until(clinic: &Clinic, key: &str, wanted: u16) {
    let found = eventually(2 * SOON, || (code(clinic, "/results", key) == wanted).then_some(()));
    assert!(found.is_some(), "never {wanted}: {}\n{}", code(clinic, "/results", key), clinic.said());
}

/// Every byte below a folder.
fn bytes(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            all.extend(bytes(&entry.path()));
        } else if kind.is_file() {
            all.extend(std::fs::read(entry.path()).unwrap_or_default());
        }
    }
    all
}

#[test]
fn a_client_is_let_in_by_its_key_until_it_is_rotated_revoked_or_over() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = start(who);
        assert_eq!(code(&clinic, "/results", "rf_nothing"), 401, "{who:?}");
        let lab = make(&clinic, &["create", "--client", "lab", "--scopes", "results", "--expires", "90d"]);
        until(&clinic, &lab, 200);
        for field in [format!("Authorization: Bearer {lab}"), format!("Authorization: ApiKey {lab}")] {
            let (status, body) = ask(&clinic, "/results", &field);
            let fields: Value =
                serde_json::from_str(&body).unwrap_or_else(|e| panic!("{status} {body}: {e}"));
            assert_eq!(
                (fields["ringfence-user"].as_str(), fields["ringfence-scopes"].as_str()),
                (Some("lab"), Some("results"))
            );
            assert!(!body.contains("rf_"), "the key stays at the gateway: {body}");
        }
        assert_eq!(code(&clinic, "/results/new", &lab), 403, "a scope is missing");
        let writer = make(&clinic, &["create", "--client", "writer", "--scopes", "results,write"]);
        until(&clinic, &writer, 200);
        assert_eq!(code(&clinic, "/results/new", &writer), 200);

        // Long enough for a busy machine to see them while they are good.
        let brief =
            make(&clinic, &["create", "--client", "brief", "--scopes", "results", "--expires", "20s"]);
        until(&clinic, &brief, 200);

        let rotated = Instant::now();
        let next = make(&clinic, &["rotate", id(&lab), "--overlap", "20s"]);
        assert_eq!(id(&next), id(&lab));
        until(&clinic, &next, 200);
        assert_eq!(code(&clinic, "/results", &lab), 200, "both are good for a while");
        until(&clinic, &lab, 401);
        assert!(rotated.elapsed() > Duration::from_secs(18), "the overlap was kept");
        assert_eq!(code(&clinic, "/results", &next), 200);
        until(&clinic, &brief, 401);

        key(&clinic, &["revoke", id(&next)]);
        at_once(now(), 401, || code(&clinic, "/results", &next));
        assert!(!clinic.ringfence(&["key", "rotate", id(&next)]).status.success(), "it is over for good");
        assert!(!clinic.ringfence(&["key", "show", "aaaaaaaaaaaa"]).status.success());

        // The keeper may know before the gateway's table, and refuse in words of its own: who is refused is so again.
        let denied = |rule: &str, shown: &str| {
            let told = eventually(SOON, || {
                assert_ne!(code(&clinic, "/results/new", shown), 200, "{rule}");
                clinic.event(Duration::from_millis(200), |e| e["firewall_rule"]["uid"] == rule)
            });
            told.unwrap_or_else(|| panic!("no event of {rule}"))
        };
        for (rule, shown) in [
            ("api_key.malformed", "rf_nothing"),
            ("api_key.secret", &lab),
            ("api_key.revoked", &next),
            ("api_key.expired", &brief),
        ] {
            let event = denied(rule, shown);
            assert!(event["unmapped"]["position"].as_str().unwrap().starts_with("ringfence.yaml:"));
        }
        let scope = clinic.event(SOON, |e| e["firewall_rule"]["uid"] == "require.scope").expect("an event");
        let owner = &scope["src_endpoint"]["owner"];
        assert_eq!((owner["name"].as_str(), owner["domain"].as_str()), (Some("lab"), Some("api_key")));
        assert_eq!(owner["credential_uid"].as_str(), Some(id(&lab)));

        let list: Value = serde_json::from_str(&key(&clinic, &["list", "--json"])).unwrap();
        let clients: Vec<_> =
            list["keys"].as_array().unwrap().iter().map(|k| k["client"].as_str().unwrap()).collect();
        assert_eq!(clients.len(), 3, "{clients:?}");
        assert!(key(&clinic, &["list"]).contains("revoked"));
        let used = eventually(Duration::from_secs(120), || {
            let shown: Value = serde_json::from_str(&key(&clinic, &["show", id(&writer), "--json"])).unwrap();
            shown["last_used"].as_u64()
        });
        assert_eq!(used.expect("the last use is known").checked_rem(60), Some(0), "to the minute");

        // Whoever reads all that is kept of them can call nothing.
        let kept = bytes(&clinic.folder.join(".ringfence"));
        let holds = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
        for secret in [&lab, &next, &writer, &brief] {
            assert!(holds(id(secret)), "the public part is known");
            assert!(!holds(&secret[16..32]) && !holds(&secret[40..56]), "a secret was kept");
            assert!(!clinic.said().contains(&secret[16..32]));
        }
        assert_eq!(clinic.stop(), [""; 0]);
    }
}

#[test]
fn keys_outlive_the_processes_that_know_them() {
    let mut clinic = start(Who::Root);
    let (good, gone) = (
        make(&clinic, &["create", "--client", "lab", "--scopes", "results"]),
        make(&clinic, &["create", "--client", "lab", "--scopes", "results"]),
    );
    until(&clinic, &gone, 200);
    key(&clinic, &["revoke", id(&gone)]);
    for name in ["node", "control"] {
        let pid = clinic.process(name);
        assert!(
            std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success()
        );
        let again = eventually(SOON, || process(&clinic, name).filter(|now| *now != 0 && *now != pid));
        assert!(again.is_some(), "{name} is started again");
        until(&clinic, &good, 200);
        until(&clinic, &gone, 401);
    }
    clinic.replace_up();
    until(&clinic, &good, 200);
    until(&clinic, &gone, 401);
    assert_eq!(clinic.stop(), [""; 0]);
}
