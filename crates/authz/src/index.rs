//! Which policies can matter for a request: found by principal, resource and action instead of asked one by one.
//!
//! The scope of a policy (`principal in Group::"staff/nurse", action == Action::"GET", …`) is judged before its
//! conditions, cannot fail, and ends the evaluation when it does not hold. So a policy whose scope does not hold has no
//! part in the decision, in its reasons or in its errors, and leaving it out changes nothing. Cedar's own authorizer asks
//! every policy, at a cost that grows with their number. One policy set per request, built from the candidates, was
//! rejected: it costs more than the evaluation.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use cedar_policy_core::ast::{
    ActionConstraint, Effect, EntityReference, EntityType, EntityUID, EntityUIDEntry, Expr, ExprKind,
    Literal, Policy, PolicySet, PrincipalOrResourceConstraint, Request, ValueKind,
};
use cedar_policy_core::entities::{Dereference, Entities};
use cedar_policy_core::evaluator::{EvaluationError, Evaluator};
use cedar_policy_core::extensions::Extensions;

/// What a constraint hangs on: nothing, an entity or a type, by number.
type Key = u32;
/// The key of a constraint that holds for all.
const ANY: Key = 0;

/// Stack that Cedar wants to have left, and then some.
const SPARE_BYTES: usize = 192 << 10;
/// Stack that a level of an expression takes.
const LEVEL_BYTES: usize = if cfg!(debug_assertions) { 32 << 10 } else { 6 << 10 };
/// Stack for those who have too little.
const STACK_BYTES: usize = 8 << 20;

/// Policies, and the way from a request to those whose scope may hold.
#[derive(Debug, Default)]
pub struct Index {
    policies: Vec<Indexed>,
    entities: HashMap<EntityUID, Key>,
    types: HashMap<EntityType, Key>,
    slices: Level<Level<Level<Vec<u32>>>>,
    next: Key,
    /// The depth of the deepest condition.
    depth: usize,
}

type Level<T> = HashMap<Key, T, BuildHasherDefault<Spread>>;

/// A policy, with its whole condition put together once.
#[derive(Debug)]
struct Indexed {
    policy: Policy,
    condition: Expr,
}

/// Under which keys an entity may be named: all, its type, itself, its ancestors. Only those that some policy names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

/// What came of a request: numbers of policies, in their order.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Permits that hold.
    pub permits: Vec<usize>,
    /// Forbids that hold.
    pub forbids: Vec<usize>,
    /// Policies that could not be evaluated, and why.
    pub errors: Vec<(usize, EvaluationError)>,
}

