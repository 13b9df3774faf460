//! From a target to the values it names.

use super::{
    report::BYTES,
    state::{Bag, Entry, Matched, NONE, State, Tx},
    values::{ValueId, Values},
};
use crate::{
    lang::Variable,
    plan::{Members, Plan, Target},
};

/// One value that a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) variable: Variable,
    pub(crate) name: Name,
    pub(crate) value: Given,
    pub(crate) count: bool,
}

/// The name of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// It is a scalar, or all of a collection was counted.
    None,
    Value(ValueId),
    /// A member of TX that rules name.
    Slot(u32),
}

impl Name {
    pub(crate) fn bytes<'a>(self, plan: &'a Plan, values: &'a Values) -> &'a [u8] {
        match self {
            Self::None => b"",
            Self::Value(value) => values.get(value),
            Self::Slot(slot) => plan.names.name(slot),
        }
    }
}

/// A value, or a number that need not become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Value(ValueId),
    Number(i64),
}

/// How a variable sees a bag.
pub(crate) struct View {
    pub(crate) bag: Bag,
    /// Names instead of values.
    pub(crate) names: bool,
    /// Only entries whose `second` is this.
    pub(crate) second: Option<bool>,
}

/// The bag behind a variable.
pub(crate) fn view(variable: Variable) -> Option<View> {
    use Variable as V;
    let (bag, names, second) = match variable {
        V::Args => (Bag::Args, false, None),
        V::ArgsNames => (Bag::Args, true, None),
        V::ArgsGet => (Bag::Args, false, Some(false)),
        V::ArgsGetNames => (Bag::Args, true, Some(false)),
        V::ArgsPost => (Bag::Args, false, Some(true)),
        V::ArgsPostNames => (Bag::Args, true, Some(true)),
        V::RequestHeaders => (Bag::RequestHeaders, false, None),
        V::RequestHeadersNames => (Bag::RequestHeaders, true, None),
        V::RequestCookies => (Bag::Cookies, false, None),
        V::RequestCookiesNames => (Bag::Cookies, true, None),
        V::Xml => (Bag::Xml, false, None),
        V::Files | V::MultipartFilename => (Bag::Files, false, None),
        V::FilesNames | V::MultipartName => (Bag::Files, true, None),
        V::FilesSizes => (Bag::FileSizes, false, None),
        V::MultipartPartHeaders => (Bag::PartHeaders, false, None),
        V::ResponseHeaders => (Bag::ResponseHeaders, false, None),
        V::ResponseHeadersNames => (Bag::ResponseHeaders, true, None),
        V::Ip => (Bag::Ip, false, None),
        V::Global => (Bag::Global, false, None),
        V::Session => (Bag::Session, false, None),
        V::User => (Bag::User, false, None),
        V::Resource => (Bag::Resource, false, None),
        V::Env => (Bag::Env, false, None),
        _ => return None,
    };
    Some(View { bag, names, second })
}

/// Whether a variable's values are those of the message, which stay the same throughout a phase.
pub(crate) fn is_of_message(variable: Variable) -> bool {
    use Variable as V;
    match view(variable) {
        Some(view) => {
            !matches!(view.bag, Bag::Ip | Bag::Global | Bag::Session | Bag::User | Bag::Resource | Bag::Env)
        }
        None => matches!(
            variable,
            V::RequestUri
                | V::RequestUriRaw
                | V::RequestFilename
                | V::RequestBasename
                | V::RequestLine
                | V::RequestMethod
                | V::RequestProtocol
                | V::QueryString
                | V::RequestBody
                | V::ResponseBody
                | V::ResponseStatus
                | V::ResponseContentType
                | V::ResponseProtocol
                | V::StatusLine
                | V::RemoteAddr
        ),
    }
}

