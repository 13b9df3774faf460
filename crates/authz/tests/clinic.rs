//! A clinic: who may read what, told by policies.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ringfence_authz::{Decision, Engine, Mode, Principal, PrincipalKind, Request, Sources};
use ringfence_model::{Fence, SourceFile};

const FENCE: &str = "\
fence: clinic
trust_domain: clinic.example
gateway: { listen: 127.0.0.1:8443 }
providers:
  staff: { issuer: https://id.clinic.example, audiences: [clinic] }
  people: { issuer: https://people.example, audiences: [clinic] }
services:
  portal:
    listen: 8080
    routes: [{ path: / }]
    calls:
      - service: patients
        allow:
          - { methods: [GET], paths: ['/patients/{id}', '/patients/{id}/diagnoses'] }
          - { methods: [POST], paths: ['/patients/{id}/notes/**'] }
      - lab
  patients: { listen: 8081 }
  lab: { listen: 8082, protocol: grpc }
";

const POLICIES: &str = r#"
@id("nurses-read")
permit(principal in Group::"staff/nurse", action == Action::"GET", resource in Service::"patients")
when { context.chain.contains(Service::"portal") };

@id("own-record")
permit(principal is User, action in Action::"read", resource in Path::"patients/patients/{id}")
when { context has path.id && context.path.id == principal.id && principal.provider == "people" };

@id("treating")
permit(principal is User, action, resource in Service::"patients")
when { context.path has id && principal.treats.contains(context.path.id) };

@id("no-diagnoses-for-billing")
@reason("billing sees no diagnoses")
forbid(principal in Group::"staff/billing", action, resource in Path::"patients/patients/{id}/diagnoses");

@id("billing-reads")
permit(principal in Group::"staff/billing", action in Action::"read", resource in Service::"patients");

@id("lab-by-day")
permit(principal == Client::"staff/nightly", action == Action::"rpc", resource in Service::"lab")
when { context.scopes.contains("lab") && context.source.isInRange(ip("10.0.0.0/8")) &&
  context.time < datetime("2030-01-01") };

@mode("observe") @id("strong-login")
forbid(principal is User, action, resource) unless { context has acr && context.acr == "phr" };
"#;

const ENTITIES: &str = r#"[
  { "uid": { "type": "User", "id": "staff/dora" }, "attrs": { "treats": ["7"] },
    "parents": [{ "type": "Group", "id": "staff/doctor" }] },
  { "uid": { "type": "Group", "id": "staff/ward-nurse" }, "parents": [{ "type": "Group", "id": "staff/nurse" }] }
]"#;

fn engine(policies: &str) -> Engine {
    build(policies).unwrap_or_else(|problems| panic!("{problems}"))
}

fn build(policies: &str) -> Result<Engine, ringfence_model::Diagnostics> {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap_or_else(|problems| panic!("{problems}"));
    let file = SourceFile { name: "policies/a.cedar".into(), owner: None, text: policies.into() };
    let entities = Some(("entities.json".into(), ENTITIES.as_bytes().into()));
    // With optional attributes, `context.source` has to be asked for.
    Engine::new(&fence, &Sources { policies: vec![file], entities })
}

fn clinic() -> Engine {
    engine(&POLICIES.replace("context.source.isIn", "context has source && context.source.isIn"))
}

fn of_group(id: &str, group: &str) -> Principal {
    Principal { groups: vec![group.to_owned()], ..Principal::user("staff", id) }
}

fn ask(engine: &Engine, who: &Principal, method: &str, service: &str, path: &str) -> Decision {
    let request = Request {
        caller: "portal",
        chain: &["portal"],
        service,
        method,
        path,
        host: "clinic.example",
        source: Some(IpAddr::from([10, 1, 2, 3])),
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    engine.decide(&engine.actor(who), &request)
}

fn ids(policies: &[std::sync::Arc<ringfence_authz::PolicyRef>]) -> Vec<&str> {
    policies.iter().map(|policy| policy.id.as_ref()).collect()
}

#[test]
fn each_sees_what_the_policies_say_and_no_more() {
    let engine = clinic();
    let allowed = |who: &Principal, method, service, path| {
        let decision = ask(&engine, who, method, service, path);
        assert_eq!(decision.errors, [], "{path}");
        (decision.allowed, ids(&decision.determining).join(" "))
    };
    let nurse = of_group("nora", "nurse");
    assert_eq!(allowed(&nurse, "GET", "patients", "/patients/7"), (true, "nurses-read".into()));
    assert_eq!(allowed(&nurse, "DELETE", "patients", "/patients/7"), (false, String::new()));
    assert_eq!(
        allowed(&of_group("nora", "ward-nurse"), "GET", "patients", "/x"),
        (true, "nurses-read".into())
    );

    let patient = Principal::user("people", "7");
    assert_eq!(allowed(&patient, "GET", "patients", "/patients/7"), (true, "own-record".into()));
    assert!(!allowed(&patient, "GET", "patients", "/patients/8").0);
    assert!(
        !allowed(&Principal::user("staff", "7"), "GET", "patients", "/patients/7").0,
        "another provider's 7"
    );

    let doctor = Principal::user("staff", "dora");
    assert_eq!(allowed(&doctor, "POST", "patients", "/patients/7/notes/1"), (true, "treating".into()));
    assert!(!allowed(&doctor, "POST", "patients", "/patients/8/notes/1").0);

    let billing = of_group("bill", "billing");
    assert_eq!(allowed(&billing, "GET", "patients", "/patients/7"), (true, "billing-reads".into()));
    let denied = ask(&engine, &billing, "GET", "patients", "/patients/7/diagnoses");
    assert_eq!((denied.allowed, ids(&denied.determining)), (false, vec!["no-diagnoses-for-billing"]));
    assert_eq!(denied.determining[0].reason.as_deref(), Some("billing sees no diagnoses"));
    assert_eq!(denied.determining[0].position.to_string(), "policies/a.cedar:14:1");

    let nightly = Principal {
        kind: PrincipalKind::Client,
        provider: "staff".into(),
        id: "nightly".into(),
        scopes: vec!["lab".into()],
        ..Principal::default()
    };
    assert_eq!(allowed(&nightly, "POST", "lab", "/clinic.Lab/Report"), (true, "lab-by-day".into()));
    let bare = Principal { scopes: Vec::new(), ..nightly };
    assert!(!allowed(&bare, "POST", "lab", "/clinic.Lab/Report").0);
    assert!(!allowed(&Principal::service("portal"), "GET", "patients", "/patients/7").0);
    assert!(!allowed(&Principal::default(), "GET", "patients", "/patients/7").0);
    assert!(!allowed(&nurse, "GET", "outside", "/").0 && !allowed(&nurse, "GET", "nowhere", "/").0);
}

#[test]
fn an_observed_policy_is_recorded_and_changes_nothing() {
    let engine = clinic();
    let nurse = of_group("nora", "nurse");
    let decision = ask(&engine, &nurse, "GET", "patients", "/patients/7");
    assert_eq!(
        (decision.allowed, decision.if_enforced, ids(&decision.observed)),
        (true, false, vec!["strong-login"])
    );
    let strong = Principal { acr: Some("phr".into()), ..nurse };
    let decision = ask(&engine, &strong, "GET", "patients", "/patients/7");
    assert_eq!((decision.allowed, decision.if_enforced, decision.observed.len()), (true, true, 0));

    let engine = self::engine("@mode(\"observe\") permit(principal, action, resource);");
    let decision = ask(&engine, &strong, "GET", "patients", "/patients/7");
    assert_eq!((decision.allowed, decision.if_enforced, decision.observed.len()), (false, true, 1));
    let engine = self::engine("@mode(\"off\") permit(principal, action, resource);");
    assert_eq!(ask(&engine, &strong, "GET", "patients", "/patients/7"), Decision::default());
    assert_eq!(engine.policies().next().map(|policy| policy.mode), Some(Mode::Off));
}

#[test]
fn only_what_is_enforced_decides_by_what_it_reads() {
    let forbid = |mode: &str, when: &str| {
        let text = format!("@mode(\"{mode}\") forbid(principal, action, resource) when {{ {when} }};");
        engine(&text).is_decided_by("chain")
    };
    let chain = "context.chain.contains(Service::\"lab\")";
    assert!(forbid("enforce", chain));
    assert!(
        !forbid("observe", chain) && !forbid("off", chain) && !forbid("enforce", "context.method == \"GET\"")
    );
    assert!(!engine("permit(principal, action, resource);").is_decided_by("chain"));
}

#[test]
fn an_actor_of_another_engine_gets_the_decision_of_this_one() {
    let (old, new) = (clinic(), engine("permit(principal == User::\"staff/nora\", action, resource);"));
    let nora = Principal::user("staff", "nora");
    let actor = old.actor(&nora);
    let request = Request {
        caller: "outside",
        chain: &[],
        service: "portal",
        method: "GET",
        path: "/",
        host: "h",
        source: None,
        time: SystemTime::UNIX_EPOCH,
    };
    assert!(!old.decide(&actor, &request).allowed && new.decide(&actor, &request).allowed);
}

#[test]
fn new_data_makes_a_new_engine_and_data_that_does_not_fit_makes_none() {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
    let old = clinic();
    let dora = Principal::user("staff", "dora");
    let may = |engine: &Engine, id: &str| {
        ask(engine, &dora, "POST", "patients", &format!("/patients/{id}/notes/1")).allowed
    };
    let with =
        |data: &str| old.with_entities(&fence, Some(&("entities.json".into(), data.as_bytes().into())));
    let new = with(&ENTITIES.replace("\"7\"", "\"8\"")).unwrap();
    assert!(may(&old, "7") && !may(&old, "8") && !may(&new, "7") && may(&new, "8"));
    assert!(
        std::ptr::eq(&**old.policies().next().unwrap(), &**new.policies().next().unwrap()),
        "not read again"
    );
    // Nobody treats anybody: the schema has no `treats`, and the policy that asks for it does not fit.
    assert!(with("[]").unwrap_err().to_string().contains("treats"));
    assert!(with("[").is_err());
    let more = r#"{ "uid": { "type": "Ward", "id": "w" }, "attrs": { "beds": 3 } },"#;
    let more = with(&ENTITIES.replacen('[', &format!("[{more}"), 1)).unwrap();
    assert!(may(&more, "7") && more.schema().contains("\"beds\": Long"), "{}", more.schema());
}

#[test]
fn what_is_wrong_with_policies_is_shown_where_it_stands() {
    let picture = |policies: &str| build(policies).expect_err(policies).to_string();
    for (policy, message, place, help) in [
        (
            "permit(principal, action, resource) when { context.chian.contains(Service::\"portal\") };",
            "chian",
            ":1:44",
            "did you mean `chain`?",
        ),
        (
            "permit(principal, action, resource in Service::\"patiens\");",
            "no service `patiens`",
            ":1:39",
            "did you mean `patients`?",
        ),
        (
            "permit(principal, action == Action::\"GTE\", resource);",
            "unrecognized action `Action::\"GTE\"`",
            ":1:29",
            "GET",
        ),
        ("\n  permit(principal is Usr, action, resource);", "unrecognized entity type `Usr`", ":2:", "User"),
        (
            "permit(principal in Group::\"nurse\", action, resource);",
            "does not say whose",
            ":1:21",
            "Group::\"PROVIDER/NAME\"",
        ),
        (
            "permit(principal in Group::\"staf/nurse\", action, resource);",
            "no provider `staf`",
            ":1:21",
            "did you mean `staff`?",
        ),
        (
            "permit(principal, action, resource == Path::\"patients/patients/{ip}\");",
            "names the path",
            ":1:39",
            "did you mean `patients/patients/{id}`?",
        ),
        (
            "permit(principal, action, resource)\nwhen { context.path.id == \"7\" };",
            "optional attribute",
            ":2:8",
            "has",
        ),
        ("permit(principal, action, resource) when { 1 + \"a\" };", "unexpected type", ":1:4", ""),
        ("permit(principal, action resource);", "unexpected token", ":1:26", "expected"),
        ("permit(principal == ?principal, action, resource);", "template", ":1:1", "?principal"),
        (
            "@mode(\"watch\") permit(principal, action, resource);",
            "`watch` is no mode",
            ":1:1",
            "known here: enforce",
        ),
        ("@moed(\"observe\") permit(principal, action, resource);", "says nothing", ":1:1", "mode"),
        (
            "@id(\"a\") permit(principal, action, resource);\n@id(\"a\") forbid(principal, action, resource);",
            "has the id `a`",
            ":2:1",
            "stands here first",
        ),
    ] {
        let shown = picture(policy);
        for part in [message, &format!("policies/a.cedar{place}"), help] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
    }
    let shown = picture("permit(principal, action, resource in Service::\"patiens\");");
    assert!(shown.contains("^^^^^^^^^^^^^^^^^^ did you mean"), "{shown}");
    for (condition, message, help) in [
        ("context.caller == \"portal\"", "the types String and Service are not compatible", "`==`"),
        (
            "resource in [Path::\"patients/patients/{id}\", Service::\"patients\"]",
            "the types Path and Service are not compatible",
            "elements of a set",
        ),
    ] {
        let before = "permit(principal, action, resource);\n\nforbid(principal, action, resource)\n  when { ";
        let shown = picture(&format!("{before}{condition} }};"));
        let line = format!("  when {{ {condition} }};");
        for part in [message, "--> policies/a.cedar:4:", &line, help] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(!shown.contains("for policy `"), "{shown}");
        let at = condition.find('[').unwrap_or(0);
        let carets = format!("{}{} ", " ".repeat("  when { ".len() + at), "^".repeat(condition.len() - at));
        assert!(shown.contains(&carets), "{carets:?} is not in\n{shown}");
    }
}

#[test]
fn an_equal_service_is_probably_not_meant() {
    let engine = engine("permit(principal, action, resource == Service::\"patients\");");
    assert!(engine.warnings()[0].to_string().contains("for the whole service, write `resource in …`"));
}

#[test]
fn policies_without_bound_are_refused_before_they_are_read() {
    let told = |condition: &str| {
        build(&format!("permit(principal, action, resource) when {{ {condition} }};"))
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(
        told(&format!("{}true{}", "(".repeat(200), ")".repeat(200))).unwrap_err().contains("nested deeper")
    );
    assert!(told(&vec!["context.host == \"h\""; 5_000].join(" && ")).unwrap_err().contains("at most"));
    assert!(told(&vec!["context.host == \"h\""; 400].join(" || ")).unwrap_err().contains("deeper than 100"));
    assert!(told(&"if true then true else ".repeat(900)).is_err());
    assert_eq!(told(&vec!["context.host == \"h\""; 90].join(" && ")), Ok(()));
    let deepest = engine(&format!(
        "permit(principal, action, resource) when {{ {} }};",
        vec!["context.host == \"clinic.example\""; 90].join(" && ")
    ));
    // A thread with a small stack decides as any other.
    let decision = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(256 << 10)
            .spawn_scoped(scope, || ask(&deepest, &Principal::default(), "GET", "patients", "/"))
            .unwrap()
            .join()
            .unwrap()
    });
    assert_eq!((decision.allowed, decision.errors), (true, vec![]));
}

#[test]
fn entity_data_that_does_not_fit_is_refused_by_name() {
    let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
    let told = |json: &str| {
        let entities = Some(("entities.json".into(), json.as_bytes().into()));
        Engine::new(&fence, &Sources { policies: Vec::new(), entities }).map(|_| ()).unwrap_err().to_string()
    };
    assert!(told(r#"[{"uid":{"type":"User","id":"dora"}}]"#).contains("PROVIDER/NAME"));
    assert!(told(r#"[{"uid":{"type":"Service","id":"x"}}]"#).contains("no such service"));
    assert!(told(r#"[{"uid":{"type":"User","id":"a/b"},"attrs":{"id":"c"}}]"#).contains("Ringfence itself"));
    assert!(told(r#"[{"uid":{"type":"Path","id":"patients/"}}]"#).contains("from the fence alone"));
    let circle = r#"[{"uid":{"type":"Group","id":"s/a"},"parents":[{"type":"Group","id":"s/b"}]},
        {"uid":{"type":"Group","id":"s/b"},"parents":[{"type":"Group","id":"s/a"}]}]"#;
    assert!(told(circle).contains("cycle"), "{}", told(circle));
}
