use proptest::prelude::*;

use super::Transformation;

/// The value after a transformation.
fn after(name: &str, input: &[u8]) -> Vec<u8> {
    let mut out = b"of the value before".to_vec();
    let transformation = Transformation::parse(name).unwrap();
    if transformation.apply(input, &mut out) { out } else { input.to_vec() }
}

fn all_hold(name: &str, cases: &[(&str, &str)]) {
    for (input, expected) in cases {
        let value = after(name, input.as_bytes());
        assert_eq!(String::from_utf8_lossy(&value), *expected, "{name} of {input:?}");
    }
}

#[test]
fn names_are_known_in_any_case_and_in_both_spellings() {
    assert_eq!(Transformation::parse("URLDECODEUNI"), Some(Transformation::UrlDecodeUni));
    assert_eq!(Transformation::parse("normalisePathWin"), Transformation::parse("normalizepathwin"));
    assert_eq!(Transformation::parse("rot13"), None);
    for transformation in Transformation::all() {
        assert_eq!(Transformation::parse(transformation.name()), Some(transformation));
    }
}

#[test]
fn percent_encoding_that_is_none_stays() {
    all_hold(
        "urlDecode",
        &[("a%2Fb+c", "a/b c"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%u0041", "%u0041")],
    );
}

#[test]
fn characters_of_iis_become_the_ascii_that_it_takes_them_for() {
    all_hold(
        "urlDecodeUni",
        &[
            ("%u003cscript%U003e", "<script>"),
            ("%uff1cscript%uff1e", "<script>"),
            ("%u2019 or %u201c", "' or \""),
            ("%u00", "%u00"),
            ("%%u0041", "%A"),
        ],
    );
    assert_eq!(after("urlDecodeUni", b"%u4e3d"), [0x3d]);
}

#[test]
fn escapes_of_javascript_css_and_c_are_read_as_each_has_them() {
    all_hold(
        "jsDecode",
        &[
            (r"\u003c\x73\143ript\76", "<script>"),
            (r"\uff1c", "<"),
            (r"a\", r"a\"),
            (r"\k\n", "k\n"),
            (r"\4012", " 12"),
        ],
    );
    all_hold(
        "cssDecode",
        &[
            (r"j\61vascript", "j\u{61}vascript"),
            (r"\6a avascript", "javascript"),
            (r"\00006aavascript", "javascript"),
            (r"\ff1c", "<"),
            (r"\263a ", "\u{263a}"),
            (r"\0", "\u{fffd}"),
            ("a\\\nb\\", "ab"),
        ],
    );
    all_hold("escapeSeqDecode", &[(r"\x41\101\n\?\q", "AA\n?q"), (r"a\", r"a\")]);
}

#[test]
fn character_references_need_no_semicolon() {
    all_hold(
        "htmlEntityDecode",
        &[
            ("&lt;a&GT;", "<a>"),
            ("&#60&#x3C;&#x3c", "<<<"),
            ("&ltscript", "<script"),
            ("&#;&foo;&", "&#;&foo;&"),
        ],
    );
    assert_eq!(after("htmlEntityDecode", b"&nbsp;"), [0xa0]);
    assert_eq!(after("htmlEntityDecode", b"&#99999999999999999999999;"), [0xff]);
}

#[test]
fn characters_beyond_ascii_become_code_points() {
    all_hold("utf8toUnicode", &[("caf\u{e9}", "caf%u00e9"), ("\u{1f600}", "%u1f600")]);
    assert_eq!(after("utf8toUnicode", b"\xc0\xafx"), b"%u002f\xc0x");
    assert_eq!(after("utf8toUnicode", b"a\xc3(\x80"), b"a(\x80");
    assert_eq!(after("utf8toUnicode", b"s\0cript"), b"script");
}

#[test]
fn comments_go_or_become_a_space() {
    all_hold("replaceComments", &[("UN/**/ION/*x", "UN ION "), ("*/ no", "*/ no")]);
    all_hold(
        "removeComments",
        &[("UN/**/ION -- x", "UNION "), ("a<!--b-->c#d", "ac"), ("/*a*/", "\0"), ("/*a", " ")],
    );
    all_hold("removeCommentsChar", &[("a/*b*/<!--c-->--#", "abc")]);
}

#[test]
fn a_command_line_is_what_a_shell_sees() {
    all_hold(
        "cmdLine",
        &[("C^MD  /c \"DIR\"", "cmd/c dir"), ("c'a't, ;/etc", "cat/etc"), (" (", "("), ("a b", "a b")],
    );
}

#[test]
fn a_path_goes_up_no_further_than_its_root() {
    all_hold(
        "normalizePath",
        &[
            ("/a/./b//../c", "/a/c"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("a/../../b", "../b"),
            ("./", ""),
            ("a/..", ""),
            ("/..", "/"),
            ("a/b/", "a/b/"),
            (".hidden/...", ".hidden/..."),
            ("a..b/c", "a..b/c"),
        ],
    );
    all_hold("normalizePathWin", &[(r"..\..\a\.\b", "../../a/b"), (r"\a\\b", "/a/b")]);
}

#[test]
fn base64_is_read_up_to_what_is_none_or_past_it() {
    all_hold("base64Decode", &[("YWJj", "abc"), ("YWI=YWJj", "ab"), ("YW\nJj", "abc"), ("Y", "")]);
    all_hold("base64DecodeExt", &[("Y.W J*j", "abc"), ("YWI=YWI=", "ab\u{18}X"), ("Pz8_", "???")]);
    all_hold("base64Encode", &[("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj")]);
}

#[test]
fn hexadecimal_is_read_whole_or_within_sql() {
    all_hold("hexDecode", &[("4142", "AB"), ("414", ""), ("4x", "")]);
    all_hold("sqlHexDecode", &[("x 0x414243g", "x ABCg"), ("0x4", "0x4"), ("00x41", "0A")]);
    all_hold("hexEncode", &[("AB", "4142")]);
    assert_eq!(
        after("md5", b""),
        [0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0, 0xb2, 4, 0xe9, 0x80, 9, 0x98, 0xec, 0xf8, 0x42, 0x7e]
    );
    assert_eq!(after("sha1", b"").len(), 20);
}

#[test]
fn white_space_nulls_case_and_length() {
    all_hold("compressWhitespace", &[("a \t\r\nb c ", "a b c "), ("\t", " ")]);
    all_hold("removeWhitespace", &[(" a\u{a0}\x0bb ", "ab")]);
    all_hold("trim", &[(" \ta b\n", "a b")]);
    all_hold("trimLeft", &[(" a ", "a ")]);
    all_hold("trimRight", &[(" a ", " a")]);
    all_hold("removeNulls", &[("a\0b\0", "ab")]);
    all_hold("replaceNulls", &[("a\0b", "a b")]);
    all_hold("uppercase", &[("aB\u{e9}", "AB\u{e9}")]);
    all_hold("length", &[("", "0"), ("1", "1"), ("abc", "3")]);
    assert_eq!(after("parityOdd7bit", b"a0"), [0x61, 0xb0]);
    assert_eq!(after("parityEven7bit", b"a0"), [0xe1, 0x30]);
    assert_eq!(after("parityZero7bit", b"\xe1"), b"a");
}

/// Bytes as attacks have them: encodings, whole and broken, beside any bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&str] = &[
        "%41",
        "%u0041",
        "%",
        "+",
        "\\u0041",
        "\\x41",
        "\\101",
        "\\",
        "&lt;",
        "&#65;",
        "&#x41",
        "&",
        "/*",
        "*/",
        "<!--",
        "-->",
        "--",
        "#",
        "/",
        "../",
        ".",
        "'",
        "\"",
        " ",
        "\t",
        "\n",
        "(",
        "YWJj",
        "0x41",
        "\u{e9}",
        "\u{1f600}",
        "a",
        "Z",
    ];
    let part = prop_oneof![
        3 => prop::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn a_change_is_told_exactly_when_there_is_one(input in value(), before in value()) {
        for transformation in Transformation::all() {
            let mut out = before.clone();
            let changed = transformation.apply(&input, &mut out);
            prop_assert_eq!(changed, changed && out != input, "{}", transformation.name());
            let mut again = Vec::new();
            prop_assert_eq!(transformation.apply(&input, &mut again), changed);
            if changed {
                prop_assert_eq!(&again, &out, "{} keeps something of before", transformation.name());
                prop_assert!(out.len() <= input.len() * 4 + 20, "{} grows", transformation.name());
            }
        }
    }

    #[test]
    fn what_cleans_up_leaves_nothing_to_clean(input in value()) {
        for name in [
            "lowercase", "uppercase", "removeNulls", "replaceNulls", "removeWhitespace", "compressWhitespace", "trim",
            "normalizePath", "normalizePathWin", "parityZero7bit",
        ] {
            let once = after(name, &input);
            prop_assert_eq!(after(name, &once), once, "{}", name);
        }
    }

    #[test]
    fn decoding_undoes_encoding(input in prop::collection::vec(any::<u8>(), 0..64)) {
        for (encode, decode) in
            [("urlEncode", "urlDecode"), ("base64Encode", "base64Decode"), ("hexEncode", "hexDecode")]
        {
            prop_assert_eq!(&after(decode, &after(encode, &input)), &input, "{}", decode);
        }
    }
}
