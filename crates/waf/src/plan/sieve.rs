//! The sieve: one look at a value that tells, for every rule at once, "no" or "maybe".
//!
//! A rule passes a value only if a text it needs is in it, if it has a byte of each set it needs, and if it is long enough. All three are
//! asked regardless of ASCII case, so that a value and its lower case get one answer. Only rules that look at messages and at nothing else
//! take part; the rest are evaluated each time. Of some, as of negated ones, nothing can be told beforehand: for them it is always "maybe",
//! but as all others they are not asked again about a value that is known from before.
//!
//! What is needed depends on what a value is made of: of words alone, most expressions need much more.

use super::{
    ChainId, Chains, Members, Rule,
    bytes::ByteSet,
    tier::{Need, TIERS, Tier},
    trigger::{self, Brings},
};
use crate::{lang::Variable, transform::Transformation};

/// Lengths are told apart up to this.
pub(crate) const LENGTHS: usize = 40;

/// A rule's place in a sieve.
pub(crate) type Bit = u16;
/// No place.
pub(crate) const NO_BIT: Bit = Bit::MAX;

/// The sieve for the rules of two phases.
#[derive(Debug)]
pub(crate) struct Sieve {
    /// Words of a set of rules.
    pub(crate) words: usize,
    /// By what values are made of; the last one is for any.
    pub(crate) tiers: Vec<Tier>,
    /// Rules that a value of this length can pass, [`LENGTHS`] + 1 sets.
    pub(crate) lengths: Vec<u64>,
    /// For the phases of this sieve, how each variable is looked at.
    pub(crate) phases: [Vec<Look>; 2],
}

/// How the rules of a phase look at one variable.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) variable: Variable,
    /// For members that no rule names.
    other: Profile,
    /// By name in lower case: the shortest first, those of one length in order.
    named: Vec<(Box<[u8]>, Profile)>,
    /// Lengths of these names: bit 63 is of all that are longer.
    lengths: u64,
}

impl Look {
    fn new(variable: Variable) -> Self {
        Self { variable, other: Profile::default(), named: Vec::new(), lengths: 0 }
    }

    /// How a member of this name is looked at; what has none, is as one that no rule names.
    pub(crate) fn profile(&self, name: &[u8]) -> &Profile {
        if self.lengths >> name.len().min(63) & 1 == 0 {
            return &self.other;
        }
        let found = self.named.binary_search_by(|(known, _)| {
            let lower = || name.iter().map(u8::to_ascii_lowercase);
            known.len().cmp(&name.len()).then_with(|| known.iter().copied().cmp(lower()))
        });
        found.map_or(&self.other, |index| &self.named[index].1)
    }

    pub(crate) fn other(&self) -> &Profile {
        &self.other
    }

    pub(super) fn profiles(&mut self) -> impl Iterator<Item = &mut Profile> {
        self.named.iter_mut().map(|(_, profile)| profile).chain([&mut self.other])
    }

    fn set_names(&mut self, mut names: Vec<Box<[u8]>>) {
        names.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        names.dedup();
        self.lengths = names.iter().fold(0, |lengths, name| lengths | 1 << name.len().min(63));
        self.named = names.into_iter().map(|name| (name, Profile::default())).collect();
    }
}

/// The lists of transformations that rules look through, and which rules each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    pub(crate) chains: Vec<(ChainId, Vec<u64>)>,
    /// All rules together.
    pub(crate) all: Vec<u64>,
    /// The trigger sets of all lists.
    pub(crate) triggers: u32,
    /// Its own among those of the plan.
    pub(crate) number: u32,
}

/// What a list of transformations does to values, as far as the sieve cares.
#[derive(Clone, Debug)]
pub(crate) struct ChainInfo {
    /// The list without a last `lowercase`.
    pub(crate) folded: ChainId,
    /// Which of the plan's trigger sets change a value under `folded`.
    pub(crate) triggers: u32,
    longest: [u8; LENGTHS + 1],
    /// What is in `folded`, and what must be in a value for it to change.
    steps: Vec<(Transformation, ByteSet)>,
    /// Trigger sets that bring no other bytes into a value, and those that do not into one with a space.
    mild: [u32; 2],
    /// What it makes of a value can be made of any bytes.
    any: bool,
}

impl ChainInfo {
    /// The longest that a value of this length can become, both capped at [`LENGTHS`].
    pub(crate) fn longest(&self, length: usize) -> usize {
        usize::from(self.longest[length.min(LENGTHS)])
    }

