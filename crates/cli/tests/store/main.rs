//! State in a real PostgreSQL: the real processes, a database that is killed, moved into, forgotten and shared.
#![expect(clippy::unwrap_used, reason = "test")]

#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;
#[path = "../../../store/tests/stories/server.rs"]
#[expect(dead_code, reason = "shared with the store's stories, which use more of it")]
mod server;

use std::process::{Command, Output};
use std::time::Duration;

use running::{Clinic, Who, eventually, own, text};
use serde_json::Value;
use server::Server;

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

/// A server that keeps what it acknowledges, and the address of an empty database of it.
fn database() -> (Server, String) {
    let server = Server::new(&["autovacuum=off"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = runtime.block_on(server.database());
    let address = format!("postgresql://postgres@/{name}?socket={}", server.socket().display());
    (server, address)
}

/// A fence that `up` starts with what `store.env` in its folder says. The database's server and it are the same user.
fn start(address: Option<&str>) -> Clinic {
    let words = ["sh", "-c", ". ./store.env; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    Clinic::start_fence(Who::Nobody, FENCE, words, |folder| {
        std::fs::create_dir(folder.join("app")).unwrap();
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
        std::fs::write(folder.join("store.env"), exported(address)).unwrap();
    })
}

fn exported(address: Option<&str>) -> String {
    address.map_or_else(String::new, |address| format!("export RINGFENCE_STORE='{address}'\n"))
}

fn make(clinic: &Clinic) -> String {
    let output = clinic.ringfence(&["key", "create", "--client", "lab", "--scopes", "results"]);
    assert!(output.status.success(), "{}", said(&output));
    text(&output.stdout).trim_end().to_owned()
}

fn revoke(clinic: &Clinic, key: &str) -> Output {
    clinic.ringfence(&["key", "revoke", &key[3..15]])
}

fn code(clinic: &Clinic, path: &str, key: &str) -> String {
    let field = format!("X-API-Key: {key}");
    text(&clinic.curl(&["-o", "/dev/null", "-H", &field, "-w", "%{http_code}", path]).stdout)
}

/// Waits until the key is answered so.
fn until(clinic: &Clinic, key: &str, wanted: &str) {
    let found = eventually(SOON, || (code(clinic, "/results", key) == wanted).then_some(()));
    assert!(found.is_some(), "never {wanted}: {}\n{}", code(clinic, "/results", key), clinic.said());
}

fn said(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// Waits until control says that the database answers, or that it does not.
fn until_away(clinic: &Clinic, away: bool) {
    let found = eventually(SOON, || {
        let status: Value = serde_json::from_slice(&clinic.ringfence(&["status", "--json"]).stdout).ok()?;
        (status["store"]["trouble"].is_string() == away).then_some(())
    });
    assert!(found.is_some(), "away: {away}\n{}", clinic.said());
}

#[test]
fn a_database_that_is_killed_loses_nothing_and_stops_nobody() {
    let (server, address) = database();
    let mut clinic = start(Some(&address));
    assert!(!clinic.folder.join(".ringfence/control/state.db").exists(), "nothing is in a file");
    let (lab, gone) = (make(&clinic), make(&clinic));
    for key in [&lab, &gone] {
        until(&clinic, key, "200");
    }
    assert!(revoke(&clinic, &gone).status.success());
    until(&clinic, &gone, "401");
    let before = clinic.json(&["store", "status", "--json"]);
    assert_eq!(before["engine"], "postgresql");
    assert!(before["trouble"].is_null() && before["size"].as_u64() > Some(0), "{before}");

    server.kill();
    until_away(&clinic, true);
    for _ in 0..5 {
        assert_eq!(code(&clinic, "/results", &lab), "200", "who was let in still is\n{}", clinic.said());
        assert_eq!(code(&clinic, "/results", &gone), "401", "who was not still is not");
        assert_eq!(clinic.get("/").0, 200);
    }
    let refused = revoke(&clinic, &lab);
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("cannot be reached"), "{}", said(&refused));
    let status = clinic.ringfence(&["store", "status"]);
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    assert!(said(&status).contains("does not answer"), "{}", said(&status));
    assert!(said(&clinic.ringfence(&["status"])).contains("database"), "status says so");

    server.start();
    until_away(&clinic, false);
    let after = clinic.json(&["store", "status", "--json"]);
    assert!(after["revision"].as_u64() >= before["revision"].as_u64(), "{before} {after}");
    assert_eq!(code(&clinic, "/results", &lab), "200", "what was refused was not done");
    // Nobody had to be started again for that.
    let processes = clinic.json(&["status", "--json"])["report"]["processes"].clone();
    assert!(processes.as_array().unwrap().iter().all(|p| p["restarts"] == 0), "{processes}");

    // Control that ends meanwhile waits, and says for what; services go on.
    let control = clinic.process("control");
    server.kill();
    assert!(Command::new("kill").args(["-KILL", &control.to_string()]).status().unwrap().success());
    let waits = eventually(SOON, || {
        said(&clinic.ringfence(&["status"])).contains("waits for the database").then_some(())
    });
    assert!(waits.is_some(), "{}", clinic.said());
    assert_eq!(clinic.get("/").0, 200);
    server.start();
    clinic.wait_ready();
    until(&clinic, &lab, "200");
    until(&clinic, &gone, "401");
    assert!(revoke(&clinic, &lab).status.success());
    until(&clinic, &lab, "401");

    // A fence of the same name with another keeper gets nothing of it.
    let other = running::make_folder(Who::Nobody);
    let fence = FENCE.replace(":8443", &format!(":{}", running::free_port()));
    std::fs::write(other.join("ringfence.yaml"), fence).unwrap();
    own(&other, Who::Nobody);
    let refused = running::as_user(Who::Nobody, &running::binary())
        .args(["up", ".", "--store", &address])
        .current_dir(&other)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    assert!(said(&refused).contains("is of another fence"), "{}", said(&refused));
    std::fs::remove_dir_all(&other).unwrap();
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn state_moves_from_a_file_into_a_database_and_is_never_begun_anew() {
    let (server, address) = database();
    let mut clinic = start(None);
    let (lab, gone) = (make(&clinic), make(&clinic));
    assert!(revoke(&clinic, &gone).status.success());
    until(&clinic, &lab, "200");
    let migrate = ["store", "migrate", "--json", "--to", &address];
    let refused = clinic.ringfence(&migrate);
    assert_eq!(refused.status.code(), Some(3));
    assert!(said(&refused).contains("another `ringfence up`"), "{}", said(&refused));

    assert!(clinic.ringfence(&["down"]).status.success());
    // With state in a file, an empty database is not begun with.
    let up = |args: &[&str]| {
        let output = clinic.ringfence(&[&["up", "."], args].concat());
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        said(&output)
    };
    assert!(up(&["--store", &address]).contains("store migrate"));
    let moved = clinic.json(&migrate);
    assert!(moved["moved"]["revision"].as_u64() > Some(2), "{moved}");
    let control = clinic.folder.join(".ringfence/control");
    assert!(
        !control.join("state.db").exists() && std::path::Path::new(moved["file"].as_str().unwrap()).exists()
    );
    assert!(said(&clinic.ringfence(&migrate)).contains("moved already"));
    // Nor with an empty file, nor with another database.
    assert!(up(&[]).contains("--store"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = runtime.block_on(server.database());
    let other = format!("postgresql://postgres@/{name}?socket={}", server.socket().display());
    assert!(up(&["--store", &other]).contains("another database"));
    // A database that is away is waited for, and then it is said which.
    server.kill();
    let away = up(&["--store", &address, "--store-wait", "1s"]);
    assert!(away.contains("waits for the database") && away.contains("postgresql://postgres@/d0"), "{away}");
    server.start();

    std::fs::write(clinic.folder.join("store.env"), exported(Some(&address))).unwrap();
    clinic.replace_up();
    until(&clinic, &lab, "200");
    until(&clinic, &gone, "401");
    let status = clinic.json(&["store", "status", "--json"]);
    assert!(status["revision"].as_u64() > moved["moved"]["revision"].as_u64(), "{status} {moved}");
    assert_eq!(clinic.stop(), [""; 0]);
}
