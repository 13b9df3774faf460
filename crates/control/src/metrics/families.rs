//! What there is to count, by name: the one list of metrics.
//!
//! Labels are names of the fence, of rules and of processes. A path, a user or an address is never one: whoever sends requests must
//! not decide how long the page is.

use ringfence_keeper::protocol::{AuthorityStatus, Stage, Status};
use ringfence_snapshot::node::{BreakerStats, EdgeStats, latency_bucket};

use super::text::{Format, Page, Type};
use super::{Known, NodeFacts};

/// Most edges of a node that are told, those with most requests first.
const MAX_EDGES: usize = 2_000;
/// Most other lines of a node in one family.
const MAX_LINES: usize = 4_096;
/// Bounds of the histogram: powers of two of microseconds, 128 µs to 33.6 s. They are bounds of the proxies' own buckets.
const EXPONENTS: std::ops::RangeInclusive<u32> = 7..=25;
const MICROSECONDS: f64 = 1e6;

/// Writes the page.
pub(super) fn page(known: &Known, format: Format) -> String {
    let mut page = Page::new(format);
    processes(&mut page, known);
    fence(&mut page, known);
    nodes(&mut page, &known.nodes);
    edges(&mut page, &known.nodes);
    keeper(&mut page, known.keeper.as_ref());
    page.end()
}

