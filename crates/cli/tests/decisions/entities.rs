//! Entity data of a server: it changes, lies, goes away, and what was good stays good.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::data::Data;
use crate::running::{Clinic, Stalls, Who, as_user, binary, eventually, free_port, make_folder, own, text};
use crate::{SOON, ask, key};

const ECHO: &str = "
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('', 9000), Echo).serve_forever()
";

const POLICY: &str = r#"@id("treating")
permit(principal is Client, action == Action::"GET", resource in Service::"portal")
when { context.path has id && principal.treats.contains(context.path.id) };
"#;

fn fence(url: &str) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
policies: [clinic.cedar]
entities: {{ url: '{url}', every: 1s, ca: id/ca.pem, allow_private: true }}
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes: [{{ path: / }}, {{ path: '/patients/{{id}}', accept: [api_key] }}]
"
    )
}

fn treats(patient: &str) -> String {
    format!(
        r#"[{{ "uid": {{ "type": "Client", "id": "api_key/dora" }}, "attrs": {{ "treats": ["{patient}"] }} }}]"#
    )
}

fn fill(folder: &std::path::Path, ca: &str) {
    for name in ["app", "id"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
    std::fs::write(folder.join("id/ca.pem"), ca).unwrap();
    std::fs::write(folder.join("clinic.cedar"), POLICY).unwrap();
}

/// How long until a client is answered so.
fn until(clinic: &Clinic, path: &str, key: &str, wanted: u16) -> Duration {
    let begun = Instant::now();
    let found = eventually(2 * SOON, || (ask(clinic, path, key).0 == wanted).then(|| begun.elapsed()));
    let events = || text(&clinic.ringfence(&["events"]).stdout);
    let found = found.unwrap_or_else(|| {
        panic!("{path} never {wanted}: {:?}\n{}\n{}", ask(clinic, path, key), clinic.said(), events())
    });
    clinic.settle();
    found
}

#[test]
fn a_relation_that_a_server_tells_of_lets_in_and_outlives_the_server() {
    let mut data = Data::start(&treats("8"));
    let mut clinic =
        Clinic::start_fence(Who::Root, &fence(&data.url), Vec::new(), |folder| fill(folder, &data.ca));
    let dora = key(&clinic, "dora");
    until(&clinic, "/patients/8", &dora, 200);
    assert_eq!(ask(&clinic, "/patients/7", &dora).0, 403);

    let stalls = Stalls::begin();
    data.says(&treats("7"));
    let took = until(&clinic, "/patients/7", &dora, 200);
    println!("a relation changed at the server let in after {took:?}");
    assert!(stalls.without(took.as_secs_f64()) < 5.0, "asked every second: {took:?}");
    // Each thread of the gateway learns of it in its own moment.
    until(&clinic, "/patients/8", &dora, 403);
    let known =
        eventually(SOON, || data.asked().iter().any(|a| a == "/entities?of=clinic 304").then_some(()));
    assert!(known.is_some(), "what is known is not sent again: {:?}", data.asked());

    // What makes no sense, or does not fit the policies, changes nothing and is told.
    let number = r#"[{ "uid": { "type": "Client", "id": "api_key/dora" }, "attrs": { "treats": 7 } }]"#;
    for (bad, why) in [("<html>", "no entity data"), (number, "clinic.cedar:3:")] {
        data.says(bad);
        let refused = clinic.event(SOON, |e| {
            e["entity"]["type"] == "entities"
                && e["action_id"] == 2
                && e["message"].as_str().is_some_and(|message| message.contains(why))
        });
        assert!(refused.is_some(), "{bad}: {}", text(&clinic.ringfence(&["events", "--json"]).stdout));
        assert_eq!(ask(&clinic, "/patients/7", &dora).0, 200, "the last good data stays");
        let shown = eventually(SOON, || {
            Some(text(&clinic.ringfence(&["status"]).stdout)).filter(|s| s.contains("entity data of"))
        });
        assert!(shown.is_some(), "{}", text(&clinic.ringfence(&["status"]).stdout));
    }
    data.says(&treats("9"));
    until(&clinic, "/patients/9", &dora, 200);
    let trouble = || clinic.json(&["status", "--json"])["entities"]["trouble"].clone();
    assert!(eventually(SOON, || trouble().is_null().then_some(())).is_some(), "{}", trouble());

    // Without the server, over a restart of everything.
    data.stop();
    let told = |clinic: &Clinic| {
        let status = clinic.json(&["status", "--json"])["entities"].clone();
        status["trouble"].as_str().map(ToOwned::to_owned)
    };
    let trouble = eventually(SOON, || told(&clinic));
    assert!(trouble.as_ref().is_some_and(|why| why.contains("localhost")), "{trouble:?}");
    assert_eq!(ask(&clinic, "/patients/9", &dora).0, 200);
    clinic.replace_up();
    until(&clinic, "/patients/9", &dora, 200);
    assert_eq!(ask(&clinic, "/patients/7", &dora).0, 403);
    assert!(eventually(SOON, || told(&clinic)).is_some(), "and the operator is told again");
    assert_eq!(clinic.stop(), [""; 0]);
}

#[test]
fn a_fence_whose_server_never_answered_is_refused_with_the_reason() {
    let folder = make_folder(Who::Root);
    fill(&folder, &Data::start("[]").ca);
    let text_of = fence(&format!("https://localhost:{}/none", free_port()));
    let text_of = text_of.replace("127.0.0.1:8443", &format!("127.0.0.1:{}", free_port()));
    std::fs::write(folder.join("ringfence.yaml"), text_of).unwrap();
    own(&folder, Who::Root);
    let up = as_user(Who::Root, &binary())
        .args(["up", "."])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = up.wait_with_output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no entity data") && said.contains("localhost"), "{said}");
}
