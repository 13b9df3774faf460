//! SecLang as rule authors rely on it, through the public interface.

use std::sync::Arc;

use ringfence_waf::{Mode, Options, Rules, Scratch, Selection, Source, Stop, Transaction, Verdict};

fn rules(text: &str) -> Arc<Rules> {
    Arc::new(
        Rules::load(&[Source::new("test.conf", text)], &(), &Options::default())
            .unwrap_or_else(|errors| panic!("{errors:#?}")),
    )
}

fn begin(rules: &Arc<Rules>, uri: &str, headers: &[(&str, &str)]) -> Transaction {
    let mut transaction = Transaction::new(rules, Scratch::default());
    transaction.connection(([192, 0, 2, 7].into(), 4711), ([192, 0, 2, 1].into(), 443));
    transaction.request_line(b"GET", uri.as_bytes(), b"HTTP/1.1");
    for (name, value) in headers {
        transaction.request_header(name.as_bytes(), value.as_bytes());
    }
    transaction
}

/// Ids that matched after all request phases.
fn ids(rules: &Arc<Rules>, uri: &str, headers: &[(&str, &str)], body: &str) -> Vec<u64> {
    let mut transaction = begin(rules, uri, headers);
    transaction.phase1();
    transaction.request_body(body.as_bytes());
    transaction.phase2();
    transaction.phase5();
    transaction.matches().iter().map(|found| found.rule.id).collect()
}

#[test]
fn a_chain_matches_only_as_a_whole_but_its_first_links_set_variables() {
    let rules = rules(
        r#"
SecRule ARGS:a "@streq 1" "id:1,phase:2,pass,log,setvar:tx.seen=+1,chain"
  SecRule ARGS:b "@streq 2" "setvar:tx.both=+1"
SecRule TX:seen "@eq 1" "id:2,phase:2,pass,log"
SecRule TX:both "@eq 1" "id:3,phase:2,pass,log"
"#,
    );
    assert_eq!(ids(&rules, "/?a=1&b=2", &[], ""), [1, 2, 3]);
    assert_eq!(ids(&rules, "/?a=1&b=3", &[], ""), [2]);
}

#[test]
fn scores_add_up_per_value_and_the_threshold_refuses() {
    let rules = rules(
        r#"
SecAction "id:1,phase:1,nolog,pass,setvar:tx.critical=5,setvar:tx.threshold=10"
SecRule ARGS "@contains evil" "id:2,phase:2,pass,t:lowercase,capture,msg:'Found %{MATCHED_VAR_NAME}',logdata:'%{MATCHED_VAR}',\
    setvar:'tx.inbound_anomaly_score_pl1=+%{tx.critical}'"
SecRule TX:inbound_anomaly_score_pl1 "@ge %{tx.threshold}" "id:3,phase:2,deny,status:429,msg:'Total %{TX.inbound_anomaly_score_pl1}'"
"#,
    );
    assert_eq!(ids(&rules, "/?a=evil", &[], ""), [2]);
    let mut transaction = begin(&rules, "/?a=EVIL&b=2&c=evil", &[]);
    assert_eq!(transaction.phase1(), Verdict::Pass);
    let Verdict::Stop(stop) = transaction.phase2() else { panic!("it passes") };
    assert_eq!((stop.rule, stop.status, stop.phase, &stop.action), (3, 429, 2, &Stop::Deny));
    let found = &transaction.matches()[0];
    assert_eq!(
        (found.message.as_str(), found.data.as_str(), found.score, found.count),
        ("Found ARGS:c", "evil", 10, 2)
    );
    assert_eq!(found.variables[0].name, "ARGS:a");
    assert_eq!(found.variables[0].value, b"evil");
    assert_eq!(transaction.matches()[1].message, "Total 10");
    assert!(transaction.matches()[1].disruptive);
}

