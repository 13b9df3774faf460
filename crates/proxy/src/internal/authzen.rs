//! AuthZEN Authorization API 1.0: a service asks the engine that judges calls to it.

use std::borrow::Cow;
use std::time::SystemTime;

use ringfence_authz::authzen::{
    Asker, EvaluationRequest, EvaluationResponse, EvaluationsRequest, Judged, Refused,
};
use ringfence_authz::{Effect, PrincipalKind};
use serde_json::json;

use super::{JSON, Reply, Told, base, refused};
use crate::delegate;
use crate::deny::Deny;
use crate::handle::Ctx;
use crate::headers::trace_of;
use crate::policy::Policy;
use crate::table::TableRef;
use crate::view::HeadView;

pub(super) const EVALUATION: &str = "/access/v1/evaluation";
pub(super) const EVALUATIONS: &str = "/access/v1/evaluations";
pub(super) const METADATA: &str = "/.well-known/authzen-configuration";

/// What can be asked, and where.
pub(super) fn metadata(ctx: &Ctx<'_>, view: HeadView<'_>, table: &TableRef) -> Result<Reply, Deny> {
    policy(ctx, table)?;
    let base = base(view);
    let body = json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}{EVALUATION}"),
        "access_evaluations_endpoint": format!("{base}{EVALUATIONS}"),
    });
    Ok(Reply { media_type: JSON, ..Reply::json(body.to_string()) })
}

fn policy<'t>(ctx: &Ctx<'_>, table: &'t TableRef) -> Result<&'t Policy, Deny> {
    let reason = "the fence has no `policies`: its edges alone decide, before a request arrives";
    table.policy.as_deref().ok_or_else(|| {
        let position = table.position_of(&ctx.peer.caller).map(ToString::to_string);
        refused(404, "internal.policies", reason).position(position)
    })
}

/// Answers one evaluation, or several.
pub(super) fn evaluate(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    table: &TableRef,
    bytes: &[u8],
) -> Result<Reply, Deny> {
    let policy = policy(ctx, table)?;
    let several = view.path() == EVALUATIONS;
    // Who stands behind the request that the service works on, if it passes the token of that request on.
    let held = delegate::held(ctx, view, table, trace_of(view).trace)?;
    let actor = held.as_ref().map(|(behalf, _)| ctx.worker.actors.behalf(policy, behalf));
    let chain: Vec<&str> = held.iter().flat_map(|(_, chain)| chain.names()).collect();
    let asker = Asker {
        service: &ctx.peer.caller,
        principal: actor.as_ref().map(|prepared| prepared.actor.principal()),
        chain: &chain,
        source: held.as_ref().and_then(|(behalf, _)| behalf.source()),
    };
    let malformed = |Refused { status, message }| refused(status, "evaluation.malformed", message);
    let request = if several {
        EvaluationsRequest::parse(bytes).map_err(malformed)?
    } else {
        EvaluationsRequest::one(EvaluationRequest::parse(bytes).map_err(malformed)?)
    };
    let judged = policy.engine().evaluate_all(&request, Some(&asker), SystemTime::now());
    // What is not for the asker to know is said by the status where the answer is one; of several each has its own.
    if let ([Err(Refused { status: 403, message })], true) = (judged.as_slice(), request.single) {
        return Err(refused(403, "evaluation.foreign", message.as_str()));
    }
    let mut answers = judged.iter().map(EvaluationResponse::of);
    let body = match answers.next() {
        Some(answer) if request.single => json!(answer),
        first => json!({ "evaluations": first.into_iter().chain(answers).collect::<Vec<_>>() }),
    };
    Ok(Reply { told: told(policy, &judged), ..Reply::json(body.to_string()) })
}

/// For the operator: whom it was about, and the first deny.
fn told(policy: &Policy, judged: &[Result<Judged, Refused>]) -> Told {
    let subject = judged.iter().find_map(|one| one.as_ref().ok()).map(|judged| &judged.question.principal);
    let subject = subject
        .filter(|principal| principal.kind != PrincipalKind::Anonymous)
        .map(|principal| (principal.id.clone(), principal.provider.clone()));
    let permitted = |one: &&Result<Judged, Refused>| one.as_ref().is_ok_and(|judged| judged.decision.allowed);
    let denied = judged.iter().filter(|one| !permitted(one)).count();
    let Some(first) = judged.iter().find(|one| !permitted(one)) else { return Told { subject, deny: None } };
    let (rule, position, mut reason): (Cow<'static, str>, _, String) = match first {
        Err(refused) => ("evaluation.malformed".into(), None, refused.message.clone()),
        Ok(Judged { question, decision }) => {
            match decision.determining.iter().find(|policy| policy.effect == Effect::Forbid) {
                Some(by) => {
                    (by.id.to_string().into(), Some(by.position.to_string()), format!("{question}: {by}"))
                }
                None => (
                    "policy.default".into(),
                    Some(policy.position().to_owned()),
                    format!("{question}: no policy permits it"),
                ),
            }
        }
    };
    if judged.len() > 1 {
        reason = format!("{denied} of {} are denied, the first: {reason}", judged.len());
    }
    let deny = Deny::new(200, "evaluate", rule, reason).position(position);
    Told { subject, deny: Some(deny) }
}
