//! Transformations: what a rule does to a value before its operator looks at it.
//!
//! Most values pass most transformations unchanged, so each one first searches, vectorised where that is possible, for
//! the first byte that could change, and says "unchanged" without having copied anything.

mod comment;
mod encoding;
mod escape;
mod path;
mod space;
mod url;

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
    UrlDecode,
    UrlDecodeUni,
    UrlEncode,
    JsDecode,
    CssDecode,
    EscapeSeqDecode,
    HtmlEntityDecode,
    Utf8toUnicode,
    CmdLine,
    ReplaceComments,
    RemoveComments,
    RemoveCommentsChar,
    NormalizePath,
    NormalizePathWin,
    Base64Decode,
    Base64DecodeExt,
    Base64Encode,
    HexEncode,
    HexDecode,
    SqlHexDecode,
    Sha1,
    Md5,
    ParityEven7bit,
    ParityOdd7bit,
    ParityZero7bit,
}

/// Names as rules write them, British and American; the first one of each is its own.
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
    ("urlDecode", Transformation::UrlDecode),
    ("urlDecodeUni", Transformation::UrlDecodeUni),
    ("urlEncode", Transformation::UrlEncode),
    ("jsDecode", Transformation::JsDecode),
    ("cssDecode", Transformation::CssDecode),
    ("escapeSeqDecode", Transformation::EscapeSeqDecode),
    ("htmlEntityDecode", Transformation::HtmlEntityDecode),
    ("utf8toUnicode", Transformation::Utf8toUnicode),
    ("cmdLine", Transformation::CmdLine),
    ("replaceComments", Transformation::ReplaceComments),
    ("removeComments", Transformation::RemoveComments),
    ("removeCommentsChar", Transformation::RemoveCommentsChar),
    ("normalizePath", Transformation::NormalizePath),
    ("normalisePath", Transformation::NormalizePath),
    ("normalizePathWin", Transformation::NormalizePathWin),
    ("normalisePathWin", Transformation::NormalizePathWin),
    ("base64Decode", Transformation::Base64Decode),
    ("base64DecodeExt", Transformation::Base64DecodeExt),
    ("base64Encode", Transformation::Base64Encode),
    ("hexEncode", Transformation::HexEncode),
    ("hexDecode", Transformation::HexDecode),
    ("sqlHexDecode", Transformation::SqlHexDecode),
    ("sha1", Transformation::Sha1),
    ("md5", Transformation::Md5),
    ("parityEven7bit", Transformation::ParityEven7bit),
    ("parityOdd7bit", Transformation::ParityOdd7bit),
    ("parityZero7bit", Transformation::ParityZero7bit),
];

impl Transformation {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let mut all: Vec<Self> = NAMES.iter().map(|(_, transformation)| *transformation).collect();
        all.dedup();
        all.into_iter()
    }

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
            Self::UrlDecode => url::decode(input, out),
            Self::UrlDecodeUni => url::decode_uni(input, out),
            Self::UrlEncode => url::encode(input, out),
            Self::JsDecode => escape::javascript(input, out),
            Self::CssDecode => escape::css(input, out),
            Self::EscapeSeqDecode => escape::sequences(input, out),
            Self::HtmlEntityDecode => encoding::html_entities(input, out),
            Self::Utf8toUnicode => encoding::utf8_to_unicode(input, out),
            Self::CmdLine => comment::command_line(input, out),
            Self::ReplaceComments => comment::replace(input, out),
            Self::RemoveComments => comment::remove(input, out),
            Self::RemoveCommentsChar => comment::remove_signs(input, out),
            Self::NormalizePath => path::normalize(input, out, false),
            Self::NormalizePathWin => path::normalize(input, out, true),
            Self::Base64Decode => encoding::base64(input, out),
            Self::Base64DecodeExt => encoding::base64_lenient(input, out),
            Self::Base64Encode => encoding::base64_encode(input, out),
            Self::HexEncode => encoding::hex_encode(input, out),
            Self::HexDecode => encoding::hex_decode(input, out),
            Self::SqlHexDecode => encoding::sql_hex(input, out),
            Self::Sha1 => encoding::sha1(input, out),
            Self::Md5 => encoding::md5(input, out),
            Self::ParityEven7bit => encoding::parity(input, out, Some(false)),
            Self::ParityOdd7bit => encoding::parity(input, out, Some(true)),
            Self::ParityZero7bit => encoding::parity(input, out, None),
        }
    }
}

/// Begins an output that shares its first `same` bytes with the input.
fn start(out: &mut Vec<u8>, input: &[u8], same: usize) {
    out.clear();
    out.reserve(input.len());
    out.extend_from_slice(&input[..same]);
}

/// The byte of two hexadecimal digits.
fn hex_pair(high: u8, low: u8) -> u8 {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    };
    digit(high) << 4 | digit(low)
}

/// The digit of a value below 16, in lower case.
fn hex_value(value: u8) -> u8 {
    b"0123456789abcdef"[usize::from(value & 15)]
}

#[cfg(test)]
mod tests;
