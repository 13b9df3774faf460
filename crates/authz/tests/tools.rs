//! What people do with policies besides obeying them: test, explain, compare, ask over AuthZEN.

use std::time::{Duration, SystemTime};

use ringfence_authz::authzen::{Asker, EvaluationRequest, EvaluationResponse, EvaluationsRequest, Semantic};
use ringfence_authz::{Engine, Principal, Question, Sources, Table};
use ringfence_model::{Fence, SourceFile};

const FENCE: &str = "\
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
providers:
  staff: { issuer: https://id.clinic.example, audiences: [clinic] }
services:
  portal:
    listen: 8080
    routes: [{ path: / }]
    calls: [{ service: records }]
  records:
    listen: 8081
    calls: [{ service: patients, allow: [{ methods: [GET, POST], paths: ['/patients/{id}'] }] }]
  patients: { listen: 8082 }
";

const POLICIES: &str = r#"
@id("nurses-read") @reason("nurses care")
permit(principal in Group::"staff/nurse", action == Action::"GET", resource in Service::"patients")
when { context.chain.contains(Service::"portal") }
unless { context has acr && context.acr == "none" };

@id("treating")
permit(principal is User, action, resource in Service::"patients")
when { context.path has id && principal.treats.contains(context.path.id) && context.scopes.contains("write") };
"#;

const ENTITIES: &str = r#"[
  { "uid": { "type": "User", "id": "staff/dora" }, "attrs": { "treats": ["7"] } }
]"#;

