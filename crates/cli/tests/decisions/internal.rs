//! A fenced service in Python asks its own sidecar what it may show of a record, and fetches the keys of our tokens.

use serde_json::{Value, json};

use crate::running::{Clinic, Who, eventually, text};
use crate::{SOON, ask, key};

const FENCE: &str = "fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
policies: [clinic.cedar]
services:
  patients:
    run: [python3, app/patients.py]
    listen: 9000
    ready: tcp
    routes: [{ path: / }, { path: '/patients/{id}', accept: [api_key] }]
";

const POLICY: &str = r#"@id("open") permit(principal is Anonymous, action, resource) when { context.target == "/keys" };
@id("records")
permit(principal is Client, action == Action::"GET", resource == Path::"patients/patients/{id}");
@id("lab-sees-diagnoses") @reason("the laboratory needs them")
permit(principal == Client::"api_key/lab", action == Action::"GET", resource in Service::"patients")
when { context.target like "*/diagnoses" };
"#;

const PATIENTS: &str = "
import http.server, json, os, urllib.error, urllib.request
BASE = os.environ['RINGFENCE_URL']
def post(path, value):
    request = urllib.request.Request(BASE + path, json.dumps(value).encode(),
        {'content-type': 'application/json', 'x-request-id': 'a-7'})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    return {'status': answer.status, 'id': answer.headers['x-request-id'], 'body': json.loads(answer.read())}
class Patients(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        who = {'type': 'client', 'id': 'api_key/' + self.headers.get('ringfence-user', 'nobody')}
        of = lambda path, service='patients': {'resource': {'type': 'path', 'id': service + path}}
        if self.path == '/keys':
            body = {'keys': json.loads(urllib.request.urlopen(BASE + '/jwks.json', timeout=60).read()),
                    'where': json.loads(urllib.request.urlopen(BASE + '/.well-known/authzen-configuration', timeout=60).read())}
        else:
            shared = {'subject': who, 'action': {'name': 'GET'}}
            body = {'one': post('/access/v1/evaluation', {**shared, **of(self.path + '/diagnoses')}),
                    'all': post('/access/v1/evaluations', {**shared, 'evaluations': [of(self.path), of(self.path + '/diagnoses')]}),
                    'foreign': post('/access/v1/evaluation', {**shared, **of('/x', 'portal')})}
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(('', 9000), Patients).serve_forever()
";

#[test]
fn a_service_shows_what_its_sidecar_says_that_a_client_may_see() {
    for who in [Who::Root, Who::Nobody] {
        let clinic = Clinic::start_fence(who, FENCE, Vec::new(), |folder| {
            std::fs::create_dir(folder.join("app")).unwrap();
            std::fs::write(folder.join("app/patients.py"), PATIENTS).unwrap();
            std::fs::write(folder.join("clinic.cedar"), POLICY).unwrap();
        });
        let (lab, desk) = (key(&clinic, "lab"), key(&clinic, "desk"));
        let shown = |key: &str| -> Value {
            let answer =
                eventually(SOON, || Some(ask(&clinic, "/patients/7", key)).filter(|(code, _)| *code == 200));
            let (_, body) =
                answer.unwrap_or_else(|| panic!("{:?}\n{}", ask(&clinic, "/patients/7", key), clinic.said()));
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"))
        };
        let decisions = |shown: &Value| -> Vec<bool> {
            let all = shown["all"]["body"]["evaluations"].as_array().unwrap_or_else(|| panic!("{shown}"));
            all.iter().map(|one| one["decision"].as_bool().unwrap()).collect()
        };
        let lab = shown(&lab);
        assert_eq!(
            (decisions(&lab), &lab["one"]["body"]["decision"]),
            (vec![true, true], &json!(true)),
            "{lab}"
        );
        assert_eq!(lab["one"]["body"]["context"]["reason_admin"]["en"], "the laboratory needs them");
        assert_eq!(lab["one"]["id"], "a-7");
        let desk = shown(&desk);
        assert_eq!(
            (decisions(&desk), &desk["one"]["body"]["decision"]),
            (vec![true, false], &json!(false)),
            "{desk}"
        );
        assert_eq!(desk["foreign"]["status"], 403, "{desk}");
        let event = clinic.event(SOON, |e| {
            e["dst_endpoint"]["svc_name"] == "ringfence.internal"
                && e["src_endpoint"]["owner"]["name"] == "desk"
        });
        let event = event.expect("the operator can read who asked about whom");
        assert_eq!(event["src_endpoint"]["svc_name"], "patients");

        let (code, body) = clinic.get("/keys");
        assert_eq!(code, 200, "{body}");
        let said: Value = serde_json::from_str(&body).unwrap();
        let key = &said["keys"]["keys"][0];
        assert!(key["kid"].is_string() && key["x"].is_string() && key["use"] == "sig", "{said}");
        assert_eq!(key["d"], Value::Null);
        assert_eq!(
            said["where"]["access_evaluation_endpoint"],
            "http://ringfence.internal/access/v1/evaluation"
        );

        // From outside the name leads nowhere, and nothing of it is behind the gateway.
        for path in ["/jwks.json", "/access/v1/evaluation"] {
            let refused = clinic.curl(&[
                "-H",
                "Host: ringfence.internal",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                path,
            ]);
            assert_ne!(text(&refused.stdout), "200", "{path}");
        }
        assert_eq!(clinic.stop(), [""; 0]);
    }
}
