//! Effects: variables that rules set, macros, and what `ctl` changes.

use super::{
    Transaction,
    state::{Bag, Entry, State, Tx, leading_number},
    subjects::{self, full_name, given, view},
    values::ValueId,
};
use crate::{
    body::Kind,
    lang::Variable,
    plan::{Change, Piece, Place, Plan, Rule, RuleField, SEVERITIES, SetVar, Step, Text},
};

/// Members of TX whose names come from requests.
const TX_MORE: usize = 2048;
/// Bytes that one member may hold.
const TX_BYTES: usize = 1 << 16;

/// Writes `text` to `out`, with macros expanded.
pub(super) fn expand(plan: &Plan, state: &mut State, rule: &Rule, text: &Text, out: &mut Vec<u8>) {
    for piece in &text.pieces {
        if out.len() > TX_BYTES {
            break;
        }
        match piece {
            Piece::Bytes(bytes) => out.extend_from_slice(bytes),
            Piece::Slot(slot) => match state.tx[*slot as usize] {
                Tx::Unset => {}
                value => {
                    if let Some(value) = state.tx_value(value) {
                        out.extend_from_slice(state.values.get(value));
                    }
                }
            },
            Piece::Rule(RuleField::Id) => out.extend_from_slice(rule.info.id.to_string().as_bytes()),
            Piece::Rule(RuleField::Message) => out.extend_from_slice(rule.info.message.as_bytes()),
            Piece::Rule(RuleField::Severity) => {
                let name = rule.info.severity.map_or("", |number| SEVERITIES[usize::from(number)]);
                out.extend_from_slice(name.as_bytes());
            }
            Piece::Variable(variable, member) => {
                if let Some(value) = first(plan, state, *variable, member.as_deref()) {
                    out.extend_from_slice(state.values.get(value));
                }
            }
        }
    }
}

fn first(plan: &Plan, state: &mut State, variable: Variable, member: Option<&[u8]>) -> Option<ValueId> {
    if let Some(view) = view(variable) {
        let entry = state.bag(view.bag).iter().find(|entry| {
            view.sees(entry)
                && member.is_none_or(|name| name.eq_ignore_ascii_case(state.values.get(entry.name)))
        })?;
        return Some(if view.names { entry.name } else { entry.value });
    }
    match variable {
        Variable::MatchedVars => {
            let value = state.matched.last()?.value;
            Some(given(state, value))
        }
        Variable::MatchedVarsNames => {
            let matched = *state.matched.last()?;
            let full = full_name(plan, state, &matched);
            Some(state.values.add(&full))
        }
        _ => subjects::scalar(plan, state, variable),
    }
}

/// The number that a text stands for.
fn number(plan: &Plan, state: &mut State, rule: &Rule, text: &Text) -> i64 {
    match &*text.pieces {
        [Piece::Bytes(bytes)] => leading_number(bytes),
        [Piece::Slot(slot)] => tx_number(state, state.tx[*slot as usize]),
        _ => {
            let mut out = Vec::new();
            expand(plan, state, rule, text, &mut out);
            leading_number(&out)
        }
    }
}

pub(super) fn tx_number(state: &State, tx: Tx) -> i64 {
    match tx {
        Tx::Unset => 0,
        Tx::Int(number) => number,
        Tx::Value(value) => leading_number(state.values.get(value)),
    }
}

