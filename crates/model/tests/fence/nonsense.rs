//! Whatever a file holds is read or refused, within bounds, at its place.

use std::time::Duration;

use proptest::prelude::*;
use ringfence_model::{Fence, Position};

use crate::{CLINIC, codes, parse, with_portal};

#[test]
fn input_beyond_its_bounds_is_refused_at_once() {
    let begun = worked().unwrap();
    for (text, code) in [
        ("[".repeat(1 << 20), ""),
        (format!("{}{}", "[".repeat(33), "]".repeat(33)), "too-deep"),
        (format!("{}x", "- ".repeat(33)), "too-deep"),
        ("{a: ".repeat(1 << 18), ""),
        ("- ".repeat(1 << 19), ""),
        ("?".repeat(1 << 20), ""),
        (format!("[{}]", "a,".repeat(1 << 19)), ""),
        ("x".repeat((1 << 20) + 1), "too-large"),
        ("\"".repeat(1 << 20), ""),
        (format!("a: &a {}", "b\n".repeat(100_000)), ""),
    ] {
        let found = codes(&text);
        assert!(!found.is_empty() && found.len() <= 100);
        assert!(code.is_empty() || found == [code], "{code}: {found:?}");
    }
    let many = (0..40_000).map(|n| format!("calls{n}: x\n")).collect::<String>();
    let diagnostics = parse(&many).unwrap_err();
    assert!(diagnostics.errors.len() == 100 && diagnostics.omitted > 39_000);
    let names: String =
        (0..9_000).map(|n| format!("  service-{n}: {{ calls: [servise-{n}, x{n}] }}\n")).collect();
    assert_eq!(codes(&format!("fence: t\ntrust_domain: t.example\nservices:\n{names}")).len(), 100);
    let took = worked().unwrap() - begun;
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// How long this thread has computed, whatever else the machine does.
fn worked() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(told.split(' ').next()?.parse().ok()?))
}

#[test]
fn hidden_characters_do_not_reach_the_terminal() {
    let shown = parse(&with_portal("\"a\\e[2J\\u202eb\": 1 # \u{202e}")).unwrap_err().to_string();
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    let long = parse(&with_portal(&format!("calls: [{} nobody]", "patients, ".repeat(5000))))
        .unwrap_err()
        .to_string();
    assert!(long.lines().all(|line| line.chars().count() < 200));
}

fn nearly_a_fence() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "fence",
        "trust_domain",
        "services",
        "external",
        "gateway",
        "limits",
        "listen",
        "calls",
        "allow",
        "paths",
        "egress",
        "waf",
        "exclude",
        "openapi",
        ": ",
        ":",
        "\n",
        "\n  ",
        "\n    ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "<<: *a",
        "!!str ",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "#",
        "? ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "\r\n",
        "é",
        "\u{2028}",
        "0",
        "80",
        "/a/*",
        "x.example",
        "a",
        "~",
        "\u{feff}",
        "\0",
    ]);
    prop::collection::vec(words, 0..120).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Fence::parse(vec![("a.yaml", bytes)]).map_err(|e| e.render(true));
    }

    #[test]
    fn no_text_near_to_a_fence_makes_it_panic(text in nearly_a_fence(), second in nearly_a_fence()) {
        let inside = format!("fence: t\ntrust_domain: t.example\nservices:\n  a:\n    {text}");
        for text in [text, second.clone(), inside] {
            let _ = Fence::parse(vec![("a.yaml", text.clone()), ("b.yaml", second.clone())]).map_err(|e| e.render(true));
            let _ = ringfence_model::import::from_texts(&[("compose.yaml".into(), text)], "t");
        }
    }

    #[test]
    fn a_damaged_clinic_is_a_fence_or_has_errors_that_lie_inside_it(at in 0usize..700, cut in 0usize..12, put in "[ -~\n]{0,6}") {
        let mut text = CLINIC.to_owned();
        let start = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
        let end = (start + cut).min(text.len());
        text.replace_range(start..end, &put);
        if let Err(diagnostics) = parse(&text) {
            prop_assert!(!diagnostics.errors.is_empty());
            let lines: Vec<&str> = text.split('\n').collect();
            for error in diagnostics.errors {
                let (line, column) = (error.position.line as usize, error.position.column as usize);
                prop_assert!(line >= 1 && line <= lines.len() + 1, "{}", error);
                let length = lines.get(line - 1).map_or(0, |l| l.chars().count());
                prop_assert!(column >= 1 && column <= length + 1, "{}", error);
            }
        }
    }

    #[test]
    fn every_name_stands_where_its_position_says(
        names in prop::collection::btree_set("[a-z][a-z0-9]{2,7}", 2..12),
        style in prop::collection::vec((0usize..3, 0usize..3, any::<bool>()), 12),
    ) {
        prop_assume!(!names.contains("outside") && !names.contains("gateway"));
        let names: Vec<String> = names.into_iter().collect();
        let mut text = String::from("fence: t\ntrust_domain: t.example # ünïcode\nservices:\n");
        for (at, name) in names.iter().enumerate() {
            let (blank, form, quoted) = style[at];
            text.push_str(&"\n".repeat(blank));
            let callee = &names[(at + 1) % names.len()];
            let callee = if quoted { format!("\"{callee}\"") } else { callee.clone() };
            match form {
                0 => text.push_str(&format!("  {name}:\n    env: {{ E: \"é→\" }}\n    listen: 1\n    calls:\n    -   {callee}\n")),
                1 => text.push_str(&format!("  {name}: {{ env: {{ E: é→ }}, listen: 1, calls: [ {callee} ] }}\n")),
                _ => text.push_str(&format!("  {name}:\r\n    listen: 1\r\n    calls:\r\n      - service: {callee}\r\n        allow: [{{ paths: [/é] }}]\r\n")),
            }
        }
        let fence = parse(&text).unwrap();
        let standing = |position: &Position| -> String {
            let line = text.split('\n').nth(position.line as usize - 1).unwrap();
            line.chars().skip(position.column as usize - 1).collect()
        };
        for service in &fence.services {
            prop_assert!(standing(&service.position).starts_with(&service.name));
            for call in &service.calls {
                prop_assert!(standing(&call.position).trim_start_matches('"').starts_with(&call.service));
                for allow in &call.allow {
                    let rule = standing(&allow.position);
                    prop_assert!(rule.starts_with("{ paths"), "{}", rule);
                }
            }
        }
    }
}
