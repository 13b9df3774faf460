//! The registry, by a client that was written for Consul: the package `consul` of PyPI, unchanged.

use serde_json::json;

use crate::lab::running::copy_program;
use crate::lab::{From, Lab, SOON, Who, eventually, text, venv_python};

const SERVICES: &str = "
  agent: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [other] }
  other: { PY caller.py 9101, listen: 9101 }
  hidden: { PY caller.py 9102, listen: 9102 }
";
const PACKAGES: [&str; 6] = ["consul", "requests", "urllib3", "idna", "certifi", "charset_normalizer"];

#[test]
fn the_python_package_consul_finds_whom_its_service_may_call_and_registers_itself_alone() {
    let lab = Lab::start(Who::Nobody, SERVICES, &PACKAGES);
    let said = lab.tell(From::Caller, "consul_client", "everything", &json!({}));
    let found = &said["discovery"];
    assert_eq!(found["services"], json!(["agent", "other"]), "{said}");
    assert_eq!((&found["other"][0], &found["other"][2]), (&json!("other"), &json!(9101)), "{said}");
    assert!(found["other"][1].as_str().unwrap().starts_with("198.18.1."), "{said}");
    assert_eq!((&found["hidden"], &found["nobody"]), (&json!([]), &json!([])), "{said}");
    assert_eq!(found["leader"], true, "{said}");
    let own = &said["registration"];
    assert_eq!(
        (&own["tags"], &own["passing"], &own["failing"]),
        (&json!(["blue"]), &json!(1), &json!(0)),
        "{said}"
    );
    assert!(own["hijack"].as_str().is_some_and(|why| why.contains("403")), "{said}");
    assert_eq!(own["after"], json!([]), "{said}");
    assert_eq!(said["waiting"], json!({ "early": false, "newer": true, "tags": ["green"] }), "{said}");
    let hijack = lab.events(|e| e.to_string().contains("registry.hijack"));
    assert!(!hijack.is_empty(), "an attempt is an event");
}

/// Traefik behind the fence: what it knows of services it knows from the registry, and so it leads nowhere that it may not call.
#[test]
fn traefik_leads_to_whom_the_registry_tells_it_of_and_to_nobody_else() {
    let words = "./traefik, --providers.consulcatalog.endpoint.address=ringfence.internal:8500, \
                 --providers.consulcatalog.refreshinterval=1s, --entrypoints.web.address=:9200, \
                 --global.checknewversion=false, --global.sendanonymoususage=false, --log.level=INFO, \
                 '--providers.consulcatalog.defaultrule=Host(`{{ .Name }}.lab.example`)'";
    let services = format!(
        "
  agent: {{ PY caller.py 9100, listen: 9100, routes: [{{ path: /caller }}] }}
  other: {{ PY caller.py 9101, listen: 9101 }}
  hidden: {{ PY caller.py 9102, listen: 9102 }}
  edge: {{ run: [{words}], listen: 9200, ready: tcp, calls: [other], routes: [{{ host: other.lab.example, path: / }}, {{ host: hidden.lab.example, path: / }}] }}
"
    );
    let lab = Lab::start_before(Who::Nobody, &services, &[], Vec::new(), |folder| {
        copy_program(&venv_python().with_file_name("traefik"), folder);
    });
    let asked = |host: &str| {
        let field = format!("Host: {host}.lab.example");
        let output = lab.clinic.curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &field, "/"]);
        text(&output.stdout)
    };
    let found = eventually(4 * SOON, || (asked("other") == "200").then_some(()));
    let log =
        || std::fs::read_to_string(lab.clinic.folder.join(".ringfence/logs/edge.log")).unwrap_or_default();
    assert!(found.is_some(), "{}: {}\n{}", asked("other"), log(), lab.clinic.said());
    assert_eq!(asked("hidden"), "404", "Traefik has no way there: {}", log());
}
