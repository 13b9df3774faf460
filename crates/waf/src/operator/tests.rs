use proptest::prelude::*;
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::{Captures, Operator, OperatorError};

fn compile(name: &str, argument: &str) -> Result<Operator, OperatorError> {
    let files = |name: &str| match name {
        "words.data" => Some(b"# words\nunion select\r\n\nsleep(\n".to_vec()),
        "networks.data" => Some(b"# ours\n10.0.0.0/8 # all of it\n2001:db8::/32\n".to_vec()),
        _ => None,
    };
    Operator::compile(name, argument.as_bytes(), &files)
}

fn matches(name: &str, argument: &str, value: impl AsRef<[u8]>) -> bool {
    let operator = compile(name, argument).unwrap();
    let mut captures = Captures::default();
    let found = operator.evaluate(value.as_ref(), argument.as_bytes(), None);
    assert_eq!(operator.evaluate(value.as_ref(), argument.as_bytes(), Some(&mut captures)), found);
    found
}

/// What `TX:0` and so on hold after a match.
fn captured(name: &str, argument: &str, value: &str) -> Vec<String> {
    let mut captures = Captures::default();
    assert!(compile(name, argument).unwrap().evaluate(value.as_bytes(), b"", Some(&mut captures)));
    let text = |index| captures.get(index, value.as_bytes()).unwrap_or(b"-");
    (0..captures.len()).map(|index| String::from_utf8_lossy(text(index)).into_owned()).collect()
}

#[test]
fn an_expression_matches_bytes_with_dots_over_lines() {
    assert!(matches("rx", "^b.c$", "a\nb\nc"));
    assert!(matches("rx", "(?i)SELECT", "select"));
    assert!(matches("rx", r"^[^\x00-\x7f]$", b"\xe9"));
    assert!(!matches("rx", "(?i)\u{e9}", "\u{c9}"));
    assert!(matches("RX", "", ""));
}

#[test]
fn an_escape_in_braces_is_a_byte_in_and_out_of_a_class() {
    assert!(matches("rx", r"\x{c2}\x{b4}", "\u{b4}"));
    assert!(matches("rx", r"^[\x{80}-\x{ff}]+$", b"\x80\xff"));
    assert!(!matches("rx", r"^\x{e9}$", "\u{e9}"));
    assert!(matches!(compile("rx", r"\x{2019}"), Err(OperatorError::Expression { .. })));
}

#[test]
fn what_pcre_takes_for_itself_is_taken_for_itself() {
    for (expression, value) in [
        (r"^\<a\>$", "<a>"),
        ("^[[]$", "["),
        ("^[]a]$", "]"),
        ("^[a&&b]+$", "a&b"),
        ("^[+--]$", ","),
        (r"^[\w-]+$", "a-b"),
        ("^[~~]$", "~"),
        ("^{$", "{"),
        ("^a{,3}$", "a{,3}"),
        ("^(?>a+)b$", "aab"),
        (r"^\Qa.b\E.$", "a.bc"),
        (r"^\041\e[\101]\cA$", "!\u{1b}A\u{1}"),
        (r"^[\b]\h$", "\u{8}\t"),
        ("^[[:alpha:][:^digit:]]$", "x"),
        ("^[\u{e9}]+$", "\u{e9}"),
        (r"^\y$", "y"),
    ] {
        assert!(matches("rx", expression, value), "{expression}");
    }
    assert!(!matches("rx", "^[a&&b]$", "c"));
    assert!(!matches("rx", r"\<b", "a b"));
}

