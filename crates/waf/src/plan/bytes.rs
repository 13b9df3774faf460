//! Sets of bytes, and which of them a value must meet for an expression to match.

use regex_syntax::hir::{Class, Hir, HirKind};

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(crate) const EMPTY: Self = Self([0; 4]);
    pub(crate) const ALL: Self = Self([u64::MAX; 4]);

    pub(crate) const fn of(bytes: &[u8]) -> Self {
        let mut set = Self::EMPTY;
        let mut at = 0;
        while at < bytes.len() {
            set.0[(bytes[at] >> 6) as usize] |= 1 << (bytes[at] & 63);
            at += 1;
        }
        set
    }

    /// The bytes of a value.
    pub(crate) fn in_value(value: &[u8]) -> Self {
        let mut set = Self::EMPTY;
        if value.len() < 64 {
            for byte in value {
                set.insert(*byte);
            }
        } else {
            let mut seen = [false; 256];
            for byte in value {
                seen[usize::from(*byte)] = true;
            }
            for (byte, seen) in seen.into_iter().enumerate() {
                set.0[byte >> 6] |= u64::from(seen) << (byte & 63);
            }
        }
        set
    }

    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) const fn words(self) -> [u64; 4] {
        self.0
    }

    pub(crate) const fn of_words(words: [u64; 4]) -> Self {
        Self(words)
    }

    pub(crate) fn contains(self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        (self.0[0] & other.0[0])
            | (self.0[1] & other.0[1])
            | (self.0[2] & other.0[2])
            | (self.0[3] & other.0[3])
            != 0
    }

    pub(crate) const fn both(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1], self.0[2] & other.0[2], self.0[3] & other.0[3]])
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1], self.0[2] | other.0[2], self.0[3] | other.0[3]])
    }

    pub(crate) fn without(self, other: Self) -> Self {
        let [a, b, c, d] = other.0;
        Self([self.0[0] & !a, self.0[1] & !b, self.0[2] & !c, self.0[3] & !d])
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        self.0.into_iter().enumerate().flat_map(|(index, mut word)| {
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros();
                    word &= word - 1;
                    (index * 64 + bit as usize) as u8
                })
            })
        })
    }

    /// With both cases of every ASCII letter of which one is in.
    pub(crate) const fn fold(self) -> Self {
        const UPPER: u64 = 0x07ff_fffe;
        let [a, b, c, d] = self.0;
        Self([a, b | (b & UPPER) << 32 | b >> 32 & UPPER, c, d])
    }

    /// How likely an ordinary value meets the set, in thousandths, roughly.
    fn weight(self) -> u32 {
        self.iter()
            .map(|byte| match byte {
                b'a'..=b'z' | b'0'..=b'9' => 100,
                b'A'..=b'Z' => 60,
                b' ' | b'.' | b'-' | b'_' => 40,
                b',' | b'/' | b':' => 20,
                b'\'' | b'"' | b'=' | b'&' | b'?' | b';' | b'(' | b')' | b'+' | b'@' | b'%' => 8,
                b'!'..=b'~' => 5,
                0x80.. => 1,
                _ => 2,
            })
            .sum()
    }
}

/// Sets beyond this weight tell nothing.
const USELESS: u32 = 900;
/// Sets that are kept of one expression.
pub(crate) const KEPT: usize = 3;

/// Reads an expression over bytes.
pub(crate) fn parse(expression: &str) -> Option<Hir> {
    regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(expression).ok()
}

/// Sets of which a value must meet every one for `expression` to match; the rarest first. Closed under ASCII case.
pub(crate) fn required(expression: &Hir) -> Vec<ByteSet> {
    best(of(expression))
}

/// The same for a list of texts of which one must be there.
pub(crate) fn required_of_texts(texts: &[Vec<u8>]) -> Vec<ByteSet> {
    let all: Vec<Vec<ByteSet>> = texts.iter().map(|text| best(of_literal(text))).collect();
    best(alternatives(all))
}

fn best(mut sets: Vec<ByteSet>) -> Vec<ByteSet> {
    for set in &mut sets {
        *set = set.fold();
    }
    sets.sort_by_key(|set| set.weight());
    sets.dedup();
    // A set that holds a rarer one whole says nothing more.
    let mut kept: Vec<ByteSet> = Vec::new();
    for set in sets {
        if set.weight() <= USELESS
            && kept.len() < KEPT
            && !kept.iter().any(|rarer| rarer.without(set) == ByteSet::EMPTY)
        {
            kept.push(set);
        }
    }
    kept
}

fn of_literal(text: &[u8]) -> Vec<ByteSet> {
    text.iter().map(|byte| ByteSet::of(&[*byte])).collect()
}

fn of(hir: &Hir) -> Vec<ByteSet> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Vec::new(),
        HirKind::Literal(literal) => best(of_literal(&literal.0)),
        HirKind::Class(class) => {
            let mut set = ByteSet::EMPTY;
            match class {
                Class::Bytes(class) => {
                    for range in class.ranges() {
                        (range.start()..=range.end()).for_each(|byte| set.insert(byte));
                    }
                }
                Class::Unicode(class) => {
                    for range in class.ranges() {
                        // Beyond ASCII a character is several bytes, all of them high.
                        for byte in range.start() as u32..=(range.end() as u32).min(0x7f) {
                            set.insert(byte as u8);
                        }
                        if range.end() as u32 > 0x7f {
                            (0x80..=0xff).for_each(|byte| set.insert(byte));
                        }
                    }
                }
            }
            vec![set]
        }
        HirKind::Repetition(repetition) if repetition.min > 0 => of(&repetition.sub),
        HirKind::Repetition(_) => Vec::new(),
        HirKind::Capture(capture) => of(&capture.sub),
        HirKind::Concat(parts) => best(parts.iter().flat_map(of).collect()),
        HirKind::Alternation(parts) => best(alternatives(parts.iter().map(|part| best(of(part))).collect())),
    }
}

/// One set of each alternative, joined; the rarest of each, the next rarest of each.
fn alternatives(all: Vec<Vec<ByteSet>>) -> Vec<ByteSet> {
    if all.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    (0..KEPT)
        .map(|rank| {
            all.iter()
                .map(|sets| sets.get(rank).or_else(|| sets.last()).copied().unwrap_or(ByteSet::ALL))
                .fold(ByteSet::EMPTY, ByteSet::union)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(expression: &str) -> Vec<ByteSet> {
        super::required(&parse(expression).unwrap())
    }

    #[test]
    fn an_expression_tells_the_rare_bytes_it_needs() {
        assert_eq!(required(r"(?i)select\s+\(")[0], ByteSet::of(b"("));
        assert_eq!(required("[\n\r]"), [ByteSet::of(b"\n\r")]);
        assert_eq!(required("a?b*|x"), []);
        let either = required(r"<script|javascript:");
        assert!(
            either[0].contains(b'<') && either[0].contains(b':') && !either[0].contains(b'?'),
            "{either:?}"
        );
    }

    #[test]
    fn letters_and_nothing_else_have_two_cases() {
        for byte in 0..=u8::MAX {
            let both = ByteSet::of(&[byte.to_ascii_lowercase(), byte.to_ascii_uppercase()]);
            assert_eq!(ByteSet::of(&[byte]).fold(), both);
        }
    }

    #[test]
    fn the_bytes_of_a_value_are_found_however_long_it_is() {
        for length in [0, 1, 63, 64, 1000] {
            let value: Vec<u8> = (0..length).map(|at| (at % 7) as u8 + b'a').collect();
            assert_eq!(ByteSet::in_value(&value), ByteSet::of(&value));
        }
    }
}
