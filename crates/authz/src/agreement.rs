//! The engine against Cedar's own authorizer over all policies, all entities and the whole context.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use cedar_policy_core::ast::PolicySet;
use cedar_policy_core::authorizer::Authorizer;
use proptest::prelude::*;
use ringfence_model::{Fence, SourceFile};

use crate::actor::Principal;
use crate::decision::Mode;
use crate::engine::{Engine, Sources};
use crate::entities::add;
use crate::question::Question;

const FENCE: &str = "\
fence: t
trust_domain: t.example
providers:
  p: { issuer: https://p.example, audiences: [t] }
services:
  a: { listen: 1, calls: [{ service: b, allow: [{ paths: ['/x/{id}', '/x/*/y', '/**'] }] }, c] }
  b: { listen: 2, calls: [c] }
  c: { listen: 3, protocol: grpc }
";

const ENTITIES: &str = r#"[
  {"uid":{"type":"User","id":"p/0"},"attrs":{"treats":["1"],"boss":{"type":"User","id":"p/1"},"ward":{"type":"Ward","id":"w"}},
   "parents":[{"type":"Group","id":"p/g"},{"type":"Ward","id":"w"}]},
  {"uid":{"type":"User","id":"p/1"},"attrs":{"treats":[],"boss":{"type":"User","id":"p/0"},"ward":{"type":"Ward","id":"v"}}},
  {"uid":{"type":"Group","id":"p/g"},"attrs":{"kin":[{"type":"User","id":"p/1"}]},"parents":[{"type":"Group","id":"p/h"}]},
  {"uid":{"type":"Group","id":"p/i"},"parents":[{"type":"Group","id":"p/g"}]},
  {"uid":{"type":"Ward","id":"w"},"attrs":{"level":3,"next":{"type":"Ward","id":"v"}}},
  {"uid":{"type":"Ward","id":"v"},"attrs":{"level":9223372036854775807,"next":{"type":"Ward","id":"w"}}},
  {"uid":{"type":"Client","id":"p/app"},"attrs":{"owners":[{"type":"User","id":"p/0"}]}},
  {"uid":{"type":"Service","id":"b"},"attrs":{"tier":["gold"]}}
]"#;

fn policy() -> impl Strategy<Value = String> {
    let mode = prop_oneof![4 => Just(""), 1 => Just("@mode(\"observe\") "), 1 => Just("@mode(\"off\") ")];
    let effect = prop_oneof![2 => Just("permit"), 1 => Just("forbid")];
    let principal = proptest::sample::select(vec![
        "principal",
        "principal is User",
        "principal is Client",
        "principal is Service",
        "principal is Anonymous",
        "principal == User::\"p/0\"",
        "principal == User::\"p/9\"",
        "principal in Group::\"p/g\"",
        "principal in Group::\"p/h\"",
        "principal in Group::\"p/i\"",
        "principal in Ward::\"w\"",
        "principal == Service::\"a\"",
    ]);
    let action = proptest::sample::select(vec![
        "action",
        "action == Action::\"GET\"",
        "action in Action::\"read\"",
        "action in [Action::\"write\", Action::\"rpc\"]",
    ]);
    let resource = proptest::sample::select(vec![
        "resource",
        "resource is Path",
        "resource in Service::\"b\"",
        "resource == Service::\"b\"",
        "resource in Path::\"b/x/{id}\"",
        "resource in Path::\"b/**\"",
        "resource is Service in Service::\"c\"",
    ]);
    let condition = proptest::sample::select(vec![
        "",
        "when { context.chain.contains(Service::\"a\") }",
        "when { context has path.id && context.path.id == \"1\" }",
        "when { principal is User && context.path has id && principal.treats.contains(context.path.id) }",
        "when { principal is User && principal has boss && principal.boss.treats.contains(\"1\") }",
        "when { principal is User && principal has boss && principal.boss has boss && principal.boss.boss == principal }",
        "when { principal is User && principal has ward && principal.ward.level + 1 > 3 }",
        "when { principal is User && principal has ward && principal.ward.next.next == principal.ward }",
        "when { principal is User && Group::\"p/g\".kin.contains(principal) }",
        "when { principal is User && context has client && context.client.owners.contains(principal) }",
        "when { context.caller.tier.contains(\"gold\") }",
        "when { context.scopes.containsAll([\"r\", \"w\"]) }",
        "unless { context has acr && context.acr == \"high\" }",
        "when { context has source && context.source.isInRange(ip(\"10.0.0.0/8\")) }",
        "when { context.time < datetime(\"2024-01-01\") }",
        "when { context has auth_time && context.time.durationSince(context.auth_time) < duration(\"1h\") }",
        "when { context.method == \"GET\" && context.target like \"/x/*\" && context.host == \"b\" }",
    ]);
    (mode, effect, principal, action, resource, condition).prop_map(|(mode, effect, p, a, r, condition)| {
        format!("{mode}{effect}({p}, {a}, {r}) {condition};\n")
    })
}

