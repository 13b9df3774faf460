//! What must be in a value for a transformation to change it, so that most are not even tried.

use super::bytes::ByteSet;
use crate::transform::Transformation;

const SPACE: &[u8] = b" \t\n\r\x0b\x0c\xa0\x85";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Bytes of which one must be in a value that the transformation changes; all of them, if even the empty value may change.
pub(crate) fn triggers(transformation: Transformation) -> ByteSet {
    use Transformation as T;
    match transformation {
        T::None => ByteSet::EMPTY,
        T::Lowercase => ByteSet::of(UPPER),
        T::UrlDecode | T::UrlDecodeUni => ByteSet::of(b"%+"),
        T::HtmlEntityDecode => ByteSet::of(b"&"),
        T::JsDecode | T::CssDecode | T::EscapeSeqDecode => ByteSet::of(b"\\"),
        T::RemoveNulls | T::ReplaceNulls => ByteSet::of(b"\0"),
        T::RemoveWhitespace | T::CompressWhitespace | T::Trim | T::TrimLeft | T::TrimRight => {
            ByteSet::of(SPACE)
        }
        T::ReplaceComments => ByteSet::of(b"/"),
        T::RemoveComments | T::RemoveCommentsChar => ByteSet::of(b"/-#<*"),
        T::NormalizePath => ByteSet::of(b"/."),
        T::NormalizePathWin => ByteSet::of(b"/.\\"),
        T::CmdLine => ByteSet::of(b"\\\"'^/,; \t\r\n(").union(ByteSet::of(UPPER)),
        // A zero byte it drops.
        T::Utf8toUnicode => ByteSet::ALL.without(ByteSet::of(&ASCII)).union(ByteSet::of(b"\0")),
        _ => ByteSet::ALL,
    }
}

const ASCII: [u8; 128] = {
    let mut ascii = [0; 128];
    let mut at = 0;
    while at < 128 {
        ascii[at] = at as u8;
        at += 1;
    }
    ascii
};

/// The longest that a value of this length can become.
pub(crate) fn longest(transformation: Transformation, length: usize) -> usize {
    use Transformation as T;
    match transformation {
        T::Base64Decode | T::Base64DecodeExt => length.div_ceil(4).saturating_mul(3),
        // What stands for no character becomes the three bytes of U+FFFD.
        T::CssDecode => length.saturating_mul(2),
        _ if triggers(transformation) != ByteSet::ALL && transformation != T::Utf8toUnicode => length,
        _ => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that transformations care about, and some that they do not.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            proptest::sample::select(vec![
                "%41",
                "%u0041",
                "+",
                "&lt;",
                "&#65;",
                "\\x41",
                "\\u0041",
                "\\101",
                "/*",
                "*/",
                "--",
                "#",
                "<!--",
                "../",
                "./",
                "//",
                "\\..\\",
                "^",
                "\"",
                "'",
                ",",
                ";",
                " ",
                "\t",
                "\n",
                "\r",
                "\u{b}",
                "\u{a0}",
                "\u{85}",
                "ä",
                "A",
                "QUJD",
                "0x41",
                "\\0",
                "&nbsp;",
                "&bogus;",
                "&#x10ffff;",
                "%uff21",
                "(",
                "\0",
                "x",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_value_without_a_trigger_stays_and_none_grows_beyond_its_bound(value in value()) {
            let bytes = ByteSet::in_value(&value);
            let mut out = Vec::new();
            for transformation in Transformation::all() {
                let changed = transformation.apply(&value, &mut out);
                let triggers = triggers(transformation);
                if triggers != ByteSet::ALL && !bytes.meets(triggers) {
                    prop_assert!(!changed || out == value, "{} changed {value:?}", transformation.name());
                }
                if changed {
                    prop_assert!(out.len() <= longest(transformation, value.len()), "{} of {value:?}", transformation.name());
                }
            }
        }
    }
}
