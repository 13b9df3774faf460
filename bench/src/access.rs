//! What access costs on one core, apart from any proxy: tokens, API keys, decisions, transaction tokens.
//!
//! What one crate does by itself, an example of that crate measures; what takes several of them is measured here.

use std::fmt::Write;
use std::hint::black_box;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_authz::{Engine, Principal, PrincipalKind, Request, Sources};
use ringfence_keys::{Algorithm, SigningKey};
use ringfence_model::{Credential, Fence};
use ringfence_snapshot::{Identity, IdentityKind};
use ringfence_spiffe::TrustDomain;
use ringfence_token::{Check, KeySet, Possession, Profile, Revocations, TxnSpec, Verifier};

use crate::machine::{self, Cores};

/// Examples of other crates, each with what it is about.
const EXAMPLES: [(&str, &str, &str); 3] = [
    ("ringfence-token", "token_cost", "Tokens, and an API key among a million"),
    ("ringfence-authz", "decision_cost", "Decisions by policies"),
    ("ringfence-keeper", "mint_rate", "Transaction tokens by the keeper, which verifies what they stand for"),
];

const DOMAIN: &str = "bench.example";
const GATEWAY: &str = "spiffe://bench.example/gateway/bench";
const KEY: &str = "txn-1";
const TOKENS: usize = 5_000;
const POLICIES: usize = 10_000;
const SERVICES: usize = 20;
const ROUNDS: usize = 5;

/// All figures as text.
pub(crate) fn measure() -> io::Result<String> {
    let mut text = String::new();
    for (package, example, title) in EXAMPLES {
        eprintln!("bench: {title}");
        let said = run(package, example)?;
        line(
            &mut text,
            format_args!(
                "### {title}\n\n    cargo run --release -p {package} --example {example}\n\n```text\n{said}```\n"
            ),
        );
    }
    machine::pin(Cores::of_this_machine()?.proxy)?;
    eprintln!("bench: transaction tokens");
    line(&mut text, format_args!("### Transaction tokens at the callee\n\n{}", transaction_tokens()?));
    Ok(text)
}

/// `text` in `bench/RESULTS.md`.
pub(crate) fn markdown(text: &str, facts: &str) -> String {
    format!(
        "## What access costs\n\n    cargo xtask bench -- access --write\n\nOn one core each, without any proxy; for the proxy with all of \
         it see the case `token` of the comparison. {facts}\n\n{text}"
    )
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("invariant: writing to a string does not fail");
    text.push('\n');
}