fn processes(page: &mut Page, known: &Known) {
    page.family("ringfence_build_info", Type::Gauge, "", "The version of control, always 1.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let running = || known.report.processes.iter().filter(|process| process.pid != 0);
    let mut started = page.family(
        "ringfence_process_start_time_seconds",
        Type::Gauge,
        "seconds",
        "When one of Ringfence's processes was started, Unix time.",
    );
    for process in running() {
        started.sample(&[("process", &process.name)], process.since);
    }
    let mut restarts = page.family(
        "ringfence_process_restarts",
        Type::Counter,
        "",
        "How often one of Ringfence's processes was started again.",
    );
    for process in &known.report.processes {
        restarts.sample(&[("process", &process.name)], process.restarts);
    }
    let mut cpu = page.family(
        "ringfence_process_cpu_seconds",
        Type::Counter,
        "seconds",
        "Processor time of one of Ringfence's processes, user and system.",
    );
    for usage in &known.usage {
        cpu.sample(&[("process", &usage.process)], usage.cpu_ms as f64 / 1e3);
    }
    let mut memory = page.family(
        "ringfence_process_resident_memory_bytes",
        Type::Gauge,
        "bytes",
        "Resident memory of one of Ringfence's processes.",
    );
    for usage in &known.usage {
        memory.sample(&[("process", &usage.process)], usage.resident);
    }
    let counted = || {
        let control = ("control", known.events);
        std::iter::once(control).chain(known.nodes.iter().map(|node| (&*node.name, node.stats.events)))
    };
    let mut written = page.family(
        "ringfence_events_written",
        Type::Counter,
        "",
        "Events written to files, by who wrote them.",
    );
    for (producer, (events, _)) in counted() {
        written.sample(&[("producer", producer)], events);
    }
    let mut dropped = page.family(
        "ringfence_events_dropped",
        Type::Counter,
        "",
        "Events lost, because the disk was full or too slow.",
    );
    for (producer, (_, events)) in counted() {
        dropped.sample(&[("producer", producer)], events);
    }
}

fn fence(page: &mut Page, known: &Known) {
    page.family(
        "ringfence_fence_rejected",
        Type::Gauge,
        "",
        "Whether the fence on disk is refused and an older one in force.",
    )
    .sample(&[], u8::from(known.report.rejected.is_some()));
    let mut up = page.family(
        "ringfence_service_up",
        Type::Gauge,
        "",
        "Whether a service of the fence runs or is ready.",
    );
    for service in known.report.services.iter().filter(|service| service.isolation != "external") {
        let is_up = matches!(service.state.as_str(), "ready" | "running");
        up.sample(&[("service", &service.name)], u8::from(is_up));
    }
    let mut restarts = page.family(
        "ringfence_service_restarts",
        Type::Counter,
        "",
        "How often a service was started again.",
    );
    for service in &known.report.services {
        restarts.sample(&[("service", &service.name)], service.restarts);
    }
    let Some(snapshot) = known.snapshot else { return };
    page.family("ringfence_snapshot_epoch", Type::Gauge, "", "Epoch of the snapshot in force.")
        .sample(&[], snapshot.epoch);
    page.family("ringfence_snapshot_revision", Type::Gauge, "", "Revision of the snapshot in force.")
        .sample(&[], snapshot.revision);
    page.family(
        "ringfence_snapshot_issued_timestamp_seconds",
        Type::Gauge,
        "seconds",
        "When the snapshot in force was made, Unix time.",
    )
    .sample(&[], snapshot.issued_at);
    page.family(
        "ringfence_snapshot_expiry_timestamp_seconds",
        Type::Gauge,
        "seconds",
        "When the snapshot in force ends, Unix time.",
    )
    .sample(&[], snapshot.expires_at);
}

fn nodes(page: &mut Page, nodes: &[NodeFacts]) {
    let mut one = |name, kind, unit, help, value: &dyn Fn(&NodeFacts) -> u64| {
        let mut family = page.family(name, kind, unit, help);
        for node in nodes {
            family.sample(&[("node", &node.name)], value(node));
        }
    };
    one("ringfence_node_revision", Type::Gauge, "", "Revision that a node enforces.", &|node| {
        node.stats.revision
    });
    one(
        "ringfence_node_acknowledged_revision",
        Type::Gauge,
        "",
        "Revision that a node took last.",
        &|node| node.acknowledged,
    );
    one(
        "ringfence_node_stale",
        Type::Gauge,
        "",
        "Whether the lease of a node's snapshot has run out.",
        &|node| u64::from(node.stats.stale),
    );
    one("ringfence_open_connections", Type::Gauge, "", "Client connections open at a node.", &|node| {
        node.stats.connections
    });
    let mut info = page.family("ringfence_node_info", Type::Gauge, "", "The version of a node, always 1.");
    for node in nodes {
        info.sample(&[("node", &node.name), ("version", &node.version)], 1);
    }
    let mut expiry = page.family(
        "ringfence_certificate_expiry_timestamp_seconds",
        Type::Gauge,
        "seconds",
        "When a certificate in use ends, Unix time.",
    );
    for node in nodes {
        for (id, not_after) in node.stats.certificates.iter().take(MAX_LINES) {
            expiry.sample(&[("node", &node.name), ("id", id)], not_after);
        }
    }
    let handshakes =
        || nodes.iter().flat_map(|node| node.stats.handshakes.iter().take(8).map(move |of| (node, of)));
    let mut groups = page.family(
        "ringfence_tls_handshakes",
        Type::Counter,
        "",
        "TLS handshakes that were completed, by the group that keys were agreed in; none is a resumed session.",
    );
    for (node, of) in handshakes() {
        for (group, count) in of.groups.iter().take(16) {
            groups.sample(&[("node", &node.name), ("listener", &of.listener), ("group", group)], count);
        }
    }
    let mut versions = page.family(
        "ringfence_tls_versions",
        Type::Counter,
        "",
        "TLS handshakes that were completed, by version.",
    );
    for (node, of) in handshakes() {
        for (version, count) in [("1.2", of.versions.0), ("1.3", of.versions.1)] {
            versions.sample(&[("node", &node.name), ("listener", &of.listener), ("version", version)], count);
        }
    }
    let mut failed = page.family(
        "ringfence_tls_handshake_failures",
        Type::Counter,
        "",
        "TLS handshakes that were not completed.",
    );
    for (node, of) in handshakes() {
        failed.sample(&[("node", &node.name), ("listener", &of.listener)], of.failed);
    }
    let mut denies = page.family(
        "ringfence_denies",
        Type::Counter,
        "",
        "Refused requests and connections, by stage and rule.",
    );
    for node in nodes {
        for (stage, rule, count) in node.stats.refusals.iter().take(MAX_LINES) {
            denies.sample(&[("node", &node.name), ("stage", stage), ("rule", rule)], count);
        }
    }
}

fn edges(page: &mut Page, nodes: &[NodeFacts]) {
    let all: Vec<(&str, &EdgeStats)> =
        nodes.iter().flat_map(|node| busiest(node).map(|edge| (&*node.name, edge))).collect();
    let labels = |node, edge| -> [(&str, &str); 3] { labels(node, edge) };
    let mut one = |name, help, value: &dyn Fn(&EdgeStats) -> u64| {
        let mut family = page.family(name, Type::Counter, "", help);
        for (node, edge) in &all {
            family.sample(&labels(node, edge), value(edge));
        }
    };
    one(
        "ringfence_requests",
        "Requests and connections along an edge, where the caller is; caller outside is who comes through the gateway.",
        &|edge| edge.requests + edge.denied,
    );
    one("ringfence_request_failures", "Those that were answered with 5xx, or broke.", &|edge| edge.errors);
    one("ringfence_requests_denied", "Those that were refused.", &|edge| edge.denied);
    one(
        "ringfence_request_retries",
        "Further tries of requests along an edge, within its retry budget.",
        &|edge| edge.retries,
    );
    breakers(page, &all);
    faults(page, &all);
    let mut responses = page.family(
        "ringfence_responses",
        Type::Counter,
        "",
        "Answers to HTTP requests, refusals among them, by class of status.",
    );
    for (node, edge) in &all {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(edge.statuses) {
            if count > 0 {
                let [node, caller, callee] = labels(node, edge);
                responses.sample(&[node, caller, callee, ("status_class", class)], count);
            }
        }
    }
    let mut durations = page.family(
        "ringfence_request_duration_seconds",
        Type::Histogram,
        "seconds",
        "From a request's head to its answer's end, or how long a connection was open; without what was refused.",
    );
    for (node, edge) in &all {
        let up_to = |exponent: u32| {
            let end = latency_bucket(1 << exponent).min(edge.latency.len());
            (f64::from(1_u32 << exponent) / MICROSECONDS, edge.latency[..end].iter().sum())
        };
        let buckets: Vec<(f64, u64)> = EXPONENTS.map(up_to).collect();
        let count = edge.latency.iter().sum();
        durations.histogram(&labels(node, edge), &buckets, count, edge.latency_us as f64 / MICROSECONDS);
    }
    let left_out = |node: &NodeFacts| node.stats.edges.len().saturating_sub(MAX_EDGES);
    let mut omitted = page.family(
        "ringfence_edges_omitted",
        Type::Gauge,
        "",
        "Edges of a node that are not told here, since they are too many.",
    );
    for node in nodes {
        omitted.sample(&[("node", &node.name)], left_out(node));
    }
}

/// What goes wrong on purpose, of edges where something does.
fn faults(page: &mut Page, edges: &[(&str, &EdgeStats)]) {
    let help = "What went wrong along an edge because the fence says so: requests held up, and requests answered in place of being sent.";
    let mut family = page.family("ringfence_faults_injected", Type::Counter, "", help);
    for (node, edge) in edges {
        if let Some(faults) = edge.faults {
            family.sample(&labels(node, edge), faults);
        }
    }
}

/// How breakers stand, of edges that have one.
fn breakers(page: &mut Page, edges: &[(&str, &EdgeStats)]) {
    let mut one = |name, kind, help, value: &dyn Fn(&BreakerStats) -> u64| {
        let mut family = page.family(name, kind, "", help);
        for (node, edge) in edges {
            if let Some(breaker) = &edge.breaker {
                family.sample(&labels(node, edge), value(breaker));
            }
        }
    };
    one(
        "ringfence_breakers_open",
        Type::Gauge,
        "Ways along an edge on which nothing is sent, since the callee failed, or one request is tried.",
        &|breaker| breaker.open,
    );
    one("ringfence_breaker_openings", Type::Counter, "How often breakers of an edge opened.", &|breaker| {
        breaker.opened
    });
    one(
        "ringfence_breaker_waiting_requests",
        Type::Gauge,
        "Requests along an edge that wait for one under way to end.",
        &|breaker| breaker.waiting,
    );
}

/// The edges of a node that are told, in order of name.
fn busiest(node: &NodeFacts) -> impl Iterator<Item = &EdgeStats> {
    let mut edges: Vec<&EdgeStats> = node.stats.edges.iter().collect();
    if edges.len() > MAX_EDGES {
        edges.sort_by_key(|edge| std::cmp::Reverse(edge.requests + edge.denied));
        edges.truncate(MAX_EDGES);
    }
    edges.sort_by_key(|edge| (&edge.caller, &edge.callee));
    edges.dedup_by_key(|edge| (&edge.caller, &edge.callee));
    edges.into_iter()
}

fn labels<'a>(node: &'a str, edge: &'a EdgeStats) -> [(&'static str, &'a str); 3] {
    [("node", node), ("caller", &edge.caller), ("callee", &edge.callee)]
}