fn principal() -> impl Strategy<Value = Principal> {
    let kind = prop_oneof![
        Just(Principal::default()),
        Just(Principal::service("a")),
        Just(Principal::service("b")),
        (0..3_u8).prop_map(|id| Principal::user("p", &id.to_string())),
        Just(Principal { kind: crate::PrincipalKind::Client, ..Principal::user("p", "app") }),
        Just(Principal { kind: crate::PrincipalKind::Client, ..Principal::user("p", "other") }),
    ];
    let some = |names: &'static [&'static str]| {
        proptest::sample::subsequence(names, 0..=names.len())
            .prop_map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let acr = proptest::option::of(Just("high".to_owned()));
    let client = proptest::option::of(prop_oneof![Just("app".to_owned()), Just("none".to_owned())]);
    let auth_time = proptest::option::of(prop_oneof![Just(1_800_000_000_u64), Just(1_700_000_000)]);
    (kind, some(&["g", "h", "i", "j"]), some(&["r", "w"]), acr, client, auth_time).prop_map(
        |(principal, groups, scopes, acr, client, auth_time)| match principal.kind {
            crate::PrincipalKind::User | crate::PrincipalKind::Client => {
                Principal { groups, scopes, acr, client, auth_time, ..principal }
            }
            _ => principal,
        },
    )
}

/// What Cedar says with every policy, every entity and the whole context.
fn full(engine: &Engine, question: &Question, now: SystemTime) -> (bool, BTreeSet<String>, BTreeSet<String>) {
    let actor = engine.actor(&question.principal);
    let chain: Vec<&str> = question.chain.iter().map(String::as_str).collect();
    let request = engine.asked(&actor, &question.request(&chain, now), true).unwrap().request;
    let mut all = engine.all.clone();
    let uid = question.principal.uid();
    let mut more = Vec::new();
    if matches!(question.principal.kind, crate::PrincipalKind::User | crate::PrincipalKind::Client) {
        more.push(std::sync::Arc::new(engine.principal_entity(&question.principal, &uid)));
    }
    if let Some(client) =
        question.principal.client.as_ref().filter(|_| question.principal.kind == crate::PrincipalKind::User)
    {
        let client = Principal { kind: crate::PrincipalKind::Client, ..Principal::user("p", client) };
        more.push(std::sync::Arc::new(engine.principal_entity(&client, &client.uid())));
    }
    all = add(all, more);
    // Observed policies take no part.
    let enforced = engine.policies.index.policies().zip(&engine.policies.refs);
    let enforced =
        enforced.filter(|(_, filed)| filed.policy.mode == Mode::Enforce).map(|(policy, _)| policy.clone());
    let set = PolicySet::try_from_iter(enforced).unwrap();
    let response = Authorizer::new().is_authorized(request, &set, &all);
    let name = |id: String| {
        let number =
            engine.policies.index.policies().position(|policy| policy.id().to_string() == id).unwrap();
        engine.policy(number).unwrap().id.to_string()
    };
    let errors = response.diagnostics.errors.iter().map(|error| match error {
        cedar_policy_core::authorizer::AuthorizationError::PolicyEvaluationError { id, .. } => {
            name(id.to_string())
        }
    });
    let reasons = response.diagnostics.reason.iter().map(|id| name(id.to_string())).collect();
    (response.decision == cedar_policy_core::authorizer::Decision::Allow, reasons, errors.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_engine_answers_as_cedar_does_with_everything_before_it(
        policies in proptest::collection::vec(policy(), 0..12),
        principals in proptest::collection::vec(principal(), 1..6),
    ) {
        let fence = Fence::parse(vec![("ringfence.yaml", FENCE)]).unwrap();
        let file = SourceFile { name: "p.cedar".into(), owner: None, text: policies.concat().into() };
        let entities = Some(("entities.json".into(), ENTITIES.as_bytes().into()));
        let engine = Engine::new(&fence, &Sources { policies: vec![file], entities });
        let engine = engine.map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_600);
        for principal in principals {
            for (method, service, path) in [
                ("GET", "b", "/x/1"), ("POST", "b", "/x/2/y"), ("PURGE", "b", "/"), ("GET", "a", "/"), ("POST", "c", "/s/M"),
            ] {
                let mut question = Question::new(principal.clone(), method, service, path);
                question.source = (method == "GET").then(|| [10, 0, 0, 1].into());
                for caller in ["outside", "a", "b"] {
                    let question = question.clone().through(caller);
                    let decision = engine.answer(&question, now);
                    let ids = |list: &[std::sync::Arc<crate::PolicyRef>]| -> BTreeSet<String> {
                        list.iter().map(|policy| policy.id.to_string()).collect()
                    };
                    let errors: BTreeSet<String> = decision
                        .errors
                        .iter()
                        .filter(|error| error.policy.mode == Mode::Enforce)
                        .map(|error| error.policy.id.to_string())
                        .collect();
                    let ours = (decision.allowed, ids(&decision.determining), errors);
                    prop_assert_eq!(ours, full(&engine, &question, now), "{} {:?}", question, policies);
                }
            }
        }
    }
}
