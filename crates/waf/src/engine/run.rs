//! Phases and rules.

use std::time::Instant;

use super::{
    Transaction, act,
    report::{
        BYTES, Cost, Interruption, MATCHES, MESSAGE, Match, MatchedVariable, Mode, Stop, VARIABLES, Verdict,
    },
    sieve::Buffers,
    state::{Matched, Tx, leading_number},
    subjects::{self, Given, Name, Subject, full_name, given},
    values::{PASSING, ValueId},
};
use crate::{
    lang::Variable,
    operator::Captures,
    plan::{Allow, Bit, Disruption, NO_BIT, Number, Plan, Quick, Rule, Step, Test},
};

impl Transaction {
    /// Runs the rules of a phase, 1 to 5.
    pub(super) fn phase(&mut self, phase: u8) -> Verdict {
        let index = usize::from(phase) - 1;
        if self.state.mode == Mode::Off || self.state.allowed[index] {
            return Verdict::Pass;
        }
        // What was refused once stays refused; only the last phase still tells.
        if phase != 5 && self.state.interruption.is_some() && self.state.mode == Mode::Enforce {
            return self.verdict();
        }
        let rules = std::sync::Arc::clone(&self.rules);
        let plan = &rules.plan;
        let order = &plan.phases[index];
        let sieved = phase != 5 && !self.plain;
        if sieved {
            let start = self.profile.then(Instant::now);
            Buffers::judge(&mut self.state, plan, index);
            self.count(0, start);
        }
        let mut at = 0;
        while at < order.len() {
            let starter = order[at];
            at += 1;
            let bit = plan.bits[starter as usize];
            if sieved && bit != NO_BIT && self.state.sieve.maybe[usize::from(bit) / 64] >> (bit % 64) & 1 == 0
            {
                continue;
            }
            if self.state.any_removed && self.is_removed(starter) {
                continue;
            }
            let start = self.profile.then(Instant::now);
            let matched = self.rule(plan, starter);
            self.count(plan.rules[starter as usize].info.id, start);
            if !matched {
                continue;
            }
            match self.conclude(plan, starter, phase) {
                Flow::Next => {}
                Flow::Skip(count) => at += count as usize,
                Flow::SkipTo(to) => at = at.max(to as usize),
                Flow::End => break,
            }
            if self.state.mode == Mode::Off {
                return Verdict::Pass;
            }
        }
        if sieved {
            let state = &mut *self.state;
            state.sieve.settle(plan, index, &state.values);
        }
        self.verdict()
    }

    fn count(&mut self, rule: u64, start: Option<Instant>) {
        if let Some(start) = start {
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let evaluations = std::mem::take(&mut self.state.evaluations);
            self.state.costs.push(Cost { rule, nanoseconds, evaluations });
        }
    }

    fn verdict(&self) -> Verdict {
        match &self.state.interruption {
            Some(interruption) if self.state.mode == Mode::Enforce => Verdict::Stop(interruption.clone()),
            _ => Verdict::Pass,
        }
    }

    fn is_removed(&self, rule: u32) -> bool {
        self.state.removed.get(rule as usize / 64).is_some_and(|word| word >> (rule % 64) & 1 == 1)
    }

    /// Whether every link of the chain matched.
    fn rule(&mut self, plan: &Plan, starter: u32) -> bool {
        self.state.matched.clear();
        self.state.variables.clear();
        self.state.count = 0;
        self.state.score = 0;
        let tell = plan.rules[starter as usize].log;
        let all = self.state.removed_targets.is_empty() && self.state.excluded.is_empty();
        let mut at = starter;
        loop {
            let rule = &plan.rules[at as usize];
            let matched = match &rule.quick {
                Some(quick) if all => self.quick(plan, rule, quick, tell),
                _ => self.link(plan, at, rule, tell),
            };
            if !matched {
                return false;
            }
            match rule.next {
                Some(next) => at = next,
                None => return true,
            }
        }
    }

    /// Evaluates a link that only compares a number in TX.
    fn quick(&mut self, plan: &Plan, rule: &Rule, quick: &Quick, tell: bool) -> bool {
        let state = &*self.state;
        let value = state.tx[quick.slot as usize];
        let given = match (quick.count, value) {
            (true, value) => Given::Number(i64::from(value != Tx::Unset)),
            (false, Tx::Unset) => return false,
            (false, Tx::Int(number)) => Given::Number(number),
            (false, Tx::Value(value)) => Given::Value(value),
        };
        let number = match given {
            Given::Number(number) => number,
            Given::Value(value) => leading_number(state.values.get(value)),
        };
        let argument = match quick.argument {
            Number::Is(number) => number,
            Number::Slot(slot) => act::tx_number(state, state.tx[slot as usize]),
        };
        if quick.comparison.holds(number, argument) == quick.negated {
            return false;
        }
        let name = Name::Slot(quick.slot);
        let subject = Subject { variable: Variable::Tx, name, value: given, count: quick.count };
        self.matched(plan, rule, &subject, given, quick.negated, tell);
        true
    }

