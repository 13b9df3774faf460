//! The compiled rule set: everything that can be decided before a request comes, is.

mod action;
mod amend;
mod bytes;
mod chains;
mod compile;
mod names;
mod reach;
mod rule;
mod sieve;
mod text;
mod texts;
mod tier;
mod trigger;
mod within;

pub(crate) use bytes::ByteSet;
pub(crate) use chains::{ChainId, Chains};
pub(crate) use compile::Loader;
pub(crate) use names::Names;
pub(crate) use rule::{
    Allow, Change, Disruption, Members, Number, Place, Quick, Removal, Rule, SetVar, Step, Target, Test,
};
pub(crate) use sieve::{Bit, ChainInfo, LENGTHS, Look, NO_BIT, Profile, Sieve};
pub(crate) use text::{Piece, RuleField, Text};
pub(crate) use tier::Tier;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Mode,
    lang::{self, Selector, Variable},
    rules::RuleInfo,
};

/// Names of severities by number.
pub(crate) const SEVERITIES: [&str; 8] =
    ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];

/// What directives set for the whole engine.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) request_body: bool,
    pub(crate) request_body_limit: usize,
    pub(crate) request_body_partial: bool,
    pub(crate) json_depth: usize,
    pub(crate) response_body: bool,
    pub(crate) response_body_limit: usize,
    pub(crate) response_types: Vec<String>,
    pub(crate) arguments: usize,
    pub(crate) sniff: bool,
    pub(crate) separator: u8,
    pub(crate) web_app: String,
    pub(crate) components: Vec<String>,
}

/// Rules in the order in which they run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Every link of every chain.
    pub(crate) rules: Vec<Rule>,
    /// First links of each phase, as indices of `rules`.
    pub(crate) phases: [Vec<u32>; 5],
    pub(crate) names: Names,
    pub(crate) chains: Chains,
    pub(crate) removals: Vec<Removal>,
    pub(crate) settings: Settings,
    /// Of requests and of responses.
    pub(crate) sieves: Vec<Sieve>,
    /// The place of each rule in its sieve.
    pub(crate) bits: Vec<Bit>,
    pub(crate) chain_infos: Vec<ChainInfo>,
    /// Sets of bytes that let transformations change a value, by number.
    pub(crate) triggers: Vec<ByteSet>,
    /// No other plan of this process has it.
    pub(crate) number: u64,
    /// What outlives transactions.
    pub(crate) kept: crate::engine::Kept,
}

impl Plan {
    /// Builds the sieves, last.
    fn sieve(&mut self) {
        for rule in &mut self.rules {
            rule.quick = rule.to_quick();
        }
        let cold = self.cold();
        (self.chain_infos, self.triggers) = sieve::chain_infos(&self.chains);
        let mut bits = vec![NO_BIT; self.rules.len()];
        for phases in [[0, 1], [2, 3]] {
            let orders = phases.map(|phase: usize| &*self.phases[phase]);
            let is_cold = |rule: u32| cold[rule as usize];
            let sieve = Sieve::new(&self.rules, orders, &is_cold, &self.chains, &self.chain_infos, &mut bits);
            self.sieves.push(sieve);
        }
        self.bits = bits;
        let looks = self.sieves.iter_mut().flat_map(|sieve| sieve.phases.iter_mut().flatten());
        for (number, profile) in looks.flat_map(Look::profiles).enumerate() {
            profile.number = number as u32;
        }
        static PLANS: AtomicU64 = AtomicU64::new(1);
        self.number = PLANS.fetch_add(1, Ordering::Relaxed);
    }

    /// First links, in the order of the files.
    pub(crate) fn starters(&self) -> impl Iterator<Item = &Rule> {
        let mut linked = vec![false; self.rules.len()];
        for rule in &self.rules {
            if let Some(next) = rule.next {
                linked[next as usize] = true;
            }
        }
        self.rules.iter().zip(linked).filter(|(_, linked)| !linked).map(|(rule, _)| rule)
    }

    /// Indices of the chains that are wanted, with all their links.
    pub(crate) fn find(&self, wanted: impl Fn(&RuleInfo) -> bool) -> Vec<u32> {
        let mut out = Vec::new();
        for index in self.phases.iter().flatten() {
            if wanted(&self.rules[*index as usize].info) {
                let mut at = Some(*index);
                while let Some(link) = at {
                    out.push(link);
                    at = self.rules[link as usize].next;
                }
            }
        }
        out
    }
}

/// The target of an exclusion that stands outside of rule files.
pub(crate) fn exclusion_target(names: &Names, target: &lang::Target) -> Result<Target, String> {
    let members = match &target.selector {
        Selector::All => Members::All,
        Selector::Name(name) => Members::Name(name.to_ascii_lowercase().into_bytes().into()),
        Selector::Regex(pattern) => Members::Regex(Box::new(compile::member_pattern(pattern)?)),
    };
    let members = match members {
        Members::Name(name) if target.variable == Variable::Tx => match names.find(&name) {
            Some(slot) => Members::Slot(slot),
            None => Members::Name(name),
        },
        other => other,
    };
    Ok(Target { count: target.count, variable: target.variable, members })
}
