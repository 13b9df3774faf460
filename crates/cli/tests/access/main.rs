//! Who stands behind a request, end to end: a provider made by others, the real processes, real clients.
#![expect(clippy::unwrap_used, reason = "test")]

mod behalf;
mod bound;
mod browser;
mod clients;
mod keys;
mod login;
mod policies;
mod provider;
mod resource;
mod revoke;
mod rotation;
#[path = "../clinic/running.rs"]
#[expect(dead_code, reason = "shared with the clinic's stories, which use more of it")]
mod running;
mod talk;
mod tour;
mod trouble;

use std::process::Command;
use std::time::{Duration, Instant};

use provider::Provider;
use running::{Clinic, Stalls, Who, eventually, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Answers with the fields that it was sent.
const ECHO: &str = "
import http.server, json
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 9000), Echo).serve_forever()
";

fn start(who: Who, provider: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff:
    issuer: {}
    audiences: [clinic]
    ca: id/ca.pem
    allow_private: true
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes:
      - {{ path: / }}
      - {{ path: /api, accept: [{{ token: staff }}], require: {{ scopes: [read] }} }}
      - {{ path: /api/admin, accept: [{{ token: staff }}], require: {{ scopes: [write] }} }}
",
        provider.issuer
    );
    Clinic::start_fence(who, &fence, Vec::new(), |folder| {
        for name in ["app", "id"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("app/echo.py"), ECHO).unwrap();
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    })
}

/// Within this, whatever is revoked counts.
const AT_ONCE: Duration = Duration::from_secs(1);

/// No request that begins a second after `since`, or later, is answered otherwise than so. How long a busy machine takes for the
/// request itself does not matter, nor how long somebody waited for a processor meanwhile.
fn at_once((since, stalls): (Instant, Stalls), wanted: u16, ask: impl Fn() -> u16) {
    loop {
        let begun = stalls.without(since.elapsed().as_secs_f64());
        let status = ask();
        if status == wanted {
            return;
        }
        assert!(
            begun < AT_ONCE.as_secs_f64(),
            "a request that began {begun} s later is answered with {status}"
        );
    }
}

/// This moment, for [`at_once`].
fn now() -> (Instant, Stalls) {
    (Instant::now(), Stalls::begin())
}

fn ask(clinic: &Clinic, path: &str, token: &str) -> (u16, String) {
    let field = format!("authorization: Bearer {token}");
    let spoofed = ["-H", "ringfence-user: root", "-H", "ringfence-scopes: all"];
    let options = [&["-H", &field][..], &spoofed, &["-w", "\n%{http_code}", path]].concat();
    let said = text(&clinic.curl(&options).stdout);
    let (body, code) = said.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), body.to_owned())
}

/// A token is accepted as soon as the provider's keys have arrived, in every thread of the gateway.
fn served(clinic: &Clinic, path: &str, token: &str) -> String {
    let answer = eventually(SOON, || Some(ask(clinic, path, token)).filter(|(code, _)| *code == 200));
    let events = || text(&clinic.ringfence(&["events"]).stdout);
    let answer =
        answer.unwrap_or_else(|| panic!("{:?}\n{}{}", ask(clinic, path, token), clinic.said(), events()));
    clinic.settle_at(&["-H", &format!("authorization: Bearer {token}")], path, 200);
    answer.1
}

#[test]
fn a_client_of_the_provider_is_let_in_by_its_token_and_known_to_the_service() {
    for who in [Who::Root, Who::Nobody] {
        let provider = Provider::start();
        let clinic = start(who, &provider);
        assert_eq!(clinic.get("/api").0, 401, "{who:?}");
        assert_eq!(clinic.get("/").0, 200, "an open route stays open");
        let (reader, nightly) = (provider.token("reader", "read"), provider.token("nightly", "read+write"));
        let fields: Value = serde_json::from_str(&served(&clinic, "/api", &reader)).unwrap();
        assert_eq!(fields["ringfence-user"], "reader");
        assert_eq!(fields["ringfence-scopes"], "read");
        assert_eq!(fields["authorization"], Value::Null, "the token stays at the gateway");
        assert_eq!(ask(&clinic, "/api/admin/x", &reader).0, 403);
        assert_eq!(ask(&clinic, "/api/admin/x", &nightly).0, 200);
        let refused = clinic.event(SOON, |e| e["firewall_rule"]["uid"] == "require.scope").expect("an event");
        assert_eq!(refused["src_endpoint"]["owner"]["name"], "reader");
        assert!(refused["unmapped"]["position"].as_str().unwrap().starts_with("ringfence.yaml:"));
        assert_eq!(clinic.stop(), [""; 0]);
    }
}

/// As [`Clinic::process`], of a moment in which control may not be there to be asked.
fn process(clinic: &Clinic, name: &str) -> Option<u32> {
    let status: Value = serde_json::from_slice(&clinic.ringfence(&["status", "--json"]).stdout).ok()?;
    let processes = status["report"]["processes"].as_array()?;
    Some(processes.iter().find(|p| p["name"] == name)?["pid"].as_u64()? as u32)
}

#[test]
fn tokens_are_believed_while_the_provider_and_who_asks_it_are_gone() {
    let provider = Provider::start();
    let clinic = start(Who::Root, &provider);
    let token = provider.token("reader", "read");
    served(&clinic, "/api", &token);
    let federation = clinic.process("federation");
    drop(provider);
    for name in ["federation", "node", "control"] {
        let pid = clinic.process(name);
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let again = eventually(SOON, || process(&clinic, name).filter(|now| *now != 0 && *now != pid));
        assert!(again.is_some(), "{name} is started again");
        if name == "federation" {
            assert_eq!(ask(&clinic, "/api", &token).0, 200, "the keys are known without it");
        }
    }
    let again = eventually(SOON, || process(&clinic, "federation").filter(|now| *now != 0));
    assert_ne!(again.expect("it is started again with control"), federation);
    let trouble = clinic.event(SOON, |e| e["entity"]["name"] == "staff" && e["action_id"] == 2);
    assert!(trouble.is_some(), "the operator is told that the provider does not answer");
    // Control told the new node; the node outlived that control.
    served(&clinic, "/api", &token);
}
