use proptest::prelude::*;

use super::{sqli, xss};

fn fingerprint(value: &str) -> Option<String> {
    sqli(value.as_bytes()).map(|found| String::from_utf8_lossy(found.as_bytes()).into_owned())
}

#[test]
fn injections_are_known_by_their_fingerprints() {
    for (value, expected) in [
        ("1' or '1'='1", "s&sos"),
        ("-1' and 1=1 union/* foo */select load_file('/etc/passwd')--", "s&1UE"),
        ("1 union select 1,2,3", "1UE1"),
        ("admin'--", "sc"),
        ("1; drop table users", "1;Tnn"),
        ("' || (select 1) || '", "s&(E1"),
        ("1' waitfor delay '0:0:5'--", "sEsc"),
        ("foo\" or 1=1 #", "s&1c"),
        (
            "1.e(ascii 1.e(substring(1.e(select password from users limit 1 1.e,1 1.e) 1.e,1 1.e,1 1.e)1.e)1.e) ",
            "f(f(E",
        ),
        ("1 /*!50000union*/ select", "X"),
        ("q'[x]' or 1=1", "s&1"),
    ] {
        assert_eq!(fingerprint(value).as_deref(), Some(expected), "{value}");
    }
}

#[test]
fn prose_names_and_numbers_are_no_injections() {
    for value in [
        "",
        "'",
        "O'Neill",
        "d'Artagnan and l'Hospital",
        "it's a dog's life, isn't it?",
        "Select a date and time, or leave it empty",
        "the union of all workers",
        "1-800-555-0199",
        "2 + 2 = 4",
        "jo@example.org",
        "black & white",
        "C# or F#",
        "drop me a line",
        "rock 'n' roll",
        "5' 11\"",
        "SELECT",
        "price: $1,000.00",
        "a -- b",
        "2026-11-23T10:00:00Z",
        "{\"a\": [1, 2, 3], \"b\": null}",
    ] {
        assert_eq!(fingerprint(value), None, "{value}");
    }
}

#[test]
fn scripts_are_known_in_each_place_of_a_page() {
    for value in [
        "<script>alert(1)</script>",
        "<ScRiPt src=//x>",
        "<img src=x onerror=alert(1)>",
        "\" onmouseover=\"alert(1)",
        "' onfocus='alert(1)",
        "` onclick=alert(1)",
        " onload=x",
        "<a href=\"javascript:alert(1)\">",
        "<a href=\"\u{1}jav&#x0A;ascript:alert(1)\">",
        "<a href=&#106avascript:x>",
        "<svg/onload=x>",
        "<!DOCTYPE html>",
        "<!--[if gte IE 4]>",
        "<?import x>",
        "<x style=a>",
        "<x xmlns:a=b>",
        "<s\0cript>",
        "<x attributename=href values=x>",
        "<object data=x>",
        "<x\u{b}onclick=x>",
        "</a onclick=x>",
    ] {
        assert!(xss(value.as_bytes()), "{value}");
    }
    // Some read on where others stop.
    assert!(xss(b"<img \xff onerror=alert(1)>"));
}

#[test]
fn markup_without_scripts_and_comparisons_are_none() {
    for value in [
        "",
        "a < b && c > d",
        "<b>bold</b> and <i>slanted</i>",
        "<a href=\"https://example.org/?a=b\">there</a>",
        "<p class=\"x\">one</p>",
        "x = y",
        "once=1&online=2",
        "I <3 you",
        "<3 = heart",
        "mail: <jo@example.org>",
        "data: 5",
        "[a](https://example.org)",
    ] {
        assert!(!xss(value.as_bytes()), "{value}");
    }
}

#[test]
fn long_values_take_time_in_proportion() {
    // Each would be a square or a cube if something were read twice.
    for part in
        ["'", "\\'", "/*", "$a$", "$$", "<a/", "</", "<!--", "-", "`", "q'[", "1,", "((", "1.e", "<a b='"]
    {
        let value = part.repeat((256 << 10) / part.len());
        let start = std::time::Instant::now();
        sqli(value.as_bytes());
        xss(value.as_bytes());
        assert!(start.elapsed().as_secs() < 5, "{part}: {:?}", start.elapsed());
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&str] = &[
        "'",
        "\"",
        "`",
        "--",
        "#",
        "/*",
        "*/",
        "/*!",
        "(",
        ")",
        ",",
        ";",
        "\\",
        "@",
        "$",
        "$a$",
        "0x",
        "1",
        "1.e",
        ".",
        "union ",
        "select ",
        "or ",
        "and ",
        "not ",
        "in ",
        "like ",
        "collate ",
        "if",
        "user",
        "{",
        "}",
        "q'[",
        "]'",
        "n'",
        "<",
        ">",
        "=",
        "/",
        "<!--",
        "-->",
        "<![CDATA[",
        "<%",
        "<?",
        "on",
        "load",
        "href",
        "java",
        "&#x6a;",
        " ",
        "\n",
    ];
    let part = prop_oneof![
        4 => prop::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_judged_and_letter_case_does_not_count(value in value()) {
        let found = sqli(&value);
        prop_assert!(found.is_none_or(|found| (1..=5).contains(&found.as_bytes().len())));
        prop_assert!(found.is_none() || value.len() >= 2);
        let script = xss(&value);
        prop_assert!(!script || memchr::memchr2(b'<', b'=', &value).is_some());
        // Keywords and names may be written in any case, and references that are hexadecimal too.
        if !value.windows(2).any(|pair| pair == b"\\N" || pair == b"\\n") && !value.contains(&b'$') && !value.contains(&b'[') {
            let upper = value.to_ascii_uppercase();
            prop_assert_eq!(sqli(&upper).is_some(), found.is_some());
            prop_assert_eq!(xss(&upper), script);
        }
    }
}
