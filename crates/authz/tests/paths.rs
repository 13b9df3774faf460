//! Names in the paths of routes and edges: what policies read in them, whoever asks and wherever it is asked.

use std::time::SystemTime;

use ringfence_authz::authzen::EvaluationRequest;
use ringfence_authz::{Engine, Principal, Question, Sources, Table};
use ringfence_model::Fence;

const FENCE: &str = "\
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
providers:
  people: { issuer: https://people.example, audiences: [clinic] }
services:
  patients:
    listen: 8081
    routes: [{ path: '/records/{id}' }, { path: /open }]
  portal:
    listen: 8080
    calls: [{ service: patients, allow: [{ paths: ['/patients/{id}', '/wards/{ward}/beds/{bed}'] }] }]
";

const POLICIES: &str = r#"@id("own")
permit(principal is User, action, resource in Service::"patients")
when { context.path has id && context.path.id == principal.id };

@id("notes")
forbid(principal, action, resource in Path::"patients/records/{id}/**") when { context.method == "DELETE" };

@id("ward")
permit(principal == Service::"portal", action == Action::"GET", resource == Path::"patients/wards/{ward}/beds/{bed}")
when { context.path has ward && context.path.ward == "3" && context.path has bed && context.path.bed != "0" };
"#;

fn engine(policies: &str) -> Engine {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap_or_else(|problems| panic!("{problems}"));
    Engine::new(&fence, &Sources::of_texts([("a.cedar", policies)], None))
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn what_stands_in_the_braces_is_known_at_the_gateway_and_where_the_callee_is() {
    let engine = engine(POLICIES);
    let seven = Principal::user("people", "7");
    let may = |caller: &str, method: &str, path: &str| {
        let question = Question::new(seven.clone(), method, "patients", path).through(caller);
        engine.answer(&question, SystemTime::now()).allowed
    };
    for caller in ["outside", "portal"] {
        for path in ["/records/7", "/records/7/", "/records/7/notes/1", "/patients/7"] {
            assert!(may(caller, "GET", path), "{caller} {path}");
        }
        for path in ["/records/8", "/records/", "/records", "/patients/7/x", "/open/7", "/Records/7"] {
            assert!(!may(caller, "GET", path), "{caller} {path}");
        }
        assert!(may(caller, "DELETE", "/records/7") && !may(caller, "DELETE", "/records/7/notes/1"));
    }
    let portal = |path: &str| {
        let question = Question::new(Principal::service("portal"), "GET", "patients", path);
        engine.answer(&question, SystemTime::now()).allowed
    };
    assert!(portal("/wards/3/beds/1"));
    assert!(!portal("/wards/4/beds/1") && !portal("/wards/3/beds/0") && !portal("/wards/3/beds/1/x"));
}

#[test]
fn tables_explanations_and_authzen_read_the_same_in_a_path() {
    let engine = engine(POLICIES);
    let table = "\
- { principal: { user: people/7 }, request: GET patients/records/7/notes, expect: allow }
- { principal: { user: people/7 }, request: GET patients/records/8, expect: deny }
";
    let results = engine.test(&Table::parse("t.yaml", table).unwrap(), SystemTime::now());
    assert!(results.iter().all(|result| result.problem.is_none()), "{results:?}");
    let question = Question::new(Principal::user("people", "7"), "GET", "patients", "/records/8");
    let told = engine.explain(&question, SystemTime::now()).to_string();
    assert!(told.contains("own") && told.contains("context.path.id"), "{told}");
    let request = r#"{ "subject": { "type": "user", "id": "people/7" }, "action": { "name": "GET" },
        "resource": { "type": "service", "id": "patients", "properties": { "path": "/records/7/notes" } } }"#;
    let request = EvaluationRequest::parse(request.as_bytes()).unwrap();
    assert!(engine.evaluate(&request, None, SystemTime::now()).unwrap().decision.allowed);
}

#[test]
fn what_no_path_names_is_an_error_with_its_place() {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
    let wrong = |policies: &str| {
        Engine::new(&fence, &Sources::of_texts([("a.cedar", policies)], None)).unwrap_err().to_string()
    };
    let never = engine(
        "permit(principal, action, resource)\nwhen { context.path has nr && context.path.nr == \"7\" };",
    );
    let told: Vec<String> = never.warnings().iter().map(ToString::to_string).collect();
    assert!(told.iter().any(|told| told.contains("a.cedar:1:")), "a name that no path has: {told:?}");
    let unasked =
        wrong("permit(principal is User, action, resource) when { context.path.id == principal.id };");
    assert!(unasked.contains("a.cedar:1:") && unasked.contains("has"), "{unasked}");
    let path = wrong("permit(principal, action, resource in Path::\"patients/records/{nr}\");");
    assert!(path.contains("no `allow` and no route") && path.contains("{id}"), "{path}");
}
