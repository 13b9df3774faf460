//! Clients made by others: npm `openid-client` and `oauth4webapi`, PyPI `authlib`. Each gets its tokens from the provider on its own and
//! calls the gateway with them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::provider::{Provider, here, modules};
use crate::running::{Clinic, Who, text};
use crate::{served, start};

pub(crate) const NODE: [&str; 2] = ["openid-client", "oauth4webapi"];
const ALL: [&str; 3] = [NODE[0], NODE[1], "authlib"];

/// Has a client do a job, as `clients.mjs` describes it: what it saw.
pub(crate) fn client(library: &str, provider: &Provider, clinic: &Clinic, job: Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let trusted = [&provider.ca, &clinic.folder.join(".ringfence/ca.pem")];
    let trusted: String = trusted.map(|file| std::fs::read_to_string(file).unwrap()).concat();
    let file = folder.path().join("trusted.pem");
    std::fs::write(&file, &trusted).unwrap();
    let mut whole = json!({ "library": library, "issuer": provider.issuer, "tls_file": file });
    whole.as_object_mut().unwrap().extend(job.as_object().unwrap().clone());
    whole["tls"]["ca"] = trusted.into();
    let mut command = if library == "authlib" {
        let mut command = Command::new("python3");
        command.arg(here("client.py"));
        command
    } else {
        let mut command = Command::new("node");
        command.arg(here("clients.mjs")).arg(modules());
        command
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client can be started");
    child.stdin.take().unwrap().write_all(whole.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{library}: {e}: {}{}", text(&output.stdout), text(&output.stderr)))
}

pub(crate) fn url(clinic: &Clinic, path: &str) -> String {
    format!("https://127.0.0.1:{}{path}", clinic.port)
}

#[test]
fn clients_of_others_get_tokens_and_are_let_in_with_them() {
    let provider = Provider::start();
    let clinic = start(Who::Root, &provider);
    served(&clinic, "/api", &provider.token("reader", "read"));
    let calls = json!([{ "url": url(&clinic, "/api") }, { "url": url(&clinic, "/api/admin") }]);
    for library in ALL {
        let seen = client(
            library,
            &provider,
            &clinic,
            json!({
                "flow": "machine", "client": { "id": "nightly", "secret": "secret" },
                "scope": "read", "calls": calls,
            }),
        );
        assert_eq!(seen["calls"][0]["status"], 200, "{library}: {seen}");
        let fields: Value = serde_json::from_str(seen["calls"][0]["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&fields["ringfence-user"], &fields["ringfence-scopes"]),
            (&json!("nightly"), &json!("read"))
        );
        assert_eq!(seen["calls"][1]["status"], 403, "{library}: {seen}");

        // A human, by way of the provider's login page; after two refreshes, the third token is as good as the first.
        let seen = client(
            library,
            &provider,
            &clinic,
            json!({
                "flow": "code", "client": { "id": "app", "secret": "secret" }, "user": "ann",
                "scope": "openid read write", "refresh": 2, "calls": calls,
            }),
        );
        for call in seen["calls"].as_array().unwrap() {
            assert_eq!(call["status"], 200, "{library}: {seen}");
            let fields: Value = serde_json::from_str(call["body"].as_str().unwrap()).unwrap();
            assert_eq!(fields["ringfence-user"], "ann", "{library}");
        }
        let before = seen["before"].as_array().unwrap();
        assert!(before.len() == 2 && !before.contains(&seen["token"]), "each refresh brings another token");
        for token in before {
            served(&clinic, "/api", token.as_str().unwrap());
        }
    }
    assert_eq!(clinic.stop(), [""; 0]);
}
