//! All that a transaction holds, in buffers that the next one uses again.

use std::{collections::HashMap, sync::Arc};

use super::{
    report::{Cost, Interruption, Match, MatchedVariable, Mode},
    subjects::{Given, Name},
    values::{ValueId, Values},
};
use crate::{
    body::{self, Kind},
    lang::Variable,
    operator::Captures,
    plan::{Plan, Removal},
};

/// No value.
pub(crate) const NONE: ValueId = ValueId(u32::MAX);

/// One member of a collection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: ValueId,
    pub(crate) value: ValueId,
    /// Of arguments: from the body. Of XML: an attribute.
    pub(crate) second: bool,
}

/// Collections that are filled from messages; variables are views of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bag {
    Args,
    RequestHeaders,
    Cookies,
    Xml,
    Files,
    FileSizes,
    PartHeaders,
    ResponseHeaders,
    Ip,
    Global,
    Session,
    User,
    Resource,
    Env,
}

pub(crate) const BAGS: usize = 14;

/// A member of TX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tx {
    Unset,
    Int(i64),
    Value(ValueId),
}

/// A value that a rule of the current chain matched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matched {
    pub(crate) variable: Variable,
    pub(crate) name: Name,
    pub(crate) value: Given,
    pub(crate) count: bool,
}

/// Buffers and contents of a transaction.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) values: Values,
    /// The values `0` to `9` as far as they were needed: nearly all numbers are one of them.
    digits: [ValueId; 10],
    pub(crate) bags: [Vec<Entry>; BAGS],
    pub(crate) scalars: Vec<ValueId>,
    pub(crate) tx: Vec<Tx>,
    /// Members of TX whose names no rule spells out: name in lower case, value.
    pub(crate) tx_more: Vec<(ValueId, Tx)>,
    /// Where each of them is.
    pub(crate) tx_index: HashMap<ValueId, usize>,
    pub(crate) matched: Vec<Matched>,
    pub(crate) highest_severity: Option<u8>,

    pub(crate) mode: Mode,
    pub(crate) processor: Option<Kind>,
    pub(crate) request_body_access: bool,
    pub(crate) response_body_access: bool,
    pub(crate) force_request_body: bool,
    pub(crate) body: Vec<u8>,
    pub(crate) body_cut: bool,
    pub(crate) response: Vec<u8>,
    pub(crate) response_cut: bool,
    pub(crate) arguments_full: bool,
    pub(crate) removed: Vec<u64>,
    pub(crate) any_removed: bool,
    pub(crate) removed_targets: Vec<u32>,
    pub(crate) excluded: Vec<Arc<Removal>>,
    pub(crate) collections: Vec<(Variable, ValueId)>,

    pub(crate) matches: Vec<Match>,
    pub(crate) interruption: Option<Interruption>,
    pub(crate) allowed: [bool; 5],
    /// Of the rule under evaluation.
    pub(crate) variables: Vec<MatchedVariable>,
    pub(crate) count: usize,
    pub(crate) score: i64,

    pub(crate) captures: Captures,
    pub(crate) buffer: Vec<u8>,
    pub(crate) argument: Vec<u8>,
    pub(crate) subjects: Vec<super::subjects::Subject>,
    pub(crate) sieve: super::sieve::Buffers,
    pub(crate) body_scratch: body::Scratch,
    /// Operators that were asked, while costs are counted.
    pub(crate) evaluations: u64,
    pub(crate) costs: Vec<Cost>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            values: Values::default(),
            digits: [NONE; 10],
            bags: Default::default(),
            scalars: Vec::new(),
            tx: Vec::new(),
            tx_more: Vec::new(),
            tx_index: HashMap::new(),
            matched: Vec::new(),
            highest_severity: None,
            mode: Mode::Enforce,
            processor: None,
            request_body_access: true,
            response_body_access: false,
            force_request_body: false,
            body: Vec::new(),
            body_cut: false,
            response: Vec::new(),
            response_cut: false,
            arguments_full: false,
            removed: Vec::new(),
            any_removed: false,
            removed_targets: Vec::new(),
            excluded: Vec::new(),
            collections: Vec::new(),
            matches: Vec::new(),
            interruption: None,
            allowed: [false; 5],
            variables: Vec::new(),
            count: 0,
            score: 0,
            captures: Captures::default(),
            buffer: Vec::new(),
            argument: Vec::new(),
            subjects: Vec::new(),
            sieve: super::sieve::Buffers::default(),
            body_scratch: body::Scratch::default(),
            evaluations: 0,
            costs: Vec::new(),
        }
    }
}

