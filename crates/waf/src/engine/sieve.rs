//! The sieve at work: transformed values, each worked out once per transaction, and what each may match.

use super::memory::{Left, Memory};
use super::{
    state::{NONE, State},
    subjects::view,
    values::{PASSING, ValueId, Values},
};
use crate::plan::{Bit, ByteSet, ChainId, LENGTHS, Plan, Profile, Sieve};

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which trigger sets it meets, by number.
    triggers: u32,
    /// Where its set of rules begins, plus one.
    maybe: u32,
}

/// Where it stands that a rule may match a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maybe {
    word: u32,
    mask: u64,
}

const UNKNOWN: Known = Known { triggers: 0, maybe: 0 };

/// A value that rules of the phase may match, and where in `rests` the sets of these rules are, one for each list of transformations.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    profile: u32,
    value: ValueId,
    start: u32,
    end: u32,
}

/// What the look at a phase's values came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Not,
    /// No rules of the phase but these match it, wherever it stands.
    Before(Left),
    /// What may match it is in `sets`.
    Now,
}

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
    /// By value, for the phase.
    seen: Vec<Seen>,
    doubts: Vec<Doubt>,
    /// Where the set of a transformed value begins, and in `rest` the rules of it that look at the value.
    rests: Vec<(u32, u32)>,
    rest: Vec<u64>,
    /// Values of this and earlier transactions.
    memory: Memory,
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
            seen: Vec::new(),
            doubts: Vec::new(),
            rests: Vec::new(),
            rest: Vec::new(),
            memory: Memory::default(),
        }
    }
}

