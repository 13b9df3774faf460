//! The figures as tables, as JSON, and in `bench/RESULTS.md`.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::machine::Facts;
use crate::run::Outcome;

pub(crate) fn json(outcomes: &[Outcome], facts: &Facts) -> Value {
    json!({ "machine": facts, "cases": outcomes })
}

/// All cases, one table each.
pub(crate) fn text(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("invariant: writing to a string does not fail");
        text.push('\n');
    };
    for Outcome { case, rows } in outcomes {
        line(format_args!("### {}: {}\n", case.name(), case.title()));
        line(format_args!(
            "| | x {} | CPU µs/request | at {:.0}/s | requests/s | core used | p50 ms | p99 ms | p50 at {:.0}/s | p99 at {:.0}/s | added p99 | RSS MiB | RSS, 1,000 idle |",
            rows.first().map_or("–", |row| row.name.as_str()),
            case.rate(),
            case.rate(),
            case.rate()
        ));
        line(format_args!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"));
        for row in rows {
            line(format_args!(
                "| {} | **{:.2}** | {:.1} | {:.1} | {:.0} | {:.0} % | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.1} | {} |",
                row.name,
                row.cpu_ratio,
                row.cpu_us,
                row.cpu_us_at_rate,
                row.per_second,
                row.busy * 100.0,
                row.p50,
                row.p99,
                row.p50_at_rate,
                row.p99_at_rate,
                row.p99_added.map_or_else(|| "–".to_owned(), |added| format!("{added:.2}")),
                row.resident,
                row.resident_idle.map_or_else(|| "–".to_owned(), |mib| format!("{mib:.1}"))
            ));
        }
        line(format_args!(""));
    }
    text
}

/// CPU per request as ratios to the first of each case, all cases in one table.
fn summary(outcomes: &[Outcome]) -> String {
    let mut text = String::from("|");
    for outcome in outcomes {
        text += &format!(" | {}", outcome.case.name());
    }
    text += &format!(" |\n|---{}|\n", "|---:".repeat(outcomes.len()));
    let mut names: Vec<&String> = Vec::new();
    for row in outcomes.iter().flat_map(|outcome| &outcome.rows) {
        if !names.contains(&&row.name) {
            names.push(&row.name);
        }
    }
    for name in names {
        text += &format!("| {name}");
        for outcome in outcomes {
            let row = outcome.rows.iter().find(|row| row.name == *name);
            text += &row.map_or_else(|| " | –".to_owned(), |row| format!(" | {:.2}", row.cpu_ratio));
        }
        text += " |\n";
    }
    text
}

/// How it is measured.
const COMPARISON: &str = "One worker each, on a core of its own; load and upstream on others. All contenders of a case are up at once \
    and take turns, the order reversed every other round. 32 connections (handshake 16; h2 and grpc 8 with 16 \
    streams each), 1 KiB answers, the load resumes no session and offers X25519 only, certificates are P-256. \
    Contenders do what they can of the identity check: Envoy checks the SPIFFE ID on both hops; nginx and \
    haproxy cannot and check the authority, and behind also a DNS name. In the product no process has mutual TLS \
    on both hops: the gateway of `mtls` asks clients for no certificate (the same work per request, less per \
    connection) and checks the SPIFFE ID behind, the callee's side of `sidecar` checks it before, and speaks \
    plain text into the service's own network. Ringfence runs as in the product: routes, limits, framing guard, \
    events and metrics on. `envoy-same` is Envoy with a JSON line per request and a decision by identity, method \
    and path. `ringfence-mesh` is the whole way of the product in one process, gateway to sidecar to service: \
    one TLS hop more than the others do. Where `core used` is well below 100 %, the load or other work on the \
    machine was the bottleneck, and requests/s and latency at saturation are not the proxy's; CPU per request \
    suffers less, but busy neighbours change how many events are handled per wake-up: quote it from a quiet \
    machine.";
/// What is done in the case of tokens.
const TOKENS: &str = " In `token` each request shows one of 100 tokens (EdDSA): Envoy verifies it by its `jwt_authn` filter with \
    the token cache on, and judges method, path, scope and group by `rbac`; Ringfence verifies it and judges the \
    same by a Cedar policy; both write a line of JSON. Before the clock starts, a request without a token, one \
    with a token of another key and one without the scope must be refused. `added p99` is p99 at the fixed rate \
    less that of the upstream without a proxy. In this case `ringfence-mesh` also has a real keeper exchange \
    each token for a transaction token, at most every 30 s, which the callee's sidecar verifies.";

pub(crate) fn markdown(outcomes: &[Outcome], facts: &Facts, rounds: u32, seconds: f64) -> String {
    let (title, cases) = match outcomes {
        [Outcome { case, .. }] => (case.title(), format!("--cases {} ", case.name())),
        _ => ("The proxy beside its peers", String::new()),
    };
    let tokens = if outcomes.iter().any(|outcome| outcome.case.tokens()) { TOKENS } else { "" };
    format!(
        "## {title}\n\n    cargo xtask bench -- {cases}--rounds {rounds} --seconds {seconds} --write\n\nCPU time of the proxy per \
         request, as a ratio to nginx, in `token` to Envoy: the median over the rounds of the ratio within each round.\n\n{}\n{}\n\n\
         {COMPARISON}{tokens}\n\n{}",
        summary(outcomes),
        facts.sentence(),
        text(outcomes)
    )
}

/// Replaces one section of `bench/RESULTS.md`, and leaves the others as they are.
pub(crate) fn write(section: &str, content: &str) -> io::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
    let before = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "# Measured\n".to_owned(),
        Err(error) => return Err(error),
    };
    fs::write(file, replaced(&before, section, content))
}

fn replaced(before: &str, section: &str, content: &str) -> String {
    let (open, close) = (format!("<!-- {section} -->"), format!("<!-- /{section} -->"));
    let whole = format!("{open}\n{}\n{close}", content.trim_end());
    match (before.find(&open), before.find(&close)) {
        (Some(start), Some(end)) if start < end => {
            format!("{}{whole}{}", &before[..start], &before[end + close.len()..])
        }
        _ => format!("{}\n\n{whole}\n", before.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn a_section_is_replaced_and_its_neighbours_stay() {
        let first = replaced("# Measured\n", "a", "one\n");
        let both = replaced(&first, "b", "two\n");
        assert_eq!(both, "# Measured\n\n<!-- a -->\none\n<!-- /a -->\n\n<!-- b -->\ntwo\n<!-- /b -->\n");
        assert_eq!(replaced(&both, "a", "three"), both.replace("one", "three"));
    }
}
