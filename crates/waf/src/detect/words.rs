//! The words that databases know, and the fingerprints of injections.

use std::sync::OnceLock;

use super::token::Kind;

/// A kind's letter and a word or phrase per line.
const WORDS: &str = include_str!("words.txt");
/// Kinds as letters, in upper case, sorted.
const FINGERPRINTS: &str = include_str!("fingerprints.txt");

/// No word is longer.
const MAX_WORD: usize = 31;

/// Words by the hash of their upper case.
struct Words {
    slots: Vec<Option<(&'static [u8], Kind)>>,
}

const SLOTS: usize = 4096;

fn slot(word: &[u8]) -> usize {
    // Letters of either case have the same place.
    let hash = word.iter().fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_uppercase())).wrapping_mul(0x0100_0193)
    });
    (hash ^ hash >> 15) as usize % SLOTS
}

fn words() -> &'static Words {
    static TABLE: OnceLock<Words> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut slots = vec![None; SLOTS];
        for line in WORDS.lines() {
            let Some((kind, word)) = line.split_once(' ') else { continue };
            let mut at = slot(word.as_bytes());
            while slots[at].is_some() {
                at = (at + 1) % SLOTS;
            }
            slots[at] = kind.bytes().next().map(|letter| (word.as_bytes(), Kind::of(letter)));
        }
        Words { slots }
    })
}

/// What kind of word this is; case does not count.
pub(super) fn lookup(word: &[u8]) -> Option<Kind> {
    if word.is_empty() || word.len() > MAX_WORD {
        return None;
    }
    let words = words();
    let mut at = slot(word);
    while let Some((known, kind)) = words.slots[at] {
        if known.eq_ignore_ascii_case(word) {
            return Some(kind);
        }
        at = (at + 1) % SLOTS;
    }
    None
}

/// Five letters in 40 bits, so that a comparison is one of numbers.
fn packed(fingerprint: &[u8]) -> u64 {
    fingerprint.iter().fold(0, |packed, letter| packed << 8 | u64::from(letter.to_ascii_uppercase()))
}

/// Whether injections look so.
pub(super) fn is_injection(fingerprint: &[u8]) -> bool {
    static TABLE: OnceLock<Vec<u64>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table: Vec<u64> =
            FINGERPRINTS.split_ascii_whitespace().map(|text| packed(text.as_bytes())).collect();
        table.sort_unstable();
        table
    });
    table.binary_search(&packed(fingerprint)).is_ok()
}