#[test]
fn an_expression_that_could_run_without_bound_is_refused_at_load() {
    for expression in
        [r"(a)\1", "(?=a)b", "(?<!a)b", "a(", "[a", r"a\", r"\x{41", r"\p{L}", "((a{1000}){1000}){10}"]
    {
        let error = compile("rx", expression).unwrap_err();
        assert!(!error.to_string().is_empty(), "{expression}");
    }
}

#[test]
fn groups_are_captured_up_to_nine() {
    assert_eq!(captured("rx", "(a)(x)?(b)", "zab"), ["ab", "a", "-", "b"]);
    assert_eq!(captured("rx", "(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)", "abcdefghijkl").len(), 10);
    assert_eq!(captured("rxGlobal", "[0-9]", "a1b2"), ["2"]);
    assert_eq!(captured("pm", "foo BAR", "xbar"), ["bar"]);
    assert_eq!(captured("detectSQLi", "", "1' or '1'='1"), ["s&sos"]);
    assert_eq!(captured("detectXSS", "", "<script>"), ["<script>"]);
    assert_eq!(captured("verifyCC", r"\d{13,16}", "card 5484605089158216."), ["5484605089158216"]);
}

#[test]
fn an_expression_with_a_macro_is_what_it_expands_to() {
    let operator = compile("rx", "^%{tx.allowed}$").unwrap();
    assert!(operator.takes_macro());
    assert!(operator.evaluate(b"GET", b"^(?:GET|POST)$", None));
    assert!(!operator.evaluate(b"PUT", b"^(?:GET|POST)$", None));
    assert!(!operator.evaluate(b"PUT", b"^(", None));
    assert!(!compile("pm", "%{tx.a}").unwrap().takes_macro());
    let within = compile("within", "%{tx.methods}").unwrap();
    assert!(within.takes_macro() && within.evaluate(b"GET", b"GET POST", None));
}

#[test]
fn phrases_match_in_either_case_and_as_bytes() {
    assert!(matches("pm", "union select", "UNION"));
    assert!(!matches("pm", "union select", "uni on"));
    assert!(matches("pm", "|00 41|z", b"\0az"));
    assert!(matches("pmFromFile", "words.data", "x UNION SELECT y"));
    assert!(matches("pmf", "words.data", "sleep(5)"));
    assert!(!matches("pmf", "words.data", "# words"));
    assert!(!matches("pm", "", "anything"));
    assert_eq!(compile("pmf", "gone.data").unwrap_err(), OperatorError::File { file: "gone.data".into() });
}

#[test]
fn texts_and_numbers_are_compared_as_the_language_has_it() {
    for (name, argument, value) in [
        ("streq", "a", "a"),
        ("contains", "b", "abc"),
        ("strmatch", "bc", "abc"),
        ("containsWord", "aba", "xaba aba1"),
        ("containsWord", "aba", "1aba_"),
        ("beginsWith", "ab", "abc"),
        ("endsWith", "bc", "abc"),
        ("within", "GET POST", "GET"),
        ("within", "", ""),
        ("eq", "x", "0"),
        ("ge", "5", "5 apples"),
        ("gt", "-1", ""),
        ("lt", "10", "9"),
        ("le", "99999999999999999999", "9223372036854775807"),
    ] {
        assert!(matches(name, argument, value), "@{name} {argument} of {value:?}");
    }
    for (name, argument, value) in [
        ("streq", "a", "A"),
        ("containsWord", "aba", "xaba abay"),
        ("within", "GET", "GET POST"),
        ("eq", "1", "one"),
        ("lt", "1", "1"),
        ("noMatch", "", ""),
    ] {
        assert!(!matches(name, argument, value), "@{name} {argument} of {value:?}");
    }
}

#[test]
fn bytes_outside_of_ranges_broken_utf8_and_broken_percents_match() {
    assert!(!matches("validateByteRange", "9,10,32-126", "a\tb"));
    assert!(matches("validateByteRange", "9,10,32-126", "a\0b"));
    assert!(compile("validateByteRange", "9-8").is_err() && compile("validateByteRange", "256").is_err());
    assert!(matches("validateUtf8Encoding", "", b"\xc0\xaf"));
    assert!(!matches("validateUtf8Encoding", "", "\u{1f600}"));
    assert!(matches("validateUrlEncoding", "", "a%4"));
    assert!(!matches("validateUrlEncoding", "", "a%41"));
}

#[test]
fn an_address_is_found_in_its_network_only() {
    assert!(matches("ipMatch", "192.0.2.1, 10.0.0.0/8,2001:db8::/32", "10.255.255.255"));
    assert!(matches("ipMatch", "2001:db8::/32,::/0", "2001:db8::1"));
    assert!(!matches("ipMatch", "10.0.0.0/9", "10.128.0.0"));
    assert!(!matches("ipMatch", "0.0.0.0/0", "::1"));
    assert!(!matches("ipMatch", "10.0.0.0/8", "somebody"));
    assert!(matches("ipMatchFromFile", "networks.data", "10.1.2.3"));
    assert!(compile("ipMatch", "10.0.0.0/33").is_err() && compile("ipMatch", "").is_err());
}

#[test]
fn numbers_with_check_digits_are_told_from_others() {
    assert!(!matches("verifyCC", r"\b\d{13,16}\b", "5484605089158217"));
    assert!(matches("verifyCPF", r"[\d.-]{14}", "010.817.514-60"));
    assert!(!matches("verifyCPF", r"[\d.-]{14}", "111.111.111-11"));
    assert!(matches("verifySSN", r"\d{3}-?\d{2}-?\d{4}", "574-57-8065"));
    assert!(!matches("verifySSN", r"\d{3}-?\d{2}-?\d{4}", "123-45-6789"));
    assert!(matches("verifySVNR", r"\d{4} ?\d{6}", "1237 010180"));
}

#[test]
fn what_is_not_here_is_refused_at_load_with_the_reason() {
    for name in ["rbl", "geoLookup", "inspectFile", "fuzzyHash", "validateSchema", "validateDTD", "gsbLookup"]
    {
        let error = compile(name, "x").unwrap_err();
        assert!(
            matches!(error, OperatorError::Refused { reason, .. } if !reason.is_empty()),
            "{name}: {error}"
        );
    }
    assert_eq!(compile("rX2", "x").unwrap_err(), OperatorError::Unknown { name: "rX2".into() });
}

#[test]
fn a_sieve_names_what_a_value_must_have() {
    let sieve = compile("rx", r"(?i)(?:union\s+(?:all\s+)?select|sleep\s*\()").unwrap().literals();
    assert_eq!(sieve.literals.unwrap(), [b"select".to_vec(), b"sleep".to_vec()]);
    assert_eq!(compile("rx", r"\d+").unwrap().literals().literals, None);
    assert_eq!(compile("contains", "Ab").unwrap().literals().literals.unwrap(), [b"ab".to_vec()]);
    assert_eq!(compile("noMatch", "").unwrap().literals().literals.unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(compile("within", "a b").unwrap().literals().literals, None);
}

const OPERATORS: [(&str, &str); 22] = [
    ("rx", r"(?i)\bunion\s+(?:all\s+)?select\b"),
    ("rx", r"[<>]|a{2,3}b?"),
    ("rx", r"(?:a|b|cd)(?:x|yz)+$"),
    ("rx", r"^(?:foo)?bar|qu[eo]x"),
    ("rx", r"(?i)[sx]leep[\s(]+\d"),
    ("rx", r"(?:|a)b*"),
    ("rx", r"(?:a.b){2}"),
    ("rx", r"\W*?(?:or|and)\W"),
    ("rx", r"[^a-z]select|(?i:SLEEP)"),
    ("rxGlobal", r"o[rx]"),
    ("pm", "select sleep foo"),
    ("streq", "Foo"),
    ("contains", "aB"),
    ("containsWord", "or"),
    ("beginsWith", "'"),
    ("endsWith", ")"),
    ("within", "foo bar"),
    ("detectSQLi", ""),
    ("detectXSS", ""),
    ("validateUrlEncoding", ""),
    ("verifyCC", r"\d+"),
    ("noMatch", ""),
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&str] = &[
        "union",
        "SELECT",
        "select",
        "sleep",
        "all",
        "foo",
        "Foo",
        "bar",
        "quex",
        "aB",
        "or",
        "and",
        "a",
        "b",
        "cd",
        "x",
        "yz",
        "'",
        "\"",
        " ",
        "(",
        ")",
        "<",
        ">",
        "=",
        "1",
        "--",
        "/*",
        "#",
        "%",
        "%41",
        "onerror",
        "script",
        "href",
        "java",
        "4111111111111111",
        "\n",
    ];
    let part = prop_oneof![
        4 => prop::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..3),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn the_sieve_lets_through_whatever_matches(value in value()) {
        let lower = value.to_ascii_lowercase();
        for (name, argument) in OPERATORS {
            let operator = compile(name, argument).unwrap();
            if !operator.evaluate(&value, argument.as_bytes(), None) {
                continue;
            }
            let sieve = operator.literals();
            prop_assert!(value.len() >= sieve.min_len, "@{} {}: length", name, argument);
            if let Some(literals) = &sieve.literals {
                let found = literals.iter().any(|text| memchr::memmem::find(&lower, text).is_some());
                prop_assert!(found, "@{} {}: {:?}", name, argument, literals);
            }
            if let Some(expression) = sieve.expression {
                let config = Regex::config().utf8_empty(false);
                let syntax = syntax::Config::new().utf8(false);
                let regex = Regex::builder().configure(config).syntax(syntax).build(&expression).unwrap();
                prop_assert!(regex.is_match(&value), "@{} {}: {}", name, argument, expression);
            }
        }
    }

    #[test]
    fn no_expression_makes_the_reader_fail(argument in value(), value in value()) {
        for name in ["rx", "rxGlobal", "pm", "ipMatch", "validateByteRange", "verifyCC", "containsWord"] {
            if let Ok(operator) = Operator::compile(name, &argument, &|_| None) {
                let mut captures = Captures::default();
                let found = operator.evaluate(&value, &argument, Some(&mut captures));
                prop_assert_eq!(found, operator.evaluate(&value, &argument, None));
                for index in 0..captures.len() {
                    prop_assert!(captures.range(index).is_none_or(|range| range.end <= value.len()));
                }
            }
        }
    }

    #[test]
    fn any_text_of_an_expressions_signs_is_read_or_refused(argument in "[\\[\\]^a-c\\\\\\-&~{},0-9x:dQE()|?*+]{0,14}") {
        if let Ok(operator) = Operator::compile("rx", argument.as_bytes(), &|_| None) {
            operator.evaluate(argument.as_bytes(), argument.as_bytes(), None);
        }
    }
}
