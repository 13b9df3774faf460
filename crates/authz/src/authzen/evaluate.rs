//! Requests to decisions, and decisions to answers.

use std::net::IpAddr;
use std::time::SystemTime;

use ringfence_model::OUTSIDE;
use serde_json::{Map, json};

use super::{EvaluationRequest, EvaluationResponse, EvaluationsRequest, Refused, Semantic};
use crate::actor::Principal;
use crate::decision::Decision;
use crate::engine::Engine;
use crate::question::Question;

/// Who asks: a service enforces what is decided on its own resources, so these are all that it may ask about.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The service.
    pub service: &'a str,
    /// Who stands behind the request that it works on, where that is proved: then nobody else may be asked for, and what
    /// was verified counts, not what the service says.
    pub principal: Option<&'a Principal>,
    /// All services on the way of that request.
    pub chain: &'a [&'a str],
    /// Where the gateway's client called from.
    pub source: Option<IpAddr>,
}

/// What was asked, and what was decided.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What was asked.
    pub question: Question,
    /// What was decided.
    pub decision: Decision,
}

impl Engine {
    /// Decides on an evaluation request.
    ///
    /// # Errors
    /// When it means nothing here, or is not for the asker to know.
    pub fn evaluate(
        &self,
        request: &EvaluationRequest,
        asker: Option<&Asker<'_>>,
        now: SystemTime,
    ) -> Result<Judged, Refused> {
        let mut question = request.question()?;
        if let Some(asker) = asker {
            asker.bind(&mut question)?;
        }
        let decision = self.answer(&question, now);
        Ok(Judged { question, decision })
    }

    /// Decides on several; those after the stop are not decided.
    #[must_use]
    pub fn evaluate_all(
        &self,
        request: &EvaluationsRequest,
        asker: Option<&Asker<'_>>,
        now: SystemTime,
    ) -> Vec<Result<Judged, Refused>> {
        let mut answers = Vec::with_capacity(request.evaluations.len());
        for evaluation in &request.evaluations {
            let answer =
                evaluation.as_ref().map_err(Clone::clone).and_then(|one| self.evaluate(one, asker, now));
            let permitted = answer.as_ref().is_ok_and(|judged| judged.decision.allowed);
            answers.push(answer);
            if match request.semantic {
                Semantic::ExecuteAll => false,
                Semantic::DenyOnFirstDeny => !permitted,
                Semantic::PermitOnFirstPermit => permitted,
            } {
                break;
            }
        }
        answers
    }
}

impl Asker<'_> {
    /// Holds a question to what the asker may ask, and to what is proved.
    fn bind(&self, question: &mut Question) -> Result<(), Refused> {
        if question.service != self.service {
            let message = format!(
                "{} may ask about its own resources only: `resource` is of another service",
                self.service
            );
            return Err(Refused::new(403, message));
        }
        let Some(proved) = self.principal else { return Ok(()) };
        let same = |asked: &Principal| {
            (asked.kind, &asked.provider, &asked.id) == (proved.kind, &proved.provider, &proved.id)
        };
        if !same(&question.principal) {
            let message =
                "`subject` is not who the transaction token is of: leave the token out to ask for others";
            return Err(Refused::new(403, message));
        }
        question.principal = proved.clone();
        question.chain = self.chain.iter().map(|name| (*name).to_owned()).collect();
        self.chain.last().copied().unwrap_or(OUTSIDE).clone_into(&mut question.caller);
        question.source = self.source;
        Ok(())
    }
}

impl EvaluationResponse {
    /// The answer: the decision with the ids of the policies that made it and what they say of it, or why there is none.
    #[must_use]
    pub fn of(judged: &Result<Judged, Refused>) -> Self {
        let decision = match judged {
            Ok(judged) => &judged.decision,
            Err(Refused { status, message }) => {
                let error = json!({ "status": status, "message": message });
                return Self { decision: false, context: Map::from_iter([("error".into(), error)]) };
            }
        };
        let mut context = Map::new();
        let policies: Vec<&str> = decision.determining.iter().map(|policy| policy.id.as_ref()).collect();
        if !policies.is_empty() {
            context.insert("policies".into(), json!(policies));
        }
        let reasons: Vec<&str> =
            decision.determining.iter().filter_map(|policy| policy.reason.as_deref()).collect();
        if !reasons.is_empty() {
            context.insert("reason_admin".into(), json!({ "en": reasons.join("; ") }));
        }
        Self { decision: decision.allowed, context }
    }
}
