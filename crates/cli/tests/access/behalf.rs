//! On whose behalf, end to end: a client's token at the gateway, and three services that pass on what they got.

use serde_json::Value;

use crate::SOON;
use crate::provider::Provider;
use crate::running::{Clinic, Who, eventually, text};

/// Answers with the fields that it was sent, and with what the next service answered, if it has one.
const RELAY: &str = "
import http.server, json, sys, urllib.request, urllib.error
port, following = int(sys.argv[1]), sys.argv[2:]
class Relay(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        fields = {k.lower(): v for k, v in self.headers.items()}
        said = {'fields': fields}
        if following:
            passed = [n for n in ('txn-token', 'traceparent') if n in fields and not (self.path == '/api/forget' and port == 9002 and n == 'txn-token')]
            request = urllib.request.Request('http://' + following[0] + self.path, headers={n: fields[n] for n in passed})
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    said['next'] = json.load(answer)
            except urllib.error.HTTPError as e:
                said['next'] = e.code
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', port), Relay).serve_forever()
";

fn start(who: Who, provider: &Provider) -> Clinic {
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff: {{ issuer: {}, audiences: [clinic], claims: {{ user: client_id }}, ca: id/ca.pem, allow_private: true }}
services:
  portal:
    run: [python3, app/relay.py, '9001', appointments]
    listen: 9001
    ready: tcp
    routes: [{{ path: / }}, {{ path: /api, accept: [{{ token: staff }}] }}]
    calls: [appointments]
  appointments:
    run: [python3, app/relay.py, '9002', patients]
    listen: 9002
    ready: tcp
    calls:
      - service: patients
        on_behalf: required
  patients: {{ run: [python3, app/relay.py, '9003'], listen: 9003, ready: tcp }}
",
        provider.issuer
    );
    Clinic::start_fence(who, &fence, Vec::new(), |folder| {
        for name in ["app", "id"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("app/relay.py"), RELAY).unwrap();
        std::fs::copy(&provider.ca, folder.join("id/ca.pem")).unwrap();
    })
}

fn ask(clinic: &Clinic, path: &str, fields: &[&str]) -> (u16, Value) {
    let mut options: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    options.extend(["-w", "\n%{http_code}", path]);
    let said = text(&clinic.curl(&options).stdout);
    let (body, code) = said.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn three_services_know_whom_a_request_is_for_and_one_that_forgets_the_token_is_refused() {
    for who in [Who::Root, Who::Nobody] {
        let provider = Provider::start();
        let clinic = start(who, &provider);
        let token = format!("authorization: Bearer {}", provider.token("nightly", "read+write"));
        let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let fields = [&*token, trace, "txn-token: forged", "ringfence-user: root"];
        let served =
            eventually(SOON, || Some(ask(&clinic, "/api/all", &fields)).filter(|(code, _)| *code == 200));
        let events = || text(&clinic.ringfence(&["events"]).stdout);
        let (_, said) = served.unwrap_or_else(|| panic!("{who:?} {}\n{}", clinic.said(), events()));
        let hops = ["/fields", "/next/fields", "/next/next/fields"];
        for hop in hops {
            let got = said.pointer(hop).unwrap_or_else(|| panic!("{hop}: {said}\n{}", events()));
            assert_eq!(
                (&got["ringfence-user"], &got["ringfence-provider"], &got["ringfence-scopes"]),
                (&"nightly".into(), &"staff".into(), &"read write".into()),
                "{hop}"
            );
            assert_eq!(got["txn-token"], said["fields"]["txn-token"], "{hop}: unmodified");
            assert!(got["authorization"].is_null() && got["ringfence-chain"].is_null(), "{hop}: {got}");
        }
        let last = clinic
            .event(SOON, |e| {
                e["dst_endpoint"]["svc_name"] == "patients" && e["unmapped"]["point"] == "sidecar-in"
            })
            .expect("an event");
        assert_eq!(last["unmapped"]["chain"], serde_json::json!(["portal", "appointments"]));
        assert_eq!(last["src_endpoint"]["owner"]["name"], "nightly");
        let transaction = last["unmapped"]["txn"].as_str().unwrap().to_owned();
        let why = text(&clinic.ringfence(&["why", "0af7651916cd43dd8448eb211c80319c"]).stdout);
        let whole =
            format!("for nightly of staff, by way of portal → appointments, transaction {transaction}");
        assert!(why.contains(&whole), "{why}");
        assert!(!why.contains("eyJ") && !events().contains("eyJ"), "no token in what an operator reads");

        // One that keeps the token to itself, and whoever came without a credential.
        let (code, said) = ask(&clinic, "/api/forget", &[&token]);
        assert_eq!((code, &said["next"]["next"]), (200, &403.into()), "{said}");
        let (code, said) = ask(&clinic, "/open", &[]);
        assert_eq!((code, &said["next"]["next"]), (200, &403.into()), "{said}");
        assert!(
            said["fields"]["txn-token"].is_null() && said["next"]["fields"]["ringfence-user"].is_null(),
            "{said}"
        );
        let refused =
            clinic.event(SOON, |e| e["firewall_rule"]["uid"] == "delegate.required").expect("an event");
        assert!(
            refused["unmapped"]["position"].as_str().unwrap().starts_with("ringfence.yaml:18:"),
            "{refused}"
        );
        let id = refused["metadata"]["uid"].as_str().unwrap();
        let why = text(&clinic.ringfence(&["why", id]).stdout);
        assert!(why.contains("has to send the header `Txn-Token`"), "{why}");
        assert_eq!(clinic.stop(), [""; 0]);
    }
}