#[test]
fn observing_tells_what_would_have_been_and_refuses_nothing() {
    let rules = rules(
        r#"
SecRule ARGS "@rx attack" "id:1,phase:2,deny"
SecRule ARGS "@rx attack" "id:2,phase:2,deny"
SecAction "id:3,phase:1,pass,nolog,ctl:ruleEngine=On"
"#,
    );
    let mut transaction = begin(&rules, "/?a=attack", &[]);
    transaction.set_mode(Mode::Observe);
    assert_eq!(transaction.phase1(), Verdict::Pass);
    assert_eq!(transaction.phase2(), Verdict::Pass);
    assert_eq!(transaction.interruption().map(|stop| stop.rule), Some(1));
    assert_eq!(transaction.matches().len(), 2);
}

#[test]
fn skip_after_goes_to_its_marker_within_the_phase() {
    let rules = rules(
        r#"
SecRule REQUEST_METHOD "@streq GET" "id:1,phase:1,pass,nolog,skipAfter:END"
SecAction "id:2,phase:1,pass,log"
SecAction "id:3,phase:2,pass,log"
SecMarker "END"
SecAction "id:4,phase:1,pass,log"
SecAction "id:5,phase:1,pass,nolog,skip:1"
SecAction "id:6,phase:1,pass,log"
SecAction "id:7,phase:1,pass,log"
"#,
    );
    assert_eq!(ids(&rules, "/", &[], ""), [4, 7, 3]);
}

#[test]
fn exclusions_hold_wherever_they_are_written() {
    let text = r#"
SecRule ARGS:skip "@streq 1" "id:1,phase:1,pass,nolog,ctl:ruleRemoveById=10"
SecRule ARGS:tag "@streq 1" "id:2,phase:1,pass,nolog,ctl:ruleRemoveByTag=attack"
SecRule ARGS:aim "@streq 1" "id:3,phase:1,pass,nolog,ctl:ruleRemoveTargetById=10;ARGS:x,ctl:ruleRemoveTargetByTag=attack;ARGS:/^y/"
SecRule ARGS|!ARGS:never "@contains bad" "id:10,phase:2,pass,log,tag:'attack'"
SecRule ARGS "@contains bad" "id:11,phase:2,pass,log,tag:'other'"
SecRule ARGS "@contains bad" "id:12,phase:2,pass,log"
SecRuleUpdateTargetById 11 "!ARGS:never"
SecRuleRemoveById 12
"#;
    let rules = rules(text);
    assert_eq!(ids(&rules, "/?x=bad", &[], ""), [10, 11]);
    assert_eq!(ids(&rules, "/?never=bad", &[], ""), []);
    assert_eq!(ids(&rules, "/?skip=1&x=bad", &[], ""), [11]);
    assert_eq!(ids(&rules, "/?tag=1&x=bad", &[], ""), [11]);
    assert_eq!(ids(&rules, "/?aim=1&x=bad", &[], ""), [11]);
    assert_eq!(ids(&rules, "/?aim=1&yes=bad", &[], ""), [11]);
    assert_eq!(ids(&rules, "/?aim=1&z=bad", &[], ""), [10, 11]);

    let whole = rules.exclusion(&Selection { rules: vec![11], ..Selection::default() }).unwrap();
    let part =
        Selection { tags: vec!["attack".into()], target: Some("ARGS:x".into()), ..Selection::default() };
    let part = rules.exclusion(&part).unwrap();
    let mut transaction = begin(&rules, "/?x=bad", &[]);
    transaction.exclude(&whole);
    transaction.exclude(&part);
    transaction.phase1();
    transaction.phase2();
    assert!(transaction.matches().is_empty());
    assert!(rules.exclusion(&Selection { rules: vec![99], ..Selection::default() }).is_err());
}

