//! Directives that change rules which stand elsewhere. They hold for rules before them and after them alike: who tunes a rule set
//! need not know which file is read first.

use super::{
    action::{self, Selection},
    compile::Compiler,
    rule::{Rule, Target},
};
use std::sync::Arc;

use crate::{
    lang::{self, Directive, Item, Position, RuleNode},
    transform::Transformation,
};

impl Compiler<'_, '_> {
    pub(super) fn file(&self, position: Position) -> Arc<str> {
        self.loader.file(position)
    }

    /// Gives a rule its list of transformations.
    pub(super) fn set_chain(&mut self, position: Position, rule: &mut Rule, list: &[Transformation]) {
        match self.chains.add(list) {
            Some(chain) => rule.chain = chain,
            None => self.error(position, "there are too many different lists of transformations"),
        }
        rule.info.transformations = list.iter().map(|transformation| transformation.name()).collect();
    }

    /// Indices of the rules that a selection names, links of their chains included.
    pub(super) fn select(&self, selection: &Selection) -> Vec<u32> {
        let wanted = |rule: &Rule| match selection {
            Selection::Ids(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&rule.info.id)),
            Selection::Tag(tag) => rule.info.tags.iter().any(|known| **known == **tag),
            Selection::Message(message) => *rule.info.message == **message,
        };
        (0..self.drafts.len())
            .filter(|index| wanted(&self.drafts[self.drafts[*index].starter].rule))
            .filter_map(|index| u32::try_from(index).ok())
            .collect()
    }

    pub(super) fn amend(&mut self) {
        for Item { position, directive } in std::mem::take(&mut self.amendments) {
            match directive {
                Directive::UpdateTargetById(ids, targets) => {
                    self.retarget(position, &Selection::Ids(ids), &targets)
                }
                Directive::UpdateTargetByTag(tag, targets) => {
                    self.retarget(position, &Selection::Tag(tag), &targets)
                }
                Directive::UpdateTargetByMsg(text, targets) => {
                    self.retarget(position, &Selection::Message(text), &targets);
                }
                Directive::RemoveById(ids) => self.remove(position, &Selection::Ids(ids)),
                Directive::RemoveByTag(tag) => self.remove(position, &Selection::Tag(tag)),
                Directive::RemoveByMsg(text) => self.remove(position, &Selection::Message(text)),
                Directive::UpdateActionById(id, link, actions) => self.react(position, id, link, actions),
                _ => {}
            }
        }
    }

    fn remove(&mut self, position: Position, selection: &Selection) {
        let rules = self.select(selection);
        if rules.is_empty() {
            self.warn(position, "this names no rule that was loaded");
        }
        for index in rules {
            self.drafts[index as usize].rule.phase = 0;
        }
    }

    fn retarget(&mut self, position: Position, selection: &Selection, targets: &[lang::Target]) {
        // Of a chain the first link is meant, as in the reference.
        let rules: Vec<usize> = self
            .select(selection)
            .into_iter()
            .map(|index| index as usize)
            .filter(|index| self.drafts[*index].starter == *index)
            .collect();
        if rules.is_empty() {
            self.warn(position, "this names no rule that was loaded");
        }
        for index in rules {
            for target in targets {
                let Some(compiled): Option<Target> = self.target(position, target) else { continue };
                let rule = &mut self.drafts[index].rule;
                if target.exclude { rule.exclusions.push(compiled) } else { rule.targets.push(compiled) }
            }
        }
    }

    /// Replaces what the new actions name; what they do not name stays.
    fn react(&mut self, position: Position, id: u64, link: usize, actions: Vec<lang::ActionNode>) {
        let found = (0..self.drafts.len())
            .filter(|index| self.drafts[self.drafts[*index].starter].rule.info.id == id)
            .nth(link);
        let Some(index) = found else {
            return self.warn(position, "this names no rule that was loaded");
        };
        let names: Vec<&str> = actions.iter().map(|action| action.name.as_str()).collect();
        let has = |name: &str| names.contains(&name);
        if has("id") || has("phase") || has("chain") {
            return self.error(position, "id, phase and chain of a rule cannot be changed");
        }
        let [tags, severity, log, status, capture, multi, transformations, message, data] =
            ["tag", "severity", "log", "status", "capture", "multimatch", "t", "msg", "logdata"].map(has);
        let nolog = has("nolog");
        let disruptive = ["block", "deny", "drop", "pass", "redirect", "allow"].into_iter().any(has);
        let setvars = has("setvar");
        let node = RuleNode { targets: Vec::new(), operator: None, actions, actions_at: position };
        let Some(parsed) = action::compile(self, position, &node, Some(self.drafts[index].starter)) else {
            return;
        };
        let draft = &mut self.drafts[index];
        let (old, new) = (&mut draft.rule, parsed.rule);
        if tags {
            old.info.tags = old.info.tags.iter().chain(new.info.tags.iter()).cloned().collect();
        }
        if severity {
            old.info.severity = new.info.severity;
        }
        if log || nolog {
            old.log = new.log;
        }
        if status {
            old.status = new.status;
        }
        old.capture |= capture;
        old.multi_match |= multi;
        if transformations {
            old.chain = new.chain;
            old.info.transformations = new.info.transformations;
        }
        if message {
            old.message = new.message;
            old.info.message = new.info.message;
        }
        if data {
            old.data = new.data;
        }
        if disruptive {
            old.disruption = new.disruption;
        }
        if setvars {
            old.setvars = new.setvars;
        }
        old.steps.extend(new.steps);
        draft.pending.extend(parsed.pending);
    }
}
