//! A fence is read whole, every element knows its place, and what is wrong is told all at once.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use ringfence_model::{
    Beyond, Binding, By, ClientProof, Credential, Diagnostics, Entities, Excluded, Fence, Kind, Mode,
    Position, Priority, Protocol, WhenFull,
};

const CLINIC: &str = include_str!("data/clinic.yaml");

fn parse(text: &str) -> Result<Fence, Diagnostics> {
    Fence::parse(vec![("ringfence.yaml", text)])
}

fn at(position: &Position) -> String {
    position.to_string()
}

/// A fence around the lines of one service, `portal`, beside `patients`, which listens.
fn with_portal(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "fence: t\ntrust_domain: t.example\ngateway: {{ listen: 127.0.0.1:1 }}\nservices:\n  patients: {{ listen: 1 }}\n  portal:\n{indented}"
    )
}

fn codes(text: &str) -> Vec<&'static str> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => diagnostics.errors.iter().map(|e| e.code).collect(),
    }
}

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
fn policies_and_their_data_are_files_beside_the_fence_said_once() {
    let text = |more: &str| format!("{more}\n{}", with_portal("listen: 2"));
    let said = "policies: [policies/*.cedar, more.cedar]\nentities: { file: data/entities.json }";
    let fence = Fence::parse(vec![("ringfence.yaml", text(said))]).unwrap();
    let policies = fence.policies.expect("they are said");
    assert_eq!(policies.files, ["policies/*.cedar", "more.cedar"]);
    assert_eq!(fence.entities, Some(Entities::File("data/entities.json".into())));
    let at = "policies: [a.cedar]\nentities: { url: 'https://x.example/all?of=it' }";
    let Some(Entities::Url(server)) = parse(&text(at)).unwrap().entities else { panic!("a server") };
    assert_eq!((server.url.as_str(), server.every.as_secs()), ("https://x.example/all?of=it", 30));
    for (more, code) in [
        ("policies: []", "empty"),
        ("policies: [../a.cedar]", "bad-value"),
        ("policies: [/a.cedar]", "bad-value"),
        ("policies: [a.cedar, a.cedar]", "duplicate"),
        ("policies: [a.cedar]\nentities: { url: 'http://x.example' }", "bad-value"),
        ("policies: [a.cedar]\nentities: { url: 'https://x.example', every: 1ms }", "out-of-range"),
        ("policies: [a.cedar]\nentities: { url: 'https://x.example', file: x.json }", "conflict"),
        ("policies: [a.cedar]\nentities: { file: x.json, every: 30s }", "conflict"),
        ("policies: [a.cedar]\nentities: {}", "missing-key"),
        ("policies: [a.cedar]\nentities: { file: ../x }", "bad-value"),
        ("entities: { file: x.json }", "missing-key"),
    ] {
        assert!(codes(&text(more)).contains(&code), "{more}: {:?}", codes(&text(more)));
    }
}

const PROVIDERS: &str = "providers:\n  staff: { issuer: https://id.t.example, claims: { groups: groups } }\n";

#[test]
fn a_route_says_whose_tokens_it_accepts_and_what_they_must_carry() {
    let text = with_portal(
        "listen: 2\nroutes:\n  - path: /\n    accept: [{ token: staff }]\n    require: { scopes: [read], groups: [nurse] }\n  - path: /open",
    );
    let fence = parse(&format!("{PROVIDERS}{text}")).unwrap();
    let staff = fence.provider("staff").unwrap();
    assert_eq!(
        (staff.audiences.as_slice(), staff.user_claim.as_str()),
        (&["t.example".to_owned()][..], "sub")
    );
    assert_eq!((staff.groups_claim.as_deref(), staff.algorithms.len()), (Some("groups"), 3));
    let [closed, open] = fence.service("portal").unwrap().routes.as_slice() else { panic!("two routes") };
    assert_eq!(closed.access.accept[0].credential, Credential::Token("staff".into()));
    assert_eq!(at(&closed.access.accept[0].position), "ringfence.yaml:12:27");
    assert_eq!((closed.access.require.scopes.len(), closed.access.require.groups.len()), (1, 1));
    assert!(!closed.access.is_open() && open.access.is_open());

    let refused = |route: &str, code: &str| {
        let text = format!("{PROVIDERS}{}", with_portal(&format!("listen: 2\nroutes: [{route}]")));
        assert_eq!(codes(&text), [code], "{route}");
    };
    refused("{ path: /, accept: [api_key, { token: staff }, api_key] }", "duplicate");
    refused("{ path: /, accept: [api_keys] }", "bad-value");
    refused("{ path: /, accept: [{ token: stuff }] }", "unknown-provider");
    refused("{ path: /, accept: [] }", "empty");
    refused("{ path: /, accept: [{}] }", "missing-key");
    refused("{ path: /, accept: [{ token: staff }, { token: staff }] }", "duplicate");
    refused("{ path: /, require: { scopes: [a] } }", "missing-key");
    refused("{ path: /, accept: [{ token: staff }], require: { scopes: [] } }", "empty");
    refused("{ path: /, accept: [{ token: staff }], require: { scopes: [a b] } }", "bad-value");
    let text = format!(
        "{PROVIDERS}{}",
        with_portal("listen: 2\nroutes: [{ path: /, accept: [{ tokens: staff }] }]")
    );
    assert_eq!(codes(&text), ["unknown-key"]);
    for (provider, code) in [
        ("staff: {}", "missing-key"),
        ("staff: { issuer: http://id.t.example }", "bad-value"),
        ("staff: { issuer: https://id.t.example, algorithms: [none] }", "bad-value"),
        ("staff: { issuer: https://id.t.example, algorithms: [HS256] }", "bad-value"),
        ("Staff: { issuer: https://id.t.example }", "bad-name"),
        ("a: { issuer: https://id.t.example }, b: { issuer: https://id.t.example }", "duplicate"),
    ] {
        let text = format!("providers: {{ {provider} }}\n{}", with_portal("listen: 2"));
        assert_eq!(codes(&text), [code], "{provider}");
    }
}