#[test]
fn captures_names_and_matched_variables_reach_later_links() {
    let rules = rules(
        r#"
SecRule REQUEST_HEADERS:Range "@rx (\d+)-(\d+)" "id:1,phase:1,pass,capture,log,logdata:'%{TX.1} %{TX.2}',chain"
  SecRule TX:2 "@lt %{tx.1}"
SecRule ARGS "@rx ^b" "id:2,phase:2,pass,log,chain"
  SecRule MATCHED_VARS "@rx z$" "chain"
  SecRule MATCHED_VARS_NAMES "@rx :n$" "logdata:'x'"
SecRule REQUEST_HEADERS_NAMES "@rx ^x-.*$" "id:3,phase:1,capture,t:lowercase,pass,log,setvar:'tx.seen_%{tx.0}=/%{tx.0}/',chain"
  SecRule TX:/^SEEN_/ "@within /x-a/ /x-b/"
"#,
    );
    assert_eq!(ids(&rules, "/", &[("Range", "bytes=9-5")], ""), [1]);
    assert_eq!(ids(&rules, "/", &[("Range", "bytes=5-9")], ""), []);
    assert_eq!(ids(&rules, "/?n=bz", &[], ""), [2]);
    assert_eq!(ids(&rules, "/?n=b&m=z", &[], ""), []);
    assert_eq!(ids(&rules, "/", &[("X-B", "1")], ""), [3]);
    assert_eq!(ids(&rules, "/", &[("X-C", "1")], ""), []);
}

