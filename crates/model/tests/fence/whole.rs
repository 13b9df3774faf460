//! What a fence declares, and what is wrong with one.

use ringfence_model::{Fence, Kind, Protocol};

use crate::{CLINIC, at, codes, parse, with_portal};

#[test]
fn the_clinic_is_a_fence_and_its_elements_know_their_lines() {
    let fence = parse(CLINIC).unwrap();
    assert_eq!((fence.name.as_str(), fence.trust_domain.as_str()), ("clinic", "clinic.example"));
    assert!(fence.warnings.is_empty(), "{:?}", fence.warnings);
    let names: Vec<&str> = fence.services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["portal", "patients", "appointments", "billing", "mailer"]);
    let gateway = fence.gateway.as_ref().unwrap();
    assert_eq!(
        (gateway.listen[0].to_string(), at(&gateway.position)),
        ("127.0.0.1:8443".into(), "ringfence.yaml:3:1".into())
    );
    let appointments = fence.service("appointments").unwrap();
    assert_eq!(at(&appointments.position), "ringfence.yaml:14:3");
    let [patients, mailer] = appointments.calls.as_slice() else { panic!("two calls") };
    assert_eq!(
        (at(&patients.position), at(&mailer.position)),
        ("ringfence.yaml:18:18".into(), "ringfence.yaml:20:9".into())
    );
    assert_eq!(at(&patients.allow[0].position), "ringfence.yaml:19:17");
    assert!(
        patients.allows("GET", "/patients/7")
            && !patients.allows("POST", "/patients/7")
            && !patients.allows("GET", "/")
    );
    assert!(mailer.allows("DELETE", "/anything"));
    assert_eq!(fence.service("billing").unwrap().protocol, Protocol::Grpc);
    let egress = &fence.service("mailer").unwrap().egress[0];
    assert_eq!(
        (egress.host.as_str(), egress.port, egress.tls, at(&egress.position)),
        ("smtp.example.net", 587, false, "ringfence.yaml:29:14".into())
    );
    let portal = fence.service("portal").unwrap();
    assert!(matches!(&portal.kind, Kind::Run { command, .. } if command == &["clinic", "portal"]));
    assert_eq!(
        (portal.listen, portal.port, at(&portal.routes[0].position)),
        (Some(9000), Some(9000), "ringfence.yaml:9:14".into())
    );
}