impl State {
    /// Empties everything for the next transaction.
    pub(crate) fn reset(&mut self, plan: &Plan) {
        self.values.clear();
        self.digits = [NONE; 10];
        for bag in &mut self.bags {
            bag.clear();
        }
        self.scalars.clear();
        self.scalars.resize(Variable::ALL.len(), NONE);
        self.tx.clear();
        self.tx.resize(plan.names.len(), Tx::Unset);
        self.tx_more.clear();
        self.tx_index.clear();
        self.matched.clear();
        self.highest_severity = None;
        self.mode = plan.settings.mode;
        self.processor = None;
        self.request_body_access = plan.settings.request_body;
        self.response_body_access = plan.settings.response_body;
        self.force_request_body = false;
        for buffer in [&mut self.body, &mut self.response] {
            buffer.clear();
            buffer.shrink_to(1 << 17);
        }
        self.body_cut = false;
        self.response_cut = false;
        self.arguments_full = false;
        if self.any_removed || self.removed.len() != plan.rules.len().div_ceil(64) {
            self.removed.clear();
            self.removed.resize(plan.rules.len().div_ceil(64), 0);
        }
        self.any_removed = false;
        self.removed_targets.clear();
        self.excluded.clear();
        self.collections.clear();
        self.matches.clear();
        self.interruption = None;
        self.allowed = [false; 5];
        self.sieve.reset(plan);
        self.costs.clear();
    }

    pub(crate) fn bag(&self, bag: Bag) -> &[Entry] {
        &self.bags[bag as usize]
    }

    pub(crate) fn push(&mut self, bag: Bag, name: &[u8], value: &[u8], second: bool) {
        let entry = Entry { name: self.values.add(name), value: self.values.add(value), second };
        self.bags[bag as usize].push(entry);
    }

    pub(crate) fn set(&mut self, variable: Variable, value: &[u8]) {
        self.scalars[variable as usize] = self.values.add(value);
    }

    pub(crate) fn set_number(&mut self, variable: Variable, value: u64) {
        self.scalars[variable as usize] = self.unsigned(value);
    }

    /// The value of a member of TX, as bytes.
    pub(crate) fn tx_value(&mut self, tx: Tx) -> Option<ValueId> {
        match tx {
            Tx::Unset => None,
            Tx::Value(value) => Some(value),
            Tx::Int(number) => Some(self.number(number)),
        }
    }

    pub(crate) fn number(&mut self, number: i64) -> ValueId {
        if number >= 0 {
            return self.unsigned(number.unsigned_abs());
        }
        let (mut digits, mut signed) = ([0; 20], [b'-'; 21]);
        let start = digits_of(number.unsigned_abs(), &mut digits);
        signed[start + 1..].copy_from_slice(&digits[start..]);
        self.values.add(&signed[start..])
    }

    fn unsigned(&mut self, number: u64) -> ValueId {
        let known = usize::try_from(number).ok().and_then(|number| self.digits.get_mut(number));
        if let Some(known) = known {
            if *known == NONE {
                *known = self.values.add(&[b'0' + number as u8]);
            }
            return *known;
        }
        let mut digits = [0; 20];
        let start = digits_of(number, &mut digits);
        self.values.add(&digits[start..])
    }
}

fn digits_of(mut value: u64, digits: &mut [u8; 20]) -> usize {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return at;
        }
    }
}

/// The integer at the beginning of a value, zero when there is none.
pub(crate) fn leading_number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut number: i64 = 0;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = number.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    }
    if negative { -number } else { number }
}