/// A text as a value: as a number, when it is written as we would write it.
fn settle(plan: &Plan, state: &mut State, rule: &Rule, text: &Text) -> Tx {
    if let [Piece::Slot(slot)] = &*text.pieces {
        return match state.tx[*slot as usize] {
            Tx::Unset => Tx::Value(super::values::EMPTY),
            other => other,
        };
    }
    let mut buffer = std::mem::take(&mut state.buffer);
    buffer.clear();
    expand(plan, state, rule, text, &mut buffer);
    buffer.truncate(TX_BYTES);
    let canonical = match buffer.as_slice() {
        b"0" => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 15 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let tx = if canonical { Tx::Int(leading_number(&buffer)) } else { Tx::Value(state.values.add(&buffer)) };
    state.buffer = buffer;
    tx
}

/// Carries out one `setvar`.
pub(super) fn set_variable(plan: &Plan, state: &mut State, rule: &Rule, setvar: &SetVar) {
    let change = match &setvar.change {
        Change::Remove => Tx::Unset,
        Change::Set(text) => settle(plan, state, rule, text),
        Change::Add(text) => Tx::Int(number(plan, state, rule, text)),
        Change::Subtract(text) => Tx::Int(number(plan, state, rule, text).saturating_neg()),
    };
    let relative = matches!(setvar.change, Change::Add(_) | Change::Subtract(_));
    if let (true, true, Tx::Int(by)) = (setvar.score, relative, change) {
        state.score = state.score.saturating_add(by);
    }
    let apply = |state: &State, old: Tx| match (relative, change) {
        (true, Tx::Int(by)) => Tx::Int(tx_number(state, old).saturating_add(by)),
        _ => change,
    };
    match &setvar.place {
        Place::Slot(slot) => state.tx[*slot as usize] = apply(state, state.tx[*slot as usize]),
        Place::Named(text) => {
            let mut name = Vec::new();
            expand(plan, state, rule, text, &mut name);
            name.truncate(TX_BYTES);
            name.make_ascii_lowercase();
            if let Some(slot) = plan.names.find(&name) {
                state.tx[slot as usize] = apply(state, state.tx[slot as usize]);
                return;
            }
            let name = state.values.add(&name);
            match state.tx_index.get(&name).copied() {
                Some(index) => state.tx_more[index].1 = apply(state, state.tx_more[index].1),
                None if state.tx_more.len() < TX_MORE => {
                    let value = apply(state, Tx::Unset);
                    state.tx_index.insert(name, state.tx_more.len());
                    state.tx_more.push((name, value));
                }
                None => {}
            }
        }
        Place::Stored(collection, text) => {
            let Some(view) = view(*collection) else { return };
            let mut name = Vec::new();
            expand(plan, state, rule, text, &mut name);
            name.make_ascii_lowercase();
            let name = state.values.add(&name);
            let known = state.bag(view.bag).iter().position(|entry| entry.name == name);
            let old = known.map_or(Tx::Unset, |index| Tx::Value(state.bag(view.bag)[index].value));
            let new = apply(state, old);
            let value = state.tx_value(new);
            let bag = &mut state.bags[view.bag as usize];
            match (known, value) {
                (Some(index), Some(value)) => bag[index].value = value,
                (Some(index), None) => {
                    bag.remove(index);
                }
                (None, Some(value)) if bag.len() < 64 => bag.push(Entry { name, value, second: false }),
                _ => {}
            }
        }
    }
}

/// Carries out what else a rule does.
pub(super) fn step(plan: &Plan, transaction: &mut Transaction, rule: &Rule, step: &Step) {
    let state = &mut transaction.state;
    match step {
        // Whoever set the mode for this transaction keeps it: rules may only lower it.
        Step::Engine(mode) => state.mode = (*mode).min(transaction.ceiling),
        Step::RequestBodyAccess(on) => state.request_body_access = *on,
        Step::ResponseBodyAccess(on) => state.response_body_access = *on,
        Step::ForceRequestBody(on) => state.force_request_body = *on,
        Step::BodyProcessor(processor) => set_processor(state, *processor),
        Step::Remove(index) => {
            let removal = &plan.removals[*index as usize];
            if removal.target.is_some() {
                state.removed_targets.push(*index);
            } else {
                remove(state, &removal.rules);
            }
        }
        Step::Collection(collection, key) => {
            let mut name = Vec::new();
            expand(plan, state, rule, key, &mut name);
            transaction.open_collection(*collection, &name);
        }
        Step::SetUser(text) => {
            let mut name = Vec::new();
            expand(plan, state, rule, text, &mut name);
            state.set(Variable::UserId, &name);
            transaction.open_collection(Variable::User, &name);
        }
        Step::SetSession(text) => {
            let mut name = Vec::new();
            expand(plan, state, rule, text, &mut name);
            state.set(Variable::SessionId, &name);
            transaction.open_collection(Variable::Session, &name);
        }
        Step::SetEnv(name, text) => {
            let mut value = Vec::new();
            expand(plan, state, rule, text, &mut value);
            if state.bag(Bag::Env).len() < 64 {
                state.push(Bag::Env, name, &value, false);
            }
        }
        Step::Skip(_) | Step::SkipTo(_) => {}
    }
}

/// Takes rules out of the rest of the transaction.
pub(super) fn remove(state: &mut State, rules: &[u32]) {
    state.any_removed = true;
    for rule in rules {
        if let Some(word) = state.removed.get_mut(*rule as usize / 64) {
            *word |= 1 << (rule % 64);
        }
    }
}

pub(super) fn set_processor(state: &mut State, processor: Kind) {
    state.processor = Some(processor);
    state.set(Variable::ReqbodyProcessor, processor.name().as_bytes());
}
