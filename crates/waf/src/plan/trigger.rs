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

/// Bytes that a transformation can bring into a value which has none of them, in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brings {
    Nothing,
    /// At most spaces.
    Spaces,
    /// Others, as far as [`bytes_after`] tells.
    Others,
}

/// What the transformation can bring in.
pub(crate) fn brings(transformation: Transformation) -> Brings {
    use Transformation as T;
    match transformation {
        T::None
        | T::Lowercase
        | T::Uppercase
        | T::RemoveNulls
        | T::RemoveWhitespace
        | T::Trim
        | T::TrimLeft
        | T::TrimRight
        | T::RemoveCommentsChar
        | T::NormalizePath => Brings::Nothing,
        T::ReplaceNulls | T::CompressWhitespace | T::ReplaceComments | T::CmdLine => Brings::Spaces,
        _ => Brings::Others,
    }
}

/// Bytes of which a value can be made that the transformation makes of one made of `bytes`.
pub(crate) fn bytes_after(transformation: Transformation, bytes: ByteSet) -> ByteSet {
    use Transformation as T;
    let with = |more: &[u8]| bytes.union(ByteSet::of(more));
    // What the bytes of an escape stand for cannot be told.
    let unless = |escapes: &[u8]| if bytes.meets(ByteSet::of(escapes)) { ByteSet::ALL } else { bytes };
    match transformation {
        T::Lowercase | T::Uppercase => bytes.fold(),
        T::CmdLine => with(b" ").fold(),
        T::UrlDecode | T::UrlDecodeUni if !bytes.contains(b'%') => with(b" "),
        T::HtmlEntityDecode => unless(b"&"),
        T::JsDecode | T::CssDecode | T::EscapeSeqDecode => unless(b"\\"),
        T::RemoveComments => with(b" \0"),
        T::NormalizePathWin => with(b"/"),
        T::Utf8toUnicode => with(b"%u0123456789abcdef"),
        _ => match brings(transformation) {
            Brings::Nothing => bytes,
            Brings::Spaces => with(b" "),
            Brings::Others => ByteSet::ALL,
        },
    }
}

/// The same for a value that is known; its bytes are `bytes`.
pub(crate) fn bytes_of(transformation: Transformation, value: &[u8], bytes: ByteSet) -> ByteSet {
    let wide = match transformation {
        Transformation::UrlDecode => false,
        Transformation::UrlDecodeUni => true,
        _ => return bytes_after(transformation, bytes),
    };
    let mut after = bytes.union(ByteSet::of(b" "));
    for at in memchr::memchr_iter(b'%', value) {
        match value[at + 1..] {
            [b'u' | b'U', ..] if wide => return ByteSet::ALL,
            [high, low, ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                    after.insert((high << 4 | low) as u8);
                }
            }
            _ => {}
        }
    }
    after
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
                    for after in [bytes_after(transformation, bytes), bytes_of(transformation, &value, bytes)] {
                        let made = ByteSet::in_value(&out).without(after);
                        prop_assert!(made == ByteSet::EMPTY, "{} makes {made:?} of {value:?}", transformation.name());
                    }
                    let made = ByteSet::in_value(&out).fold().without(bytes.fold());
                    match brings(transformation) {
                        Brings::Nothing => prop_assert_eq!(made, ByteSet::EMPTY),
                        Brings::Spaces => prop_assert_eq!(made.without(ByteSet::of(b" ")), ByteSet::EMPTY),
                        Brings::Others => {}
                    }
                    prop_assert!(out.len() <= longest(transformation, value.len()), "{} of {value:?}", transformation.name());
                }
            }
        }
    }
}
