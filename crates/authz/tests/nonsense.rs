//! Whatever stands in policies, data, tables and requests: an answer or an error, never a panic, and no order to a terminal.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::sync::LazyLock;
use std::time::SystemTime;

use proptest::prelude::*;
use ringfence_authz::authzen::{EvaluationRequest, EvaluationsRequest};
use ringfence_authz::{Engine, Principal, Question, Sources, Table};
use ringfence_model::{Diagnostics, Fence, SourceFile};

static FENCE: LazyLock<Fence> = LazyLock::new(|| {
    let text = "fence: f\ntrust_domain: f.example\nservices:\n  \
        a: { listen: 1, calls: [{ service: b, allow: [{ paths: ['/x/{id}', '/**'] }] }] }\n  b: { listen: 2 }\n";
    Fence::parse(vec![("ringfence.yaml", text)]).unwrap()
});

fn engine(policies: &str, data: Option<&[u8]>) -> Result<Engine, Diagnostics> {
    let policies = vec![SourceFile { name: "p.cedar".into(), owner: None, text: policies.into() }];
    Engine::new(&FENCE, &Sources { policies, entities: data.map(|data| ("e.json".into(), data.into())) })
}

fn check(found: &Diagnostics) -> Result<(), TestCaseError> {
    let shown = found.render(false);
    prop_assert!(!found.is_valid() && found.errors.len() <= 100);
    prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{:?}", shown);
    Ok(())
}

/// Words of the language in any order, and some of none.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => proptest::sample::select(vec![
            "permit", "forbid", "(", ")", "principal", ",", "action", "resource", ";", "when", "unless", "{", "}", "in", "is",
            "==", "&&", "||", "!", ".", "has", "like", "[", "]", "::", "Action", "\"GET\"", "Service", "\"a\"", "context", "if",
            "then", "else", "path", "id", "@id", "@mode", "(\"x\")", "1", "true", "ip", "\"\\u{202e}\"", "?principal", "//", "\n",
            "permit(principal, action, resource);", "permit(principal, action, resource) when {",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(|c| c.to_string()),
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.join(" "))
}

fn json() -> impl Strategy<Value = String> {
    let part = proptest::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"uid\"",
        "\"type\"",
        "\"id\"",
        "\"User\"",
        "\"p/u\"",
        "\"attrs\"",
        "\"parents\"",
        "1",
        "null",
        "\"__entity\"",
        "\"__extn\"",
        "\"fn\"",
        "\"ip\"",
        "\"subject\"",
        "\"action\"",
        "\"resource\"",
        "\"evaluations\"",
        "[{\"uid\":{\"type\":\"User\",\"id\":\"p/u\"},\"attrs\":{\"x\":",
        "}}]",
        "{\"uid\":{\"type\":\"Group\",\"id\":\"p/g\"}}",
        "{\"subject\":{\"type\":\"user\",\"id\":\"p/u\"},\"action\":{\"name\":\"GET\"},\"resource\":{\"type\":\"path\",\"id\":\"b/x/1\"}",
    ]);
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_policies_are_read_or_refused(text in words()) {
        match engine(&text, None) {
            Ok(engine) => {
                let question = Question::new(Principal::user("p", "u"), "GET", "b", "/x/1").through("a");
                let explained = engine.explain(&question, SystemTime::UNIX_EPOCH);
                prop_assert!(!explained.decision.allowed || !explained.decision.determining.is_empty());
                prop_assert!(!explained.to_string().chars().any(|c| c.is_control() && c != '\n'));
            }
            Err(found) => check(&found)?,
        }
    }

    #[test]
    fn any_data_is_read_or_refused(text in json()) {
        if let Err(found) = engine("", Some(text.as_bytes())) {
            check(&found)?;
        }
    }

    #[test]
    fn any_bytes_are_a_table_or_a_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in json()) {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Err(found) = Table::parse("t.yaml", &String::from_utf8_lossy(bytes)) {
                check(&found)?;
            }
            let _ = EvaluationsRequest::parse(bytes);
            if let Ok(request) = EvaluationRequest::parse(bytes)
                && let Ok(question) = request.question()
            {
                prop_assert!(question.path.starts_with('/') && !question.path.contains(".."));
            }
        }
    }
}
