//! Texts without which an expression cannot match, for the one pass that decides which expressions are tried at all.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Texts of one expression; more would fill the pass's automaton with what hardly tells anything.
const MAX_TEXTS: usize = 500;
/// Longer ones tell no more.
const MAX_LENGTH: usize = 24;
/// Classes with more bytes are not spelled out.
const MAX_CLASS: usize = 12;

/// A set that begins more often than at one byte in five tells nothing.
const MAX_FREQUENCY: f64 = 0.2;

type Set = Vec<Vec<u8>>;

/// What is known of the texts that a part of an expression matches; all in lower case.
enum Texts {
    /// It matches these and nothing else.
    Exactly(Set),
    /// Each text that it matches contains one of these; `None`: nothing is known.
    Containing(Option<Set>),
}

/// A set of texts in lower case of which one is, in whichever case, in every value that the expression matches.
pub(crate) fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut texts = texts(hir).containing()?;
    // What is in nearly every value excuses none.
    if frequency(&texts) > MAX_FREQUENCY {
        return None;
    }
    texts.sort_unstable();
    // A text that begins with another one of them is no news.
    texts.dedup_by(|next, kept| next.starts_with(kept));
    Some(texts)
}

fn texts(hir: &Hir) -> Texts {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Texts::Exactly(vec![Vec::new()]),
        HirKind::Literal(literal) => {
            let text = literal.0.to_ascii_lowercase();
            if text.len() > MAX_LENGTH {
                return Texts::Containing(Some(vec![text[..MAX_LENGTH].to_vec()]));
            }
            Texts::Exactly(vec![text])
        }
        HirKind::Class(class) => bytes(class).map_or(Texts::Containing(None), Texts::Exactly),
        HirKind::Capture(capture) => texts(&capture.sub),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max, texts(&repetition.sub)) {
            (0, Some(1), Texts::Exactly(mut set)) => {
                set.push(Vec::new());
                Texts::Exactly(set)
            }
            (0, _, _) => Texts::Containing(None),
            (1, Some(1), inner) => inner,
            (_, _, inner) => Texts::Containing(inner.containing()),
        },
        HirKind::Concat(parts) => concatenation(parts),
        HirKind::Alternation(parts) => alternation(parts),
    }
}

fn bytes(class: &Class) -> Option<Set> {
    let mut set = Set::new();
    let ranges: Vec<(u32, u32)> = match class {
        Class::Bytes(class) => {
            class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
        Class::Unicode(class) => {
            class.ranges().iter().map(|range| (range.start().into(), range.end().into())).collect()
        }
    };
    for (from, to) in ranges {
        if set.len() + (to - from) as usize >= MAX_CLASS * 2 {
            return None;
        }
        for value in from..=to {
            set.push(vec![u8::try_from(value).ok()?.to_ascii_lowercase()]);
        }
    }
    set.sort_unstable();
    set.dedup();
    (set.len() <= MAX_CLASS && !set.is_empty()).then_some(set)
}

fn concatenation(parts: &[Hir]) -> Texts {
    let mut best: Option<Set> = None;
    let mut exact = true;
    // What the parts so far end with, as long as they can be spelled out.
    let mut run: Set = vec![Vec::new()];
    for part in parts {
        match texts(part) {
            Texts::Exactly(next) => {
                let longest = |set: &Set| set.iter().map(Vec::len).max().unwrap_or(0);
                if run.len() * next.len() > MAX_TEXTS || longest(&run) + longest(&next) > MAX_LENGTH {
                    exact = false;
                    best = rarer(best, Some(std::mem::replace(&mut run, next)));
                } else {
                    run = product(&run, &next);
                }
            }
            Texts::Containing(set) => {
                exact = false;
                best = rarer(best, Some(std::mem::replace(&mut run, vec![Vec::new()])));
                best = rarer(best, set);
            }
        }
    }
    if exact { Texts::Exactly(run) } else { Texts::Containing(rarer(best, Some(run))) }
}

fn product(left: &Set, right: &Set) -> Set {
    let mut set: Set =
        left.iter().flat_map(|head| right.iter().map(move |tail| [&head[..], tail].concat())).collect();
    set.sort_unstable();
    set.dedup();
    set
}

fn alternation(parts: &[Hir]) -> Texts {
    let mut exact = true;
    let mut union = Set::new();
    for part in parts {
        let set = match texts(part) {
            Texts::Exactly(set) => Some(set),
            Texts::Containing(set) => {
                exact = false;
                set
            }
        };
        let Some(set) = set else { return Texts::Containing(None) };
        union.extend(set);
        union.sort_unstable();
        union.dedup();
        if union.len() > MAX_TEXTS {
            return Texts::Containing(None);
        }
    }
    if exact { Texts::Exactly(union) } else { Texts::Containing(useful(union)) }
}

impl Texts {
    fn containing(self) -> Option<Set> {
        match self {
            Self::Exactly(set) => useful(set),
            Self::Containing(set) => set,
        }
    }
}

/// The empty text is in every value, which makes a set that has it say nothing.
fn useful(set: Set) -> Option<Set> {
    set.iter().all(|text| !text.is_empty()).then_some(set)
}

/// Of two sets that both must occur, the one that ordinary values contain less often.
fn rarer(left: Option<Set>, right: Option<Set>) -> Option<Set> {
    match (left, right.and_then(useful)) {
        (Some(left), Some(right)) => Some(if frequency(&right) < frequency(&left) { right } else { left }),
        (left, right) => left.or(right),
    }
}

/// How often one of these texts begins at some byte of an ordinary value, about.
fn frequency(set: &Set) -> f64 {
    set.iter().map(|text| text.iter().map(|byte| share(*byte)).product::<f64>()).sum()
}

fn share(byte: u8) -> f64 {
    match byte {
        b' ' | b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 0.08,
        b'a'..=b'z' | b'0'..=b'9' | b'"' | b',' | b'.' | b':' | b'/' | b'-' | b'=' | b'&' => 0.03,
        _ => 0.004,
    }
}
