//! Names and providers that are alike: what was shown tells them apart, on the way and for policies.

use ringfence_keys::Secret;
use ringfence_model::Position;
use ringfence_snapshot::{ClientAuthority, Policies, Text};
use serde_json::{Value, json};

use crate::bound::{Partners, curl};
use crate::keeper::GATEWAY;
use crate::net::echo;
use crate::rig::{Rig, field};
use crate::stolen::over_mesh;
use crate::tokens::ISSUER;

const PARTNERS: &str = "ca/partners.pem";
const OTHERS: &str = "ca/others.pem";

/// A node that knows these authorities.
fn rig(authorities: &[(&str, &Partners)]) -> Rig {
    let rig = Rig::start(
        "fence: clinic\ntrust_domain: clinic.example\ngateway: { listen: 127.0.0.1:8443 }\nservices: { portal: { run: [portal], listen: 9000 } }\n",
    );
    let authority = |(file, ca): &(&str, &Partners)| ClientAuthority {
        file: (*file).into(),
        roots: vec![ca.der.clone().into()],
    };
    *rig.control.authorities.lock().unwrap() = authorities.iter().map(authority).collect();
    rig
}

/// Which rule refused at the service's own side.
fn refused(rig: &Rig, path: &str) -> String {
    let event = rig.event(path, |r| {
        r.denied()
            && field(r, "/http_request/url/path") == path
            && field(r, "/unmapped/point") == "sidecar-in"
    });
    field(&event, "/firewall_rule/uid").to_owned()
}

#[test]
fn a_service_takes_what_it_accepts_and_nothing_else_of_the_same_provider() {
    let folder = tempfile::tempdir().unwrap();
    let mut rig = rig(&[(PARTNERS, &Partners::new(folder.path()))]);
    rig.tell_cookie_keys(vec![(1, Secret::new([1; 32]))]);
    rig.apply(&format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], client: {{ id: clinic }}, login: {{}} }}
  guests: {{ issuer: https://guests.example }}
services:
  portal: {{ run: [portal], listen: 9000, routes: [{{ path: /, accept: [{{ login: staff }}, {{ token: staff }}] }}] }}
  people: {{ run: [people], listen: 9001, accept: [{{ login: staff }}], routes: [{{ path: /people }}] }}
  programs: {{ run: [programs], listen: 9002, accept: [{{ token: staff }}], routes: [{{ path: /programs }}] }}
  labs: {{ run: [labs], listen: 9003, accept: [{{ certificate: {PARTNERS} }}], routes: [{{ path: /labs }}] }}
"
    ));
    for (name, port) in [("people", 9001), ("programs", 9002), ("labs", 9003)] {
        let shim = rig.shim(name, &[80]);
        echo(shim.service(port));
    }
    let ask = |callee: &str, path: &str, provider: &str, shown: Value| {
        let idn = json!({ "kind": "client", "provider": provider, "id": "lab-7" });
        let changes = json!({ "sub": "lab-7", "tctx": { "idn": idn, "cred": shown } });
        let token = rig.control.keeper.sign("txntoken+jwt", &changes);
        let path = format!("/{callee}{path}");
        over_mesh(&rig, GATEWAY, callee, &path, &format!("Txn-Token: {token}\r\n"))
    };
    let (login, token) = (json!({ "login": "staff" }), json!({ "token": "staff" }));
    let by = |file: &str| json!({ "certificate": file });
    for (callee, provider, shown) in [
        ("people", "staff", login.clone()),
        ("programs", "staff", token.clone()),
        ("labs", "certificate:partners", by(PARTNERS)),
    ] {
        let answer = ask(callee, "/good", provider, shown);
        assert!(answer.starts_with("HTTP/1.1 200"), "{callee}: {answer} {:?}", rig.troubles());
        assert!(answer.contains(&format!("ringfence-provider: {provider}\r\n")), "{answer}");
    }
    for (callee, path, provider, shown) in [
        ("people", "/a", "staff", token.clone()),
        ("programs", "/b", "staff", login),
        ("people", "/c", "guests", json!({ "login": "guests" })),
        ("programs", "/d", "api_key", json!("api_key")),
        ("labs", "/e", "certificate:others", by(OTHERS)),
        ("labs", "/f", "staff", token),
        // Called alike, and another file.
        ("labs", "/g", "certificate:partners", by("old/partners.pem")),
    ] {
        let answer = ask(callee, path, provider, shown);
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
        assert_eq!(refused(&rig, &format!("/{callee}{path}")), "credential.other", "{path}");
    }
}

#[test]
fn a_certificate_is_of_the_authority_that_the_route_believed() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Partners::new(folder.path());
    let (cert, _) = ours.issue("lab-7", |_| ());
    // Both files hold the same root, so the same client comes in by both.
    let mut rig = rig(&[(PARTNERS, &ours), (OTHERS, &ours)]);
    rig.apply(&format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
services:
  portal:
    run: [portal]
    listen: 9000
    accept: [{{ certificate: {PARTNERS} }}]
    routes:
      - {{ host: portal.example, path: /a, accept: [{{ certificate: {PARTNERS} }}] }}
      - {{ host: portal.example, path: /b, accept: [{{ certificate: {OTHERS} }}] }}
"
    ));
    let portal = rig.shim("portal", &[80]);
    echo(portal.service(9000));
    let ask = |path: &str| curl(&rig, &["--cert", &cert], "", "", &format!("https://portal.example{path}"));
    for at in 0..4 {
        let (status, answer) = ask("/a");
        assert_eq!(status, "200", "{answer} {:?}", rig.troubles());
        assert!(answer.contains("ringfence-provider: certificate:partners"), "{answer}");
        let path = format!("/b/{at}");
        assert_ne!(ask(&path).0, "200", "no token of the other way is used for it");
        assert_eq!(refused(&rig, &path), "credential.other");
    }
}

#[test]
fn policies_tell_clients_apart_that_two_authorities_call_alike() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Partners::new(folder.path()), Partners::new(folder.path()));
    let (cert, _) = ours.issue("lab-7", |_| ());
    let kept = folder.path().join("ours.pem");
    std::fs::rename(&cert, &kept).unwrap();
    let (alike, _) = theirs.issue("lab-7", |_| ());
    let (listener, port) = crate::rig::local();
    echo(listener);
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443 }}
external:
  portal:
    address: 127.0.0.1:{port}
    tls: off
    routes: [{{ host: portal.example, path: /, accept: [{{ certificate: {PARTNERS} }}, {{ certificate: {OTHERS} }}] }}]
"
    );
    let rig = rig(&[(PARTNERS, &ours), (OTHERS, &theirs)]);
    let policy = "permit(principal == Client::\"certificate:partners/lab-7\", action, resource);";
    let text = Text { name: "policies/p.cedar".into(), text: policy.into() };
    let position = Position::new("ringfence.yaml".into(), 1, 1);
    *rig.control.policies.lock().unwrap() = Some(Policies { files: vec![text], entities: None, position });
    rig.apply(&fence);
    let ask = |path: &str, cert: &str| {
        curl(&rig, &["--cert", cert], "", "", &format!("https://portal.example{path}"))
    };
    let (status, answer) = ask("/ours", kept.to_str().unwrap());
    assert_eq!(status, "200", "{answer} {:?}", rig.troubles());
    let (status, answer) = ask("/theirs", &alike);
    assert_eq!(status, "403", "{answer}");
    let event = rig.event("the refusal", |r| field(r, "/http_request/url/path") == "/theirs");
    assert_eq!(field(&event, "/firewall_rule/uid"), "policy.default");
}
