//! The sieve at work: transformed values, each worked out once per transaction, and what each may match.

use super::clean::Clean;
use super::{
    state::{NONE, State},
    subjects::view,
    values::{PASSING, ValueId, Values},
};
use crate::plan::{Bit, ByteSet, ChainId, LENGTHS, Look, Plan, Profile, Sieve};

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which trigger sets it meets, by number.
    triggers: u32,
    /// Where its set of rules begins, plus one.
    maybe: u32,
}

const UNKNOWN: Known = Known { triggers: 0, maybe: 0 };

/// What is remembered within a transaction.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Of one value what each list of transformations made of it, and for which value that holds.
    trail: Vec<(u32, ValueId)>,
    trail_of: ValueId,
    stamp: u32,
    out: Vec<u8>,
    /// By value, for the sieves of requests and of responses.
    known: [Vec<Known>; 2],
    sets: Vec<u64>,
    /// Rules of the phase that some value may match.
    pub(crate) maybe: Vec<u64>,
    words: Vec<u64>,
    /// Values of this and earlier transactions that no rule may match.
    clean: Clean,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            trail: Vec::new(),
            trail_of: NONE,
            stamp: 0,
            out: Vec::new(),
            known: [Vec::new(), Vec::new()],
            sets: Vec::new(),
            maybe: Vec::new(),
            words: Vec::new(),
            clean: Clean::default(),
        }
    }
}

impl Buffers {
    pub(crate) fn reset(&mut self, plan: &Plan) {
        self.trail.clear();
        self.trail.resize(plan.chains.len(), (0, NONE));
        self.trail_of = NONE;
        self.stamp = 0;
        self.clean.belongs_to(plan.number);
        for known in &mut self.known {
            known.clear();
        }
        self.sets.clear();
    }

    /// `value` after the transformations of `chain`.
    pub(crate) fn transform(
        &mut self,
        plan: &Plan,
        values: &mut Values,
        value: ValueId,
        chain: ChainId,
    ) -> ValueId {
        if chain == 0 {
            return value;
        }
        if self.trail_of != value {
            self.trail_of = value;
            self.stamp += 1;
        }
        self.step(plan, values, value, chain)
    }

    fn step(&mut self, plan: &Plan, values: &mut Values, value: ValueId, chain: ChainId) -> ValueId {
        if chain == 0 {
            return value;
        }
        let (stamp, known) = self.trail[usize::from(chain)];
        if stamp == self.stamp {
            return known;
        }
        let before = self.step(plan, values, value, plan.chains.parent(chain));
        let changed = plan.chains.transformation(chain).apply(values.get(before), &mut self.out);
        let result = if changed { values.add_transformed(&mut self.out) } else { before };
        // What passes is not there when it is asked for again.
        if result != PASSING {
            self.trail[usize::from(chain)] = (self.stamp, result);
        }
        result
    }

    fn known(&mut self, plan: &Plan, side: usize, values: &Values, value: ValueId) -> Known {
        let index = if value == PASSING { usize::MAX } else { value.0 as usize };
        if let Some(known) = self.known[side].get(index).filter(|known| known.maybe != 0) {
            return *known;
        }
        let bytes = values.get(value);
        let set = ByteSet::in_value(bytes);
        let mut triggers = 0;
        for (number, trigger) in plan.triggers.iter().enumerate() {
            // What changes every value changes the empty one, too.
            triggers |= u32::from(set.meets(*trigger) || *trigger == ByteSet::ALL) << number;
        }
        let known = Known { triggers, maybe: self.sets.len() as u32 + 1 };
        sift(&plan.sieves[side], bytes, set, &mut self.sets, &mut self.words);
        if value == PASSING {
            return known;
        }
        let list = &mut self.known[side];
        if list.len() <= index {
            list.resize(values.len().max(index + 1), UNKNOWN);
        }
        list[index] = known;
        known
    }

    fn set_of(&self, sieve: &Sieve, known: Known) -> &[u64] {
        let at = known.maybe as usize - 1;
        &self.sets[at..at + sieve.words]
    }

    /// Whether a rule may match `value` after the transformations of `chain`.
    pub(crate) fn may_match(
        &mut self,
        plan: &Plan,
        side: usize,
        values: &mut Values,
        value: ValueId,
        chain: ChainId,
        bit: Bit,
    ) -> bool {
        let sieve = &plan.sieves[side];
        let info = &plan.chain_infos[usize::from(chain)];
        let mut known = self.known(plan, side, values, value);
        if known.triggers & info.triggers != 0 {
            let transformed = self.transform(plan, values, value, info.folded);
            known = self.known(plan, side, values, transformed);
        }
        self.set_of(sieve, known)[usize::from(bit) / 64] >> (bit % 64) & 1 == 1
    }

