//! What a transaction tells: verdicts, and matches from which everything can be explained later.

use crate::rules::RuleInfo;

/// The most matched variables that one match tells.
pub(crate) const VARIABLES: usize = 16;
/// The most bytes of a matched value.
pub(crate) const BYTES: usize = 200;
/// The most bytes of an expanded message.
pub(crate) const MESSAGE: usize = 1024;
/// The most matches of a transaction.
pub(crate) const MATCHES: usize = 256;

/// Whether rules run, and whether they may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing runs.
    Off,
    /// Rules run and tell; nothing is refused.
    Observe,
    /// Rules run and refuse.
    Enforce,
}

/// What to do with the transaction after a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Stop.
    Stop(Interruption),
}

/// How a rule ends a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// The rule.
    pub rule: u64,
    /// Its phase.
    pub phase: u8,
    /// What it asks for.
    pub action: Stop,
    /// The status to answer with.
    pub status: u16,
}

/// What an interruption asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Answer with the status.
    Deny,
    /// Close the connection.
    Drop,
    /// Send the client there.
    Redirect(String),
}

/// A rule that matched and is to be told.
#[derive(Clone, Debug)]
pub struct Match {
    /// The rule.
    pub rule: RuleInfo,
    /// Its message, expanded.
    pub message: String,
    /// Its log data, expanded.
    pub data: String,
    /// What it added to anomaly scores.
    pub score: i64,
    /// It refused, or would have if it might.
    pub disruptive: bool,
    /// The values that matched, of all links, the first ones.
    pub variables: Vec<MatchedVariable>,
    /// How many values matched in all.
    pub count: usize,
}

/// One value that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedVariable {
    /// As in `ARGS:name`.
    pub name: String,
    /// The value after the transformations, its beginning.
    pub value: Vec<u8>,
    /// What the operator found in it, its beginning; empty when it tells no part.
    pub found: Vec<u8>,
}

/// Anomaly scores, by the names that the Core Rule Set gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// Of the request.
    pub inbound: i64,
    /// Of the response.
    pub outbound: i64,
}

/// What a rule cost, when costs are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The rule; zero is what all share: taking messages apart and the one look at every value.
    pub rule: u64,
    /// Time it took, its chain and its effects included.
    pub nanoseconds: u64,
    /// How often its operator looked at a value.
    pub evaluations: u64,
}
