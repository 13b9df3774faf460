//! Which rules the bytes and the texts of a value leave.

use crate::plan::{ByteSet, LENGTHS, Sieve, Tier};

/// Appends the set of rules that a value of this length made of these bytes may match.
pub(super) fn narrow(
    sieve: &Sieve,
    bytes: ByteSet,
    length: usize,
    sets: &mut Vec<u64>,
    scratch: &mut Vec<u64>,
) {
    let words = sieve.words;
    let tier = sieve.tier(bytes);
    let start = sets.len();
    let length = length.min(LENGTHS);
    let long_enough = &sieve.lengths[length * words..(length + 1) * words];
    sets.extend(long_enough.iter().zip(&tier.possible).map(|(long, possible)| long & possible));
    let set = &mut sets[start..];
    match words {
        1 => narrow_by::<1>(tier, bytes, set),
        2 => narrow_by::<2>(tier, bytes, set),
        3 => narrow_by::<3>(tier, bytes, set),
        4 => narrow_by::<4>(tier, bytes, set),
        5 => narrow_by::<5>(tier, bytes, set),
        6 => narrow_by::<6>(tier, bytes, set),
        _ => narrow_any(tier, bytes, set, scratch),
    }
}

/// Leaves of a set the rules that need none of the tier's texts, or one that is in the value.
pub(super) fn scan(tier: &Tier, value: &[u8], set: &mut [u64], scratch: &mut Vec<u64>) {
    scratch.clear();
    scratch.extend_from_slice(&tier.textless);
    tier.find(value, scratch);
    for (set, word) in set.iter_mut().zip(&*scratch) {
        *set &= word;
    }
}

/// Leaves of a set the rules of which the value has a byte of each class they need. The number of words is known, so that they stay in
/// registers.
fn narrow_by<const WORDS: usize>(tier: &Tier, bytes: ByteSet, set: &mut [u64]) {
    let Ok(set) = <&mut [u64; WORDS]>::try_from(set) else { return };
    for table in &tier.classes {
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
        if set.iter().all(|word| *word == 0) {
            break;
        }
    }
}

fn narrow_any(tier: &Tier, bytes: ByteSet, set: &mut [u64], scratch: &mut Vec<u64>) {
    let words = set.len();
    for table in &tier.classes {
        scratch.clear();
        scratch.extend_from_slice(&table.free);
        for byte in bytes.both(table.any).iter() {
            let at = usize::from(byte) * words;
            for (all, rules_of_byte) in scratch.iter_mut().zip(&table.by_byte[at..at + words]) {
                *all |= rules_of_byte;
            }
        }
        for (set, rules) in set.iter_mut().zip(&*scratch) {
            *set &= rules;
        }
    }
}
