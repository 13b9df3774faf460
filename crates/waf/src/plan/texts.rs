//! Many short texts looked for at once: an Aho-Corasick automaton with a table for every state, that goes through four parts of a value at a
//! time.
//!
//! Each step waits for the table's answer to the one before. Texts of a sieve are short, so parts that overlap by as much find all of
//! them, and while one part waits the others go on.

use std::collections::VecDeque;

/// Parts of a value.
const LANES: usize = 4;
/// Values that are shorter are gone through in one.
const SHORT: usize = 64;
/// Entries of a table; 12 MiB of them.
const MOST: usize = 3 << 20;
/// No state, while the automaton is built.
const NOWHERE: u32 = u32::MAX;

/// The automaton. A state is where its row begins in `table`; those in which a text ends come last.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Column of each byte, both cases of a letter in one; bytes of no text share the first.
    column: Box<[u8; 256]>,
    columns: usize,
    table: Vec<u32>,
    /// The first state in which a text ends.
    ends: u32,
    /// For each such state, where its rules begin in `rules`.
    rules_of: Vec<u32>,
    /// Distinct sets of rules.
    rules: Vec<u64>,
    words: usize,
    /// Bytes that parts of a value share.
    overlap: usize,
}

impl Texts {
    /// Makes the automaton of texts in lower case, none of them empty, each with the set of rules, `words` long, that look for it; none
    /// if it were too large.
    pub(crate) fn new(texts: &[(&[u8], Vec<u64>)], words: usize) -> Option<Self> {
        let mut column = Box::new([0; 256]);
        let mut columns = 1;
        for byte in texts.iter().flat_map(|(text, _)| text.iter()) {
            let lower = usize::from(byte.to_ascii_lowercase());
            if column[lower] == 0 {
                column[lower] = u8::try_from(columns).ok()?;
                columns += 1;
            }
            column[usize::from(byte.to_ascii_uppercase())] = column[lower];
        }
        // The tree of all texts; states are numbered as they come.
        let mut tree = vec![NOWHERE; columns];
        let mut found = vec![vec![0; 0]];
        for (text, rules) in texts {
            let mut at = 0;
            for byte in *text {
                let next = at * columns + usize::from(column[usize::from(*byte)]);
                if tree[next] == NOWHERE {
                    if tree.len() + columns > MOST {
                        return None;
                    }
                    tree[next] = found.len() as u32;
                    tree.resize(tree.len() + columns, NOWHERE);
                    found.push(Vec::new());
                }
                at = tree[next] as usize;
            }
            unite(&mut found[at], rules);
        }
        complete(&mut tree, &mut found, columns);
        // States in which no text ends come first.
        let mut number = vec![0; found.len()];
        let mut count = 0;
        for ends in [false, true] {
            for (state, _) in found.iter().enumerate().filter(|(_, found)| found.is_empty() != ends) {
                number[state] = count * columns as u32;
                count += 1;
            }
        }
        let plain = found.iter().filter(|found| found.is_empty()).count();
        let mut table = vec![0; tree.len()];
        let mut texts_end = vec![&[][..]; found.len() - plain];
        for (state, found) in found.iter().enumerate() {
            let row = number[state] as usize;
            for at in 0..columns {
                table[row + at] = number[tree[state * columns + at] as usize];
            }
            if !found.is_empty() {
                texts_end[row / columns - plain] = found;
            }
        }
        let mut sets: Vec<&[u64]> = texts_end.clone();
        sets.sort_unstable();
        sets.dedup();
        let place = |set: &[u64]| sets.binary_search(&set).map_or(0, |at| (at * words) as u32);
        Some(Self {
            columns,
            column,
            table,
            ends: (plain * columns) as u32,
            rules_of: texts_end.iter().map(|set| place(set)).collect(),
            rules: sets.concat(),
            words,
            overlap: texts.iter().map(|(text, _)| text.len()).max().unwrap_or(1) - 1,
        })
    }