    /// Evaluates one link: all its values, as each that matches has its effects.
    fn link(&mut self, plan: &Plan, index: u32, rule: &Rule, tell: bool) -> bool {
        let Test::Operator { operator, argument, negated } = &rule.test else {
            for setvar in &rule.setvars {
                act::set_variable(plan, &mut self.state, rule, setvar);
            }
            return true;
        };
        let mut expanded = std::mem::take(&mut self.state.argument);
        expanded.clear();
        if operator.takes_macro() {
            act::expand(plan, &mut self.state, rule, argument, &mut expanded);
        }
        let mut subjects = std::mem::take(&mut self.state.subjects);
        subjects.clear();
        for target in &rule.targets {
            subjects::collect(plan, &mut self.state, target, &mut subjects);
        }
        let bit = plan.bits[index as usize];
        let side = usize::from(rule.phase - 1) / 2;
        let mut any = false;
        for subject in &subjects {
            let value = given(&mut self.state, subject.value);
            let mut maybe = None;
            if bit != NO_BIT && !self.plain {
                let state = &mut *self.state;
                match state.sieve.may_match_still(value, bit) {
                    Some(true) => {}
                    Some(false) => continue,
                    None if rule.multi_match => {}
                    None => {
                        maybe = state.sieve.may_match(plan, side, &mut state.values, value, rule.chain, bit);
                        if maybe.is_none() {
                            continue;
                        }
                    }
                }
            }
            if self.is_excluded(plan, index, rule, subject) {
                continue;
            }
            if rule.multi_match {
                any |= self.every_stage(plan, rule, bit, subject, value, &expanded, tell);
                continue;
            }
            let state = &mut *self.state;
            let value = state.sieve.transform(plan, &mut state.values, value, rule.chain);
            state.evaluations += 1;
            let captures = fresh(rule, &mut state.captures);
            if operator.evaluate(state.values.get(value), &expanded, captures) != *negated {
                any = true;
                self.matched(plan, rule, subject, Given::Value(value), *negated, tell);
            } else if let Some(maybe) = maybe {
                state.sieve.refute(maybe);
            }
        }
        self.state.subjects = subjects;
        self.state.argument = expanded;
        any
    }

    /// `multiMatch`: the operator looks at the value after each transformation that changed it.
    #[expect(clippy::too_many_arguments, reason = "it is a part of `link`")]
    fn every_stage(
        &mut self,
        plan: &Plan,
        rule: &Rule,
        bit: Bit,
        subject: &Subject,
        value: ValueId,
        argument: &[u8],
        tell: bool,
    ) -> bool {
        let Test::Operator { operator, negated, .. } = &rule.test else { return false };
        let mut stages = Vec::new();
        let mut chain = rule.chain;
        loop {
            stages.push(chain);
            if chain == 0 {
                break;
            }
            chain = plan.chains.parent(chain);
        }
        let mut any = false;
        let mut last = None;
        let mut passed = Vec::new();
        for chain in stages.iter().rev().copied() {
            let now = self.state.sieve.transform(plan, &mut self.state.values, value, chain);
            // A stage that changed nothing was looked at before.
            let same = match last.replace(now) {
                Some(last) if now == PASSING && last == PASSING => self.state.values.get(now) == passed,
                last => last == Some(now),
            };
            if same {
                continue;
            }
            if now == PASSING {
                passed.clear();
                passed.extend_from_slice(self.state.values.get(now));
            }
            let state = &mut self.state;
            let captures = fresh(rule, &mut state.captures);
            if operator.evaluate(state.values.get(now), argument, captures) != *negated {
                any = true;
                self.matched(plan, rule, subject, Given::Value(now), *negated, tell);
            }
        }
        let state = &mut *self.state;
        if !any && bit != NO_BIT && !self.plain && state.sieve.may_match_still(value, bit).is_none() {
            let side = usize::from(rule.phase - 1) / 2;
            state.sieve.refute_stages(plan, side, &mut state.values, value, &stages, bit);
        }
        any
    }

    fn is_excluded(&self, plan: &Plan, index: u32, rule: &Rule, subject: &Subject) -> bool {
        let state = &self.state;
        if rule.exclusions.is_empty() && state.removed_targets.is_empty() && state.excluded.is_empty() {
            return false;
        }
        let name = subject.name.bytes(plan, &state.values);
        let covers = |target: &crate::plan::Target| {
            target.variable == subject.variable
                && target.count == subject.count
                && target.members.holds(plan, name)
        };
        if rule.exclusions.iter().any(covers) {
            return true;
        }
        let removed = |removal: &crate::plan::Removal| {
            removal.target.as_ref().is_some_and(covers) && removal.rules.binary_search(&index).is_ok()
        };
        state.removed_targets.iter().any(|removal| removed(&plan.removals[*removal as usize]))
            || state.excluded.iter().any(|removal| removed(removal))
    }