    /// Whether `folded` makes of a value, which meets `triggers` and has a space or not, one of the same bytes regardless of case.
    pub(crate) fn keeps_bytes(&self, triggers: u32, has_space: bool) -> bool {
        triggers & self.triggers & !self.mild[usize::from(has_space)] == 0
    }

    /// Whether nothing can be told of the bytes of what `folded` makes of a value.
    pub(crate) fn makes_any(&self) -> bool {
        self.any
    }

    /// Bytes of which a value can be made that `folded` makes of this one, whose bytes are `bytes`.
    pub(crate) fn bytes_after(&self, value: &[u8], bytes: ByteSet) -> ByteSet {
        let mut now = bytes;
        let mut same = true;
        for (step, triggers) in &self.steps {
            if *triggers == ByteSet::ALL || now.meets(*triggers) {
                now = match same {
                    true => trigger::bytes_of(*step, value, now),
                    false => trigger::bytes_after(*step, now),
                };
                same = false;
            }
        }
        now
    }
}

/// [`ChainInfo::longest`] for each length.
fn reach(transformations: &[Transformation]) -> [u8; LENGTHS + 1] {
    std::array::from_fn(|length| {
        if length == LENGTHS {
            return LENGTHS as u8;
        }
        let longest = transformations.iter().fold(length, |length, step| {
            if length == usize::MAX { length } else { trigger::longest(*step, length) }
        });
        longest.min(LENGTHS) as u8
    })
}

/// The number of a trigger set among those of the plan; beyond 32 all share the last, which is then all bytes.
fn number(set: ByteSet, sets: &mut Vec<ByteSet>) -> u32 {
    match sets.iter().position(|known| *known == set) {
        Some(index) => index as u32,
        None if sets.len() < 32 => {
            sets.push(set);
            sets.len() as u32 - 1
        }
        None => {
            sets[31] = ByteSet::ALL;
            31
        }
    }
}

/// What the sieve knows of each list of transformations, and the sets of triggers by number.
pub(crate) fn chain_infos(chains: &Chains) -> (Vec<ChainInfo>, Vec<ByteSet>) {
    let mut sets = Vec::new();
    let infos = (0..chains.len())
        .map(|chain| {
            let mut folded = chain as ChainId;
            while folded != 0 && chains.transformation(folded) == Transformation::Lowercase {
                folded = chains.parent(folded);
            }
            let transformations = chains.list(folded);
            let steps: Vec<_> =
                transformations.iter().map(|step| (*step, trigger::triggers(*step))).collect();
            let mut info = ChainInfo {
                folded,
                triggers: 0,
                longest: reach(&transformations),
                mild: [0; 2],
                any: steps.iter().any(|(step, triggers)| {
                    *triggers == ByteSet::ALL && trigger::bytes_after(*step, ByteSet::EMPTY) == ByteSet::ALL
                }),
                steps,
            };
            let mut wild = [0; 2];
            for (step, set) in info.steps.iter().filter(|(_, set)| *set != ByteSet::EMPTY) {
                let bit = 1 << number(*set, &mut sets);
                info.triggers |= bit;
                let brings = trigger::brings(*step);
                wild[0] |= if brings == Brings::Nothing { 0 } else { bit };
                wild[1] |= if brings == Brings::Others { bit } else { 0 };
            }
            info.mild = wild.map(|wild| info.triggers & !wild);
            info
        })
        .collect();
    (infos, sets)
}

pub(super) fn set(words: &mut [u64], bit: Bit) {
    words[usize::from(bit) / 64] |= 1 << (bit % 64);
}

