//! Any bytes as policies, entity data and a request: never a panic, and no decision without a policy.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use ringfence_authz::authzen::{EvaluationRequest, EvaluationsRequest};
use ringfence_authz::{Engine, Sources, Table};
use ringfence_model::{Fence, SourceFile};

static FENCE: LazyLock<Fence> = LazyLock::new(|| {
    let text = "fence: f\ntrust_domain: f.example\nservices:\n  \
        a: { listen: 1, calls: [{ service: b, allow: [{ paths: ['/x/{id}', '/**'] }] }] }\n  b: { listen: 2 }\n";
    Fence::parse(vec![("ringfence.yaml", text)]).expect("a valid fence")
});

fuzz_target!(|bytes: &[u8]| {
    // A zero byte divides policies, data and request.
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let (policies, data, request) = (parts.next(), parts.next(), parts.next());
    let text = String::from_utf8_lossy(policies.unwrap_or_default()).into_owned();
    let _ = Table::parse("table.yaml", &text);
    let policies = vec![SourceFile { name: "p.cedar".into(), owner: None, text: text.into() }];
    let entities = data.filter(|data| !data.is_empty()).map(|data| ("e.json".into(), data.into()));
    let engine = match Engine::new(&FENCE, &Sources { policies, entities }) {
        Ok(engine) => engine,
        Err(found) => {
            assert!(!found.is_valid() && found.errors.len() <= 100);
            let shown = found.render(false);
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            return;
        }
    };
    let request = request.unwrap_or(br#"{"subject":{"type":"user","id":"p/u"},"action":{"name":"GET"},"resource":{"type":"path","id":"b/x/1"}}"#);
    let now = SystemTime::UNIX_EPOCH;
    let _ = EvaluationsRequest::parse(request).map(|all| engine.evaluate_all(&all, None, now));
    let Ok(Ok(question)) = EvaluationRequest::parse(request).map(|request| request.question()) else { return };
    let decision = engine.answer(&question, now);
    assert!(!decision.allowed || !decision.determining.is_empty());
    let explained = engine.explain(&question, now);
    assert_eq!(explained.decision, decision);
    assert!(engine.diff(&engine, &[question], now).changes.is_empty());
});