fn run(package: &str, example: &str) -> io::Result<String> {
    let mut command = Command::new("cargo");
    command
        .args(["run", "--release", "--quiet", "--package", package, "--example", example])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

/// What a callee's sidecar does with a request's transaction token: verify it, see who it is, judge by ten thousand policies. Anew for each
/// token, as when every request had one of its own; and remembered, as within a chain.
fn transaction_tokens() -> io::Result<String> {
    let key = SigningKey::generate(Algorithm::Ed25519).map_err(io::Error::other)?;
    let domain = TrustDomain::new(DOMAIN).map_err(io::Error::other)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
    let keys = KeySet::from_keys([(KEY.to_owned(), key.verifying_key().clone())]);
    let tokens = (0..TOKENS).map(|user| token(&key, &domain, user, now)).collect::<io::Result<Vec<_>>>()?;
    let engine = engine()?;
    let profile = Profile::txn_token(&domain);
    let revocations = Revocations::new(1024);
    let check = Check {
        profile: &profile,
        keys: &keys,
        revocations: &revocations,
        possession: Possession::NONE,
        now,
    };
    let services: Vec<String> = (0..SERVICES).map(|at| format!("s{at}")).collect();
    let [mut anew, mut remembered] = [(f64::INFINITY, f64::INFINITY); 2];
    for _ in 0..ROUNDS {
        let mut verifier = Verifier::new(16_384);
        let mut actors = Vec::with_capacity(TOKENS);
        for best in [&mut anew, &mut remembered] {
            let mut times = Vec::with_capacity(TOKENS);
            for (at, token) in tokens.iter().enumerate() {
                let begun = Instant::now();
                let verified = verifier.verify(token, &check).map_err(io::Error::other)?;
                // Prepared once for a token, as the data plane does it.
                if actors.len() <= at {
                    let identity = Identity::of_transaction(&verified).map_err(io::Error::other)?;
                    actors.push(engine.actor(&principal(identity)));
                }
                let decision = engine.decide(
                    &actors[at],
                    &Request {
                        caller: "portal",
                        chain: &["portal"],
                        service: &services[at % SERVICES],
                        method: "GET",
                        path: "/items/7",
                        host: "s1",
                        source: None,
                        time: UNIX_EPOCH + Duration::from_secs(now),
                    },
                );
                times.push(begun.elapsed());
                if !black_box(decision).allowed {
                    return Err(io::Error::other("a policy that was to allow denied"));
                }
            }
            times.sort_unstable();
            let at = |share: usize| times[TOKENS * share / 100].as_secs_f64() * 1e6;
            *best = (best.0.min(at(50)), best.1.min(at(99)));
        }
    }
    let mut text = String::from("| | p50 µs | p99 µs |\n|---|---:|---:|\n");
    for (name, (p50, p99)) in [("verified anew", anew), ("remembered", remembered)] {
        line(&mut text, format_args!("| {name}, with the policies' decision | {p50:.1} | {p99:.1} |"));
    }
    line(
        &mut text,
        format_args!(
            "\n{TOKENS} tokens (EdDSA) of as many users, {POLICIES} policies, wall time of one thread, the best of {ROUNDS} rounds: whatever \
             else runs on the machine can only make a round slower."
        ),
    );
    Ok(text)
}

fn principal(identity: Identity) -> Principal {
    Principal {
        kind: match identity.kind {
            IdentityKind::User => PrincipalKind::User,
            IdentityKind::Client => PrincipalKind::Client,
            IdentityKind::Service => PrincipalKind::Service,
        },
        provider: identity.provider,
        id: identity.id,
        client: identity.client,
        groups: identity.groups,
        scopes: identity.scopes,
        acr: identity.acr,
        auth_time: identity.auth_time,
    }
}

fn token(key: &SigningKey, domain: &TrustDomain, user: usize, now: u64) -> io::Result<String> {
    // One policy allows it at the service that is asked, among ten thousand.
    let groups = vec![format!("g{user}"), "ward-7".to_owned()];
    let scopes = vec!["read".to_owned(), "openid".to_owned()];
    let identity = Identity {
        kind: IdentityKind::User,
        groups,
        ..Identity::client("staff", &format!("u{user}"), scopes)
    };
    let spec = TxnSpec {
        trust_domain: domain,
        transaction: "0198f0a2-7c1e-7000-8000-000000000000",
        subject: &identity.id,
        scope: "read openid",
        workload: GATEWAY,
        context: identity.to_context(&Credential::Token("staff".into())),
        request: serde_json::json!({ "ip": "192.0.2.7" }).as_object().cloned().unwrap_or_default(),
        origin: None,
        issued_at: now,
        expires_at: now + 120,
    };
    let sign = |input: &[u8]| key.sign(input).map_err(ringfence_token::TokenError::from);
    spec.sign(ringfence_token::Algorithm::EdDsa, KEY, sign).map_err(io::Error::other)
}

fn engine() -> io::Result<Engine> {
    let mut fence = format!(
        "fence: bench\ntrust_domain: {DOMAIN}\nproviders:\n  staff: {{ issuer: https://id.bench.example }}\nservices:\n  portal:\n    \
         listen: 8000\n    calls: [{}]\n",
        (0..SERVICES).map(|at| format!("s{at}")).collect::<Vec<_>>().join(", ")
    );
    for at in 0..SERVICES {
        line(&mut fence, format_args!("  s{at}: {{ listen: {} }}", 8001 + at));
    }
    let fence = Fence::parse(vec![("ringfence.yaml", fence)]).map_err(|e| io::Error::other(e.to_string()))?;
    let mut policies = String::new();
    for at in 0..POLICIES {
        let service = at % SERVICES;
        line(
            &mut policies,
            format_args!(
                "permit(principal in Group::\"staff/g{at}\", action == Action::\"GET\", resource in Service::\"s{service}\")\n\
                 when {{ context.chain.contains(Service::\"portal\") && context.scopes.contains(\"read\") }};"
            ),
        );
    }
    let sources = Sources::of_texts([("bench.cedar", policies.as_str())], None::<(&str, &str)>);
    Engine::new(&fence, &sources).map_err(|e| io::Error::other(e.to_string()))
}
