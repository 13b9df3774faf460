//! Rules that levels of paranoia keep from ever running. They stay, as only the request decides in the end; but the sieve does not look
//! for them, which is where most of the cost would be.

use super::{Change, Piece, Place, Plan, Rule, Step, Test};
use crate::lang::Variable;

impl Plan {
    /// For each rule, whether a gate before it is always taken once its variable is set.
    pub(super) fn cold(&self) -> Vec<bool> {
        let mut cold = vec![false; self.rules.len()];
        for order in &self.phases {
            let mut at = 0;
            while at < order.len() {
                let rule = &self.rules[order[at] as usize];
                at += 1;
                let Some((slot, limit, to)) = gate(rule) else { continue };
                if self.highest(slot, &mut Vec::new()).is_some_and(|highest| highest < limit) {
                    let to = (to as usize).clamp(at, order.len());
                    for skipped in &order[at..to] {
                        cold[*skipped as usize] = true;
                    }
                }
            }
        }
        cold
    }

    /// The highest number that any rule can set a member of TX to, if that can be told.
    fn highest(&self, slot: u32, seen: &mut Vec<u32>) -> Option<i64> {
        if seen.contains(&slot) {
            return Some(i64::MIN);
        }
        seen.push(slot);
        let name = self.names.name(slot);
        let mut highest = i64::MIN;
        for rule in &self.rules {
            for setvar in &rule.setvars {
                match &setvar.place {
                    Place::Slot(set) if *set != slot => continue,
                    Place::Slot(_) => {}
                    // Its name is known only later: might it be this one?
                    Place::Named(text) => match text.pieces.first() {
                        Some(Piece::Bytes(start)) if !name.starts_with(&start.to_ascii_lowercase()) => {
                            continue;
                        }
                        _ => return None,
                    },
                    Place::Stored(..) => continue,
                }
                match &setvar.change {
                    Change::Remove => {}
                    Change::Set(text) => match &*text.pieces {
                        [Piece::Bytes(bytes)] => {
                            let number: i64 = std::str::from_utf8(bytes).ok()?.trim().parse().ok()?;
                            highest = highest.max(number);
                        }
                        [Piece::Slot(other)] => highest = highest.max(self.highest(*other, seen)?),
                        _ => return None,
                    },
                    Change::Add(_) | Change::Subtract(_) => return None,
                }
            }
        }
        (highest > i64::MIN).then_some(highest)
    }
}

/// `SecRule TX:level "@lt N" "…,skipAfter:…"`: slot, number, where it goes on.
fn gate(rule: &Rule) -> Option<(u32, i64, u32)> {
    let (Test::Operator { operator, negated: false, .. }, [target], None) =
        (&rule.test, &*rule.targets, rule.next)
    else {
        return None;
    };
    if operator.name() != "lt"
        || operator.takes_macro()
        || target.count
        || target.variable != Variable::Tx
        || rule.chain != 0
    {
        return None;
    }
    let super::Members::Slot(slot) = target.members else { return None };
    let limit = std::str::from_utf8(operator.argument()).ok()?.trim().parse().ok()?;
    rule.steps.iter().find_map(|step| match step {
        Step::SkipTo(to) => Some((slot, limit, *to)),
        _ => None,
    })
}