    /// What follows from one value that matched.
    fn matched(
        &mut self,
        plan: &Plan,
        rule: &Rule,
        subject: &Subject,
        value: Given,
        negated: bool,
        tell: bool,
    ) {
        let state = &mut *self.state;
        let value = match value {
            Given::Value(value) => Given::Value(state.values.keep(value)),
            number => number,
        };
        if let (true, Given::Value(value)) = (rule.capture && !negated, value) {
            let mut found = std::mem::take(&mut state.buffer);
            for group in 0..10 {
                state.tx[group] = match state.captures.get(group, state.values.get(value)) {
                    Some(bytes) => {
                        found.clear();
                        found.extend_from_slice(bytes);
                        Tx::Value(state.values.add(&found))
                    }
                    None => Tx::Unset,
                };
            }
            state.buffer = found;
        }
        let matched = Matched { variable: subject.variable, name: subject.name, value, count: subject.count };
        state.matched.push(matched);
        state.count += 1;
        if tell && state.variables.len() < VARIABLES {
            let name = full_name(plan, state, &matched);
            let value = given(state, value);
            let bytes = state.values.get(value);
            let found =
                if rule.capture && !negated { state.captures.get(0, bytes).unwrap_or_default() } else { b"" };
            state.variables.push(MatchedVariable {
                name: String::from_utf8_lossy(&name).into_owned(),
                value: bytes[..bytes.len().min(BYTES)].to_vec(),
                found: found[..found.len().min(BYTES)].to_vec(),
            });
        }
        for setvar in &rule.setvars {
            act::set_variable(plan, &mut self.state, rule, setvar);
        }
        if let Some(severity) = rule.info.severity {
            let highest = self.state.highest_severity.get_or_insert(severity);
            *highest = severity.min(*highest);
        }
    }

    /// What follows from a chain that matched: its last link's effects first.
    fn conclude(&mut self, plan: &Plan, starter: u32, phase: u8) -> Flow {
        let mut flow = Flow::Next;
        // The links of a chain follow each other.
        let mut last = starter;
        while let Some(next) = plan.rules[last as usize].next {
            last = next;
        }
        for index in (starter..=last).rev() {
            let rule = &plan.rules[index as usize];
            for step in &rule.steps {
                match step {
                    Step::Skip(count) => flow = Flow::Skip(*count),
                    Step::SkipTo(to) => flow = Flow::SkipTo(*to),
                    other => act::step(plan, self, rule, other),
                }
            }
        }
        let rule = &plan.rules[starter as usize];
        let disruptive = self.disrupt(plan, rule, phase, &mut flow);
        if rule.log && self.state.matches.len() < MATCHES {
            self.tell(plan, rule, disruptive);
        }
        flow
    }

    fn disrupt(&mut self, plan: &Plan, rule: &Rule, phase: u8, flow: &mut Flow) -> bool {
        let action = match &rule.disruption {
            Disruption::None => return false,
            Disruption::Deny => Stop::Deny,
            Disruption::Drop => Stop::Drop,
            Disruption::Redirect(text) => {
                let mut to = Vec::new();
                act::expand(plan, &mut self.state, rule, text, &mut to);
                // No line of the answer may come from the request.
                to.retain(|byte| !byte.is_ascii_control());
                Stop::Redirect(String::from_utf8_lossy(&to).into_owned())
            }
            Disruption::Allow(reach) => {
                if self.state.mode == Mode::Enforce {
                    let covered: &[usize] = match reach {
                        Allow::All => &[0, 1, 2, 3],
                        Allow::Request => &[0, 1],
                        Allow::Phase => &[],
                    };
                    for phase in covered {
                        self.state.allowed[*phase] = true;
                    }
                    *flow = Flow::End;
                }
                return false;
            }
        };
        let status = match &action {
            Stop::Redirect(_) if !(300..400).contains(&rule.status) => 302,
            _ => rule.status,
        };
        if self.state.interruption.is_none() && phase != 5 {
            self.state.interruption = Some(Interruption { rule: rule.info.id, phase, action, status });
        }
        if self.state.mode == Mode::Enforce && phase != 5 {
            *flow = Flow::End;
        }
        true
    }

    fn tell(&mut self, plan: &Plan, rule: &Rule, disruptive: bool) {
        let mut text = |part: &Option<crate::plan::Text>| {
            let mut out = Vec::new();
            if let Some(part) = part {
                act::expand(plan, &mut self.state, rule, part, &mut out);
            }
            out.truncate(MESSAGE);
            String::from_utf8_lossy(&out).into_owned()
        };
        let (message, data) = (text(&rule.message), text(&rule.data));
        self.state.matches.push(Match {
            rule: rule.info.clone(),
            message,
            data,
            score: self.state.score,
            disruptive,
            variables: std::mem::take(&mut self.state.variables),
            count: self.state.count,
        });
    }
}

/// Where a phase goes on.
enum Flow {
    Next,
    Skip(u32),
    SkipTo(u32),
    End,
}

/// Where a rule's operator leaves what it captures: what others left there is gone.
fn fresh<'a>(rule: &Rule, captures: &'a mut Captures) -> Option<&'a mut Captures> {
    rule.capture.then(|| {
        captures.clear();
        captures
    })
}