#[test]
fn a_route_may_accept_api_keys_beside_tokens_or_alone() {
    let text = with_portal(
        "listen: 2\nroutes:\n  - path: /\n    accept: [api_key]\n    require: { scopes: [read] }\n  - path: /a\n    accept: [{ token: staff }, api_key]",
    );
    let fence = parse(&format!("{PROVIDERS}{text}")).unwrap();
    let [alone, beside] = fence.service("portal").unwrap().routes.as_slice() else { panic!("two routes") };
    assert_eq!(alone.access.accept[0].credential, Credential::ApiKey);
    assert_eq!(at(&alone.access.accept[0].position), "ringfence.yaml:12:18");
    let credentials: Vec<_> = beside.access.accept.iter().map(|a| a.credential.clone()).collect();
    assert_eq!(credentials, [Credential::Token("staff".into()), Credential::ApiKey]);
}

const LOGIN: &str = "providers:\n  staff: { issuer: https://id.t.example, client: { id: t, secret: { file: s } }, login: {} }\n  api: { issuer: https://api.t.example }\n";

#[test]
fn no_provider_is_taken_for_whoever_shows_a_certificate_or_an_api_key() {
    for (name, said) in [("certificate", "shows a client certificate"), ("api_key", "cannot name a provider")]
    {
        let text =
            format!("providers:\n  {name}: {{ issuer: https://id.t.example }}\n{}", with_portal("listen: 2"));
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn people_sign_in_at_a_provider_where_we_are_a_client() {
    let text = |provider: &str, portal: &str| {
        format!("providers:\n  staff: {{ issuer: https://id.t.example{provider} }}\n{}", with_portal(portal))
    };
    let full = text(
        ", client: { id: t, secret: { file: secrets/staff } }, login: { scopes: [profile, openid], idle: 5m }, opaque: introspect, bound: dpop",
        "listen: 2\naccept: [{ login: staff }, api_key]\nroutes: [{ path: /, accept: [{ login: staff }] }]\ncalls: [{ service: patients, on_behalf: required }]",
    );
    let fence = parse(&full).unwrap_or_else(|e| panic!("{e}"));
    let staff = fence.provider("staff").unwrap();
    let client = staff.client.as_ref().unwrap();
    assert_eq!(
        (client.id.as_str(), &client.proof),
        ("t", &Some(ClientProof::SecretFile("secrets/staff".into())))
    );
    let login = staff.login.as_ref().unwrap();
    assert_eq!(
        (login.scopes.join(" ").as_str(), login.idle.as_secs(), login.absolute.as_secs()),
        ("openid profile", 300, 28_800)
    );
    assert!(staff.introspect && staff.bound == Binding::Dpop);
    let portal = fence.service("portal").unwrap();
    assert_eq!(portal.access.accept.len(), 2);
    assert!(portal.calls[0].on_behalf);
    let why = fence.why("portal", "patients").unwrap().to_string();
    assert!(why.contains("everything, on somebody's behalf only"), "{why}");
    assert!(fence.why("outside", "portal").unwrap().to_string().contains("any host, /, with login staff"));
    let graph = fence.graph_json();
    assert_eq!(
        (&graph["routes"][0]["accept"][0], &graph["edges"][0]["on_behalf"]),
        (&"login staff".into(), &true.into())
    );

    for (provider, code) in [
        (", login: {}", "missing-key"),
        (", opaque: introspect", "missing-key"),
        (", opaque: yes, client: { id: t }", "bad-value"),
        (", client: { secret: { file: a } }", "missing-key"),
        (", client: { id: t, secret: hunter2 }", "wrong-type"),
        (", client: { id: t, secret: {} }", "missing-key"),
        (", client: { id: t, secret: { file: a, env: B } }", "conflict"),
        (", client: { id: t, secret: { env: 'a b' } }", "bad-value"),
        (", client: { id: t, secret: { file: a }, key: { file: b } }", "conflict"),
        (", client: { id: t, key: {} }", "missing-key"),
        (", client: { id: 'a b' }", "bad-value"),
        (", client_secret: x", "unknown-key"),
        (", client: { id: t }, login: { absolute: 25h }", "out-of-range"),
        (", client: { id: t }, login: { idle: 1s }", "out-of-range"),
        (", client: { id: t }, login: { idle: 2h, absolute: 1h }", "conflict"),
        (", client: { id: t }, login: { scopes: [] }", "empty"),
        (", bound: tls", "bad-value"),
    ] {
        assert_eq!(codes(&text(provider, "listen: 2")), [code], "{provider}");
    }
    let shown = parse(&text(", client: { id: t, secret: hunter2 }", "listen: 2")).unwrap_err();
    assert!(!shown.errors[0].to_string().lines().next().unwrap().contains("hunter2"), "{shown}");
}

#[test]
fn whoever_is_accepted_can_come_in() {
    let of = |portal: &str| format!("{LOGIN}{}", with_portal(portal));
    let certificate = "listen: 2\nroutes: [{ path: /, accept: [{ certificate: ca/a.pem }] }]\naccept: [{ certificate: ca/a.pem }]";
    assert_eq!(parse(&of(certificate)).unwrap().client_authorities(), ["ca/a.pem"]);
    for (portal, code) in [
        ("listen: 2\nroutes: [{ path: /, accept: [{ login: api }] }]", "no-login"),
        ("listen: 2\nroutes: [{ path: /, accept: [{ login: stuff }] }]", "unknown-provider"),
        ("listen: 2\naccept: [{ login: api }]", "no-login"),
        ("listen: 2\naccept: [{ token: stuff }]", "unknown-provider"),
        ("listen: 2\nrequire: { scopes: [a] }", "missing-key"),
        ("listen: 2\nprotocol: tcp\naccept: [api_key]", "conflict"),
        ("listen: 2\naccept: [{ login: staff, token: staff }]", "conflict"),
        ("listen: 2\naccept: [{ certificate: ../a.pem }]", "bad-value"),
        ("listen: 2\ncalls: [{ service: patients, on_behalf: yes }]", "bad-value"),
        // The clients of one would be those of the other to policies.
        ("listen: 2\naccept: [{ certificate: ca/a.pem }, { certificate: old/a.crt }]", "same-authority"),
    ] {
        assert_eq!(codes(&of(portal)), [code], "{portal}");
    }
    let bytes = of("listen: 2\ncalls: [{ service: patients, on_behalf: required }]")
        .replace("patients: { listen: 1 }", "patients: { listen: 1, protocol: tcp }");
    assert_eq!(codes(&bytes), ["conflict"], "bytes carry no token");
    let opaque = "providers:\n  staff: { issuer: https://a.example, client: { id: t }, opaque: introspect }\n  other: { issuer: https://b.example, client: { id: t }, opaque: introspect }\n";
    let both = with_portal("listen: 2\nroutes: [{ path: /, accept: [{ token: staff }, { token: other }] }]");
    assert_eq!(codes(&format!("{opaque}{both}")), ["conflict"], "a token shown to two is each one's to use");
    let help = parse(&of("listen: 2\naccept: [{ login: stafff }]")).unwrap_err().to_string();
    assert!(help.contains("did you mean `staff`?"), "{help}");
    let plain = of("listen: 2\nroutes: [{ path: /, accept: [{ certificate: a.pem }] }]")
        .replace("127.0.0.1:1 }", "127.0.0.1:1, tls: off }");
    assert_eq!(codes(&plain), ["conflict"]);

    let warned = |portal: &str| -> Vec<&'static str> {
        parse(&of(portal))
            .unwrap_or_else(|e| panic!("{e}"))
            .warnings
            .iter()
            .map(|w| w.code)
            .filter(|c| *c != "unreachable")
            .collect()
    };
    assert_eq!(
        warned("listen: 2\naccept: [api_key]\nrequire: { acr: [phr] }\nroutes: [{ path: / }]"),
        ["never"]
    );
    assert_eq!(
        warned("listen: 2\nroutes: [{ path: /, accept: [api_key], require: { groups: [a] } }]"),
        ["never"]
    );
    assert_eq!(
        warned("listen: 2\nroutes: [{ path: /, accept: [{ certificate: a }], require: { scopes: [a] } }]"),
        ["never"]
    );
    assert_eq!(
        warned("listen: 2\nroutes: [{ path: /, accept: [{ token: api }], require: { groups: [a] } }]"),
        ["never"]
    );
    assert!(
        warned("listen: 2\nroutes: [{ path: /, accept: [api_key, { token: api }], require: { acr: [a] } }]")
            .is_empty()
    );
}

#[test]
fn no_spelling_of_a_path_leads_around_what_is_demanded() {
    let of = |routes: &str| format!("{LOGIN}{}", with_portal(&format!("listen: 2\nroutes: [{routes}]")));
    let staff = "accept: [{ token: staff }]";
    for bad in [
        format!("{{ path: /admin, {staff} }}, {{ path: /Admin }}"),
        format!("{{ path: /Admin }}, {{ path: /admin, {staff} }}"),
        format!("{{ path: /admin, {staff} }}, {{ path: /ADMIN/x }}"),
        format!("{{ path: /Admin/x, {staff} }}, {{ path: /admin }}"),
        format!("{{ path: /admin, {staff} }}, {{ path: /Admin, accept: [{{ token: api }}] }}"),
        format!("{{ path: /admin, {staff} }}, {{ path: /Admin, {staff}, require: {{ scopes: [a] }} }}"),
        format!("{{ host: a.example, path: /admin, {staff} }}, {{ host: a.example, path: /Admin }}"),
        format!("{{ path: /admin, {staff} }}, {{ host: a.example, path: /Admin }}"),
    ] {
        assert_eq!(codes(&of(&bad)), ["same-path"], "{bad}");
    }
    for good in [
        format!("{{ path: /admin, {staff} }}, {{ path: /Admin, {staff} }}"),
        format!("{{ path: /admin, {staff} }}, {{ path: /admin/open }}"),
        format!("{{ path: /admin, {staff} }}, {{ path: /Administrator }}"),
        format!("{{ path: /, {staff} }}, {{ path: /Open }}"),
        format!("{{ host: a.example, path: /admin, {staff} }}, {{ host: b.example, path: /Admin }}"),
        "{ path: /a }, { path: /A }".to_owned(),
    ] {
        assert!(parse(&of(&good)).is_ok(), "{good}: {:?}", codes(&of(&good)));
    }
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
fn input_beyond_its_bounds_is_refused_at_once() {
    let start = Instant::now();
    for (text, code) in [
        ("[".repeat(1 << 20), ""),
        (format!("{}{}", "[".repeat(33), "]".repeat(33)), "too-deep"),
        (format!("{}x", "- ".repeat(33)), "too-deep"),
        ("{a: ".repeat(1 << 18), ""),
        ("- ".repeat(1 << 19), ""),
        ("?".repeat(1 << 20), ""),
        (format!("[{}]", "a,".repeat(1 << 19)), ""),
        ("x".repeat((1 << 20) + 1), "too-large"),
        ("\"".repeat(1 << 20), ""),
        (format!("a: &a {}", "b\n".repeat(100_000)), ""),
    ] {
        let found = codes(&text);
        assert!(!found.is_empty() && found.len() <= 100);
        assert!(code.is_empty() || found == [code], "{code}: {found:?}");
    }
    let many = (0..40_000).map(|n| format!("calls{n}: x\n")).collect::<String>();
    let diagnostics = parse(&many).unwrap_err();
    assert!(diagnostics.errors.len() == 100 && diagnostics.omitted > 39_000);
    let names: String =
        (0..9_000).map(|n| format!("  service-{n}: {{ calls: [servise-{n}, x{n}] }}\n")).collect();
    assert_eq!(codes(&format!("fence: t\ntrust_domain: t.example\nservices:\n{names}")).len(), 100);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn hidden_characters_do_not_reach_the_terminal() {
    let shown = parse(&with_portal("\"a\\e[2J\\u202eb\": 1 # \u{202e}")).unwrap_err().to_string();
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    let long = parse(&with_portal(&format!("calls: [{} nobody]", "patients, ".repeat(5000))))
        .unwrap_err()
        .to_string();
    assert!(long.lines().all(|line| line.chars().count() < 200));
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

fn fragments(accepts: &str) -> Result<Fence, Diagnostics> {
    let a = "fence: t\ntrust_domain: t.example\nconsent: required\nowner: team-a\nservices:\n  a: { listen: 1, calls: [b, local] }\n  local: { listen: 3 }\n";
    let b = format!("owner: team-b\nservices:\n  b: {{ listen: 2{accepts} }}\n");
    Fence::parse(vec![("a.yaml", a.to_owned()), ("b.yaml", b)])
}

#[test]
fn with_consent_an_edge_into_another_fragment_waits_until_it_is_accepted() {
    let fence = fragments("").unwrap();
    let edges: Vec<&str> = fence.edges().map(|edge| edge.callee.name.as_str()).collect();
    assert_eq!(edges, ["local"], "inside a fragment nobody has to be asked");
    assert_eq!(fence.service("a").unwrap().proposed[0].service, "b");
    let warning = fence.warnings.iter().find(|w| w.code == "not-accepted").unwrap();
    assert_eq!(at(&warning.position), "a.yaml:6:27");
    let missing = fence.why("a", "b").unwrap().missing.unwrap();
    assert_eq!(
        (missing.line.as_str(), at(&missing.position.unwrap())),
        ("accepts: [a]", "b.yaml:3:3".into())
    );
    let fence = fragments(", accepts: [a]").unwrap();
    assert_eq!(fence.edges().count(), 2);
    assert!(fence.why("a", "b").unwrap().allowed);
}

#[test]
fn fragments_say_what_holds_for_all_once_and_name_their_owners() {
    let one = "fence: t\ntrust_domain: t.example\nowner: a\nservices: { a: {} }\n";
    let two = "trust_domain: u.example\nservices: { a: {} }\n";
    let diagnostics = Fence::parse(vec![("1.yaml", one), ("2.yaml", two)]).unwrap_err();
    let found: Vec<(String, &str)> = diagnostics.errors.iter().map(|e| (at(&e.position), e.code)).collect();
    assert_eq!(
        found,
        [
            ("2.yaml:1:1".into(), "missing-key"),
            ("2.yaml:1:1".into(), "duplicate"),
            ("2.yaml:2:13".into(), "duplicate")
        ]
    );
    assert_eq!(at(&diagnostics.errors[1].related[0].position), "1.yaml:2:1");
}

#[test]
fn a_folder_is_one_file_or_its_fragments() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    assert_eq!(Fence::load(folder.path()).unwrap_err().errors[0].code, "not-found");
    write("ringfence.yaml", "fence: t\ntrust_domain: t.example\nservices: { a: { listen: 1 } }\n");
    write("compose.yaml", "services: { a: { image: x } }\n");
    let fence = Fence::load(folder.path()).unwrap();
    assert_eq!((fence.files.len(), fence.folder.as_path()), (1, folder.path()));
    assert_eq!(at(&fence.service("a").unwrap().position), "ringfence.yaml:3:13");
    let fence = Fence::load(&folder.path().join("ringfence.yaml")).unwrap();
    assert_eq!((fence.files[0].name.as_ref(), fence.folder.as_path()), ("ringfence.yaml", folder.path()));
    std::fs::remove_file(folder.path().join("compose.yaml")).unwrap();
    write("ringfence.yaml", "fence: t\ntrust_domain: t.example\nowner: a\nservices: { a: { listen: 1 } }\n");
    write("team.yaml", "owner: b\nservices: { b: { calls: [a] } }\n");
    write("late.yml", "owner: c\nservices: { c: {} }\n");
    let fence = Fence::load(folder.path()).unwrap();
    assert_eq!(fence.files.iter().map(|f| f.owner.as_deref()).collect::<Vec<_>>(), [Some("a"), Some("b")]);
    assert_eq!((fence.edges().count(), fence.warnings[0].code), (1, "not-read"));
    assert!(matches!(Fence::load(&folder.path().join("none")), Err(e) if e.errors[0].code == "not-found"));
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

/// A fence with these lines under `waf`.
fn with_waf(lines: &str) -> String {
    let indented: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "fence: t\ntrust_domain: t.example\nwaf:\n{indented}gateway: {{ listen: 127.0.0.1:1 }}\nservices:\n  a: {{ listen: 1, routes: [{{ path: / }}] }}\n"
    )
}

#[test]
fn attacks_are_looked_for_as_the_fence_says_and_with_the_known_defaults_otherwise() {
    let waf = parse(&with_waf("mode: block")).unwrap().waf.unwrap();
    assert_eq!((waf.mode, waf.crs, waf.paranoia, waf.inbound, waf.outbound), (Mode::Enforce, None, 1, 5, 4));
    assert_eq!((waf.inspect, waf.beyond, waf.responses), (128 << 10, Beyond::Reject, false));
    assert_eq!(at(&waf.position), "ringfence.yaml:3:1");
    let short = with_waf("").replace("waf:", "waf: observe");
    assert_eq!(parse(&short).unwrap().waf.unwrap().mode, Mode::Observe);
    assert_eq!(parse(&with_waf("")).unwrap().waf.unwrap().mode, Mode::Enforce, "`waf:` alone");
    assert_eq!(parse(CLINIC).unwrap().waf.unwrap().beyond, Beyond::Head, "nobody says anything");

    let fence = parse(include_str!("data/everything.yaml")).unwrap();
    let waf = fence.waf.unwrap();
    assert_eq!(
        (waf.crs.as_deref(), waf.paranoia, waf.inbound, waf.responses),
        (Some("rules/crs"), 2, 7, true)
    );
    let [numbers, tag] = waf.exclude.as_slice() else { panic!("two exclusions") };
    assert_eq!(
        (&numbers.of, numbers.target.as_deref()),
        (&Excluded::Rules(vec![942_100, 942_110]), Some("ARGS:q"))
    );
    assert!(numbers.path.as_ref().unwrap().matches("/search") && numbers.reason == "free text search");
    assert_eq!((&tag.of, tag.target.as_deref()), (&Excluded::Tag("attack-sqli".into()), None));
    assert!(
        tag.path.as_ref().unwrap().matches("/notes/a/b") && at(&tag.position).starts_with("ringfence.yaml:")
    );
    let web = fence.services.iter().find(|s| s.name == "web").unwrap();
    let modes: Vec<Option<Mode>> = web.routes.iter().map(|route| route.waf).collect();
    assert_eq!(modes, [Some(Mode::Enforce), Some(Mode::Observe), None]);
    let openapi = web.openapi.as_ref().unwrap();
    assert_eq!((openapi.file.as_str(), openapi.responses), ("openapi/web.yaml", Mode::Observe));
    let legacy = fence.services.iter().find(|s| s.name == "legacy").unwrap().openapi.as_ref().unwrap();
    assert_eq!(
        (legacy.file.as_str(), legacy.mode, legacy.undocumented),
        ("openapi/legacy.json", Mode::Enforce, Mode::Enforce)
    );
}

#[test]
fn unless_somebody_says_otherwise_attacks_are_refused_and_long_bodies_pass() {
    let with = |routes: &str| parse(&with_portal(&format!("listen: 2\nroutes: [{routes}]"))).unwrap().waf;
    let waf = with("{ path: / }").unwrap();
    assert_eq!((waf.mode, waf.paranoia, waf.crs, waf.beyond), (Mode::Enforce, 1, None, Beyond::Head));
    assert_eq!(at(&waf.position), "ringfence.yaml:3:1", "who opens the door is who is inspected");
    assert_eq!(with("{ path: /, waf: off }, { path: /a, waf: observe }"), Some(waf));
    assert_eq!(with("{ path: /, waf: off }"), None, "nothing is looked into");
    assert_eq!(with(""), None, "nothing is reachable");
    let said = parse(&format!("{CLINIC}waf: {{ mode: off }}\n")).unwrap().waf.unwrap();
    assert_eq!(said.mode, Mode::Off);
}

#[test]
fn an_exclusion_says_what_why_and_until_when() {
    let mut wrong = Vec::new();
    let good = "rules: [942100], target: 'ARGS:q', path: /search, reason: prose, until: 9999-12-31";
    assert_eq!(codes(&with_waf(&format!("exclude: [{{ {good} }}]"))), Vec::<&str>::new());
    for (from, to, code) in [
        (", reason: prose", "", "missing-key"),
        (", until: 9999-12-31", "", "missing-key"),
        ("9999-12-31", "2027-02-30", "bad-value"),
        ("9999-12-31", "tomorrow", "bad-value"),
        ("rules: [942100], ", "", "missing-key"),
        ("[942100]", "[]", "empty"),
        ("[942100]", "[942100, 942100]", "duplicate"),
        ("[942100]", "[sqli]", "out-of-range"),
        ("[942100]", "942100", "wrong-type"),
        ("rules: [942100]", "rules: [942100], tag: attack-sqli", "conflict"),
        ("ARGS:q", "args:q", "bad-value"),
        ("ARGS:q", "ARGZ:q", "bad-value"),
        ("ARGS:q", "ARGS:", "bad-value"),
        ("/search", "search", "bad-value"),
        ("reason: prose", "reason: ''", "wrong-type"),
        ("rules:", "rule:", "unknown-key"),
    ] {
        let text = with_waf(&format!("exclude: [{{ {} }}]", good.replacen(from, to, 1)));
        if !codes(&text).contains(&code) {
            wrong.push((to, code, codes(&text)));
        }
    }
    for (lines, code) in [
        ("mode: on", "bad-value"),
        ("crs: /etc/crs", "bad-value"),
        ("paranoia: 5", "out-of-range"),
        ("threshold: { inbound: 0 }", "out-of-range"),
        ("body: { inspect: 1B }", "out-of-range"),
        ("body: { inspect: 1GiB }", "out-of-range"),
        ("body: { beyond: pass }", "bad-value"),
        ("responses: yes", "wrong-type"),
        ("rules: crs", "unknown-key"),
    ] {
        if codes(&with_waf(lines)) != [code] {
            wrong.push((lines, code, codes(&with_waf(lines))));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let help = parse(&with_waf(&format!("exclude: [{{ {} }}]", good.replace("ARGS", "args")))).unwrap_err();
    assert!(help.to_string().contains("did you mean `ARGS`?"), "{help}");
}

#[test]
fn an_exclusion_that_is_over_is_told_and_counts_no_more() {
    let text = with_waf(
        "exclude:\n  - { tag: a, reason: prose, until: 2020-01-31 }\n  - { tag: b, reason: prose, until: 9999-12-31 }",
    );
    let fence = parse(&text).unwrap();
    let [warning] = fence.warnings.as_slice() else { panic!("one warning: {:?}", fence.warnings) };
    assert_eq!((warning.code, at(&warning.position)), ("expired", "ringfence.yaml:5:7".to_owned()));
    let waf = fence.waf.unwrap();
    let last_second = waf.exclude[0].until.ends_at() - 1;
    assert_eq!(waf.exclusions(last_second).count(), 2);
    let left: Vec<_> = waf.exclusions(last_second + 1).map(|e| &e.of).collect();
    assert_eq!(left, [&Excluded::Tag("b".into())]);
}

#[test]
fn what_is_looked_for_where_nothing_comes_in_is_worth_a_warning() {
    let text = "fence: t\ntrust_domain: t.example\nwaf: {}\nservices:\n  a: { openapi: a.yaml }\n";
    let found: Vec<_> = parse(text).unwrap().warnings.iter().map(|w| (w.code, at(&w.position))).collect();
    assert_eq!(
        found,
        [("unused", "ringfence.yaml:3:1".to_owned()), ("unused", "ringfence.yaml:5:17".to_owned())]
    );
}

/// Text that is near to a fence: its words and signs in any order.
#[test]
fn a_limit_says_of_what_each_is_counted_and_how_much() {
    let fence = parse(&with_portal(
        "listen: 2\nlimit: [{ by: caller, concurrent: 5 }]\nroutes:\n  - path: /\n    priority: sheddable\n    cost: 3\n    limit:\n      - { by: address, rate: 100/1m, burst: 20, full: allow }\n      - { by: route, quota: 100000/1d, mode: observe }\ncalls: [{ service: patients, limit: [{ by: { claim: tenant }, rate: 1/500ms }] }]",
    ))
    .unwrap();
    assert!(fence.warnings.iter().all(|w| w.code != "never"), "{:?}", fence.warnings);
    let portal = fence.service("portal").unwrap();
    let route = &portal.routes[0];
    assert_eq!((route.priority, route.cost), (Some(Priority::Sheddable), 3));
    let [address, all] = route.limit.as_slice() else { panic!("two limits") };
    assert_eq!((&address.by, address.at_once(), address.full), (&By::Address, Some(20), WhenFull::Allow));
    assert_eq!(at(&address.position), "ringfence.yaml:14:13");
    assert_eq!(all.quota.unwrap().to_string(), "100000/1d");
    assert_eq!((all.mode, all.rate, all.full), (Mode::Observe, None, WhenFull::Deny));
    let tenant = &portal.calls[0].limit[0];
    assert_eq!(
        (&tenant.by, tenant.rate.unwrap().to_string()),
        (&By::Claim("tenant".into()), "1/500ms".into())
    );
    let gateway = |words: &str| {
        parse(
            &with_portal("listen: 2\nroutes: [{ path: / }]")
                .replace("127.0.0.1:1 }", &format!("127.0.0.1:1{words} }}")),
        )
    };
    let guards = gateway("").unwrap().gateway.unwrap().guards;
    assert_eq!(guards.sign_in.unwrap().to_string(), "60/1m");
    assert_eq!((guards.sign_in_all.unwrap().units, guards.failures.unwrap().units), (3000, 60));
    let guards = gateway(", sign_in: { address: 5/1m }, failures: off").unwrap().gateway.unwrap().guards;
    assert_eq!(
        (guards.sign_in.unwrap().units, guards.sign_in_all.unwrap().units, guards.failures),
        (5, 3000, None)
    );
    let guards = gateway(", sign_in: off").unwrap().gateway.unwrap().guards;
    assert_eq!((guards.sign_in, guards.sign_in_all), (None, None));
}

#[test]
fn a_limit_that_nobody_could_keep_or_that_never_counts_is_refused() {
    let route = |limit: &str| codes(&with_portal(&format!("listen: 2\nroutes: [{{ path: /, {limit} }}]")));
    for (limit, code) in [
        ("limit: [{ by: address }]", "empty"),
        ("limit: [{ rate: 1/1s }]", "missing-key"),
        ("limit: [{ by: adress, rate: 1/1s }]", "bad-value"),
        ("limit: [{ by: address, rate: 100 }]", "bad-value"),
        ("limit: [{ by: address, rate: 100/m }]", "bad-value"),
        ("limit: [{ by: address, rate: 0/1m }]", "bad-value"),
        ("limit: [{ by: address, rate: 1/0s }]", "bad-value"),
        ("limit: [{ by: address, rate: 10000001/1s }]", "out-of-range"),
        ("limit: [{ by: address, rate: 1/1h, burst: 1000000 }]", "out-of-range"),
        ("limit: [{ by: address, quota: 1/1s }]", "out-of-range"),
        ("limit: [{ by: address, quota: 300000000/1d }]", "out-of-range"),
        ("limit: [{ by: address, burst: 5, concurrent: 1 }]", "missing-key"),
        ("limit: [{ by: address, rate: 10/1s, cost: 11 }]", "never"),
        ("cost: 11, limit: [{ by: address, rate: 10/1s }]", "never"),
        ("limit: [{ by: address, rate: 10/1s, cost: 0 }]", "out-of-range"),
        ("limit: [{ by: caller, rate: 10/1s }]", "never"),
        ("limit: [{ by: { tenant: x }, rate: 10/1s }]", "unknown-key"),
        ("priority: low", "bad-value"),
        ("limit: [{ by: address, rate: 10/1s, window: 3 }]", "unknown-key"),
    ] {
        assert!(route(limit).contains(&code), "{limit}: {:?}", route(limit));
    }
    let many = ["{ by: address, rate: 1/1s }"; 7].join(", ");
    assert_eq!(route(&format!("limit: [{many}]")), ["too-many"]);
    let call = "listen: 2\nroutes: [{ path: / }]\ncalls: [{ service: patients, limit: [{ by: address, rate: 1/1s }] }]";
    assert_eq!(codes(&with_portal(call)), ["never"]);
    let tcp = "listen: 2\nprotocol: tcp\nroutes: [{ host: a.example, priority: normal }]\nlimit: [{ by: caller, rate: 1/1s }]";
    assert_eq!(codes(&with_portal(tcp)), ["conflict", "conflict"]);
    let open =
        parse(&with_portal("listen: 2\nroutes: [{ path: /, limit: [{ by: user, rate: 1/1s }] }]")).unwrap();
    assert!(open.warnings.iter().any(|w| w.code == "never"), "{:?}", open.warnings);
}

fn nearly_a_fence() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "fence",
        "trust_domain",
        "services",
        "external",
        "gateway",
        "limits",
        "listen",
        "calls",
        "allow",
        "paths",
        "egress",
        "waf",
        "exclude",
        "openapi",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: *a",
        "!!str ",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "#",
        "? ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "\r\n",
        "é",
        "\u{2028}",
        "0",
        "80",
        "/a/*",
        "x.example",
        "a",
        "~",
        "\u{feff}",
        "\0",
    ]);
    prop::collection::vec(words, 0..120).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Fence::parse(vec![("a.yaml", bytes)]).map_err(|e| e.render(true));
    }

    #[test]
    fn no_text_near_to_a_fence_makes_it_panic(text in nearly_a_fence(), second in nearly_a_fence()) {
        let inside = format!("fence: t\ntrust_domain: t.example\nservices:\n  a:\n    {text}");
        for text in [text, second.clone(), inside] {
            let _ = Fence::parse(vec![("a.yaml", text.clone()), ("b.yaml", second.clone())]).map_err(|e| e.render(true));
            let _ = ringfence_model::import::from_texts(&[("compose.yaml".into(), text)], "t");
        }
    }

    #[test]
    fn a_damaged_clinic_is_a_fence_or_has_errors_that_lie_inside_it(at in 0usize..700, cut in 0usize..12, put in "[ -~\n]{0,6}") {
        let mut text = CLINIC.to_owned();
        let start = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
        let end = (start + cut).min(text.len());
        text.replace_range(start..end, &put);
        if let Err(diagnostics) = parse(&text) {
            prop_assert!(!diagnostics.errors.is_empty());
            let lines: Vec<&str> = text.split('\n').collect();
            for error in diagnostics.errors {
                let (line, column) = (error.position.line as usize, error.position.column as usize);
                prop_assert!(line >= 1 && line <= lines.len() + 1, "{}", error);
                let length = lines.get(line - 1).map_or(0, |l| l.chars().count());
                prop_assert!(column >= 1 && column <= length + 1, "{}", error);
            }
        }
    }

    #[test]
    fn every_name_stands_where_its_position_says(
        names in prop::collection::btree_set("[a-z][a-z0-9]{2,7}", 2..12),
        style in prop::collection::vec((0usize..3, 0usize..3, any::<bool>()), 12),
    ) {
        prop_assume!(!names.contains("outside") && !names.contains("gateway"));
        let names: Vec<String> = names.into_iter().collect();
        let mut text = String::from("fence: t\ntrust_domain: t.example # ünïcode\nservices:\n");
        for (at, name) in names.iter().enumerate() {
            let (blank, form, quoted) = style[at];
            text.push_str(&"\n".repeat(blank));
            let callee = &names[(at + 1) % names.len()];
            let callee = if quoted { format!("\"{callee}\"") } else { callee.clone() };
            match form {
                0 => text.push_str(&format!("  {name}:\n    env: {{ E: \"é→\" }}\n    listen: 1\n    calls:\n    -   {callee}\n")),
                1 => text.push_str(&format!("  {name}: {{ env: {{ E: é→ }}, listen: 1, calls: [ {callee} ] }}\n")),
                _ => text.push_str(&format!("  {name}:\r\n    listen: 1\r\n    calls:\r\n      - service: {callee}\r\n        allow: [{{ paths: [/é] }}]\r\n")),
            }
        }
        let fence = parse(&text).unwrap();
        let standing = |position: &Position| -> String {
            let line = text.split('\n').nth(position.line as usize - 1).unwrap();
            line.chars().skip(position.column as usize - 1).collect()
        };
        for service in &fence.services {
            prop_assert!(standing(&service.position).starts_with(&service.name));
            for call in &service.calls {
                prop_assert!(standing(&call.position).trim_start_matches('"').starts_with(&call.service));
                for allow in &call.allow {
                    let rule = standing(&allow.position);
                    prop_assert!(rule.starts_with("{ paths"), "{}", rule);
                }
            }
        }
    }
}

#[test]
fn responses_say_what_the_narrowest_place_says_and_nonsense_is_an_error_at_its_place() {
    let fence = parse(&with_portal(
        "listen: 2\nheaders: { frame: deny, hsts: 1d }\nhygiene: observe\nroutes:\n  - path: /\n    headers: { hsts: { subdomains: true } }\n    cors: { origins: [https://app.example], credentials: true }\n  - { path: /b, hygiene: off }",
    ))
    .unwrap();
    let routes = &fence.service("portal").unwrap().routes;
    let headers = routes[0].responses.headers.as_ref().unwrap();
    assert_eq!(headers.hsts.as_ref().unwrap().value(), Some("max-age=31536000; includeSubDomains"));
    assert_eq!(headers.frame.as_ref().unwrap().value(), Some("DENY"));
    assert_eq!(at(&headers.position), "ringfence.yaml:12:9");
    assert_eq!(
        (routes[0].responses.hygiene, routes[1].responses.hygiene),
        (Some(Mode::Observe), Some(Mode::Off))
    );
    let cors = routes[0].responses.cors.as_ref().unwrap();
    assert!(cors.credentials && cors.allows("https://app.example") && !cors.allows("https://b.example"));
    assert_eq!(cors.methods, ["GET", "HEAD", "POST"]);
    for (words, code) in [
        ("cors: { origins: any, credentials: true }", "conflict"),
        ("cors: { origins: [https://app.example/] }", "bad-value"),
        ("cors: { origins: [https://app.example:443] }", "bad-value"),
        ("cors: { methods: [GET] }", "missing-key"),
        ("cors: { origins: [], max_age: 1h }", "empty"),
        ("cors: { origins: any, max_age: 2d }", "out-of-range"),
        ("headers: { csp: \"a\\nb\" }", "bad-value"),
        ("headers: { csp: \"default-src x; report-uri /a\" }", "bad-value"),
        ("headers: { frame: allow }", "bad-value"),
        ("headers: { hsts: { preload: true } }", "conflict"),
        ("headers: { hsts: 9000d }", "out-of-range"),
        ("headers: { xss: on }", "unknown-key"),
        ("hygiene: strict", "bad-value"),
    ] {
        let errors =
            parse(&with_portal(&format!("listen: 2\nroutes:\n  - path: /\n    {words}"))).unwrap_err();
        let found: Vec<_> = errors.errors.iter().map(|e| (e.code, at(&e.position))).collect();
        assert!(found.iter().any(|(found, _)| *found == code), "{words}: {found:?}");
        assert!(found.iter().all(|(_, place)| place.starts_with("ringfence.yaml:10:")), "{words}: {found:?}");
    }
}
