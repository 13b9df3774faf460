//! Why not: which permits came nearest, and what of each did not hold. Off the request path, since it asks every policy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use cedar_policy_core::ast::{Expr, ExprKind, Literal, Policy, Value, ValueKind, Var};
use cedar_policy_core::entities::Dereference;
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser::Loc;
use ringfence_model::Position;
use serde::Serialize;

use crate::decision::{Decision, Effect, Mode, PolicyRef};
use crate::engine::Engine;
use crate::position::Lines;
use crate::question::Question;
use crate::text;

/// Permits that are looked at.
const MAX_LOOKED_AT: usize = 10_000;
/// Permits that are told.
const MAX_NEAREST: usize = 5;
/// Values that are told per condition.
const MAX_VALUES: usize = 4;
/// Characters of a condition or value that are told.
const MAX_CHARACTERS: usize = 160;

/// A decision and what stands behind it.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What was decided.
    pub decision: Decision,
    /// Who asked, in the words of policies.
    pub principal: String,
    /// For what action.
    pub action: String,
    /// On what resource.
    pub resource: String,
    /// What the principal belongs to.
    pub groups: Vec<String>,
    /// Without a permit: those that came nearest, the nearest first.
    pub nearest: Vec<Near>,
    /// How many permits were not looked at.
    pub omitted: usize,
}

/// A permit that did not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Near {
    /// Which.
    pub policy: Arc<PolicyRef>,
    /// What of it does not hold, in its order.
    pub failed: Vec<Failed>,
    /// How many of its conditions hold.
    pub held: usize,
}

/// A part of a policy that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The part as written.
    pub text: String,
    /// Where it stands.
    pub position: Position,
    /// What it met: `context.path.id is "8"`.
    pub because: Vec<String>,
}

impl Engine {
    /// Decides, and tells why.
    #[must_use]
    pub fn explain(&self, question: &Question, now: SystemTime) -> Explanation {
        let actor = self.actor(&question.principal);
        let chain: Vec<&str> = question.chain.iter().map(String::as_str).collect();
        let request = question.request(&chain, now);
        let decision = self.decide(&actor, &request);
        let groups = match actor.entities.entity(&actor.uid) {
            Dereference::Data(entity) => entity.ancestors().map(ToString::to_string).collect(),
            _ => BTreeSet::new(),
        };
        let mut explanation = Explanation {
            principal: actor.uid.to_string(),
            action: question.method.clone(),
            resource: format!("{}{}", question.service, question.path),
            groups: groups.into_iter().take(100).collect(),
            nearest: Vec::new(),
            omitted: 0,
            decision,
        };
        // With every attribute of the context: a condition that did not count in the decision may be told too.
        let Some(asked) = self.asked(&actor, &request, true) else { return explanation };
        let told = |entry: &cedar_policy_core::ast::EntityUIDEntry| entry.uid().map(ToString::to_string);
        explanation.action = told(asked.request.action()).unwrap_or(explanation.action);
        explanation.resource = told(asked.request.resource()).unwrap_or(explanation.resource);
        if explanation.decision.determining.is_empty() {
            let evaluator = Evaluator::new(asked.request, &actor.entities, Extensions::all_available());
            self.policies.index.with_stack(|| self.nearest(&evaluator, &mut explanation));
        }
        explanation
    }

    fn nearest(&self, evaluator: &Evaluator<'_>, explanation: &mut Explanation) {
        let mut found: Vec<(usize, Near)> = Vec::new();
        let permits =
            self.policies.index.policies().zip(&self.policies.refs).filter(|(_, filed)| {
                filed.policy.effect == Effect::Permit && filed.policy.mode == Mode::Enforce
            });
        for (looked_at, (policy, filed)) in permits.enumerate() {
            if looked_at >= MAX_LOOKED_AT {
                explanation.omitted += 1;
                continue;
            }
            let Some(lines) = self.policies.lines.get(filed.file) else { continue };
            let (distance, near) = judge(evaluator, policy, &filed.policy, lines);
            found.push((distance, near));
            if found.len() > 4 * MAX_NEAREST {
                keep_nearest(&mut found);
            }
        }
        keep_nearest(&mut found);
        explanation.nearest = found.into_iter().map(|(_, near)| near).collect();
    }
}

fn keep_nearest(found: &mut Vec<(usize, Near)>) {
    // Stable: of two that are as near, the first written is told.
    found.sort_by_key(|(distance, near)| (*distance, std::cmp::Reverse(near.held)));
    found.truncate(MAX_NEAREST);
}