fn engine(policies: &str) -> Engine {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap_or_else(|problems| panic!("{problems}"));
    let file = SourceFile { name: "a.cedar".into(), owner: None, text: policies.into() };
    let entities = Some(("entities.json".into(), ENTITIES.as_bytes().into()));
    Engine::new(&fence, &Sources { policies: vec![file], entities })
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

#[test]
fn a_table_is_run_and_says_what_is_not_as_expected() {
    let table = "\
- name: nurses read through the portal
  principal: { user: staff/nora, groups: [nurse] }
  request: GET patients/patients/7
  from: records
  chain: [portal, records]
  expect: allow
  by: [nurses-read]
- principal: { user: staff/dora, scopes: [write] }
  request: POST patients/patients/7
  from: records
  time: 2030-01-01T00:00:00Z
  source: 10.0.0.1
  expect: deny
- { principal: anonymous, request: GET patients, expect: deny, by: [nurses-read] }
- { principal: { service: records }, request: GET patients/patients/7, expect: deny }
";
    let table = Table::parse("t.yaml", table).unwrap_or_else(|problems| panic!("{problems}"));
    let results = engine(POLICIES).test(&table, now());
    let told: Vec<Option<&str>> = results.iter().map(|result| result.problem.as_deref()).collect();
    let want = [
        None,
        Some("expected deny, got allow by treating"),
        Some("as expected deny, but by no policy instead of nurses-read"),
        None,
    ];
    assert_eq!(told, want);
    assert_eq!(results[1].name, "user staff/dora POST patients/patients/7 from records");
    assert_eq!(results[1].position.to_string(), "t.yaml:8:3");
    let json = r#"[{ "principal": "anonymous", "request": "GET portal/", "expect": "deny" }]"#;
    assert_eq!(Table::parse("t.json", json).unwrap().cases.len(), 1);
}

#[test]
fn a_wrong_table_is_shown_where_it_is_wrong() {
    for (row, place, message) in [
        (
            "- { principal: anonymous, reqest: GET a/, expect: deny }",
            "t.yaml:1:27",
            "did you mean `request`?",
        ),
        ("- { principal: { user: dora }, request: GET a/, expect: deny }", ":1:24", "PROVIDER/NAME"),
        ("- { principal: {}, request: GET a/, expect: deny }", ":1:16", "`user`, `client` or `service`"),
        ("- { principal: anonymous, request: patients, expect: deny }", ":1:36", "METHOD SERVICE/PATH"),
        ("- { principal: anonymous, request: GET a/, expect: maybe }", ":1:52", "`allow` or `deny`"),
        ("- { principal: anonymous, request: GET a/, expect: deny, source: here }", ":1:66", "an IP address"),
        ("- { principal: anonymous, request: GET a/, expect: deny, time: noon }", ":1:64", "a time such as"),
        ("- { principal: anonymous, expect: deny }", ":1:3", "needs `request` and `expect`"),
        ("rows: []", ":1:1", "a table is a list"),
        ("", ":1:1", "empty"),
        ("- [", ":1:", "error"),
    ] {
        let shown = Table::parse("t.yaml", row).expect_err(row).to_string();
        assert!(shown.contains(place) && shown.contains(message), "{place} {message}\n{shown}");
    }
}

#[test]
fn a_deny_is_explained_by_what_came_nearest() {
    let engine = engine(POLICIES);
    let dora = Principal { scopes: vec!["write".into()], ..Principal::user("staff", "dora") };
    let question = Question::new(dora, "GET", "patients", "/patients/8").through("records");
    let explanation = engine.explain(&question, now());
    assert!(!explanation.decision.allowed);
    let nearest = &explanation.nearest[0];
    assert_eq!((nearest.policy.id.as_ref(), nearest.failed.len()), ("treating", 1));
    let failed = &nearest.failed[0];
    assert_eq!(failed.text, "principal.treats.contains(context.path.id)");
    assert_eq!(failed.position.to_string(), "a.cedar:9:31");
    assert_eq!(failed.because, ["principal.treats is [\"7\"]", "context.path.id is \"8\""]);
    let nurse = &explanation.nearest[1];
    assert_eq!(nurse.failed[0].text, "principal in Group::\"staff/nurse\"");
    assert_eq!(nurse.failed[0].position.to_string(), "a.cedar:3:21");
    assert_eq!(nurse.failed[1].because, ["context.chain is [Service::\"records\"]"]);
    let shown = explanation.to_string();
    assert!(
        shown.starts_with("denied: User::\"staff/dora\" Action::\"GET\" on Path::\"patients/patients/{id}\""),
        "{shown}"
    );
    assert!(shown.contains("context.path.id is \"8\""), "{shown}");

    let question = Question::new(question.principal, "GET", "patients", "/patients/7").through("records");
    let explanation = engine.explain(&question, now());
    assert!(explanation.decision.allowed && explanation.nearest.is_empty());
    assert!(explanation.to_string().contains("permit `treating` (a.cedar:7:1)"), "{explanation}");
}

#[test]
fn a_change_of_policies_says_who_gains_and_who_loses() {
    let old = engine(POLICIES);
    assert_eq!(old.diff(&old, &[], now()).changes.len(), 0);
    let new = engine(
        &POLICIES
            .replace("action == Action::\"GET\"", "action")
            .replace("principal.treats.contains(context.path.id)", "principal.treats.contains(\"9\")"),
    );
    let diff = old.diff(&new, &[], now());
    assert!(diff.complete && diff.omitted == 0, "{diff}");
    let shown: Vec<String> = diff.to_string().lines().map(ToOwned::to_owned).collect();
    let gains =
        "gains  user staff/any-nurse (nurse) POST patients/patients/example from records  (nurses-read)";
    let loses = "loses  user staff/dora GET patients/patients/7 from records  (treating)";
    assert!(shown.iter().any(|line| line == gains), "{shown:#?}");
    assert!(shown.iter().any(|line| line == loses), "{shown:#?}");
    assert!(!shown.iter().any(|line| line.contains("GET patients/patients/example")), "{shown:#?}");
    let asked = Question::new(Principal::user("staff", "x"), "GET", "portal", "/");
    let open = engine("permit(principal == User::\"staff/x\", action, resource in Service::\"portal\");");
    assert!(old.diff(&open, &[asked], now()).changes[0].gains);
}

#[test]
fn services_ask_the_same_engine_over_authzen() {
    let engine = engine(POLICIES);
    let ask = |json: &str| {
        let request = EvaluationRequest::parse(json.as_bytes()).unwrap();
        EvaluationResponse::of(&engine.evaluate(&request, None, now()))
    };
    let answer =
        ask(r#"{ "subject": { "type": "user", "id": "staff/nora", "properties": { "groups": ["nurse"] } },
             "action": { "name": "GET" }, "resource": { "type": "path", "id": "patients/patients/7" },
             "context": { "caller": "records", "chain": ["portal", "records"] } }"#);
    assert!(answer.decision);
    let shown = serde_json::to_value(&answer).unwrap();
    assert_eq!(shown["context"]["policies"][0], "nurses-read");
    assert_eq!(shown["context"]["reason_admin"]["en"], "nurses care");
    let denied = r#"{ "subject": { "type": "anonymous", "id": "" }, "action": { "name": "GET" },
        "resource": { "type": "service", "id": "patients", "properties": { "path": "/patients/7" } } }"#;
    let denied = ask(denied);
    assert!(!denied.decision);
    assert_eq!(serde_json::to_value(&denied).unwrap(), serde_json::json!({ "decision": false }));
    let odd = ask(
        r#"{"subject":{"type":"user","id":"s/a"},"action":{"name":"GET"},"resource":{"type":"path","id":"patients/a/../b"}}"#,
    );
    assert!(!odd.decision && odd.context["error"]["status"] == 400);
    for bad in [
        r#"{"subject":{"type":"robot","id":"s/a"},"action":{"name":"GET"},"resource":{"type":"service","id":"patients"}}"#,
        r#"{"subject":{"type":"user","id":"a"},"action":{"name":"GET"},"resource":{"type":"service","id":"patients"}}"#,
        r#"{"subject":{"type":"user","id":"s/a"},"action":{"name":""},"resource":{"type":"service","id":"patients"}}"#,
        r#"{"subject":{"type":"user","id":"s/a"},"action":{"name":"GET"},"resource":{"type":"invoice","id":"7"}}"#,
        r#"{"subject":{"type":"user","id":"s/a"},"action":{"name":"GET"},"resource":{"type":"path","id":"x//y"}}"#,
        r#"{"subject":{"type":"user","id":"s/a"},"action":{"name":"GET"},"resource":{"type":"path","id":"x/y"},"context":{"source":"z"}}"#,
    ] {
        assert!(EvaluationRequest::parse(bad.as_bytes()).unwrap().question().is_err(), "{bad}");
    }
    for bad in ["", "[]", "{}", r#"{"subject":{},"subject":{}}"#] {
        assert!(EvaluationRequest::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn several_evaluations_share_what_they_do_not_say_and_stop_as_asked() {
    let engine = engine(POLICIES);
    let request = |semantic: &str| {
        format!(
            r#"{{ "subject": {{ "type": "user", "id": "staff/nora", "properties": {{ "groups": ["nurse"] }} }},
                 "action": {{ "name": "GET" }}, "context": {{ "caller": "portal" }},
                 "options": {{ "evaluations_semantic": "{semantic}" }},
                 "evaluations": [
                   {{ "resource": {{ "type": "path", "id": "patients/patients/7" }} }},
                   {{ "resource": {{ "type": "path", "id": "portal/" }} }},
                   {{ "action": {{ "name": "POST" }}, "resource": {{ "type": "path", "id": "patients/patients/7" }} }} ] }}"#
        )
    };
    let answers = |semantic: &str| -> Vec<bool> {
        let request = EvaluationsRequest::parse(request(semantic).as_bytes()).unwrap();
        assert!(!request.single);
        engine
            .evaluate_all(&request, None, now())
            .iter()
            .map(|answer| EvaluationResponse::of(answer).decision)
            .collect()
    };
    assert_eq!(answers("execute_all"), [true, false, false]);
    assert_eq!(answers("deny_on_first_deny"), [true, false]);
    assert_eq!(answers("permit_on_first_permit"), [true]);
    assert!(EvaluationsRequest::parse(request("sometimes").as_bytes()).is_err());
    let one = r#"{"subject":{"type":"anonymous","id":""},"action":{"name":"GET"},"resource":{"type":"service","id":"portal"}}"#;
    let one = EvaluationsRequest::parse(one.as_bytes()).unwrap();
    assert_eq!(
        (one.single, one.semantic, engine.evaluate_all(&one, None, now()).len()),
        (true, Semantic::ExecuteAll, 1)
    );
    let many = format!(r#"{{"evaluations":[{}]}}"#, vec!["{}"; 101].join(","));
    assert!(EvaluationsRequest::parse(many.as_bytes()).is_err());
}

#[test]
fn an_evaluation_takes_what_it_lacks_from_the_request_and_what_is_wrong_with_one_hinders_no_other() {
    let engine = engine(POLICIES);
    let answers = |json: &str| -> Vec<EvaluationResponse> {
        let request = EvaluationsRequest::parse(json.as_bytes()).unwrap();
        engine.evaluate_all(&request, None, now()).iter().map(EvaluationResponse::of).collect()
    };
    let found = answers(
        r#"{ "subject": { "type": "user", "id": "staff/nora", "properties": { "groups": ["nurse"] } },
             "action": { "name": "GET" }, "resource": { "type": "path" }, "futureField": { "nested": true },
             "context": { "caller": "portal", "time": "2027-06-27T18:03-07:00", "ip": "192.0.2.1" },
             "evaluations": [ { "resource": { "id": "patients/patients/7" } }, {},
               { "resource": { "type": "record", "id": "1" } }, { "subject": { "id": "staff/nora" }, "resource": { "id": "patients/x" } } ] }"#,
    );
    assert_eq!(found.iter().map(|one| one.decision).collect::<Vec<_>>(), [true, false, false, false]);
    let error = |at: usize| found[at].context["error"].clone();
    assert_eq!((error(1)["status"].as_u64(), error(2)["status"].as_u64()), (Some(400), Some(400)));
    assert!(error(1)["message"].as_str().unwrap().contains("id"), "{found:?}");
    assert!(!found[3].context.contains_key("error"), "properties of another subject are not taken over");
    for bad in [
        r#"{"subject":"nora","evaluations":[{}]}"#,
        r#"{"evaluations":{}}"#,
        r#"{"evaluations":["x"]}"#,
        r#"{"evaluations":[{}],"options":[]}"#,
        r#"{"evaluations":[{}],"options":{"evaluations_semantic":7}}"#,
        r#"{"evaluations":[]}"#,
    ] {
        assert_eq!(EvaluationsRequest::parse(bad.as_bytes()).unwrap_err().status, 400, "{bad}");
    }
}

#[test]
fn a_service_asks_about_itself_and_what_is_proved_of_a_subject_counts() {
    let engine = engine(POLICIES);
    let request = |subject: &str| {
        let text = format!(
            r#"{{ "subject": {{ "type": "user", "id": "{subject}", "properties": {{ "groups": ["nurse"] }} }},
                 "action": {{ "name": "GET" }}, "resource": {{ "type": "path", "id": "patients/patients/7" }},
                 "context": {{ "caller": "portal" }} }}"#
        );
        EvaluationRequest::parse(text.as_bytes()).unwrap()
    };
    let ask = |asker: &Asker<'_>, subject: &str| {
        engine.evaluate(&request(subject), Some(asker), now()).map(|judged| judged.decision.allowed)
    };
    let of = |service| Asker { service, principal: None, chain: &[], source: None };
    assert_eq!(ask(&of("patients"), "staff/nora"), Ok(true));
    assert_eq!(ask(&of("records"), "staff/nora").unwrap_err().status, 403);
    let nora = Principal::user("staff", "nora");
    let proved = Asker { principal: Some(&nora), chain: &["portal"], ..of("patients") };
    assert_eq!(ask(&proved, "staff/nora"), Ok(false), "her token says nothing of groups");
    assert_eq!(ask(&proved, "staff/dora").unwrap_err().status, 403);
    let nurse = Principal { groups: vec!["nurse".into()], ..nora.clone() };
    let proved = Asker { principal: Some(&nurse), chain: &["records"], ..of("patients") };
    assert_eq!(ask(&proved, "staff/nora"), Ok(false), "it did not come through the portal");
}
