//! Who may come in, and which policies decide.

use ringfence_model::{Binding, ClientProof, Credential, Entities, Fence};

use crate::{at, codes, parse, with_portal};

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