impl Sieve {
    /// Builds the sieve for two phases; `bits` gets the place of each rule in it.
    pub(crate) fn new(
        rules: &[Rule],
        phases: [&[u32]; 2],
        cold: &dyn Fn(u32) -> bool,
        chains: &Chains,
        infos: &[ChainInfo],
        bits: &mut [Bit],
    ) -> Self {
        let needs: Vec<Need> = phases
            .iter()
            .flat_map(|phase| phase.iter())
            .filter(|rule| !cold(**rule))
            .filter_map(|rule| Need::of(*rule, &rules[*rule as usize]))
            .take(usize::from(NO_BIT))
            .collect();
        let words = needs.len().div_ceil(64).max(1);
        let mut sieve = Self {
            words,
            tiers: (0..TIERS.len()).map(|tier| Tier::new(tier, &needs, words)).collect(),
            lengths: vec![0; words * (LENGTHS + 1)],
            phases: [Vec::new(), Vec::new()],
        };
        for (bit, need) in needs.iter().enumerate() {
            let bit = bit as Bit;
            bits[need.rule as usize] = bit;
            for length in need.length.min(LENGTHS)..=LENGTHS {
                set(&mut sieve.lengths[length * words..(length + 1) * words], bit);
            }
        }
        for (index, phase) in phases.into_iter().enumerate() {
            sieve.phases[index] = looks(rules, phase, bits, words, chains, infos);
        }
        sieve
    }

    /// The tier of values that are made of these bytes.
    pub(crate) fn tier(&self, bytes: ByteSet) -> &Tier {
        let last = self.tiers.len() - 1;
        self.tiers[..last]
            .iter()
            .find(|tier| bytes.without(tier.bytes) == ByteSet::EMPTY)
            .unwrap_or(&self.tiers[last])
    }
}

fn looks(
    rules: &[Rule],
    phase: &[u32],
    bits: &[Bit],
    words: usize,
    chains: &Chains,
    infos: &[ChainInfo],
) -> Vec<Look> {
    let mut looks: Vec<Look> = Vec::new();
    let mut at = |variable| match looks.iter().position(|look| look.variable == variable) {
        Some(index) => index,
        None => {
            looks.push(Look::new(variable));
            looks.len() - 1
        }
    };
    // First every name that any rule tells apart, so that each gets the rules for all.
    let judged = || phase.iter().filter(|rule| bits[**rule as usize] != NO_BIT);
    let mut names = Vec::new();
    for index in judged() {
        let rule = &rules[*index as usize];
        for target in &rule.targets {
            let look = at(target.variable);
            let sides =
                rule.exclusions.iter().filter(|side| side.variable == target.variable).chain([target]);
            for side in sides {
                if let Members::Name(name) = &side.members {
                    names.push((look, name.clone()));
                }
            }
        }
    }
    for (index, look) in looks.iter_mut().enumerate() {
        let own = names.iter().filter(|(look, _)| *look == index);
        look.set_names(own.map(|(_, name)| name.clone()).collect());
    }
    for index in judged() {
        let rule = &rules[*index as usize];
        let bit = bits[*index as usize];
        let mut stages = vec![rule.chain];
        if rule.multi_match {
            while let Some(last) = stages.last().copied().filter(|last| *last != 0) {
                stages.push(chains.parent(last));
            }
        }
        for target in &rule.targets {
            let Some(look) = looks.iter_mut().find(|look| look.variable == target.variable) else { continue };
            let excluded = |name: &[u8]| {
                rule.exclusions.iter().any(|side| {
                    side.variable == target.variable
                        && !side.count
                        && match &side.members {
                            Members::All => true,
                            Members::Name(known) => **known == *name,
                            _ => false,
                        }
                })
            };
            let add = |profile: &mut Profile| {
                for stage in &stages {
                    profile.add(infos[usize::from(*stage)].folded, bit, words);
                }
            };
            match &target.members {
                // What a pattern selects is not known before: it looks at all.
                Members::All | Members::Regex(_) | Members::Slot(_) => {
                    add(&mut look.other);
                    for (name, profile) in &mut look.named {
                        if !excluded(name) {
                            add(profile);
                        }
                    }
                }
                Members::Name(name) => {
                    look.named
                        .iter_mut()
                        .filter(|(known, _)| known == name)
                        .for_each(|(_, profile)| add(profile));
                }
            }
        }
    }
    for look in &mut looks {
        for profile in look.profiles() {
            profile.all.resize(words, 0);
            for (chain, mask) in &profile.chains {
                profile.triggers |= infos[usize::from(*chain)].triggers;
                for (all, word) in profile.all.iter_mut().zip(mask) {
                    *all |= word;
                }
            }
        }
    }
    looks
}

impl Profile {
    fn add(&mut self, chain: ChainId, bit: Bit, words: usize) {
        let index = match self.chains.iter().position(|(known, _)| *known == chain) {
            Some(index) => index,
            None => {
                self.chains.push((chain, vec![0; words]));
                self.chains.len() - 1
            }
        };
        set(&mut self.chains[index].1, bit);
    }
}
