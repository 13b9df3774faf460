//! Whether a value is SQL that was meant to be run.

use memchr::{memchr, memmem};

use super::fold::{Folded, MAX_TOKENS, fold};
use super::token::{Context, Kind};
use super::words::is_injection;

/// The kinds of up to five tokens, each a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    letters: [u8; MAX_TOKENS],
    len: u8,
}

impl Fingerprint {
    /// Its letters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.letters[..usize::from(self.len)]
    }

    fn of(folded: &Folded) -> Self {
        let mut letters = [0; MAX_TOKENS];
        let tokens = folded.tokens();
        if tokens.iter().any(|token| token.kind == Kind::Evil) {
            return Self { letters: [Kind::Evil.letter(), 0, 0, 0, 0], len: 1 };
        }
        for (letter, token) in letters.iter_mut().zip(tokens) {
            *letter = token.kind.letter();
        }
        // An unfinished, empty back tick at the end is a comment in PHP's hands.
        if let [.., last] = tokens
            && tokens.len() > 2
            && last.kind == Kind::Bareword
            && last.open == b'`'
            && last.close == 0
            && last.text().is_empty()
        {
            letters[tokens.len() - 1] = Kind::Comment.letter();
        }
        Self { letters, len: tokens.len() as u8 }
    }
}

/// The fingerprint of an SQL injection, if the value is one.
pub fn sqli(value: &[u8]) -> Option<Fingerprint> {
    let contexts = [None, Some(b'\''), Some(b'"')];
    for quote in contexts {
        if quote.is_some_and(|quote| memchr(quote, value).is_none()) {
            continue;
        }
        let mut ambiguous = true;
        // Within double quotes only MySQL has strings.
        if quote != Some(b'"') {
            let (found, unclear) = judge(value, Context { quote, mysql: false });
            if found.is_some() {
                return found;
            }
            ambiguous = unclear;
        }
        if ambiguous && let (Some(found), _) = judge(value, Context { quote, mysql: true }) {
            return Some(found);
        }
    }
    None
}

fn judge(value: &[u8], context: Context) -> (Option<Fingerprint>, bool) {
    let folded = fold(value, context);
    let fingerprint = Fingerprint::of(&folded);
    let found = is_injection(fingerprint.as_bytes()) && !is_harmless(value, &folded, fingerprint);
    (found.then_some(fingerprint), folded.ambiguous)
}

/// Short fingerprints that prose has too.
fn is_harmless(value: &[u8], folded: &Folded, fingerprint: Fingerprint) -> bool {
    let letters = fingerprint.as_bytes();
    // SQL Server does not log what has this word.
    if letters.len() > 1 && letters.last() == Some(&b'c') && memmem::find(value, b"sp_password").is_some() {
        return false;
    }
    match letters.len() {
        2 => is_harmless_pair(value, folded, letters),
        3 => is_harmless_triple(folded, letters),
        _ => false,
    }
}

fn is_harmless_pair(value: &[u8], folded: &Folded, letters: &[u8]) -> bool {
    let [first, second] = folded.tokens() else { return false };
    if letters[1] == b'U' {
        // "1 union" is a text, unless something was folded away.
        return folded.read == 2;
    }
    if second.first() == b'#' {
        return true;
    }
    match (letters, second.first()) {
        (b"nc", mark) if mark != b'/' => true,
        (b"1c", b'/') => false,
        (b"1c", _) => {
            if folded.read > 2 {
                return false;
            }
            // 1234-ABCD-- is some identifier; 1234-- is not.
            let after = value.get(first.text().len()..).unwrap_or_default();
            !matches!(after, [] | [0..=b' ' | 0x80.., ..] | [b'/', b'*', ..] | [b'-', b'-', ..])
        }
        // Many write "--" in a text: only at the end it means something.
        (_, b'-') => second.text().len() > 2,
        _ => false,
    }
}

fn is_harmless_triple(folded: &Folded, letters: &[u8]) -> bool {
    let [first, second, third] = folded.tokens() else { return false };
    match letters {
        // …foo" + "bar…: both strings are open to the outside, and closed alike.
        b"sos" | b"s&s" => !(first.open == 0 && third.close == 0 && first.close == third.open),
        b"s&n" | b"n&1" | b"1&1" | b"1&v" | b"1&s" => folded.read == 3,
        _ if second.kind == Kind::Keyword => {
            !(second.text().len() >= 5 && second.text()[..4].eq_ignore_ascii_case(b"into"))
        }
        _ => false,
    }
}
