//! Policies beside the fence, end to end: who may do what, changed while all runs.

use serde_json::Value;

use crate::provider::Provider;
use crate::running::{Clinic, Who, eventually, text};
use crate::{ECHO, SOON};

const POLICY: &str = r#"// Who may do what in the clinic.
@id("reader-reads")
permit(principal == Client::"staff/reader", action == Action::"GET", resource in Service::"portal");

@id("nightly-writes")
permit(principal == Client::"staff/nightly", action, resource)
when { context.scopes.contains("write") };

@id("open")
permit(principal is Anonymous, action == Action::"GET", resource in Service::"portal");
"#;

fn start(provider: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff: {{ issuer: {}, audiences: [clinic], claims: {{ user: client_id }}, ca: id/ca.pem, allow_private: true }}
policies: [policies/*.cedar]
entities: {{ file: entities.json }}
services:
  portal:
    run: [python3, app/echo.py]
    listen: 9000
    ready: tcp
    routes:
      - {{ path: / }}
      - {{ path: /api, accept: [{{ token: staff }}] }}
",
        provider.issuer
    );
    Clinic::start_fence(Who::Root, &fence, Vec::new(), |folder| {
        for name in ["app", "id", "policies"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        // It reads what it is sent: closed over unread bytes, a connection is reset.
        let post = "def post(self):\n    self.rfile.read(int(self.headers['content-length']))\n    self.do_GET()\nEcho.do_POST = post";
        let echo = ECHO.replace("http.server.Threading", &format!("{post}\nhttp.server.Threading"));
        std::fs::write(folder.join("app/echo.py"), echo).unwrap();
        std::fs::write(folder.join("policies/clinic.cedar"), POLICY).unwrap();
        std::fs::write(folder.join("entities.json"), "[]").unwrap();
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    })
}

/// As editors do: whoever looks sees the old file or the new.
fn write(file: &std::path::Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn ask(clinic: &Clinic, method: &str, path: &str, token: &str) -> u16 {
    let field = format!("authorization: Bearer {token}");
    let body = ["--data", "x"];
    let options = [
        &["--request", method, "--header", &field, "--output", "/dev/null", "--write-out", "%{http_code}"][..],
        if method == "POST" { &body } else { &[] },
        &[path],
    ];
    let output = clinic.curl(&options.concat());
    assert!(output.status.success(), "{method} {path}: {}", text(&output.stderr));
    text(&output.stdout).parse().unwrap()
}

#[test]
fn a_policy_lets_a_client_read_and_not_write_and_a_change_holds_at_once() {
    let provider = Provider::start();
    let clinic = start(&provider);
    let (reader, nightly) = (provider.token("reader", "read"), provider.token("nightly", "read+write"));
    let served = eventually(SOON, || (ask(&clinic, "GET", "/api/a", &reader) == 200).then_some(()));
    assert!(served.is_some(), "{}\n{}", clinic.said(), text(&clinic.ringfence(&["events"]).stdout));
    clinic.settle_at(&["-H", &format!("authorization: Bearer {reader}")], "/api/a", 200);
    assert_eq!(ask(&clinic, "POST", "/api/b", &reader), 403);
    assert_eq!(ask(&clinic, "POST", "/api/b", &nightly), 200);
    let denied = |rule: &'static str| {
        let event = clinic.event(SOON, |e| e["firewall_rule"]["uid"] == rule).expect("an event");
        assert_eq!(event["unmapped"]["stage"], "authorize");
        (event["src_endpoint"]["owner"]["name"].clone(), event["unmapped"]["position"].clone())
    };
    assert_eq!(denied("policy.default"), (Value::from("reader"), Value::from("ringfence.yaml:6:1")));

    // Whoever edits a policy file changes what holds.
    let file = clinic.folder.join("policies/clinic.cedar");
    let forbid =
        "\n@id(\"reader-stays-out\")\nforbid(principal == Client::\"staff/reader\", action, resource);\n";
    write(&file, &format!("{POLICY}{forbid}"));
    let changed = eventually(SOON, || (ask(&clinic, "GET", "/api/a", &reader) == 403).then_some(()));
    assert!(changed.is_some(), "{}", clinic.said());
    clinic.settle();
    assert_eq!(
        denied("reader-stays-out"),
        (Value::from("reader"), Value::from("policies/clinic.cedar:12:1")),
        "the event names the line of the policy"
    );

    // One that does not fit the fence is refused with its place, and the ones before stay in force.
    write(&file, &POLICY.replace("Service::\"portal\"", "Service::\"protal\""));
    let told = eventually(SOON, || clinic.said().contains("policies/clinic.cedar:3:").then_some(()));
    assert!(told.is_some(), "{}", clinic.said());
    assert_eq!(ask(&clinic, "GET", "/api/a", &reader), 403);
    assert_eq!(ask(&clinic, "GET", "/api/a", &nightly), 200);
    let check = clinic.ringfence(&["check"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check.stderr).contains("policies/clinic.cedar:3:"), "{}", text(&check.stderr));

    write(&file, POLICY);
    let again = eventually(SOON, || (ask(&clinic, "GET", "/api/a", &reader) == 200).then_some(()));
    assert!(again.is_some(), "{}", clinic.said());
    assert_eq!(clinic.stop(), [""; 0]);
}
