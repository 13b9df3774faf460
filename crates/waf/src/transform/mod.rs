//! Transformations: what a rule does to a value before its operator looks at it.
//!
//! Most values pass most transformations unchanged, so each one first searches, vectorised where that is possible, for
//! the first byte that could change, and says "unchanged" without having copied anything.

mod space;

/// A transformation by its SecLang name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is documented where it is implemented, and named as in SecLang")]
pub enum Transformation {
    None,
    Lowercase,
    Uppercase,
    RemoveNulls,
    ReplaceNulls,
    RemoveWhitespace,
    CompressWhitespace,
    Trim,
    TrimLeft,
    TrimRight,
    Length,
}

/// Names as rules write them, British and American.
const NAMES: &[(&str, Transformation)] = &[
    ("none", Transformation::None),
    ("lowercase", Transformation::Lowercase),
    ("uppercase", Transformation::Uppercase),
    ("removeNulls", Transformation::RemoveNulls),
    ("replaceNulls", Transformation::ReplaceNulls),
    ("removeWhitespace", Transformation::RemoveWhitespace),
    ("compressWhitespace", Transformation::CompressWhitespace),
    ("trim", Transformation::Trim),
    ("trimLeft", Transformation::TrimLeft),
    ("trimRight", Transformation::TrimRight),
    ("length", Transformation::Length),
];

impl Transformation {
    /// The transformation that a rule means by `t:name`; case does not count.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, found)| *found)
    }

    /// Its name, as in SecLang.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, known)| *known == self).map_or("none", |(name, _)| name)
    }

    /// Clears `out`, fills it with the transformed value and returns true if that differs from `input`. After `false`
    /// the value is `input`, and what is in `out` means nothing.
    pub fn apply(self, input: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::None => false,
            Self::Lowercase => space::lowercase(input, out),
            Self::Uppercase => space::uppercase(input, out),
            Self::RemoveNulls => space::remove_nulls(input, out),
            Self::ReplaceNulls => space::replace_nulls(input, out),
            Self::RemoveWhitespace => space::remove_whitespace(input, out),
            Self::CompressWhitespace => space::compress_whitespace(input, out),
            Self::Trim => space::trim(input, out, true, true),
            Self::TrimLeft => space::trim(input, out, true, false),
            Self::TrimRight => space::trim(input, out, false, true),
            Self::Length => space::length(input, out),
        }
    }
}

/// Begins an output that shares its first `same` bytes with the input.
fn start(out: &mut Vec<u8>, input: &[u8], same: usize) {
    out.clear();
    out.reserve(input.len());
    out.extend_from_slice(&input[..same]);
}