#[test]
fn all_errors_are_told_at_once_each_with_its_picture_and_next_step() {
    let text = CLINIC
        .replace("billing]", "biling]")
        .replace("listen: 9001", "lisen: 9001")
        .replace("port: 587", "port: 70000");
    let diagnostics = parse(&text).unwrap_err();
    let shown = diagnostics.to_string();
    assert_eq!(diagnostics.errors.len(), 3, "no error follows from another:\n{shown}");
    for picture in [
        "error: unknown service `biling`\n  --> ringfence.yaml:10:37\n   |\n10 |     calls: [appointments, patients, biling]\n   |                                     ^^^^^^ did you mean `billing`?\n",
        "error: unknown key `lisen` in service\n  --> ringfence.yaml:13:5\n   |\n13 |     lisen: 9001\n   |     ^^^^^ did you mean `listen`?\n",
        "error: expected a number from 1 to 65535, found `70000`\n  --> ringfence.yaml:29:46\n",
    ] {
        assert!(shown.contains(picture), "missing\n{picture}\nin\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "no colour unless asked");
    assert!(diagnostics.render(true).contains("\u{1b}[1;31merror"));
}

#[test]
fn what_can_mean_two_things_or_nothing_is_refused() {
    let mut wrong = Vec::new();
    for (lines, code) in [
        ("run: clinic portal", "wrong-type"),
        ("run: []", "empty"),
        ("listen: 0", "out-of-range"),
        ("listen: 010", "out-of-range"),
        ("listen: '80'", "wrong-type"),
        ("listen: 1\nlisten: 2", "duplicate-key"),
        ("calls: [portal]", "self-call"),
        ("calls: [patients, patients]", "duplicate"),
        ("calls: [nobody]", "unknown-service"),
        ("calls: [{ service: patients, allow: [] }]", "empty"),
        ("calls: [{ service: patients, allow: [{}] }]", "empty"),
        ("calls: [{ service: patients, allow: [{ methods: [] }] }]", "empty"),
        ("calls: [{ service: patients, allow: [{ methods: [get] }] }]", "bad-value"),
        ("calls: [{ service: patients, allow: [{ paths: [/a/../b] }] }]", "bad-value"),
        ("calls: [{ allow: [{ methods: [GET] }] }]", "missing-key"),
        ("routes: [{ path: / }]", "no-listen"),
        ("listen: 2\nroutes: [{ path: / }, { path: / }]", "duplicate"),
        ("listen: 2\nroutes: [{ path: '/a/{x}' }, { path: '/a/{y}' }]", "duplicate"),
        ("listen: 2\nroutes: [{ path: '/a/{x}b' }]", "bad-value"),
        ("listen: 2\nroutes: [{ path: '/{x}/{x}' }]", "bad-value"),
        ("egress: [{ host: ringfence.internal, port: 80 }]", "reserved"),
        ("listen: 2\nroutes: [{ path: /a/ }]", "bad-value"),
        ("listen: 2\nroutes: [{ path: /* }]", "bad-value"),
        ("listen: 2\nprotocol: tcp\nroutes: [{ host: a.example, path: / }]", "conflict"),
        ("listen: 2\nprotocol: tcp\nroutes: [{}]", "missing-key"),
        ("listen: 2\nprotocol: udp", "bad-value"),
        ("listen: 2\nprotocol: grpc\nready: { http: / }", "conflict"),
        ("ready: tcp", "missing-key"),
        ("port: 80", "missing-key"),
        ("egress: [{ host: a.example, port: 1 }, { host: A.example, port: 1 }]", "duplicate"),
        ("egress: [{ host: patients, port: 1 }]", "conflict"),
        ("egress: [{ host: localhost, port: 1 }]", "conflict"),
        ("egress: [{ host: 10.0.0.1, port: 1 }]", "bad-value"),
        ("egress: [{ host: a.example }]", "missing-key"),
        ("files: [../etc]", "bad-value"),
        ("files: [a, ./a/]", "duplicate"),
        ("files: [{ path: a, write: yes }]", "wrong-type"),
        ("env: { RINGFENCE_X: 1 }", "reserved"),
        ("env: { 1A: 1 }", "bad-name"),
        ("env: { A: [1] }", "wrong-type"),
        ("listen: 2\nopenapi: /etc/a.yaml", "bad-value"),
        ("listen: 2\nopenapi: ../a.yaml", "bad-value"),
        ("listen: 2\nopenapi: {}", "missing-key"),
        ("listen: 2\nopenapi: { file: a.yaml, mode: deny }", "bad-value"),
        ("listen: 2\nprotocol: grpc\nopenapi: a.yaml", "conflict"),
        ("listen: 2\nroutes: [{ path: /, waf: on }]", "bad-value"),
        ("listen: 2\nprotocol: tcp\nroutes: [{ host: a.example, waf: off }]", "conflict"),
        ("image: nginx", "unknown-key"),
        ("calls:", "wrong-type"),
        ("accepts: [nobody]", "unknown-service"),
        ("run: &a [x]", "no-anchors"),
        ("run: *a", "syntax"),
        ("env: { <<: { A: 1 } }", "no-anchors"),
        ("run: !!seq [x]", "no-anchors"),
        ("? [a]\n: b", "bad-key"),
    ] {
        let found = codes(&with_portal(lines));
        if found != [code] {
            wrong.push(format!("{lines:?}: {found:?} instead of {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn words_of_other_tools_are_answered_with_the_word_here() {
    let shown =
        parse(&with_portal("image: nginx\nenvironment: {}\ndepends_on: [a]")).unwrap_err().to_string();
    for help in ["`ringfence run NAME -- CMD`", "stand under `env`", "stands under `calls`"] {
        assert!(shown.contains(help), "{help} is not in\n{shown}");
    }
}

#[test]
fn the_whole_is_checked_too() {
    let fence = |rest: &str| format!("fence: t\ntrust_domain: t.example\n{rest}");
    let mut wrong = Vec::new();
    for (text, code) in [
        (String::new(), "empty"),
        ("fence: t\nservices: { a: {} }".into(), "missing-key"),
        (fence("services: {}"), "missing-key"),
        (fence("services: { outside: {} }"), "bad-name"),
        (fence("services: { Ab: {} }"), "bad-name"),
        (fence("services: { a: {} }\nexternal: { a: { address: 'x:1' } }"), "duplicate"),
        (fence("external: { a: {} }"), "missing-key"),
        (fence("external: { a: { address: x } }"), "bad-value"),
        (fence("external: { a: { address: 'x:1', calls: [b] } }"), "unknown-key"),
        (fence("external: { a: { address: 'x:1', tls: { spiffe: 'http://x' } } }"), "bad-value"),
        (fence("services: { a: { listen: 1, routes: [{ path: / }] } }"), "no-gateway"),
        (fence("gateway: {}\nservices: { a: {} }"), "missing-key"),
        (fence("gateway: { listen: 'localhost:1' }\nservices: { a: {} }"), "bad-value"),
        (fence("gateway: { listen: '127.0.0.1:1', tls: { cert: a } }\nservices: { a: {} }"), "missing-key"),
        (fence("limits: { streams: 0 }\nservices: { a: {} }"), "out-of-range"),
        (fence("limits: { idle: 60 }\nservices: { a: {} }"), "bad-value"),
        (fence("limits: { header_bytes: 64KB }\nservices: { a: {} }"), "bad-value"),
        (fence("consent: optional\nservices: { a: {} }"), "bad-value"),
        (fence("services: { a: {} }\n---\nservices: { b: {} }"), "second-document"),
        ("fence: t\ntrust_domain: 10.0.0.1\nservices: { a: {} }".into(), "bad-value"),
        (fence("services: { a: {} }\n# \u{0}"), "bad-character"),
        (fence("services: { a: {} }\n# a\rb"), "bad-character"),
    ] {
        let found = codes(&text);
        if found != [code] {
            wrong.push(format!("{text:?}: {found:?} instead of {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let tcp = "gateway: { listen: '127.0.0.1:1' }\nservices:\n  db: { listen: 1, protocol: tcp, routes: [{ host: d.example }] }\n  web: { listen: 2, routes: [{ host: d.example, path: /x }] }\n";
    assert_eq!(codes(&fence(tcp)), ["duplicate"]);
    let grpc = "services:\n  g: { listen: 1, protocol: grpc }\n  a: { calls: [{ service: g, allow: [{ methods: [GET] }] }] }\n";
    assert_eq!(codes(&fence(grpc)), ["conflict"]);
    let bytes = Fence::parse(vec![("ringfence.yaml", b"fence: t\n# \xff".to_vec())]).unwrap_err();
    assert_eq!(
        (bytes.errors[0].code, at(&bytes.errors[0].position)),
        ("bad-character", "ringfence.yaml:2:3".into())
    );
}

#[test]
fn what_is_valid_and_probably_not_meant_is_a_warning() {
    let warnings = |rest: &str| -> Vec<&'static str> {
        let fence =
            parse(&format!("fence: t\ntrust_domain: t.example\n{rest}")).unwrap_or_else(|e| panic!("{e}"));
        fence.warnings.iter().map(|w| w.code).collect()
    };
    assert_eq!(warnings("services: { a: { listen: 1 } }"), ["unreachable"]);
    assert_eq!(
        warnings("services:\n  a: { listen: 1, calls: [b] }\n  b: { listen: 2, calls: [a] }\n"),
        ["cycle"]
    );
    assert_eq!(warnings("gateway: { listen: '127.0.0.1:1' }\nservices: { a: {} }"), ["unused"]);
    assert_eq!(
        warnings(
            "gateway: { listen: '0.0.0.0:1', tls: off }\nservices: { a: { listen: 1, routes: [{ path: / }] } }"
        ),
        ["plain-text"]
    );
    let external = |tls: &str, address: &str| {
        warnings(&format!(
            "services: {{ a: {{ calls: [x] }} }}\nexternal: {{ x: {{ address: '{address}'{tls} }} }}"
        ))
    };
    assert_eq!(external("", "crm.internal:80"), ["plain-text"]);
    assert!(external("", "127.0.0.1:80").is_empty() && external(", tls: off", "crm.internal:80").is_empty());
    assert_eq!(warnings("services:\n  a: { calls: [b] }\n  b: { listen: 1, accepts: [a] }\n"), ["unused"]);
}

#[test]
fn programs_get_the_same_as_people() {
    let diagnostics = parse(&CLINIC.replace("billing]", "biling]")).unwrap_err();
    let json = serde_json::to_value(&diagnostics).unwrap();
    let error = &json["errors"][0];
    assert_eq!(
        (error["code"].as_str(), error["file"].as_str(), error["line"].as_u64()),
        (Some("unknown-service"), Some("ringfence.yaml"), Some(10))
    );
    let graph = parse(CLINIC).unwrap().graph_json();
    assert_eq!((graph["nodes"].as_array().unwrap().len(), graph["edges"].as_array().unwrap().len()), (5, 6));
    assert_eq!(
        (&graph["edges"][3]["from"], &graph["edges"][3]["to"]),
        (&"appointments".into(), &"patients".into())
    );
}
