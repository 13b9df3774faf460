//! Services that ignore the case of letters are not reached past the route that guards.

use std::net::TcpStream;

use serde_json::json;

use crate::net::echo;
use crate::rig::{Rig, field, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

fn fence(port: u16, other: u16) -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], claims: {{ user: sub }} }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes:
      - {{ path: / }}
      - {{ path: /admin, accept: [{{ token: staff }}] }}
      - {{ path: '/{{tenant}}/keys', accept: [{{ token: staff }}], require: {{ scopes: [write] }} }}
      - {{ path: /help }}
      - {{ host: only.example, path: /vault, accept: [api_key] }}
  shop:
    address: 127.0.0.1:{other}
    tls: off
    routes: [{{ path: /shop, accept: [{{ token: staff }}] }}]
"
    )
}

fn ask(rig: &Rig, host: &str, path: &str, fields: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    let answer = raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes());
    answer.get(9..12).unwrap_or(&answer).to_owned()
}

#[test]
fn a_path_in_another_case_does_not_pass_beside_the_route_that_guards_it() {
    let ((portal, port), (shop, other)) = (local(), local());
    echo(portal);
    echo(shop);
    let provider = Provider::new("k1");
    let rig = Rig::start(&fence(port, other));
    tell(&rig, provider.keys(unix() + 600));
    let token = bearer(&provider.token(&json!({})));
    // A credential does not help: the service must not decide which of two routes a request took.
    for (host, path, judged, guard) in [
        ("x", "/Admin", "/Admin", 12),
        ("x", "/ADMIN/users", "/ADMIN/users", 12),
        ("x", "/%41dmin/encoded", "/Admin/encoded", 12),
        ("x", "/a/../adMin/dots", "/adMin/dots", 12),
        ("x", "/blue/Keys", "/blue/Keys", 13),
        ("only.example", "/Vault/1", "/Vault/1", 15),
        ("ONLY.example.", "/VAULT/2", "/VAULT/2", 15),
    ] {
        for fields in ["", &token] {
            assert_eq!(ask(&rig, host, path, fields), "404", "{host}{path}");
        }
        let event = rig.event("the refusal", |r| r.denied() && field(r, "/http_request/url/path") == judged);
        assert_eq!(field(&event, "/firewall_rule/uid"), "route.case", "{path}");
        assert_eq!(field(&event, "/unmapped/stage"), "route");
        let position = field(&event, "/unmapped/position");
        assert!(position.starts_with(&format!("ringfence.yaml:{guard}:")), "{path}: {position}");
    }
    // What no route of the same service guards, or all guard alike, is the service's own business.
    for (host, path) in [
        ("x", "/Help"),
        ("x", "/Administrator"),
        ("x", "/Vault/1"),
        ("x", "/Shop"),
        ("only.example", "/HELP"),
    ] {
        assert_eq!(ask(&rig, host, path, ""), "200", "{host}{path}");
    }
    assert_eq!(ask(&rig, "x", "/admin/Users", ""), "401", "below the route, case is the service's");
    assert_eq!(ask(&rig, "x", "/admin/Users", &token), "200");
}
