//! What is left of an expression for values that are made of certain bytes only.
//!
//! Most of what people type are words. Expressions that look for commands allow quotes, backslashes and variables between any two
//! letters, so that no text is in every match; for a value that has none of these bytes the words are whole again, and excuse the rule.

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};

use super::ByteSet;

/// Letters, digits and what stands between the words of prose, of names and of dates.
pub(crate) const WORDS: ByteSet =
    ByteSet::of(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-_");

/// The expression that matches the same values as this one among those made of `bytes`; none, if no such value matches.
pub(crate) fn within(hir: &Hir, bytes: ByteSet) -> Option<Hir> {
    Some(match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => hir.clone(),
        HirKind::Literal(literal) => {
            if !literal.0.iter().all(|byte| bytes.contains(*byte)) {
                return None;
            }
            hir.clone()
        }
        HirKind::Class(Class::Bytes(class)) => {
            let of =
                |byte: u8| class.ranges().iter().any(|range| range.start() <= byte && byte <= range.end());
            let left = bytes.iter().filter(|byte| of(*byte)).map(|byte| ClassBytesRange::new(byte, byte));
            let left = ClassBytes::new(left);
            if left.ranges().is_empty() {
                return None;
            }
            Hir::class(Class::Bytes(left))
        }
        // Characters are not bytes: it may match as before.
        HirKind::Class(Class::Unicode(_)) => hir.clone(),
        HirKind::Repetition(repetition) => match within(&repetition.sub, bytes) {
            Some(sub) => Hir::repetition(Repetition { sub: Box::new(sub), ..repetition.clone() }),
            None if repetition.min == 0 => Hir::empty(),
            None => return None,
        },
        HirKind::Capture(capture) => within(&capture.sub, bytes)?,
        HirKind::Concat(parts) => {
            Hir::concat(parts.iter().map(|part| within(part, bytes)).collect::<Option<_>>()?)
        }
        HirKind::Alternation(parts) => {
            let left: Vec<Hir> = parts.iter().filter_map(|part| within(part, bytes)).collect();
            if left.is_empty() {
                return None;
            }
            Hir::alternation(left)
        }
    })
}
