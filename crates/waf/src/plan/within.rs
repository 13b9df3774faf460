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
        HirKind::Class(class) => {
            // Characters beyond ASCII are several bytes: it may match as before.
            let Some(class) = class_of_bytes(class) else { return Some(hir.clone()) };
            let of =
                |byte: u8| class.ranges().iter().any(|range| range.start() <= byte && byte <= range.end());
            let left = bytes.iter().filter(|byte| of(*byte)).map(|byte| ClassBytesRange::new(byte, byte));
            let left = ClassBytes::new(left);
            if left.ranges().is_empty() {
                return None;
            }
            Hir::class(Class::Bytes(left))
        }
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

fn class_of_bytes(class: &Class) -> Option<ClassBytes> {
    match class {
        Class::Bytes(class) => Some(class.clone()),
        Class::Unicode(class) => class.to_byte_class(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_automata::meta::Regex;

    use super::*;
    use crate::plan::bytes;

    fn left(expression: &str, bytes: ByteSet) -> Option<String> {
        within(&bytes::parse(expression).unwrap(), bytes).map(|hir| hir.to_string())
    }

    #[test]
    fn without_quotes_a_command_that_may_be_quoted_is_a_word() {
        let expression = r#"s["'\\]*u["'\\]*(?:\$[a-z]*)?d["'\\]*o"#;
        assert_eq!(left(expression, WORDS).as_deref(), Some("(?:sudo)"));
        assert_eq!(left(r"select.*\(|a\+", WORDS), None);
        assert_eq!(left(r"(?:\(|x)+y", WORDS).as_deref(), left("x+y", WORDS).as_deref());
    }

    /// Expressions of all shapes.
    fn expression() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            proptest::sample::select(vec![
                "a", "b", "ab", "\\(", "[a(]", "[^a]", "[^(]", "\\s", "\\b", "^", "$", ".", "",
            ])
            .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let many = proptest::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                many.clone().prop_map(|parts| parts.concat()),
                many.prop_map(|parts| format!("(?:{})", parts.join("|"))),
                (inner.clone(), proptest::sample::select(vec!["?", "*", "+", "{2}", "{0,2}"]))
                    .prop_map(|(part, times)| format!("(?:{part}){times}")),
                inner.prop_map(|part| format!("({part})")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn values_of_these_bytes_match_what_is_left_if_and_only_if_they_match_all_of_it(
            expression in expression(),
            values in proptest::collection::vec("[abAB \\n]{0,6}", 1..8),
            words in any::<bool>(),
        ) {
            let bytes = if words { WORDS.union(ByteSet::of(b"\n")) } else { ByteSet::of(b"abAB \n") };
            let hir = bytes::parse(&format!("(?ism-u:{expression})")).unwrap();
            let whole = Regex::builder().build_from_hir(&hir).unwrap();
            let left = within(&hir, bytes).map(|left| Regex::builder().build_from_hir(&left).unwrap());
            for value in values {
                let found = left.as_ref().is_some_and(|left| left.is_match(&value));
                prop_assert_eq!(found, whole.is_match(&value), "{} in {:?}", expression, value);
            }
        }
    }
}