impl Index {
    /// Files all policies.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let mut index = Self { next: ANY + 1, ..Self::default() };
        for policy in policies {
            index.file(policy);
        }
        index
    }

    /// Files all policies of a set, by their ids.
    #[must_use]
    pub fn of_set(set: &PolicySet) -> Self {
        let mut policies: Vec<Policy> = set.policies().cloned().collect();
        policies.sort_by(|a, b| a.id().cmp(b.id()));
        Self::new(policies)
    }

    /// The policies, in order.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.policies.iter().map(|indexed| &indexed.policy)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The keys of an entity, with its ancestors in `entities`.
    #[must_use]
    pub fn keys(&self, uid: &EntityUID, entities: &Entities) -> Keys {
        match entities.entity(uid) {
            Dereference::Data(entity) => self.keys_among(uid, entity.ancestors()),
            _ => self.keys_among(uid, std::iter::empty()),
        }
    }

    fn keys_among<'e>(&self, uid: &EntityUID, ancestors: impl Iterator<Item = &'e EntityUID>) -> Keys {
        let mut keys = vec![ANY];
        keys.extend(self.types.get(uid.entity_type()));
        keys.extend(self.entities.get(uid));
        keys.extend(ancestors.filter_map(|ancestor| self.entities.get(ancestor)));
        keys.sort_unstable();
        keys.dedup();
        Keys(keys)
    }

    /// The policies whose scope may hold, in order and each once.
    #[must_use]
    pub fn candidates(&self, principal: &Keys, action: &Keys, resource: &Keys) -> Vec<u32> {
        let mut found = Vec::with_capacity(16);
        for by_resource in principal.0.iter().filter_map(|key| self.slices.get(key)) {
            for by_action in resource.0.iter().filter_map(|key| by_resource.get(key)) {
                for slice in action.0.iter().filter_map(|key| by_action.get(key)) {
                    found.extend_from_slice(slice);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Judges a request.
    #[must_use]
    pub fn judge(&self, request: Request, entities: &Entities) -> Outcome {
        let keys = |entry: &EntityUIDEntry| entry.uid().map(|uid| self.keys(uid, entities));
        let found = match (keys(request.principal()), keys(request.action()), keys(request.resource())) {
            (Some(principal), Some(action), Some(resource)) => {
                self.candidates(&principal, &action, &resource)
            }
            // Who is not known may be anybody.
            _ => (0..u32::try_from(self.policies.len()).unwrap_or(u32::MAX)).collect(),
        };
        self.judge_among(&found, request, entities)
    }

    /// Judges a request by these candidates.
    #[must_use]
    pub fn judge_among(&self, candidates: &[u32], request: Request, entities: &Entities) -> Outcome {
        let mut outcome = Outcome::default();
        if candidates.is_empty() {
            return outcome;
        }
        let evaluator = Evaluator::new(request, entities, Extensions::all_available());
        self.with_stack(|| {
            for number in candidates {
                let number = *number as usize;
                let Some(indexed) = self.policies.get(number) else { continue };
                match indexed.holds(&evaluator) {
                    Ok(false) => {}
                    Ok(true) => match indexed.policy.effect() {
                        Effect::Permit => outcome.permits.push(number),
                        Effect::Forbid => outcome.forbids.push(number),
                    },
                    Err(error) => outcome.errors.push((number, error)),
                }
            }
        });
        outcome
    }

    /// Evaluates with room for the deepest policy. Where the stack is short Cedar gives up on a policy, and a forbid that
    /// was given up forbids nothing; so a thread with too little gets more.
    pub(crate) fn with_stack<T>(&self, evaluate: impl FnOnce() -> T) -> T {
        stacker::maybe_grow(SPARE_BYTES + self.depth * LEVEL_BYTES, STACK_BYTES, evaluate)
    }

    fn file(&mut self, policy: Policy) {
        let number = u32::try_from(self.policies.len()).unwrap_or(u32::MAX);
        let principal = self.key(policy.principal_constraint().as_inner());
        let resource = self.key(policy.resource_constraint().as_inner());
        let actions = match policy.action_constraint() {
            ActionConstraint::Any => vec![ANY],
            ActionConstraint::Eq(uid) => vec![self.entity(uid)],
            ActionConstraint::In(uids) => uids.iter().map(|uid| self.entity(uid)).collect(),
        };
        let by_action = self.slices.entry(principal).or_default().entry(resource).or_default();
        for action in actions {
            let slice = by_action.entry(action).or_default();
            if slice.last() != Some(&number) {
                slice.push(number);
            }
        }
        let condition = policy.condition();
        self.depth = self.depth.max(depth(&condition));
        self.policies.push(Indexed { condition, policy });
    }

    fn key(&mut self, constraint: &PrincipalOrResourceConstraint) -> Key {
        match constraint {
            PrincipalOrResourceConstraint::Eq(EntityReference::EUID(uid))
            | PrincipalOrResourceConstraint::In(EntityReference::EUID(uid))
            | PrincipalOrResourceConstraint::IsIn(_, EntityReference::EUID(uid)) => self.entity(uid),
            PrincipalOrResourceConstraint::Is(kind) => {
                let next = &mut self.next;
                *self.types.entry(kind.as_ref().clone()).or_insert_with(|| number(next))
            }
            // A slot that nothing fills is an error of evaluation, which must not be lost.
            _ => ANY,
        }
    }

    fn entity(&mut self, uid: &EntityUID) -> Key {
        let next = &mut self.next;
        *self.entities.entry(uid.clone()).or_insert_with(|| number(next))
    }
}

impl Outcome {
    /// The decision: something permits it and nothing forbids it.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.forbids.is_empty() && !self.permits.is_empty()
    }

    /// The policies that decided: the forbids, or without one the permits.
    #[must_use]
    pub fn reasons(&self) -> &[usize] {
        if self.forbids.is_empty() { &self.permits } else { &self.forbids }
    }
}

impl Indexed {
    #[expect(
        clippy::result_large_err,
        reason = "Cedar's own error, and rare: a box would be paid for in the signature only"
    )]
    fn holds(&self, evaluator: &Evaluator<'_>) -> Result<bool, EvaluationError> {
        match evaluator.interpret(&self.condition, self.policy.env())?.value_kind() {
            ValueKind::Lit(Literal::Bool(holds)) => Ok(*holds),
            // Cedar has the words for it.
            _ => evaluator.evaluate(&self.policy),
        }
    }
}

/// The depth of an expression.
pub(crate) fn depth(expr: &Expr) -> usize {
    let below = match expr.expr_kind() {
        ExprKind::If { test_expr, then_expr, else_expr } => {
            depth(test_expr).max(depth(then_expr)).max(depth(else_expr))
        }
        ExprKind::And { left, right } | ExprKind::Or { left, right } => depth(left).max(depth(right)),
        ExprKind::UnaryApp { arg, .. } => depth(arg),
        ExprKind::BinaryApp { arg1, arg2, .. } => depth(arg1).max(depth(arg2)),
        ExprKind::ExtensionFunctionApp { args, .. } => args.iter().map(depth).max().unwrap_or(0),
        ExprKind::GetAttr { expr, .. }
        | ExprKind::HasAttr { expr, .. }
        | ExprKind::ExtHasAttr { expr, .. }
        | ExprKind::Like { expr, .. }
        | ExprKind::Is { expr, .. } => depth(expr),
        ExprKind::Set(items) => items.iter().map(depth).max().unwrap_or(0),
        ExprKind::Record(members) => members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    };
    below + 1
}

fn number(next: &mut Key) -> Key {
    let number = *next;
    *next += 1;
    number
}

/// Keys are numbers that we gave ourselves: nobody outside chooses them, so spreading them is enough.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, key: u32) {
        self.0 = (self.0 ^ u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