impl Buffers {
    pub(crate) fn reset(&mut self, plan: &Plan) {
        self.trail.clear();
        self.trail.resize(plan.chains.len(), (0, NONE));
        self.trail_of = NONE;
        self.stamp = 0;
        self.memory.belongs_to(plan.number);
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

    /// Whether a rule may match `value`, if that is known from before.
    pub(crate) fn may_match_still(&self, value: ValueId, bit: Bit) -> Option<bool> {
        match self.seen.get(value.0 as usize) {
            Some(Seen::Before(left)) => Some(left.has(bit)),
            _ => None,
        }
    }

    /// Whether a rule may match `value` after the transformations of `chain`, and where that is noted.
    pub(crate) fn may_match(
        &mut self,
        plan: &Plan,
        side: usize,
        values: &mut Values,
        value: ValueId,
        chain: ChainId,
        bit: Bit,
    ) -> Option<Maybe> {
        let info = &plan.chain_infos[usize::from(chain)];
        let mut known = self.known(plan, side, values, value);
        if known.triggers & info.triggers != 0 {
            let transformed = self.transform(plan, values, value, info.folded);
            known = self.known(plan, side, values, transformed);
        }
        let maybe = Maybe { word: known.maybe - 1 + u32::from(bit) / 64, mask: 1 << (bit % 64) };
        (self.sets[maybe.word as usize] & maybe.mask != 0).then_some(maybe)
    }

    /// Notes that the rule was asked and does not match.
    pub(crate) fn refute(&mut self, maybe: Maybe) {
        self.sets[maybe.word as usize] &= !maybe.mask;
    }

    /// Works out which rules of a phase some value may match.
    pub(crate) fn judge(state: &mut State, plan: &Plan, phase: usize) {
        let side = phase / 2;
        let sieve = &plan.sieves[side];
        let mut buffers = std::mem::take(&mut state.sieve);
        buffers.maybe.clear();
        buffers.maybe.resize(sieve.words, 0);
        buffers.seen.clear();
        buffers.seen.resize(state.values.len(), Seen::Not);
        buffers.doubts.clear();
        buffers.rests.clear();
        buffers.rest.clear();
        for look in &sieve.phases[phase % 2] {
            let Some(view) = view(look.variable) else {
                let value = state.scalars[look.variable as usize];
                if value != NONE {
                    buffers.profile(plan, sieve, side, &mut state.values, value, look.other());
                }
                continue;
            };
            for index in 0..state.bag(view.bag).len() {
                let entry = state.bag(view.bag)[index];
                if view.sees(&entry) {
                    let value = if view.names { entry.name } else { entry.value };
                    let profile = look.profile(state.values.get(entry.name));
                    buffers.profile(plan, sieve, side, &mut state.values, value, profile);
                }
            }
        }
        state.sieve = buffers;
    }

    /// Notes that a rule was asked about a value at each of its stages, and matches none.
    pub(crate) fn refute_stages(
        &mut self,
        plan: &Plan,
        side: usize,
        values: &mut Values,
        value: ValueId,
        stages: &[ChainId],
        bit: Bit,
    ) {
        for chain in stages {
            if let Some(maybe) = self.may_match(plan, side, values, value, *chain, bit) {
                self.refute(maybe);
            }
        }
    }

    /// Remembers the values of a phase of which nearly every rule that might have matched was asked, and did not.
    pub(crate) fn settle(&mut self, plan: &Plan, phase: usize, values: &Values) {
        let words = plan.sieves[phase / 2].words;
        for doubt in &self.doubts {
            let mut left = Left::NONE;
            let mut room = true;
            for (set, rest) in &self.rests[doubt.start as usize..doubt.end as usize] {
                let set = &self.sets[*set as usize..*set as usize + words];
                let rest = &self.rest[*rest as usize..*rest as usize + words];
                for (at, (set, rest)) in set.iter().zip(rest).enumerate() {
                    let mut both = set & rest;
                    while both != 0 && room {
                        room = left.add((at * 64) as Bit + both.trailing_zeros() as Bit);
                        both &= both - 1;
                    }
                }
            }
            if room {
                self.memory.add(doubt.profile, values.hash_of(doubt.value), values.get(doubt.value), left);
            }
        }
        self.doubts.clear();
        // What comes in between phases is looked at anew.
        self.seen.clear();
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
        if profile.chains.is_empty() {
            return self.recall(value, Left::NONE);
        }
        let hash = values.hash_of(value);
        if let Some(left) = self.memory.left(profile.number, hash, values.get(value)) {
            return self.recall(value, left);
        }
        let start = self.rests.len() as u32;
        self.look(plan, sieve, side, values, value, profile);
        let end = self.rests.len() as u32;
        if start == end {
            self.memory.add(profile.number, hash, values.get(value), Left::NONE);
            return self.recall(value, Left::NONE);
        }
        self.seen[value.0 as usize] = Seen::Now;
        self.doubts.push(Doubt { profile: profile.number, value, start, end });
    }

    /// Notes which rules are left for a value.
    fn recall(&mut self, value: ValueId, left: Left) {
        let seen = &mut self.seen[value.0 as usize];
        for bit in left.bits() {
            self.maybe[usize::from(bit) / 64] |= 1 << (bit % 64);
        }
        *seen = match *seen {
            Seen::Not => Seen::Before(left),
            Seen::Before(all) => all.with(left).map_or(Seen::Now, Seen::Before),
            Seen::Now => Seen::Now,
        };
    }

    /// Notes what a value may match.
    fn look(
        &mut self,
        plan: &Plan,
        sieve: &Sieve,
        side: usize,
        values: &mut Values,
        value: ValueId,
        profile: &Profile,
    ) {
        let known = self.known(plan, side, values, value);
        if known.triggers & profile.triggers == 0 {
            return self.note(sieve, known, &profile.all);
        }
        let length = values.get(value).len();
        for (chain, rules) in &profile.chains {
            let info = &plan.chain_infos[usize::from(*chain)];
            if known.triggers & info.triggers == 0 {
                self.note(sieve, known, rules);
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
            self.note(sieve, known, rules);
        }
    }

    fn note(&mut self, sieve: &Sieve, known: Known, rules: &[u64]) {
        let at = known.maybe as usize - 1;
        let set = &self.sets[at..at + sieve.words];
        if set.iter().zip(rules).all(|(set, rules)| set & rules == 0) {
            return;
        }
        self.rests.push((at as u32, self.rest.len() as u32));
        for ((maybe, set), rules) in self.maybe.iter_mut().zip(set).zip(rules) {
            *maybe |= set & rules;
            self.rest.push(set & rules);
        }
    }
}

/// Appends the set of rules that a value may match.
fn sift(sieve: &Sieve, value: &[u8], bytes: ByteSet, sets: &mut Vec<u64>, scratch: &mut Vec<u64>) {
    let words = sieve.words;
    let start = sets.len();
    let length = value.len().min(LENGTHS);
    sets.extend_from_slice(&sieve.lengths[length * words..(length + 1) * words]);
    let set = &mut sets[start..];
    let any = match words {
        1 => narrow::<1>(sieve, bytes, set),
        2 => narrow::<2>(sieve, bytes, set),
        3 => narrow::<3>(sieve, bytes, set),
        4 => narrow::<4>(sieve, bytes, set),
        5 => narrow::<5>(sieve, bytes, set),
        6 => narrow::<6>(sieve, bytes, set),
        _ => narrow_any(sieve, bytes, set, scratch),
    };
    if !any {
        return add_always(sieve, &mut sets[start..]);
    }
    let Some(texts) = &sieve.texts else { return add_always(sieve, &mut sets[start..]) };
    // Only if a rule that needs a text is left.
    if sets[start..].iter().zip(&sieve.textless).all(|(set, textless)| set & !textless == 0) {
        return add_always(sieve, &mut sets[start..]);
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
    add_always(sieve, &mut sets[start..]);
}

fn add_always(sieve: &Sieve, set: &mut [u64]) {
    for (set, always) in set.iter_mut().zip(&sieve.always) {
        *set |= always;
    }
}

/// Leaves of a set the rules of which the value has a byte of each class they need; false if none is left. The number of words is known, so
/// that they stay in registers.
fn narrow<const WORDS: usize>(sieve: &Sieve, bytes: ByteSet, set: &mut [u64]) -> bool {
    let (Ok(set), mut any) = (<&mut [u64; WORDS]>::try_from(set), true) else { return true };
    for table in &sieve.classes {
        let mut rules = [0; WORDS];
        rules.copy_from_slice(&table.free);
        for byte in bytes.both(table.any).iter() {
            let at = usize::from(byte) * WORDS;
            for (all, rules_of_byte) in rules.iter_mut().zip(&table.by_byte[at..at + WORDS]) {
                *all |= rules_of_byte;
            }
        }
        for (set, rules) in set.iter_mut().zip(rules) {
            *set &= rules;
        }
        any = set.iter().any(|word| *word != 0);
        if !any {
            break;
        }
    }
    any
}

fn narrow_any(sieve: &Sieve, bytes: ByteSet, set: &mut [u64], scratch: &mut Vec<u64>) -> bool {
    for table in &sieve.classes {
        scratch.clear();
        scratch.extend_from_slice(&table.free);
        for byte in bytes.both(table.any).iter() {
            let at = usize::from(byte) * sieve.words;
            for (all, rules_of_byte) in scratch.iter_mut().zip(&table.by_byte[at..at + sieve.words]) {
                *all |= rules_of_byte;
            }
        }
        for (set, rules) in set.iter_mut().zip(&*scratch) {
            *set &= rules;
        }
    }
    set.iter().any(|word| *word != 0)
}
