//! A service that puts what it is asked into its SQL, and Debian's sqlmap, which finds that out and reads its tables.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::running::{Clinic, Who, text};

const SEARCH: &str = include_str!("search.py");

fn start(mode: &str, rules: &str) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
waf: {{ mode: {mode}{rules} }}
services:
  search:
    run: [python3, app/search.py]
    listen: 9000
    ready: tcp
    routes: [{{ path: / }}]
"
    );
    Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        std::fs::create_dir(folder.join("app")).unwrap();
        std::fs::write(folder.join("app/search.py"), SEARCH).unwrap();
    })
}

/// What sqlmap says of the service's one parameter.
fn sqlmap(clinic: &Clinic, effort: &[&str]) -> String {
    let folder = format!("{}-sqlmap", clinic.folder.display());
    let output = Command::new("timeout")
        .args(["--signal=KILL", "900", "sqlmap", "--batch", "--flush-session", "--disable-coloring"])
        // Its own name would give it away.
        .args(["--random-agent", "--ignore-proxy", "--retries=0", "--timeout=60", "-p", "name"])
        .args(["--dbms=sqlite", "--tables"])
        .args(effort)
        .arg(format!("--output-dir={folder}"))
        .arg(format!("--url=https://127.0.0.1:{}/search?name=anna", clinic.port))
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(folder);
    text(&output.stdout) + &text(&output.stderr)
}

fn refused(clinic: &Clinic) -> Option<Value> {
    clinic.event(Duration::from_secs(10), |e| {
        e["action_id"] == 2 && e["firewall_rule"]["uid"].as_str().is_some_and(|rule| rule.starts_with("waf."))
    })
}

#[test]
fn sqlmap_reads_the_tables_of_a_careless_service_unless_the_gateway_blocks_it() {
    const QUICK: [&str; 3] = ["--technique=BEU", "--level=1", "--risk=1"];
    const HARD: [&str; 4] = ["--technique=BEU", "--level=2", "--risk=2", "--tamper=space2comment,randomcase"];
    let watched = start("observe", "");
    let found = sqlmap(&watched, &QUICK);
    assert!(found.contains("is vulnerable") && found.contains("secrets"), "{found}");
    assert!(refused(&watched).is_none(), "whoever only watches refuses nothing");
    assert_eq!(watched.stop(), [""; 0]);

    let blocked = start("enforce", "");
    let anna = blocked.get("/search?name=anna");
    assert!(anna.0 == 200 && anna.1.contains("Bergen"), "{anna:?}");
    for effort in [&QUICK[..], &HARD] {
        let found = sqlmap(&blocked, effort);
        assert!(found.contains("all tested parameters do not appear to be injectable"), "{found}");
        assert!(!found.contains("secrets"), "{found}");
    }
    let event = refused(&blocked).expect("an event");
    assert!(
        event["unmapped"]["position"].as_str().is_some_and(|at| at.starts_with("ringfence.yaml:")),
        "{event}"
    );
    assert_eq!(blocked.stop(), [""; 0]);
}