    /// Works out which rules of a phase some value may match.
    pub(crate) fn judge(state: &mut State, plan: &Plan, phase: usize) {
        let side = phase / 2;
        let sieve = &plan.sieves[side];
        let mut buffers = std::mem::take(&mut state.sieve);
        buffers.maybe.clear();
        buffers.maybe.resize(sieve.words, 0);
        for look in &sieve.phases[phase % 2] {
            let Some(view) = view(look.variable) else {
                let value = state.scalars[look.variable as usize];
                if value != NONE {
                    buffers.profile(plan, sieve, side, &mut state.values, value, &look.other);
                }
                continue;
            };
            for index in 0..state.bag(view.bag).len() {
                let entry = state.bag(view.bag)[index];
                if view.sees(&entry) {
                    let value = if view.names { entry.name } else { entry.value };
                    let profile = profile(look, state.values.get(entry.name));
                    buffers.profile(plan, sieve, side, &mut state.values, value, profile);
                }
            }
        }
        state.sieve = buffers;
    }

    fn profile(
        &mut self,
        plan: &Plan,
        sieve: &Sieve,
        side: usize,
        values: &mut Values,
        value: ValueId,
        profile: &Profile,
    ) {
        let hash = values.hash_of(value);
        if self.clean.has(profile.number, hash, values.get(value)) {
            return;
        }
        if !self.look(plan, sieve, side, values, value, profile) {
            self.clean.add(profile.number, hash, values.get(value));
        }
    }

    /// Notes what a value may match; false if that is nothing.
    fn look(
        &mut self,
        plan: &Plan,
        sieve: &Sieve,
        side: usize,
        values: &mut Values,
        value: ValueId,
        profile: &Profile,
    ) -> bool {
        let known = self.known(plan, side, values, value);
        if known.triggers & profile.triggers == 0 {
            return self.note(sieve, known, &profile.all);
        }
        let mut any = false;
        let length = values.get(value).len();
        for (chain, rules) in &profile.chains {
            let info = &plan.chain_infos[usize::from(*chain)];
            if known.triggers & info.triggers == 0 {
                any |= self.note(sieve, known, rules);
                continue;
            }
            // A value that is too short for all of them need not be transformed.
            let longest = info.longest(length);
            let long_enough = &sieve.lengths[longest * sieve.words..(longest + 1) * sieve.words];
            if long_enough.iter().zip(rules).all(|(long, rule)| long & rule == 0) {
                continue;
            }
            let transformed = self.transform(plan, values, value, *chain);
            let known = self.known(plan, side, values, transformed);
            any |= self.note(sieve, known, rules);
        }
        any
    }

    fn note(&mut self, sieve: &Sieve, known: Known, rules: &[u64]) -> bool {
        let at = known.maybe as usize - 1;
        let set = &self.sets[at..at + sieve.words];
        let mut any = 0;
        for ((maybe, set), rules) in self.maybe.iter_mut().zip(set).zip(rules) {
            *maybe |= set & rules;
            any |= set & rules;
        }
        any != 0
    }
}

fn profile<'a>(look: &'a Look, name: &[u8]) -> &'a Profile {
    if look.named.is_empty() {
        return &look.other;
    }
    if name.len() > 128 {
        return look.named.get(&*name.to_ascii_lowercase()).unwrap_or(&look.other);
    }
    let mut lower = [0; 128];
    let lower = &mut lower[..name.len()];
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    look.named.get(&*lower).unwrap_or(&look.other)
}

/// Appends the set of rules that a value may match.
fn sift(sieve: &Sieve, value: &[u8], bytes: ByteSet, sets: &mut Vec<u64>, scratch: &mut Vec<u64>) {
    let words = sieve.words;
    let start = sets.len();
    let length = value.len().min(LENGTHS);
    sets.extend_from_slice(&sieve.lengths[length * words..(length + 1) * words]);
    for table in &sieve.classes {
        scratch.clear();
        scratch.extend_from_slice(&table.free);
        for byte in bytes.iter() {
            let at = usize::from(byte) * words;
            for (word, rules) in scratch.iter_mut().zip(&table.by_byte[at..at + words]) {
                *word |= rules;
            }
        }
        let mut any = 0;
        for (set, word) in sets[start..].iter_mut().zip(&*scratch) {
            *set &= word;
            any |= *set;
        }
        if any == 0 {
            return;
        }
    }
    let Some(texts) = &sieve.texts else { return };
    // Only if a rule that needs a text is left.
    if sets[start..].iter().zip(&sieve.textless).all(|(set, textless)| set & !textless == 0) {
        return;
    }
    scratch.clear();
    scratch.extend_from_slice(&sieve.textless);
    for found in texts.find_overlapping_iter(value) {
        let (from, to) = sieve.patterns[found.pattern().as_usize()];
        for bit in &sieve.users[from as usize..to as usize] {
            scratch[usize::from(*bit) / 64] |= 1 << (bit % 64);
        }
    }
    for (set, word) in sets[start..].iter_mut().zip(&*scratch) {
        *set &= word;
    }
}