/// How far a permit is from holding, and what is missing. A policy about another service is far.
fn judge(evaluator: &Evaluator<'_>, policy: &Policy, of: &Arc<PolicyRef>, lines: &Lines) -> (usize, Near) {
    let mut near = Near { policy: Arc::clone(of), failed: Vec::new(), held: 0 };
    let mut distance = 0;
    let principal = policy.principal_constraint();
    let resource = policy.resource_constraint();
    let scope = [
        (3, principal.as_expr(), principal.to_string()),
        (3, policy.action_constraint().as_expr(), policy.action_constraint().to_string()),
        (6, resource.as_expr(), resource.to_string()),
    ];
    for (weight, expr, text) in scope {
        if holds(evaluator, &expr) == Ok(true) {
            near.held += 1;
            continue;
        }
        distance += weight;
        let loc = expr.subexpressions().find_map(|part| match part.expr_kind() {
            ExprKind::Lit(Literal::EntityUID(uid)) => uid.loc().cloned(),
            _ => None,
        });
        let position = loc.map_or_else(|| of.position.clone(), |loc| lines.position(loc.start()));
        near.failed.push(Failed { text, position, because: Vec::new() });
    }
    let mut conditions = Vec::new();
    if let Some(body) = policy.non_scope_constraints() {
        conjuncts(body, &mut conditions);
    }
    for condition in conditions {
        let mut because = match holds(evaluator, condition) {
            Ok(true) => {
                near.held += 1;
                continue;
            }
            Ok(false) => Vec::new(),
            Err(error) => vec![short(&error)],
        };
        distance += 1;
        let mut seen = BTreeSet::new();
        for read in reads(condition) {
            let text = read.to_string();
            if because.len() < MAX_VALUES
                && seen.insert(text.clone())
                && let Ok(value) = evaluator.interpret(read, policy.env())
            {
                because.push(format!("{} is {}", short(&text), short(&shown(&value))));
            }
        }
        let loc = condition.source_loc();
        let text =
            loc.map_or_else(|| condition.to_string(), |loc| lines.slice(loc.start(), loc.end()).to_owned());
        let position = loc.map(Loc::start).map_or_else(|| of.position.clone(), |start| lines.position(start));
        near.failed.push(Failed { text: short(&text), position, because });
    }
    (distance, near)
}

fn holds(evaluator: &Evaluator<'_>, expr: &Expr) -> Result<bool, String> {
    match evaluator.interpret(expr, &std::collections::HashMap::new()) {
        Ok(value) => Ok(matches!(value.value_kind(), ValueKind::Lit(Literal::Bool(true)))),
        Err(error) => Err(error.to_string()),
    }
}

/// The parts that must all hold.
fn conjuncts<'e>(expr: &'e Expr, out: &mut Vec<&'e Expr>) {
    match expr.expr_kind() {
        ExprKind::And { left, right } => {
            conjuncts(left, out);
            conjuncts(right, out);
        }
        ExprKind::Lit(Literal::Bool(true)) => {}
        _ => out.push(expr),
    }
}

/// What an expression reads of principal, resource and context: the longest chains of attributes.
fn reads(expr: &Expr) -> Vec<&Expr> {
    fn is_chain(expr: &Expr) -> bool {
        match expr.expr_kind() {
            ExprKind::GetAttr { expr, .. } => is_chain(expr) || is_root(expr),
            _ => false,
        }
    }
    fn is_root(expr: &Expr) -> bool {
        matches!(expr.expr_kind(), ExprKind::Var(Var::Principal | Var::Resource | Var::Context))
    }
    let chains: Vec<&Expr> = expr.subexpressions().filter(|part| is_chain(part)).collect();
    let inner: Vec<*const Expr> = chains
        .iter()
        .filter_map(|chain| match chain.expr_kind() {
            ExprKind::GetAttr { expr, .. } => Some(Arc::as_ptr(expr)),
            _ => None,
        })
        .collect();
    let mut whole: Vec<&Expr> =
        chains.into_iter().filter(|chain| !inner.iter().any(|part| std::ptr::eq(*part, *chain))).collect();
    whole.sort_by_key(|chain| chain.source_loc().map(Loc::start));
    whole
}

fn shown(value: &Value) -> String {
    match value.value_kind() {
        ValueKind::Set(set) => {
            let some: Vec<String> = set.iter().take(8).map(ToString::to_string).collect();
            let more = if set.len() > some.len() { ", …" } else { "" };
            format!("[{}{more}]", some.join(", "))
        }
        _ => value.to_string(),
    }
}

fn short(text: &str) -> String {
    text::short(text, MAX_CHARACTERS)
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.decision.allowed { "allowed" } else { "denied" };
        writeln!(f, "{word}: {} {} on {}", self.principal, self.action, self.resource)?;
        for policy in &self.decision.determining {
            writeln!(f, "  {policy}")?;
        }
        for policy in &self.decision.observed {
            writeln!(f, "  observed: {policy}")?;
        }
        for error in &self.decision.errors {
            writeln!(f, "  not evaluated: {}: {}", error.policy, short(&error.message))?;
        }
        if !self.decision.determining.is_empty() {
            return Ok(());
        }
        writeln!(f, "  nothing permits it")?;
        for near in &self.nearest {
            writeln!(f, "  {} would, but:", near.policy)?;
            for failed in &near.failed {
                writeln!(f, "    {}: {} does not hold", failed.position, failed.text)?;
                for because in &failed.because {
                    writeln!(f, "      {because}")?;
                }
            }
        }
        if self.omitted > 0 {
            writeln!(f, "  {} more permits were not looked at", self.omitted)?;
        }
        Ok(())
    }
}
