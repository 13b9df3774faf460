//! May they: policies on top of the edges, at the gateway and where the callee is.

use std::net::TcpStream;
use std::time::Instant;

use ringfence_model::Position;
use ringfence_snapshot::{Policies, Text};
use serde_json::json;

use crate::net::echo;
use crate::rig::{Rig, eventually, field, get, half, local, raw, unix};
use crate::tokens::{ISSUER, Provider, bearer, tell};

fn fence() -> String {
    format!(
        "fence: clinic
trust_domain: clinic.example
gateway: {{ listen: 127.0.0.1:8443, tls: off }}
providers:
  staff: {{ issuer: {ISSUER}, audiences: [clinic], claims: {{ user: sub, groups: groups }} }}
services:
  portal:
    run: [portal]
    listen: 9000
    routes:
      - {{ path: / }}
      - {{ path: /api, accept: [{{ token: staff }}] }}
    calls:
      - service: patients
        allow: [{{ paths: ['/patients/{{id}}'] }}]
      - vault
  patients: {{ run: [patients], listen: 9001 }}
  vault: {{ run: [vault], listen: 9004, protocol: tcp }}
"
    )
}

const POLICIES: &str = r#"@id("nurses-read")
permit(principal in Group::"staff/nurse", action == Action::"GET", resource in Service::"portal")
when { context.scopes.contains("read") && context.host == "x" && context has source };

@id("portal-reads-seven")
permit(principal == Service::"portal", action in Action::"read", resource in Path::"patients/patients/{id}")
when { context.path has id && context.path.id == "7" && context.chain.contains(Service::"portal") };

@id("nobody-reads-secrets")
@reason("secrets are for no human")
forbid(principal is User, action, resource in Service::"portal") when { context.target == "/api/secret" };

@id("only-strong-logins") @mode("observe")
forbid(principal is User, action, resource) unless { context has acr && context.acr == "phrh" };

@id("open-to-known")
permit(principal is Anonymous, action == Action::"GET", resource) when { context.target == "/" };
"#;

fn policies(text: &str, entities: Option<&str>) -> Policies {
    let file = |name: &str, text: &str| Text { name: name.into(), text: text.into() };
    Policies {
        files: vec![file("policies/clinic.cedar", text)],
        entities: entities.map(|text| file("entities.json", text)),
        position: Position::new("ringfence.yaml".into(), 9, 1),
    }
}

/// A node that enforces the fence with these policies.
fn rig(provider: &Provider, text: &str) -> Rig {
    let rig = Rig::bare(tempfile::tempdir().unwrap());
    *rig.control.policies.lock().unwrap() = Some(policies(text, None));
    rig.connect_control();
    rig.apply(&fence());
    tell(&rig, provider.keys(unix() + 600));
    rig
}

fn with_services(mut rig: Rig) -> Rig {
    let portal = rig.shim("portal", &[80, 9004]);
    echo(portal.service(9000));
    let patients = rig.shim("patients", &[80]);
    echo(patients.service(9001));
    let vault = rig.shim("vault", &[80]);
    echo(vault.service(9004));
    rig
}

