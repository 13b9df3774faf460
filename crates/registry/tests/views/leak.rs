//! Nobody learns of what it may not call: no name, no count, no change.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng};
use ringfence_registry::View;
use ringfence_registry::consul::{Query, read};
use ringfence_registry::dns::{Outcome, Transport, answer};

use super::{CLINIC, ask, question, registry, snapshot, view};

/// What `portal` may not know of.
const HIDDEN: [&str; 2] = ["vault", "xylophone-archive"];
const FORMS: [&str; 9] = [
    "{}",
    "{}.clinic.example",
    "{}.service.consul",
    "{}.service.dc1.consul",
    "_{}._tcp.service.consul",
    "_http._tcp.{}",
    "a.{}.service.consul",
    "_80._tcp.{}.clinic.example",
    "{}.node.consul",
];
const PATHS: [&str; 9] = [
    "/v1/catalog/service/{}",
    "/v1/health/service/{}",
    "/v1/health/checks/{}",
    "/v1/catalog/node/{}",
    "/v1/catalog/services",
    "/v1/health/state/any",
    "/v1/catalog/nodes",
    "/v1/agent/services",
    "/v1/health/node/node1",
];

/// Without the question, which is the asker's own.
fn without_question(message: &[u8], name: &str) -> Vec<u8> {
    let end = 12 + question(name, 1, None).len() - 12;
    [&message[..12], &message[end..]].concat()
}

#[test]
fn what_may_not_be_called_is_answered_like_what_does_not_exist() {
    let registry = registry(CLINIC);
    let portal = view(&registry, "portal");
    for form in FORMS {
        for kind in [1, 28, 33, 16, 255] {
            let names = ["vault", "quilt"].map(|name| form.replace("{}", name));
            let [hidden, absent] =
                names.each_ref().map(|name| without_question(&ask(&portal, name, kind), name));
            assert_eq!(hidden, absent, "{form} {kind}");
        }
    }
    for path in PATHS {
        let [hidden, absent] =
            ["vault", "quilt"].map(|name| read(&portal, &path.replace("{}", name), &Query::default()));
        assert_eq!(hidden, absent, "{path}");
    }
}

#[test]
fn what_happens_to_others_moves_no_index() {
    let registry = registry(CLINIC);
    let index = |caller: &str| view(&registry, caller).index;
    let (portal, ledger) = (index("portal"), index("ledger"));
    registry.ready("vault", false);
    registry.ready("xylophone-archive", false);
    let more = format!("{CLINIC}  zither: {{ listen: 9005, calls: [vault] }}\n");
    registry.follow(&snapshot(&more), "node1");
    assert_eq!(index("portal"), portal);
    assert_eq!(index("ledger"), ledger + 1, "whom it concerns is told");
    registry.gone("vault");
    assert_eq!(index("portal"), portal);
    registry.ready("records", false);
    assert_eq!(index("portal"), portal + 1);
}

