//! `@pm` and `@pmFromFile`: many phrases in one pass.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::{Captures, OperatorError};

/// Phrases of one rule; the largest list of the Core Rule Set has a few thousand.
const MAX_PHRASES: usize = 1 << 18;

/// Phrases, of which ASCII letters match in either case.
#[derive(Debug, Clone)]
pub(super) struct Phrases {
    automaton: AhoCorasick,
    phrases: Vec<Vec<u8>>,
}

impl Phrases {
    pub(super) fn new(mut phrases: Vec<Vec<u8>>) -> Result<Self, OperatorError> {
        phrases.iter_mut().for_each(|phrase| phrase.make_ascii_lowercase());
        phrases.retain(|phrase| !phrase.is_empty());
        phrases.sort_unstable();
        phrases.dedup();
        if phrases.len() > MAX_PHRASES {
            return Err(OperatorError::TooLarge { what: "list of phrases" });
        }
        let automaton = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&phrases)
            .map_err(|_| OperatorError::TooLarge { what: "list of phrases" })?;
        Ok(Self { automaton, phrases })
    }

    pub(super) fn find(&self, value: &[u8], captures: Option<&mut Captures>) -> bool {
        let Some(captures) = captures else { return self.automaton.is_match(value) };
        let Some(found) = self.automaton.find(value) else { return false };
        captures.set(0, found.start()..found.end());
        true
    }

    pub(super) fn phrases(&self) -> &[Vec<u8>] {
        &self.phrases
    }
}

/// The argument of `@pm`: phrases between spaces, in which `|41 42|` stands for bytes.
pub(super) fn parse(argument: &[u8]) -> Vec<Vec<u8>> {
    let mut phrases = vec![Vec::new()];
    let mut rest = argument;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let phrase = phrases.last_mut();
        match (byte, phrase) {
            (b' ', _) => phrases.push(Vec::new()),
            (b'|', Some(phrase)) => match hexadecimal(tail) {
                Some((bytes, after)) => {
                    phrase.extend(bytes);
                    rest = after;
                }
                None => phrase.push(b'|'),
            },
            (byte, Some(phrase)) => phrase.push(*byte),
            (_, None) => {}
        }
    }
    phrases
}

/// Pairs of hexadecimal digits, apart or not, up to the closing `|`; anything else is a bar that stands for itself.
fn hexadecimal(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let end = memchr::memchr(b'|', text)?;
    let digits: Vec<u32> = text[..end]
        .iter()
        .filter(|byte| **byte != b' ')
        .map(|byte| char::from(*byte).to_digit(16))
        .collect::<Option<_>>()?;
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return None;
    }
    let bytes = digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect();
    Some((bytes, &text[end + 1..]))
}

/// The lines of a file for `@pmFromFile`, without empty ones and comments.
pub(super) fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty() && line.trim_ascii_start().first() != Some(&b'#'))
        .map(<[u8]>::to_vec)
        .collect()
}