fn keeper(page: &mut Page, status: Option<&Status>) {
    page.family("ringfence_keeper_up", Type::Gauge, "", "Whether the keeper answers control.")
        .sample(&[], u8::from(status.is_some()));
    let Some(status) = status else { return };
    let mut signed = page.family(
        "ringfence_keeper_signatures",
        Type::Counter,
        "",
        "What the keeper signed since it was started.",
    );
    for (kind, count) in [
        ("x509_svid", status.counts.x509),
        ("serving_certificate", status.counts.serving),
        ("jwt_svid", status.counts.jwt),
        ("snapshot", status.counts.snapshots),
        ("rotation", status.counts.rotations),
        ("session", status.counts.sessions),
        ("transaction_token", status.counts.txn),
    ] {
        signed.sample(&[("kind", kind)], count);
    }
    page.family(
        "ringfence_keeper_refusals",
        Type::Counter,
        "",
        "What the keeper refused since it was started.",
    )
    .sample(&[], status.counts.refused);
    let mut expiry = page.family(
        "ringfence_authority_expiry_timestamp_seconds",
        Type::Gauge,
        "seconds",
        "When a CA or a signing key of the keeper ends, Unix time.",
    );
    let kinds: [(&str, &[AuthorityStatus]); 5] = [
        ("root", &status.roots),
        ("issuing", &status.issuing),
        ("serving", &status.serving),
        ("jwt", &status.tokens),
        ("transaction", &status.txn),
    ];
    for (authority, all) in kinds {
        for one in all {
            let stage = match one.stage {
                Stage::Prepared => "prepared",
                Stage::Active => "active",
                Stage::Retiring => "retiring",
            };
            expiry.sample(&[("authority", authority), ("id", &one.id), ("stage", stage)], one.not_after);
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_snapshot::node::{LATENCY_BUCKETS, Stats};

    use super::*;

    fn edge(caller: &str, latencies: &[u64]) -> EdgeStats {
        let mut edge = EdgeStats {
            caller: caller.into(),
            callee: "patients".into(),
            requests: latencies.len() as u64,
            denied: 2,
            retries: 1,
            faults: Some(5),
            breaker: Some(BreakerStats { ways: 1, open: 1, running: 2, waiting: 3, opened: 4 }),
            latency: vec![0; LATENCY_BUCKETS],
            latency_us: latencies.iter().sum(),
            statuses: [0, 3, 0, 2, 0],
            ..EdgeStats::default()
        };
        for us in latencies {
            edge.latency[latency_bucket(*us)] += 1;
        }
        edge
    }

    fn written(edges: Vec<EdgeStats>) -> String {
        let stats = Stats { edges, ..Stats::default() };
        let node = NodeFacts { name: "local".into(), stats, ..NodeFacts::default() };
        page(&Known { nodes: vec![node], ..Known::default() }, Format::Prometheus)
    }

    #[test]
    fn durations_fall_below_the_bounds_that_they_are_below() {
        let page = written(vec![edge("portal", &[63, 64, 1_000, 1_023, 1_024, 40_000_000])]);
        let of = |bound: &str| {
            let begin = format!(
                "ringfence_request_duration_seconds_bucket{{node=\"local\",caller=\"portal\",callee=\"patients\",le=\"{bound}\"}} "
            );
            page.lines().find_map(|line| line.strip_prefix(&begin)).unwrap().parse::<u64>().unwrap()
        };
        let found =
            [of("0.000128"), of("0.000512"), of("0.001024"), of("0.002048"), of("33.554432"), of("+Inf")];
        assert_eq!(found, [2, 2, 4, 5, 5, 6], "{page}");
        let labels = "{node=\"local\",caller=\"portal\",callee=\"patients\"";
        for line in [
            format!("ringfence_requests_total{labels}}} 8"),
            format!("ringfence_request_retries_total{labels}}} 1"),
            format!("ringfence_faults_injected_total{labels}}} 5"),
            format!("ringfence_breakers_open{labels}}} 1"),
            format!("ringfence_breaker_openings_total{labels}}} 4"),
            format!("ringfence_breaker_waiting_requests{labels}}} 3"),
            format!("ringfence_responses_total{labels},status_class=\"4xx\"}} 2"),
            format!("ringfence_request_duration_seconds_sum{labels}}} 40.003174"),
        ] {
            assert!(page.lines().any(|there| there == line), "{line}\n{page}");
        }
    }

    #[test]
    fn a_page_has_an_end_however_many_edges_there_are() {
        let mut edges: Vec<_> = (0..MAX_EDGES + 10).map(|n| edge(&format!("s{n}"), &[1])).collect();
        edges.push(edge("busy", &[1, 1, 1]));
        let page = written(edges);
        assert_eq!(page.matches("\nringfence_requests_total{").count(), MAX_EDGES);
        assert!(page.contains("caller=\"busy\""));
        assert!(page.contains("ringfence_edges_omitted{node=\"local\"} 11\n"));
    }
}
