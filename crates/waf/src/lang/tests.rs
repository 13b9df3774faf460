//! What rule authors write, and what must not break the reader.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Vec<Item>, Vec<Finding>) {
    let mut findings = Vec::new();
    let items = parse(0, text.as_bytes(), &mut findings);
    (items, findings)
}

fn rule(text: &str) -> RuleNode {
    let (mut items, findings) = read(text);
    assert_eq!(findings, []);
    match items.pop().map(|item| item.directive) {
        Some(Directive::Rule(rule)) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_settings_that_distributions_ship_are_read() {
    let text = r#"
# -- Rule engine initialization ---
SecRuleEngine DetectionOnly
SecRequestBodyAccess On
SecRule REQUEST_HEADERS:Content-Type "^(?:application(?:/soap\+|/)|text/)xml" \
     "id:'200000',phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRequestBodyLimit 13107200
SecRule MULTIPART_STRICT_ERROR "!@eq 0" \
"id:'200003',phase:2,t:none,log,deny,status:400, \
msg:'Multipart request body failed strict validation: \
PE %{REQBODY_PROCESSOR_ERROR}, \
BQ %{MULTIPART_BOUNDARY_QUOTED}'"
SecPcreMatchLimit 1000
secauditlogparts ABIJDEFHZ
SecArgumentSeparator &
SecResponseBodyMimeType text/plain text/html
SecUnicodeMapFile unicode.mapping 20127
"#;
    let (items, findings) = read(text);
    assert_eq!(findings, []);
    assert_eq!(items.len(), 10);
    let Directive::Rule(strict) = &items[4].directive else { panic!("{:?}", items[4]) };
    assert_eq!(strict.actions[0].value.as_deref(), Some(&b"200003"[..]));
    assert_eq!(strict.actions.last().map(|action| action.name.as_str()), Some("msg"));
    assert!(strict.actions.last().unwrap().text().ends_with("BQ %{MULTIPART_BOUNDARY_QUOTED}"));
    assert_eq!((items[4].position.line, items[4].position.column), (8, 1));
}

#[test]
fn targets_know_names_patterns_counts_and_exclusions() {
    let targets = rule(
        r#"SecRule &ARGS|!ARGS:a|REQUEST_COOKIES:/^a|b/|ARGS:'x|y'|XML:/*|XML://@*|TX:/a\/b/ "@rx ." "id:1""#,
    )
    .targets;
    let name = |name: &str| Selector::Name(name.into());
    let pattern = |pattern: &str| Selector::Regex(pattern.into());
    let told: Vec<_> = targets.into_iter().map(|t| (t.exclude, t.count, t.variable, t.selector)).collect();
    assert_eq!(
        told,
        [
            (false, true, Variable::Args, Selector::All),
            (true, false, Variable::Args, name("a")),
            (false, false, Variable::RequestCookies, pattern("^a|b")),
            (false, false, Variable::Args, name("x|y")),
            (false, false, Variable::Xml, name("/*")),
            (false, false, Variable::Xml, name("//@*")),
            (false, false, Variable::Tx, pattern("a/b")),
        ]
    );
}

#[test]
fn operators_keep_their_argument_to_the_last_byte() {
    let operator = |text: &str| rule(text).operator.unwrap();
    let plain = operator(r#"SecRule ARGS "a\"b c " "id:1""#);
    assert_eq!((plain.name.as_str(), &*plain.argument, plain.negated), ("rx", &b"a\"b c "[..], false));
    let named = operator(r#"SecRule ARGS "!@within GET \x5c" "id:1""#);
    assert_eq!((named.name.as_str(), &*named.argument, named.negated), ("within", &br"GET \x5c"[..], true));
    assert_eq!(&*operator(r#"SecRule ARGS '@streq it\'s' "id:1""#).argument, b"it's");
}

#[test]
fn comments_may_stand_between_continued_lines_and_positions_survive_them() {
    let (items, findings) =
        read("SecRule ARGS \"@rx a\" \\\n  # no: \\\n  \"id:1,\\\n  phase:9x\"\nSecRule NOPE a b\n");
    assert_eq!(items.len(), 1);
    assert_eq!((findings[0].position.line, findings[0].position.column), (5, 9));
}

#[test]
fn values_of_actions_may_be_quoted_whole_or_after_the_equals_sign() {
    let texts = |list: &str| -> Vec<(String, String)> {
        parse_actions(list.as_bytes())
            .unwrap()
            .iter()
            .map(|action| (action.name.clone(), action.text()))
            .collect()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        texts("id:1, setvar:'tx.a=b,c',setvar:tx.d='e,f' ,t:none,msg:'it\\'s',setvar:!tx.g,skipAfter:END"),
        [
            pair("id", "1"),
            pair("setvar", "tx.a=b,c"),
            pair("setvar", "tx.d=e,f"),
            pair("t", "none"),
            pair("msg", "it's"),
            pair("setvar", "!tx.g"),
            pair("skipafter", "END"),
        ]
    );
    assert!(parse_actions(b"msg:'open").is_err());
    assert!(parse_actions(b"msg:'a'b").is_err());
}

/// Pieces of rules, in any order.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        proptest::sample::select(vec![
            "SecRule ",
            "SecAction ",
            "SecMarker ",
            "ARGS",
            "|",
            "!",
            "&",
            "TX:",
            ":/",
            "/",
            "\"",
            "'",
            "\\",
            "\\\n",
            "\n",
            "# ",
            "@rx ",
            "@pm ",
            "id:1",
            ",",
            "phase:2",
            "setvar:",
            "tx.a=",
            "%{",
            "}",
            "chain",
            "ctl:",
            "ruleRemoveById=1",
            "skipAfter:E",
            "t:none",
            "SecRuleUpdateTargetById 1 ",
            "SecRuleRemoveById ",
            "1-2",
            "Include x",
            " ",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_text_is_read_and_findings_stand_within_it(text in text()) {
        let lines = text.split(|byte| *byte == b'\n').count();
        let mut findings = Vec::new();
        let items = parse(0, &text, &mut findings);
        prop_assert!(items.len() + findings.len() <= lines);
        for position in items.iter().map(|item| item.position).chain(findings.iter().map(|finding| finding.position)) {
            prop_assert!(position.line >= 1 && position.line as usize <= lines && position.column >= 1);
        }
        let source = crate::Source::new("any", text);
        let _ = crate::Rules::load(&[source], &(), &crate::Options::default());
    }
}