#[test]
fn bodies_are_taken_apart_by_their_type() {
    let rules = Arc::new(
        Rules::load(
            &[
                Source::base(),
                Source::new(
                    "t",
                    r#"
SecRule ARGS_POST:a "@streq 1" "id:1,phase:2,pass,log"
SecRule ARGS:json.a.b "@streq 1" "id:2,phase:2,pass,log"
SecRule XML:/* "@contains hello" "id:3,phase:2,pass,log"
SecRule FILES "@streq x.php" "id:4,phase:2,pass,log"
SecRule REQUEST_BODY "@contains a=1" "id:5,phase:2,pass,log"
SecRule &ARGS "@eq 3" "id:6,phase:2,pass,log"
"#,
                ),
            ],
            &(),
            &Options::default(),
        )
        .unwrap(),
    );
    let of = |kind: &str, body: &str| ids(&rules, "/", &[("Content-Type", kind)], body);
    assert_eq!(of("application/x-www-form-urlencoded", "a=1&b=2&c=%33"), [1, 5, 6]);
    assert_eq!(of("application/json", r#"{"a":{"b":1}}"#), [2]);
    assert_eq!(of("application/xml", "<a>hello</a>"), [3]);
    let parts =
        "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x.php\"\r\n\r\n<?\r\n--b--\r\n";
    assert_eq!(of("multipart/form-data; boundary=b", parts), [4]);
    assert_eq!(of("application/json", r#"{"a":"#), [4_600_012]);
}

#[test]
fn counters_are_kept_between_requests_of_one_client() {
    let rules = rules(
        r#"
SecAction "id:1,phase:1,pass,nolog,initcol:ip=%{REMOTE_ADDR}"
SecAction "id:2,phase:1,pass,nolog,setvar:ip.count=+1"
SecRule IP:count "@gt 2" "id:3,phase:1,deny,status:429"
"#,
    );
    assert_eq!(ids(&rules, "/", &[], ""), []);
    assert_eq!(ids(&rules, "/", &[], ""), []);
    assert_eq!(ids(&rules, "/", &[], ""), [3]);
}

#[test]
fn mistakes_are_told_with_their_place_all_at_once() {
    let text = "SecRule ARGS \"@rx a\" \"id:1,phase:2,pass\"\nSecRule BRGS \"@rx a\" \\\n  \"id:2\"\n\nSecRul ARGS x\nSecAction \"id:1,pass\"\nSecRule ARGS \"@rx (\" \"id:5\"\n";
    let errors = Rules::load(&[Source::new("bad.conf", text)], &(), &Options::default()).unwrap_err();
    let told: Vec<String> = errors.iter().map(|error| format!("{}:{}", error.line, error.column)).collect();
    assert_eq!(told, ["2:9", "5:1", "6:1", "7:15"], "{errors:#?}");
}

#[test]
fn settings_without_effect_are_said() {
    let rules = rules("SecAuditEngine RelevantOnly\nSecPcreMatchLimit 1000\nSecRuleEngine DetectionOnly\n");
    assert_eq!(rules.warnings().len(), 2);
    assert_eq!(Transaction::new(&rules, Scratch::default()).mode(), Mode::Observe);
}

#[test]
fn multi_match_looks_after_every_transformation() {
    let rules = rules(
        r#"SecRule ARGS "@rx ^%61$|^a$" "id:1,phase:2,pass,log,multiMatch,t:none,t:urlDecodeUni,setvar:tx.n=+1"
SecRule TX:n "@eq 2" "id:2,phase:2,pass,log""#,
    );
    assert_eq!(ids(&rules, "/?x=%2561", &[], ""), [1, 2]);
}

#[test]
fn what_one_rule_captured_is_not_taken_for_what_another_did() {
    let rules = rules(
        r#"
SecRule ARGS "@detectSQLi" "id:1,phase:2,pass,log,capture,logdata:'%{TX.0}'"
SecRule ARGS "@rx ^(.)." "id:2,phase:2,pass,log,capture,logdata:'%{TX.0} %{TX.1}'"
SecRule ARGS "@rx ^." "id:3,phase:2,pass,log,capture,logdata:'%{TX.0}%{TX.1}'"
"#,
    );
    let mut transaction = begin(&rules, "/?a=1%27+or+1%3D1--", &[]);
    transaction.phase1();
    transaction.phase2();
    let data: Vec<&str> = transaction.matches().iter().map(|found| found.data.as_str()).collect();
    assert_eq!(data[1..], ["1' 1", "1"]);
}

#[test]
fn block_means_what_the_default_action_of_the_phase_says() {
    let text = |default: &str| {
        format!(
            "SecDefaultAction \"phase:2,log,{default}\"\nSecRule ARGS \"@contains bad\" \"id:1,phase:2,block,t:none\"\n"
        )
    };
    for (default, status) in [("deny,status:451", Some(451)), ("pass", None), ("drop", Some(403))] {
        let rules = rules(&text(default));
        let mut transaction = begin(&rules, "/?a=bad", &[]);
        transaction.phase1();
        transaction.phase2();
        assert_eq!(transaction.interruption().map(|stop| stop.status), status, "{default}");
        assert_eq!(transaction.matches().len(), 1);
    }
}

#[test]
fn actions_and_targets_of_rules_elsewhere_are_changed_before_or_after_them() {
    let rules = rules(
        r#"
SecRuleUpdateActionById 1 "deny,status:410,msg:'Changed'"
SecRule ARGS "@contains bad" "id:1,phase:2,pass,log,msg:'Was',tag:'a'"
SecRule ARGS:x "@contains bad" "id:2,phase:2,pass,log,msg:'Two',tag:'b'"
SecRule ARGS "@contains bad" "id:3,phase:2,pass,log,tag:'c'"
SecRuleUpdateTargetByTag "b" "ARGS:y"
SecRuleUpdateTargetByMsg "Two" "!ARGS:x"
SecRuleRemoveByTag "c"
"#,
    );
    let mut transaction = begin(&rules, "/?x=bad", &[]);
    transaction.set_mode(Mode::Observe);
    transaction.phase1();
    transaction.phase2();
    assert_eq!(transaction.interruption().map(|stop| stop.status), Some(410));
    assert_eq!(transaction.matches()[0].message, "Changed");
    assert_eq!(transaction.matches().len(), 1);
    let mut transaction = begin(&rules, "/?y=bad", &[]);
    transaction.set_mode(Mode::Observe);
    transaction.phase1();
    transaction.phase2();
    assert_eq!(transaction.matches().iter().map(|found| found.rule.id).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn allow_ends_what_it_names_and_redirects_carry_no_line_breaks() {
    let rules = rules(
        r#"
SecRule ARGS:go "@streq all" "id:1,phase:1,allow,nolog"
SecRule ARGS:go "@streq phase" "id:2,phase:1,allow:phase,nolog"
SecAction "id:3,phase:1,pass,log"
SecRule ARGS:to "@rx ." "id:4,phase:2,redirect:'https://clinic.example/%{ARGS.to}'"
"#,
    );
    assert_eq!(ids(&rules, "/?go=all&to=x", &[], ""), []);
    assert_eq!(ids(&rules, "/?go=phase", &[], ""), []);
    let mut transaction = begin(&rules, "/?to=a%0d%0aSet-Cookie:+x", &[]);
    assert_eq!(transaction.phase1(), Verdict::Pass);
    let Verdict::Stop(stop) = transaction.phase2() else { panic!("it passes") };
    assert_eq!(
        (stop.status, stop.action),
        (302, Stop::Redirect("https://clinic.example/aSet-Cookie: x".into()))
    );
}

#[test]
fn files_that_rules_name_and_include_come_from_the_caller() {
    let files = std::collections::HashMap::from([
        (
            "more.conf".to_owned(),
            b"SecRule ARGS \"@pmFromFile words.data\" \"id:2,phase:2,pass,log\"\nInclude more.conf\n"
                .to_vec(),
        ),
        ("words.data".to_owned(), b"# words\nwicked\n".to_vec()),
    ]);
    let load = |text: &str| Rules::load(&[Source::new("main.conf", text)], &files, &Options::default());
    let errors = load("Include more.conf\n").unwrap_err();
    assert!(errors.iter().any(|error| error.text.contains("does a file include itself")), "{errors:?}");
    let missing = load("Include none.conf\nIncludeOptional none.conf\n").unwrap_err();
    assert_eq!((missing.len(), missing[0].line), (1, 1));
    let rules =
        Arc::new(load("SecRule ARGS \"@pmFromFile words.data\" \"id:2,phase:2,pass,log\"\n").unwrap());
    assert_eq!(ids(&rules, "/?a=so+wicked", &[], ""), [2]);
}

#[test]
fn time_per_rule_is_counted_when_asked_for() {
    let rules = rules("SecRule ARGS \"@rx a+b\" \"id:1,phase:2,pass,log\"\n");
    let mut transaction = begin(&rules, "/?x=aab", &[]);
    transaction.set_profile(true);
    transaction.phase1();
    transaction.phase2();
    assert!(transaction.costs().iter().any(|cost| cost.rule == 1 && cost.evaluations == 1));
    let mut transaction = Transaction::new(&rules, transaction.into_scratch());
    transaction.phase1();
    assert!(transaction.costs().is_empty());
}

#[test]
fn what_there_is_no_room_to_look_at_does_not_pass_as_if_it_were() {
    let text = r#"SecRule ARGS|REQUEST_COOKIES "@contains union" "id:1,phase:2,deny""#;
    let sources = [Source::base(), Source::new("test.conf", text)];
    let rules = Arc::new(Rules::load(&sources, &(), &Options::default()).unwrap());
    let stopped = |uri: &str, headers: &[(&str, &str)], body: &str| {
        let mut transaction = begin(&rules, uri, headers);
        let head = transaction.phase1();
        transaction.request_body(body.as_bytes());
        let body = transaction.phase2();
        [head, body].iter().any(|verdict| matches!(verdict, Verdict::Stop(_)))
    };
    assert!(!stopped("/?a=1&b=2", &[("Cookie", "c=3; d=4")], ""));
    assert!(stopped(&format!("/?{}id=union", "&".repeat(5000)), &[], ""));
    assert!(stopped("/", &[("Cookie", &format!("{}x=union", "a;".repeat(5000)))], ""));
    // A few bytes of JSON may name each of many values by its whole way.
    let wide = format!("{{\"{}\":[{}0]}}", "k".repeat(4000), "0,".repeat(3000));
    assert!(stopped("/", &[("Content-Type", "application/json")], &wide));
    assert!(!stopped("/", &[("Content-Type", "application/json")], "{\"k\":[0,1]}"));
    for kind in ["text/json", "application/a_b+json; charset=utf-8"] {
        assert!(stopped("/", &[("Content-Type", kind)], "{\"k\":\"union\"}"), "{kind}");
    }
}