fn ask(rig: &Rig, method: &str, path: &str, fields: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: X.\r\n{fields}Connection: close\r\n\r\n");
    raw(TcpStream::connect(rig.gateway).unwrap(), request.as_bytes())
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[test]
fn a_user_passes_by_a_policy_at_both_ends_and_the_refusal_names_its_line() {
    let provider = Provider::new("k1");
    let rig = with_services(rig(&provider, POLICIES));
    let nurse = bearer(&provider.token(&json!({})));
    let answer = ask(&rig, "GET", "/api/a", &nurse);
    assert_eq!(status(&answer), "200", "{answer} {:?}", rig.troubles());
    assert!(answer.contains("ringfence-user: ada\r\n"), "{answer}");
    assert!(!answer.contains("ringfence-principal"), "how the gateway tells is not for services: {answer}");

    let refused = [
        ("POST", "/api/a", nurse.clone(), "policy.default", "ringfence.yaml:9:1"),
        ("GET", "/api/secret", nurse.clone(), "nobody-reads-secrets", "policies/clinic.cedar:9:1"),
        ("GET", "/api/b", bearer(&provider.token(&json!({ "groups": ["clerk"] }))), "policy.default", "ringfence.yaml:9:1"),
        ("GET", "/api/c", bearer(&provider.token(&json!({ "scope": "write" }))), "policy.default", "ringfence.yaml:9:1"),
        ("GET", "/d", String::new(), "policy.default", "ringfence.yaml:9:1"),
        // Whoever is no user of the group, whatever it says of itself.
        ("GET", "/e", "ringfence-principal: {\"kind\":\"user\",\"provider\":\"staff\",\"id\":\"ada\",\"groups\":[\"nurse\"]}\r\n".into(), "policy.default", "ringfence.yaml:9:1"),
    ];
    for (method, path, fields, rule, position) in refused {
        let answer = ask(&rig, method, path, &fields);
        assert_eq!(status(&answer), "403", "{path}: {answer}");
        for told in ["polic", "nurse", "secret", "cedar"] {
            assert!(!answer.contains(told), "{path} tells the caller too much: {answer}");
        }
        let event = rig.event("the refusal", |r| {
            r.denied()
                && field(r, "/http_request/url/path") == path
                && field(r, "/http_request/http_method") == method
        });
        assert_eq!(field(&event, "/firewall_rule/uid"), rule, "{path}");
        assert_eq!(field(&event, "/unmapped/position"), position, "{path}");
        assert_eq!(field(&event, "/unmapped/stage"), "authorize");
        assert_eq!(field(&event, "/unmapped/point"), "gateway");
    }
    let event = rig.event("the refusal", |r| field(r, "/http_request/url/path") == "/api/secret");
    assert!(field(&event, "/status_detail").contains("secrets are for no human"), "{}", event.line());
    assert_eq!(status(&ask(&rig, "GET", "/", "")), "200", "a permit for whoever proved nothing");

    // What only watches is written down, at both ends, and changes nothing.
    for point in ["gateway", "sidecar-in"] {
        let event = rig.event("the call", |r| {
            field(r, "/http_request/url/path") == "/api/a"
                && field(r, "/unmapped/point") == point
                && !r.denied()
        });
        assert_eq!(event.json["unmapped"]["observed"], json!(["only-strong-logins"]), "{point}");
        assert_eq!(event.json["unmapped"]["observed_verdict"], "deny", "{point}");
    }
}

#[test]
fn services_are_judged_at_the_callee_s_side() {
    let provider = Provider::new("k1");
    let rig = with_services(rig(&provider, POLICIES));
    let portal = rig.nets["portal"].clone();
    let call = |callee: &str, port| portal.connect(&rig.address(callee), port);
    let answer = get(call("patients", 80), "patients", "/patients/7");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {:?}", rig.troubles());
    for (head, path) in [("GET /patients/8", "/patients/8"), ("DELETE /patients/7", "/patients/7")] {
        // Nobody but the gateway is believed about users.
        let forged = "ringfence-principal: {\"kind\":\"service\",\"id\":\"portal\"}";
        let answer = raw(
            call("patients", 80),
            format!("{head} HTTP/1.1\r\nHost: patients\r\n{forged}\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 403"), "{head}: {answer}");
        let event = rig.event("the refusal", |r| {
            r.denied()
                && field(r, "/http_request/url/path") == path
                && field(r, "/unmapped/point") == "sidecar-in"
        });
        assert_eq!(field(&event, "/firewall_rule/uid"), "policy.default");
        assert_eq!(field(&event, "/src_endpoint/svc_name"), "portal");
    }
    // A connection of bytes is an action of its own.
    assert_eq!(raw(call("vault", 9004), b"GET / HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n"), "");
    let event = rig.event("the refusal", |r| r.denied() && field(r, "/dst_endpoint/svc_name") == "vault");
    assert_eq!(field(&event, "/firewall_rule/uid"), "policy.default");
    let more = format!(
        "{POLICIES}\n@id(\"vault\") permit(principal == Service::\"portal\", action == Action::\"connect\", resource);"
    );
    *rig.control.policies.lock().unwrap() = Some(policies(&more, None));
    rig.apply(&fence());
    let answer = half(call("vault", 9004), b"GET / HTTP/1.1\r\nHost: v\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {:?}", rig.troubles());
}

#[test]
fn a_callee_without_a_side_of_its_own_is_judged_by_the_caller_s() {
    let (listener, port) = local();
    echo(listener);
    let fence = format!(
        "fence: clinic
trust_domain: clinic.example
services:
  portal: {{ run: [portal], calls: [archive] }}
external:
  archive: {{ address: 127.0.0.1:{port}, tls: off }}
"
    );
    let mut rig = Rig::bare(tempfile::tempdir().unwrap());
    *rig.control.policies.lock().unwrap() = Some(policies(
        "permit(principal == Service::\"portal\", action == Action::\"GET\", resource in Service::\"archive\");",
        None,
    ));
    rig.connect_control();
    rig.apply(&fence);
    let portal = rig.shim("portal", &[80]);
    let call = || portal.connect(&rig.address("archive"), 80);
    let answer = get(call(), "archive", "/x");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer =
        raw(call(), b"PUT /x HTTP/1.1\r\nHost: archive\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let event = rig.event("the refusal", |r| r.denied());
    assert_eq!(field(&event, "/unmapped/point"), "sidecar-out");
}

#[test]
fn changed_policies_and_data_decide_at_once_and_bad_ones_change_nothing() {
    let provider = Provider::new("k1");
    let treats = "permit(principal is User, action, resource) when { principal.treats.contains(\"7\") };";
    let data = |treats: &str| {
        format!(
            r#"[{{ "uid": {{ "type": "User", "id": "staff/ada" }}, "attrs": {{ "treats": {treats} }} }}]"#
        )
    };
    let rig = Rig::bare(tempfile::tempdir().unwrap());
    *rig.control.policies.lock().unwrap() = Some(policies(treats, Some(&data("[\"7\"]"))));
    rig.connect_control();
    rig.apply(&fence());
    tell(&rig, provider.keys(unix() + 600));
    let rig = with_services(rig);
    let ada = bearer(&provider.token(&json!({})));
    let answer = ask(&rig, "GET", "/api", &ada);
    assert_eq!(status(&answer), "200", "{answer} {:?}", rig.troubles());
    *rig.control.policies.lock().unwrap() = Some(policies(treats, Some(&data("[\"8\"]"))));
    rig.apply(&fence());
    assert_eq!(status(&ask(&rig, "GET", "/api", &ada)), "403", "the same credential, other data");

    *rig.control.policies.lock().unwrap() = Some(policies("permit(principal, action, resource", None));
    let (revision, signed) = rig.control.snapshot(&fence());
    rig.send(&signed);
    let refused = eventually("a refusal", || {
        rig.control.answers.lock().unwrap().iter().find(|(r, _)| *r == revision).cloned()
    });
    assert!(refused.1.is_some_and(|why| why.contains("policies/clinic.cedar:1:")), "with its place");
    assert_eq!(status(&ask(&rig, "GET", "/api", &ada)), "403", "the ones before are in force");
    // Without policies the edges alone decide.
    *rig.control.policies.lock().unwrap() = None;
    rig.apply(&fence());
    assert_eq!(status(&ask(&rig, "GET", "/api", &ada)), "200");
}

#[test]
fn ten_thousand_policies_are_read_once() {
    let provider = Provider::new("k1");
    let mut many = String::from(POLICIES);
    for n in 0..10_000 {
        many.push_str(&format!("permit(principal in Group::\"staff/g{n}\", action, resource);\n"));
    }
    let rig = with_services(rig(&provider, &many));
    let nurse = bearer(&provider.token(&json!({})));
    assert_eq!(status(&ask(&rig, "GET", "/api/a", &nurse)), "200");
    // The lease is renewed: the same policies in another revision.
    let renew = || {
        let begun = Instant::now();
        rig.apply_policy(&fence());
        begun.elapsed()
    };
    let begun = Instant::now();
    *rig.control.policies.lock().unwrap() = Some(policies(&(many + "// changed"), None));
    rig.apply_policy(&fence());
    let read = begun.elapsed();
    // Whatever else the machine does may make some of them long.
    let renewed = eventually("a renewal that takes less than a third of it", || {
        let renewed = renew();
        (renewed * 3 < read).then_some(renewed)
    });
    eprintln!("10,000 policies: {read:?} to read, {renewed:?} when they are the same");
    assert_eq!(status(&ask(&rig, "GET", "/api/a", &nurse)), "200");
}
