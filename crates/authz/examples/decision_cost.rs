//! What a decision costs: `cargo run --release -p ringfence-authz --example decision_cost`.
//!
//! Policies of the kind a fence has: each for one group, one service and two conditions, and one forbid for all. A user in
//! ten groups asks; half of the requests are allowed. "decide" has the actor prepared, as the data plane has it for a
//! verified token, and builds the context; "scan" is Cedar's own authorizer over all policies.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use cedar_policy_core::ast::{Context, Eid, EntityType, EntityUID, RequestSchemaAllPass};
use cedar_policy_core::authorizer::Authorizer;
use cedar_policy_core::entities::Entities;
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::parser::parse_policyset;
use ringfence_authz::{Engine, Principal, Request, Sources};
use ringfence_model::{Fence, SourceFile};

const SERVICES: usize = 20;
const DECISIONS: usize = 20_000;

fn main() {
    println!("policies  load ms  actor us  decide p50/p99 us  scan p50 us");
    for count in [10, 100, 1_000, 10_000] {
        measure(count);
    }
}

fn measure(count: usize) {
    let fence = fence();
    let text = policies(count);
    let file = SourceFile { name: "policies.cedar".into(), owner: None, text: text.as_str().into() };
    let begun = Instant::now();
    let engine = match Engine::new(&fence, &Sources { policies: vec![file], entities: None }) {
        Ok(engine) => engine,
        Err(problems) => {
            eprintln!("{problems}");
            std::process::exit(2);
        }
    };
    let load = begun.elapsed();
    let groups: Vec<String> = (0..10).map(|at| format!("g{}", at * count / 10 + at)).collect();
    let scopes = vec!["read".to_owned(), "openid".to_owned()];
    let principal = Principal { groups, scopes, ..Principal::user("staff", "alice") };
    let begun = Instant::now();
    for _ in 0..100 {
        std::hint::black_box(engine.actor(&principal));
    }
    let prepare = begun.elapsed() / 100;
    let actor = engine.actor(&principal);
    let names: Vec<String> = (0..SERVICES).map(|at| format!("s{at}")).collect();
    let mut times = Vec::with_capacity(DECISIONS);
    let mut allowed = 0;
    for at in 0..DECISIONS {
        let request = Request {
            caller: "portal",
            chain: &["portal"],
            service: &names[at % SERVICES],
            method: "GET",
            path: "/items/7",
            host: "clinic.example",
            source: Some(IpAddr::from([10, 0, 0, 7])),
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        let begun = Instant::now();
        let decision = std::hint::black_box(engine.decide(&actor, &request));
        times.push(begun.elapsed());
        allowed += usize::from(decision.allowed);
    }
    times.sort_unstable();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{count:>8}  {:>7.1}  {:>8.2}  {:>8.2} / {:<8.2} {:>10.1}   ({allowed} of {DECISIONS} allowed)",
        load.as_secs_f64() * 1e3,
        us(prepare),
        us(times[DECISIONS / 2]),
        us(times[DECISIONS * 99 / 100]),
        us(scan(&text)),
    );
}

/// The same policies, asked one by one by somebody who has nothing.
fn scan(text: &str) -> Duration {
    let Ok(set) = parse_policyset(text) else { return Duration::ZERO };
    let uid = |kind: &str, id: &str| {
        let kind = EntityType::from_normalized_str(kind).expect("a type's name");
        (EntityUID::from_components(kind, Eid::new(id), None), None)
    };
    let request = cedar_policy_core::ast::Request::new(
        uid("User", "staff/alice"),
        uid("Action", "GET"),
        uid("Service", "s1"),
        Context::empty(),
        None::<&RequestSchemaAllPass>,
        Extensions::all_available(),
    )
    .expect("no schema to contradict");
    let authorizer = Authorizer::new();
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let begun = Instant::now();
            std::hint::black_box(authorizer.is_authorized(request.clone(), &set, &Entities::new()));
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn policies(count: usize) -> String {
    let mut text = String::new();
    for at in 0..count.saturating_sub(1) {
        let service = at % SERVICES;
        let _ = writeln!(
            text,
            "permit(principal in Group::\"staff/g{at}\", action == Action::\"GET\", resource in Service::\"s{service}\")\n\
             when {{ context.chain.contains(Service::\"portal\") && context.scopes.contains(\"read\") }};"
        );
    }
    text.push_str("forbid(principal, action, resource) when { context.scopes.contains(\"revoked\") };\n");
    text
}

fn fence() -> Fence {
    let mut text = "fence: cost\ntrust_domain: cost.example\nproviders:\n  \
        staff: { issuer: https://id.cost.example, audiences: [cost] }\nservices:\n  \
        portal:\n    listen: 8000\n    calls:\n"
        .to_owned();
    for at in 0..SERVICES {
        let _ = writeln!(text, "      - {{ service: s{at}, allow: [{{ paths: ['/items/{{id}}'] }}] }}");
    }
    for at in 0..SERVICES {
        let _ = writeln!(text, "  s{at}: {{ listen: {} }}", 8001 + at);
    }
    match Fence::parse(vec![("ringfence.yaml", text)]) {
        Ok(fence) => fence,
        Err(problems) => {
            eprintln!("{problems}");
            std::process::exit(2);
        }
    }
}