impl Members {
    /// Whether a member of this name is meant.
    pub(crate) fn holds(&self, plan: &Plan, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Name(wanted) => wanted.eq_ignore_ascii_case(name),
            Self::Slot(slot) => plan.names.name(*slot).eq_ignore_ascii_case(name),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

impl View {
    pub(crate) fn sees(&self, entry: &Entry) -> bool {
        self.second.is_none_or(|second| second == entry.second)
    }
}

/// Adds what `target` names to `out`.
pub(crate) fn collect(plan: &Plan, state: &mut State, target: &Target, out: &mut Vec<Subject>) {
    if target.count {
        let before = out.len();
        members(plan, state, target, out);
        let count = (out.len() - before) as i64;
        out.truncate(before);
        let name = match &target.members {
            Members::All | Members::Regex(_) => Name::None,
            Members::Slot(slot) => Name::Slot(*slot),
            Members::Name(name) => Name::Value(state.values.add(name)),
        };
        out.push(Subject { variable: target.variable, name, value: Given::Number(count), count: true });
        return;
    }
    members(plan, state, target, out);
}

fn members(plan: &Plan, state: &mut State, target: &Target, out: &mut Vec<Subject>) {
    let variable = target.variable;
    let push = |out: &mut Vec<Subject>, name, value| {
        out.push(Subject { variable, name, value: Given::Value(value), count: false });
    };
    if let Some(view) = view(variable) {
        let seen = state.bag(view.bag).iter().filter(|entry| view.sees(entry));
        match &target.members {
            Members::All => {
                for entry in seen {
                    push(out, Name::Value(entry.name), if view.names { entry.name } else { entry.value });
                }
            }
            wanted => {
                for entry in seen {
                    if wanted.holds(plan, state.values.get(entry.name)) {
                        push(out, Name::Value(entry.name), if view.names { entry.name } else { entry.value });
                    }
                }
            }
        }
        return;
    }
    match variable {
        Variable::Tx => tx(plan, state, target, out),
        Variable::MatchedVars | Variable::MatchedVarsNames => {
            for index in 0..state.matched.len() {
                let matched = state.matched[index];
                let full = full_name(plan, state, &matched);
                if target.members.holds(plan, &full) {
                    let name = state.values.add(&full);
                    let value =
                        if variable == Variable::MatchedVars { given(state, matched.value) } else { name };
                    push(out, Name::Value(name), value);
                }
            }
        }
        _ if variable.is_collection() => {}
        _ => {
            if let Some(value) = scalar(plan, state, variable) {
                push(out, Name::None, value);
            }
        }
    }
}

fn tx(plan: &Plan, state: &mut State, target: &Target, out: &mut Vec<Subject>) {
    let mut push = |name: Name, tx| {
        let value = match tx {
            Tx::Unset => return,
            Tx::Int(number) => Given::Number(number),
            Tx::Value(value) => Given::Value(value),
        };
        out.push(Subject { variable: Variable::Tx, name, value, count: false });
    };
    match &target.members {
        Members::Slot(slot) => {
            let value = state.tx[*slot as usize];
            if value != Tx::Unset {
                push(Name::Slot(*slot), value);
            }
        }
        members => {
            for slot in 0..state.tx.len() {
                let value = state.tx[slot];
                if value != Tx::Unset && members.holds(plan, plan.names.name(slot as u32)) {
                    push(Name::Slot(slot as u32), value);
                }
            }
            for index in 0..state.tx_more.len() {
                let (name, value) = state.tx_more[index];
                if value != Tx::Unset && members.holds(plan, state.values.get(name)) {
                    push(Name::Value(name), value);
                }
            }
        }
    }
}

/// A value, of a number its digits.
pub(crate) fn given(state: &mut State, given: Given) -> ValueId {
    match given {
        Given::Value(value) => value,
        Given::Number(number) => state.number(number),
    }
}

/// The value of a scalar, worked out now where it depends on the moment.
pub(crate) fn scalar(plan: &Plan, state: &mut State, variable: Variable) -> Option<ValueId> {
    use Variable as V;
    match variable {
        V::MatchedVar => {
            let value = state.matched.last()?.value;
            Some(given(state, value))
        }
        V::MatchedVarName => {
            let matched = *state.matched.last()?;
            let full = full_name(plan, state, &matched);
            Some(state.values.add(&full))
        }
        // Callers that have an id of their own set it.
        V::UniqueId if state.scalars[variable as usize] == NONE => {
            let id = super::values::random();
            state.set(variable, format!("{id:016x}").as_bytes());
            Some(state.scalars[variable as usize])
        }
        V::HighestSeverity => state.highest_severity.map(|severity| state.number(i64::from(severity))),
        V::Time
        | V::TimeDay
        | V::TimeEpoch
        | V::TimeHour
        | V::TimeMin
        | V::TimeMon
        | V::TimeSec
        | V::TimeWday
        | V::TimeYear => {
            let text = super::clock::text(variable);
            Some(state.values.add(text.as_bytes()))
        }
        _ => {
            let value = state.scalars[variable as usize];
            (value != NONE).then_some(value)
        }
    }
}

/// `ARGS:name`, the way matched variables are named.
pub(crate) fn full_name(plan: &Plan, state: &State, matched: &Matched) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    if matched.count {
        out.push(b'&');
    }
    out.extend_from_slice(matched.variable.name().as_bytes());
    if matched.name != Name::None {
        let name = matched.name.bytes(plan, &state.values);
        out.push(b':');
        // Names come from outside.
        out.extend_from_slice(&name[..name.len().min(4 * BYTES)]);
    }
    out
}
