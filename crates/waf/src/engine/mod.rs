//! One transaction: what a request and its response bring, and what the rules make of it.

mod act;
mod clock;
mod guess;
mod kept;
mod memory;
mod report;
mod request;
mod response;
mod run;
mod sieve;
mod sift;
mod state;
mod subjects;
mod values;

use std::sync::Arc;

pub use guess::Interest;
pub(crate) use kept::Kept;
pub use report::{Cost, Interruption, Match, MatchedVariable, Mode, Scores, Stop, Verdict};
pub(crate) use state::leading_number;
use state::{State, Tx};
pub(crate) use subjects::is_of_message;

use crate::{exclusion::Exclusion, lang::Variable, rules::Rules};

/// Buffers of a transaction, to be given to the next one: keep one per worker.
#[derive(Debug, Default)]
pub struct Scratch(Box<State>);

/// One request and its response under the rules.
///
/// Feed it in order: connection, request line, headers, [`Self::phase1`], body, [`Self::phase2`], and where responses are
/// inspected the response's head, [`Self::phase3`], body, [`Self::phase4`]. [`Self::phase5`] closes it.
#[derive(Debug)]
pub struct Transaction {
    rules: Arc<Rules>,
    state: Box<State>,
    /// The most that rules may set the mode to.
    ceiling: Mode,
    /// Every rule is asked about every value: what the sieve is compared with.
    plain: bool,
    profile: bool,
}

impl Transaction {
    /// A transaction in the mode that the rules set, with buffers of an earlier one or new ones.
    #[must_use]
    pub fn new(rules: &Arc<Rules>, scratch: Scratch) -> Self {
        let mut state = scratch.0;
        state.reset(&rules.plan);
        Self { rules: Arc::clone(rules), state, ceiling: Mode::Enforce, plain: false, profile: false }
    }

    /// Gives the buffers back.
    #[must_use]
    pub fn into_scratch(self) -> Scratch {
        Scratch(self.state)
    }

    /// Sets the mode, over what the rules set and over what they will set: they may only lower it.
    pub fn set_mode(&mut self, mode: Mode) {
        self.state.mode = mode;
        self.ceiling = mode;
    }

    /// Asks every rule about every value, without the sieve: for tests that compare the two.
    #[doc(hidden)]
    pub fn set_plain(&mut self, plain: bool) {
        self.plain = plain;
    }

    /// Counts what each rule costs, which itself costs time.
    pub fn set_profile(&mut self, profile: bool) {
        self.profile = profile;
    }

    /// What rules cost so far, one entry for each time a rule ran; empty unless [`Self::set_profile`] asked for it.
    #[must_use]
    pub fn costs(&self) -> &[Cost] {
        &self.state.costs
    }

    /// Another budget for what transformations make, in bytes: for tests that run out of it.
    #[doc(hidden)]
    pub fn set_budget(&mut self, bytes: usize) {
        self.state.values.set_budget(bytes);
    }

    /// The mode now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.state.mode
    }

    /// Leaves rules, or values of rules, out of this transaction.
    pub fn exclude(&mut self, exclusion: &Exclusion) {
        for removal in &exclusion.removals {
            if removal.target.is_some() {
                self.state.excluded.push(Arc::clone(removal));
            } else {
                act::remove(&mut self.state, &removal.rules);
            }
        }
    }

    /// What matched so far, in order.
    #[must_use]
    pub fn matches(&self) -> &[Match] {
        &self.state.matches
    }

    /// What ended the transaction, or would have if the mode were [`Mode::Enforce`].
    #[must_use]
    pub fn interruption(&self) -> Option<&Interruption> {
        self.state.interruption.as_ref()
    }

    /// The anomaly scores that the Core Rule Set keeps, versions 3 and 4.
    #[must_use]
    pub fn scores(&self) -> Scores {
        let best = |names: &[&str]| names.iter().filter_map(|name| self.tx(name)).max().unwrap_or(0);
        Scores {
            inbound: best(&["blocking_inbound_anomaly_score", "anomaly_score"]),
            outbound: best(&["blocking_outbound_anomaly_score", "outbound_anomaly_score"]),
        }
    }

    /// A number in TX.
    #[must_use]
    pub fn tx(&self, name: &str) -> Option<i64> {
        let slot = self.rules.plan.names.find(name.to_ascii_lowercase().as_bytes())?;
        match self.state.tx[slot as usize] {
            Tx::Unset => None,
            Tx::Int(number) => Some(number),
            Tx::Value(value) => Some(leading_number(self.state.values.get(value))),
        }
    }

    /// Whether the rules want the response's body; known after [`Self::phase3`].
    #[must_use]
    pub fn wants_response_body(&self) -> bool {
        self.state.mode != Mode::Off && self.state.response_body_access && self.is_inspected_type()
    }

    /// Whether a body was longer than is inspected: of the request, of the response.
    #[must_use]
    pub fn cut(&self) -> (bool, bool) {
        (self.state.body_cut, self.state.response_cut)
    }

    /// The last phase: what is told, and what is kept for later requests. It refuses nothing.
    pub fn phase5(&mut self) {
        let _ = self.phase(5);
        self.keep_collections();
    }

    /// Sets a variable that only the caller knows, by its name; false when there is no such single value.
    pub fn set_variable(&mut self, name: &str, value: &[u8]) -> bool {
        match Variable::parse(name.as_bytes()) {
            Some(variable) if !variable.is_collection() => {
                self.state.set(variable, value);
                true
            }
            _ => false,
        }
    }
}