    /// Adds the rules that look for a text that is in the value, in whichever case.
    pub(crate) fn find(&self, value: &[u8], rules: &mut [u64]) {
        if value.len() < SHORT.max(LANES * 2 * self.overlap) {
            let mut state = 0;
            for byte in value {
                state = self.step(state, *byte);
                if state >= self.ends {
                    self.note(state, rules);
                }
            }
            return;
        }
        let length = (value.len() + (LANES - 1) * self.overlap).div_ceil(LANES);
        let part = |at: usize| &value[at..at + length];
        let apart = length - self.overlap;
        let parts = part(0).iter().zip(part(apart)).zip(part(2 * apart)).zip(part(value.len() - length));
        let mut states = [0; LANES];
        for (((a, b), c), d) in parts {
            states = [
                self.step(states[0], *a),
                self.step(states[1], *b),
                self.step(states[2], *c),
                self.step(states[3], *d),
            ];
            let ends = self.ends;
            if (states[0] >= ends) | (states[1] >= ends) | (states[2] >= ends) | (states[3] >= ends) {
                states.into_iter().filter(|state| *state >= ends).for_each(|state| self.note(state, rules));
            }
        }
    }

    fn step(&self, state: u32, byte: u8) -> u32 {
        self.table[state as usize + usize::from(self.column[usize::from(byte)])]
    }

    #[cold]
    fn note(&self, state: u32, rules: &mut [u64]) {
        let from = self.rules_of[(state - self.ends) as usize / self.columns] as usize;
        for (rules, found) in rules.iter_mut().zip(&self.rules[from..from + self.words]) {
            *rules |= found;
        }
    }
}

fn unite(set: &mut Vec<u64>, more: &[u64]) {
    set.resize(set.len().max(more.len()), 0);
    for (set, more) in set.iter_mut().zip(more) {
        *set |= more;
    }
}

/// Where the tree goes nowhere, the automaton goes on with the longest end of what it read that begins a text; and what ends in that ends
/// here, too.
fn complete(tree: &mut [u32], found: &mut [Vec<u64>], columns: usize) {
    let mut fallback = vec![0; found.len()];
    let mut order = VecDeque::from([0]);
    while let Some(state) = order.pop_front() {
        for at in 0..columns {
            let other = if state == 0 { 0 } else { tree[fallback[state] * columns + at] };
            let next = &mut tree[state * columns + at];
            if *next == NOWHERE {
                *next = other;
                continue;
            }
            let next = *next as usize;
            fallback[next] = other as usize;
            let also = found[other as usize].clone();
            if !also.is_empty() {
                unite(&mut found[next], &also);
            }
            order.push_back(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(texts: &[(Vec<u8>, u64)], value: &[u8]) -> u64 {
        let value = value.to_ascii_lowercase();
        let is_in = |text: &[u8]| value.windows(text.len()).any(|part| part == text);
        texts.iter().filter(|(text, _)| is_in(text)).fold(0, |rules, (_, rule)| rules | rule)
    }

    fn found(texts: &[(Vec<u8>, u64)], value: &[u8]) -> u64 {
        let texts: Vec<_> = texts.iter().map(|(text, rule)| (&text[..], vec![*rule])).collect();
        let mut rules = [0];
        Texts::new(&texts, 1).unwrap().find(value, &mut rules);
        rules[0]
    }

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        let texts = [(b"needle".to_vec(), 1), (b"eyes".to_vec(), 2), (b"ey".to_vec(), 4)];
        for length in [6, 63, 64, 65, 66, 67, 200] {
            for at in 0..=length - 6 {
                let mut value = vec![b'.'; length];
                value[at..at + 6].copy_from_slice(b"nEEdle");
                assert_eq!(found(&texts, &value), 1, "at {at} of {length}");
                value[at..at + 6].copy_from_slice(b".eYeS.");
                assert_eq!(found(&texts, &value), 6, "at {at} of {length}");
            }
        }
    }

    #[test]
    fn nothing_is_found_where_there_are_no_texts() {
        assert_eq!(found(&[], &[b'a'; 300]), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_is_found_is_what_is_there(
            texts in proptest::collection::vec("[abc\\x80]{1,8}", 0..12),
            value in "[abcABCd\\x80]{0,40}|[abcABC]{50,300}",
        ) {
            let texts: Vec<_> =
                texts.into_iter().enumerate().map(|(at, text)| (text.into_bytes(), 1 << at)).collect();
            prop_assert_eq!(found(&texts, value.as_bytes()), plain(&texts, value.as_bytes()));
        }
    }
}
