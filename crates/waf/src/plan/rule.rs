//! A rule as the engine runs it.

use regex_automata::meta::Regex;

use super::{
    chains::ChainId,
    text::{Piece, Text},
};
use crate::{body::Kind, engine::leading_number, lang::Variable, operator::Operator, rules::RuleInfo};

/// Which members of a collection, ready to compare.
#[derive(Debug)]
pub(crate) enum Members {
    All,
    /// In lower case.
    Name(Box<[u8]>),
    /// A slot of TX.
    Slot(u32),
    Regex(Box<Regex>),
}

/// One target or one exclusion.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) count: bool,
    pub(crate) variable: Variable,
    pub(crate) members: Members,
}

/// What a rule asks of its values.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all rules have an operator")]
pub(crate) enum Test {
    /// `SecAction`.
    Always,
    Operator {
        operator: Operator,
        argument: Text,
        negated: bool,
    },
}

/// A test that needs nothing but a number in TX, or whether it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quick {
    pub(crate) slot: u32,
    pub(crate) count: bool,
    pub(crate) comparison: Comparison,
    pub(crate) argument: Number,
    pub(crate) negated: bool,
}

/// What numbers are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Is(i64),
    Slot(u32),
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Comparison {
    pub(crate) fn holds(self, value: i64, argument: i64) -> bool {
        match self {
            Self::Eq => value == argument,
            Self::Ge => value >= argument,
            Self::Gt => value > argument,
            Self::Le => value <= argument,
            Self::Lt => value < argument,
        }
    }
}

/// Where `setvar` writes.
#[derive(Debug)]
pub(crate) enum Place {
    Slot(u32),
    /// A member of TX whose name has a macro.
    Named(Text),
    /// A member of another collection.
    Stored(Variable, Text),
}

/// What `setvar` does.
#[derive(Debug)]
pub(crate) enum Change {
    Remove,
    Set(Text),
    Add(Text),
    Subtract(Text),
}

/// One `setvar`.
#[derive(Debug)]
pub(crate) struct SetVar {
    pub(crate) place: Place,
    pub(crate) change: Change,
    /// It counts towards an anomaly score.
    pub(crate) score: bool,
}

/// How a rule ends the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disruption {
    None,
    Deny,
    Drop,
    Redirect(Text),
    /// Stop looking: everything, this phase only, or the request phases.
    Allow(Allow),
}

/// The reach of `allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    All,
    Phase,
    Request,
}

/// Which rules a run-time removal takes, and which of their values.
#[derive(Debug)]
pub(crate) struct Removal {
    /// Indices of rules, sorted.
    pub(crate) rules: Box<[u32]>,
    /// None: the whole rule.
    pub(crate) target: Option<Target>,
}

/// What else a rule does when it matched completely.
#[derive(Debug)]
pub(crate) enum Step {
    Engine(crate::Mode),
    RequestBodyAccess(bool),
    ResponseBodyAccess(bool),
    ForceRequestBody(bool),
    BodyProcessor(Kind),
    /// An index into [`super::Plan::removals`].
    Remove(u32),
    /// Skip so many rules.
    Skip(u32),
    /// An index into the steps of the phase.
    SkipTo(u32),
    Collection(Variable, Text),
    SetUser(Text),
    SetSession(Text),
    SetEnv(Box<[u8]>, Text),
}

/// A rule, or one link of a chain.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) info: RuleInfo,
    pub(crate) phase: u8,
    pub(crate) targets: Vec<Target>,
    pub(crate) exclusions: Vec<Target>,
    pub(crate) test: Test,
    pub(crate) chain: ChainId,
    pub(crate) multi_match: bool,
    pub(crate) capture: bool,
    pub(crate) setvars: Vec<SetVar>,
    pub(crate) steps: Vec<Step>,
    pub(crate) message: Option<Text>,
    pub(crate) data: Option<Text>,
    pub(crate) disruption: Disruption,
    pub(crate) status: u16,
    pub(crate) log: bool,
    /// The next link.
    pub(crate) next: Option<u32>,
    pub(crate) quick: Option<Quick>,
}

impl Rule {
    /// The quick form of the rule's test, if it has one.
    pub(super) fn to_quick(&self) -> Option<Quick> {
        let (Test::Operator { operator, argument, negated }, [target]) = (&self.test, &*self.targets) else {
            return None;
        };
        let Members::Slot(slot) = target.members else { return None };
        if target.variable != Variable::Tx || self.chain != 0 || self.capture || !self.exclusions.is_empty() {
            return None;
        }
        let comparison = match operator.name() {
            "eq" => Comparison::Eq,
            "ge" => Comparison::Ge,
            "gt" => Comparison::Gt,
            "le" => Comparison::Le,
            "lt" => Comparison::Lt,
            _ => return None,
        };
        let argument = match &*argument.pieces {
            [Piece::Bytes(bytes)] => Number::Is(leading_number(bytes)),
            [Piece::Slot(slot)] => Number::Slot(*slot),
            _ => return None,
        };
        Some(Quick { slot, count: target.count, comparison, argument, negated: *negated })
    }
}
