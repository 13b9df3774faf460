//! The index against Cedar's own authorizer, which asks every policy: decision, reasons and errors are the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::collections::BTreeSet;

use cedar_policy_core::ast::{Context, Eid, EntityType, EntityUID, PolicySet, Request};
use cedar_policy_core::authorizer::{AuthorizationError, Authorizer, Decision};
use cedar_policy_core::entities::{Entities, EntityJsonParser, NoEntitiesSchema, TCComputation};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser::parse_policyset;
use proptest::prelude::*;
use ringfence_authz::index::Index;

fn entity() -> impl Strategy<Value = String> {
    (prop_oneof![Just("User"), Just("Group"), Just("Doc")], 0..4_u8)
        .prop_map(|(kind, id)| format!("{kind}::\"{id}\""))
}

fn scope(variable: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(variable.to_owned()),
        2 => entity().prop_map(move |e| format!("{variable} == {e}")),
        3 => entity().prop_map(move |e| format!("{variable} in {e}")),
        1 => Just(format!("{variable} is User")),
        1 => entity().prop_map(move |e| format!("{variable} is User in {e}")),
        1 => entity().prop_map(move |e| format!("{variable} is Doc in {e}")),
    ]
}

fn action() -> impl Strategy<Value = String> {
    let one = || (0..4_u8).prop_map(|id| format!("Action::\"{id}\""));
    prop_oneof![
        Just("action".to_owned()),
        one().prop_map(|a| format!("action == {a}")),
        one().prop_map(|a| format!("action in {a}")),
        proptest::collection::vec(one(), 0..3).prop_map(|list| format!("action in [{}]", list.join(", "))),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        2 => Just("when { principal.n == 1 }".to_owned()),
        1 => Just("unless { resource.n == 1 }".to_owned()),
        1 => Just("when { context.n > 0 }".to_owned()),
        1 => Just("when { context.n }".to_owned()),
        1 => Just("when { 9223372036854775807 + context.n == 0 }".to_owned()),
        1 => entity().prop_map(|e| format!("when {{ principal in {e} || {e}.n == 1 }}")),
    ]
}

fn policies() -> impl Strategy<Value = String> {
    let effect = prop_oneof![2 => Just("permit"), 1 => Just("forbid")];
    let policy = (effect, scope("principal"), action(), scope("resource"), condition()).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("{effect}({principal}, {action}, {resource}) {condition};\n")
        },
    );
    proptest::collection::vec(policy, 0..24).prop_map(|policies| policies.concat())
}

/// Entities whose parents have smaller numbers, so that there is no circle; some are missing.
fn entities() -> impl Strategy<Value = Entities> {
    let one = (
        any::<bool>(),
        proptest::option::of(0..3_i64),
        proptest::collection::vec((0..3_usize, 0..4_usize), 0..3),
    );
    proptest::collection::vec(one, 16).prop_map(|all| {
        let kinds = ["User", "Group", "Doc", "Action"];
        let mut list = Vec::new();
        for (at, (present, n, parents)) in all.iter().enumerate() {
            let (kind, id) = (kinds[at / 4], at % 4);
            if !present {
                continue;
            }
            let mut lies_in = BTreeSet::new();
            for (parent_kind, parent_id) in parents {
                // Actions lie in actions only.
                let parent_kind = if kind == "Action" { 3 } else { *parent_kind };
                if *parent_id < id {
                    lies_in.insert((kinds[parent_kind], *parent_id));
                }
            }
            let lies_in: Vec<_> = lies_in
                .into_iter()
                .map(|(kind, id)| serde_json::json!({ "type": kind, "id": id.to_string() }))
                .collect();
            let attrs = n.map_or_else(|| serde_json::json!({}), |n| serde_json::json!({ "n": n }));
            list.push(serde_json::json!({
                "uid": { "type": kind, "id": id.to_string() }, "attrs": attrs, "parents": lies_in,
            }));
        }
        EntityJsonParser::new(
            None::<&NoEntitiesSchema>,
            Extensions::all_available(),
            TCComputation::ComputeNow,
        )
        .from_json_value(serde_json::Value::Array(list))
        .unwrap()
    })
}

fn uid(kind: &str, id: u8) -> EntityUID {
    EntityUID::from_components(EntityType::from_normalized_str(kind).unwrap(), Eid::new(id.to_string()), None)
}

fn full(
    set: &PolicySet,
    request: Request,
    entities: &Entities,
) -> (bool, BTreeSet<String>, BTreeSet<String>) {
    let response = Authorizer::new().is_authorized(request, set, entities);
    let reasons = response.diagnostics.reason.iter().map(ToString::to_string).collect();
    let errors = response.diagnostics.errors.iter().map(|error| match error {
        AuthorizationError::PolicyEvaluationError { id, .. } => id.to_string(),
    });
    (response.decision == Decision::Allow, reasons, errors.collect())
}

fn by_index(
    index: &Index,
    request: Request,
    entities: &Entities,
) -> (bool, BTreeSet<String>, BTreeSet<String>) {
    let outcome = index.judge(request, entities);
    let id = |number: &usize| index.policies().nth(*number).unwrap().id().to_string();
    let errors = outcome.errors.iter().map(|(number, _)| id(number)).collect();
    (outcome.allowed(), outcome.reasons().iter().map(id).collect(), errors)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_index_answers_as_the_whole_set_does(text in policies(), entities in entities(), n in 0..3_i64) {
        let set = parse_policyset(&text).unwrap();
        let index = Index::of_set(&set);
        prop_assert_eq!(index.len(), set.policies().count());
        let context = Context::from_json_value(serde_json::json!({ "n": n })).unwrap();
        for principal in 0..4 {
            for action in 0..4 {
                for (kind, resource) in [("Doc", 0), ("Doc", 3), ("Group", 1), ("User", 2)] {
                    let request = Request::new(
                        (uid("User", principal), None),
                        (uid("Action", action), None),
                        (uid(kind, resource), None),
                        context.clone(),
                        None::<&cedar_policy_core::ast::RequestSchemaAllPass>,
                        Extensions::all_available(),
                    )
                    .unwrap();
                    let want = full(&set, request.clone(), &entities);
                    prop_assert_eq!(by_index(&index, request, &entities), want, "{}", text);
                }
            }
        }
    }
}

#[test]
fn a_policy_of_a_template_is_found_by_what_fills_its_slots() {
    let mut set =
        parse_policyset("@id(\"t\") permit(principal in ?principal, action, resource == ?resource);")
            .unwrap();
    let id = set.templates().next().unwrap().id().clone();
    let slots = [
        (cedar_policy_core::ast::SlotId::principal(), uid("Group", 1)),
        (cedar_policy_core::ast::SlotId::resource(), uid("Doc", 1)),
    ];
    let linked = cedar_policy_core::ast::PolicyID::from_string("linked");
    set.link(id, linked, slots.into_iter().collect()).unwrap();
    let index = Index::of_set(&set);
    for (principal, resource, allowed) in [(1, 1, true), (1, 2, false), (2, 1, false)] {
        let request = Request::new(
            (uid("Group", principal), None),
            (uid("Action", 0), None),
            (uid("Doc", resource), None),
            Context::empty(),
            None::<&cedar_policy_core::ast::RequestSchemaAllPass>,
            Extensions::all_available(),
        )
        .unwrap();
        assert_eq!(index.judge(request, &Entities::new()).allowed(), allowed);
    }
}
