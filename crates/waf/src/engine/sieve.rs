//! The sieve at work: transformed values, each worked out once per transaction, and what each may match.

use super::memory::{Left, Memory};
use super::sift::{narrow, scan};
use super::{
    state::{NONE, State},
    subjects::view,
    values::{PASSING, ValueId, Values},
};
use crate::plan::{Bit, ByteSet, ChainId, LENGTHS, Plan, Profile, Sieve, Tier};

/// Entries of a list that stay allocated for the next transaction.
const KEPT: usize = 1 << 15;

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which trigger sets it meets, by number.
    triggers: u32,
    /// Where its set of rules begins, plus one. The rules that its bytes leave follow, and then its bytes.
    maybe: u32,
    /// Whether its texts were looked for, which they are only when a rule that needs one is left.
    scanned: bool,
}

/// Where it stands that a rule may match a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maybe {
    word: u32,
    mask: u64,
}

const UNKNOWN: Known = Known { triggers: 0, maybe: 0, scanned: false };

/// The rules that a value may match after a list of transformations, before it was transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beforehand {
    /// Where the set begins.
    Set(u32),
    /// Nothing can be told.
    Unknown,
}

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
    /// Of one value, what transformations may make it of, and where the set of rules for that begins.
    after: Vec<(ByteSet, u32)>,
    after_of: ValueId,
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
            after: Vec::new(),
            after_of: NONE,
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
            known.shrink_to(KEPT);
        }
        self.sets.clear();
        self.sets.shrink_to(KEPT);
        self.after_of = NONE;
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
        let start = self.sets.len();
        let known = Known { triggers, maybe: start as u32 + 1, scanned: false };
        narrow(&plan.sieves[side], set, bytes.len(), &mut self.sets, &mut self.words);
        self.sets.extend_from_within(start..);
        self.sets.extend_from_slice(&set.words());
        self.keep(side, values, value, known);
        known
    }

    fn keep(&mut self, side: usize, values: &Values, value: ValueId, known: Known) {
        if value == PASSING {
            return;
        }
        let index = value.0 as usize;
        let list = &mut self.known[side];
        if list.len() <= index {
            list.resize(values.len().max(index + 1), UNKNOWN);
        }
        list[index] = known;
    }

    /// The tier that judges a value, and the rules it may match as far as is known.
    fn tier<'p>(&self, sieve: &'p Sieve, known: Known) -> (&'p Tier, &[u64]) {
        let set = &self.sets[known.maybe as usize - 1..];
        (sieve.tier(bytes_in(&set[2 * sieve.words..])), &set[..sieve.words])
    }

    /// Looks for the texts of a value.
    fn scan(&mut self, sieve: &Sieve, side: usize, values: &Values, value: ValueId, known: Known) {
        let (tier, _) = self.tier(sieve, known);
        let start = known.maybe as usize - 1;
        let set = &mut self.sets[start..start + sieve.words];
        scan(tier, values.get(value), set, &mut self.words);
        self.keep(side, values, value, Known { scanned: true, ..known });
    }

    /// What `value` may match after the transformations of `chain`, by the bytes that it can then be made of.
    fn beforehand(
        &mut self,
        plan: &Plan,
        side: usize,
        values: &Values,
        value: ValueId,
        known: Known,
        chain: ChainId,
    ) -> Beforehand {
        let sieve = &plan.sieves[side];
        let info = &plan.chain_infos[usize::from(chain)];
        if info.makes_any() {
            return Beforehand::Unknown;
        }
        let own = known.maybe as usize - 1 + sieve.words;
        let bytes = bytes_in(&self.sets[own + sieve.words..]);
        let length = values.get(value).len();
        let fits = info.longest(length) <= length;
        if fits && info.keeps_bytes(known.triggers, bytes.contains(b' ')) {
            return Beforehand::Set(own as u32);
        }
        let after = info.bytes_after(values.get(value), bytes).fold();
        if after == ByteSet::ALL {
            return Beforehand::Unknown;
        }
        // Rules ask regardless of case.
        if fits && after.without(bytes.fold()) == ByteSet::EMPTY {
            return Beforehand::Set(own as u32);
        }
        if self.after_of != value || value == PASSING {
            self.after_of = value;
            self.after.clear();
        }
        if let Some((_, set)) = self.after.iter().find(|(bytes, _)| *bytes == after) {
            return Beforehand::Set(*set);
        }
        let set = self.sets.len() as u32;
        narrow(sieve, after, LENGTHS, &mut self.sets, &mut self.words);
        self.after.push((after, set));
        Beforehand::Set(set)
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
        let (word, mask) = (u32::from(bit) / 64, 1 << (bit % 64));
        let mut looked_at = value;
        if known.triggers & info.triggers != 0 {
            if let Beforehand::Set(set) = self.beforehand(plan, side, values, value, known, chain)
                && self.sets[(set + word) as usize] & mask == 0
            {
                return None;
            }
            looked_at = self.transform(plan, values, value, info.folded);
            known = self.known(plan, side, values, looked_at);
        }
        let maybe = Maybe { word: known.maybe - 1 + word, mask };
        if self.sets[maybe.word as usize] & mask == 0 {
            return None;
        }
        let sieve = &plan.sieves[side];
        if !known.scanned && self.tier(sieve, known).0.textless[word as usize] & mask == 0 {
            self.scan(sieve, side, values, looked_at, known);
        }
        (self.sets[maybe.word as usize] & mask != 0).then_some(maybe)
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
            return self.note(sieve, side, values, value, known, &profile.all);
        }
        let length = values.get(value).len();
        for (chain, rules) in &profile.chains {
            let info = &plan.chain_infos[usize::from(*chain)];
            if known.triggers & info.triggers == 0 {
                let known = self.known(plan, side, values, value);
                self.note(sieve, side, values, value, known, rules);
                continue;
            }
            // A value that is too short for all of them, or has none of the bytes they need, need not be transformed.
            let longest = info.longest(length);
            let long_enough = &sieve.lengths[longest * sieve.words..(longest + 1) * sieve.words];
            if !meets(long_enough, rules) {
                continue;
            }
            if let Beforehand::Set(set) = self.beforehand(plan, side, values, value, known, *chain)
                && !meets(&self.sets[set as usize..], rules)
            {
                continue;
            }
            let transformed = self.transform(plan, values, value, *chain);
            let known = self.known(plan, side, values, transformed);
            self.note(sieve, side, values, transformed, known, rules);
        }
    }

    /// Notes the rules that a value may match.
    fn note(
        &mut self,
        sieve: &Sieve,
        side: usize,
        values: &Values,
        value: ValueId,
        known: Known,
        rules: &[u64],
    ) {
        if !known.scanned {
            let (tier, set) = self.tier(sieve, known);
            let needs_text = |((set, rules), textless): ((&u64, &u64), &u64)| set & rules & !textless != 0;
            if set.iter().zip(rules).zip(&tier.textless).any(needs_text) {
                self.scan(sieve, side, values, value, known);
            }
        }
        let at = known.maybe as usize - 1;
        let set = &self.sets[at..at + sieve.words];
        if !meets(set, rules) {
            return;
        }
        self.rests.push((at as u32, self.rest.len() as u32));
        for ((maybe, set), rules) in self.maybe.iter_mut().zip(set).zip(rules) {
            *maybe |= set & rules;
            self.rest.push(set & rules);
        }
    }
}

/// Whether two sets of rules have one in common; the longer of them may go on.
fn meets(a: &[u64], b: &[u64]) -> bool {
    a.iter().zip(b).any(|(a, b)| a & b != 0)
}

/// The bytes of a value where they are kept.
fn bytes_in(words: &[u64]) -> ByteSet {
    ByteSet::of_words(std::array::from_fn(|at| words[at]))
}