#[test]
fn an_edge_that_is_removed_takes_the_name_with_it() {
    let registry = registry(CLINIC);
    registry.follow(&snapshot(&CLINIC.replace("calls: [records, ledger]", "calls: [records]")), "node1");
    let portal = view(&registry, "portal");
    assert!(portal.entry("ledger").is_none());
    let body = read(&portal, "/v1/catalog/services", &Query::default()).body;
    assert_eq!(body, r#"{"portal":[],"records":[]}"#);
}

/// One random question; whatever it is, no hidden name and no hidden address is in what is answered, beyond the question itself.
fn ask_at_random(view: &View, random: &mut TestRng, out: &mut Vec<u8>) {
    let pick = |random: &mut TestRng, of: usize| random.next_u32() as usize % of;
    let hidden = HIDDEN[pick(random, HIDDEN.len())];
    let known = ["records", "ledger", "portal", "quilt", "", "vaul", "vault2"];
    let name = if random.next_u32() & 1 == 0 { hidden } else { known[pick(random, known.len())] };
    if random.next_u32().is_multiple_of(8) {
        let path = PATHS[pick(random, PATHS.len())].replace("{}", name);
        let text = ["", "passing", "index=1&wait=1s", "tag=a", "dc=dc1", "near=_agent"][pick(random, 6)];
        let reply = read(view, &path, &Query::parse(text).unwrap());
        assert!(HIDDEN.iter().all(|hidden| !reply.body.contains(hidden)), "{path}: {}", reply.body);
        assert!(
            !reply.body.contains("198.18.1.4") && !reply.body.contains("198.18.1.5"),
            "{path}: {}",
            reply.body
        );
        return;
    }
    let cased: String = FORMS[pick(random, FORMS.len())]
        .replace("{}", name)
        .chars()
        .map(|c| if random.next_u32() & 1 == 0 { c.to_ascii_uppercase() } else { c })
        .collect();
    let kinds = [1, 28, 33, 255, 2, 5, 6, 12, 15, 16, random.next_u32() as u16];
    let message = question(&cased, kinds[pick(random, kinds.len())], None);
    let answered = answer(Some(view), &message, Transport::Udp, out).unwrap();
    let records = &out[message.len().min(out.len())..];
    let lower = records.to_ascii_lowercase();
    for hidden in HIDDEN {
        assert!(!lower.windows(hidden.len()).any(|w| w == hidden.as_bytes()), "{cased}");
    }
    assert!(!records.windows(4).any(|w| w == [198, 18, 1, 4] || w == [198, 18, 1, 5]), "{cased}");
    if name == hidden {
        assert_eq!((answered.outcome, out[3] & 0x0f, records.len()), (Outcome::Unknown, 3, 0), "{cased}");
    }
}

fn ask_many(random: &mut TestRng, many: u32) {
    let registry = registry(CLINIC);
    let portal = view(&registry, "portal");
    // Their addresses are the ones that are looked for.
    let numbers = snapshot(CLINIC).services.iter().map(|s| (s.name.clone(), s.address)).collect::<Vec<_>>();
    assert!(numbers.contains(&("vault".into(), 4)) && numbers.contains(&("xylophone-archive".into(), 5)));
    let mut out = Vec::new();
    for _ in 0..many {
        ask_at_random(&portal, random, &mut out);
    }
}

/// `cargo xtask soak discovery` asks for longer; RINGFENCE_SOAK_SECONDS says how long.
#[expect(clippy::disallowed_methods, reason = "the one place here that reads the environment")]
fn seconds() -> u64 {
    std::env::var("RINGFENCE_SOAK_SECONDS").map_or(0, |text| text.parse().unwrap())
}

#[test]
fn random_questions_find_no_hidden_name() {
    let end = Instant::now() + Duration::from_secs(seconds());
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut asked = 0;
    while asked == 0 || Instant::now() < end {
        ask_many(&mut random, 50_000);
        asked += 50_000;
    }
    println!("{asked} questions, no hidden name");
}

proptest! {
    #![proptest_config(Config::with_cases(64))]
    /// The law behind all of it: services and edges that do not concern a caller change not one byte of what it is told.
    #[test]
    fn a_view_is_a_function_of_the_callers_own_edges(extra in "[a-z]{3,12}", calls in proptest::bool::ANY) {
        prop_assume!(!["portal", "records", "ledger", "vault"].contains(&&*extra));
        let calls = if calls { "calls: [records]" } else { "calls: []" };
        let more = format!("{CLINIC}  {extra}: {{ listen: 9005, {calls} }}\n");
        let (before, after) = (registry(CLINIC), registry(&more));
        let (before, after) = (view(&before, "portal"), view(&after, "portal"));
        for path in PATHS {
            let path = path.replace("{}", &extra);
            prop_assert_eq!(read(&before, &path, &Query::default()).body.replace(&extra, ""),
                read(&after, &path, &Query::default()).body.replace(&extra, ""));
        }
        for form in FORMS {
            let name = form.replace("{}", &extra);
            prop_assert_eq!(ask(&before, &name, 1), ask(&after, &name, 1));
        }
    }
}
