//! Any bytes as an AuthZEN request: bounded, answered or refused with the asker's fault, and never about another service.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use ringfence_authz::authzen::{
    Asker, EvaluationRequest, EvaluationResponse, EvaluationsRequest, MAX_EVALUATIONS,
};
use ringfence_authz::{Engine, Principal, Sources};
use ringfence_model::Fence;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let text = "fence: f\ntrust_domain: f.example\nservices:\n  \
        a: { listen: 1, calls: [{ service: b, allow: [{ paths: ['/x/{id}', '/**'] }] }] }\n  b: { listen: 2 }\n";
    let fence = Fence::parse(vec![("ringfence.yaml", text)]).expect("a valid fence");
    let policy = "permit(principal, action, resource in Service::\"b\")\n\
        when { context.path has id && context.path.id != \"0\" && context.chain.containsAny(context.chain) };";
    Engine::new(&fence, &Sources::of_texts([("p.cedar", policy)], None)).expect("a valid policy")
});

fuzz_target!(|bytes: &[u8]| {
    let now = SystemTime::UNIX_EPOCH;
    let nora = Principal::user("p", "nora");
    let askers = [
        Asker { service: "b", principal: None, chain: &[], source: None },
        Asker { service: "b", principal: Some(&nora), chain: &["a"], source: None },
    ];
    if let Err(refused) = EvaluationRequest::parse(bytes) {
        assert_eq!(refused.status, 400);
    }
    let Ok(request) = EvaluationsRequest::parse(bytes) else { return };
    assert!((1..=MAX_EVALUATIONS).contains(&request.evaluations.len()));
    for asker in &askers {
        let judged = ENGINE.evaluate_all(&request, Some(asker), now);
        assert!(judged.len() <= request.evaluations.len());
        for one in &judged {
            let answer = EvaluationResponse::of(one);
            match one {
                Err(refused) => assert!(!answer.decision && matches!(refused.status, 400 | 403)),
                Ok(judged) => {
                    assert_eq!(judged.question.service, "b");
                    assert!(asker.principal.is_none_or(|who| *who == judged.question.principal));
                }
            }
        }
    }
});
