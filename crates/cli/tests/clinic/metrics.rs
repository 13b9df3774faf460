//! Counters as a real scraper reads them, and as the documentation and the dashboard name them.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::SOON;
use crate::running::{Clinic, Who, eventually, free_port, text, workspace};

/// Reads a page in both formats, with the strict parser of the one; prints the samples as JSON: name, labels, value.
const SCRAPE: &str = "
import json, sys, urllib.request
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
url = sys.argv[1]
def get(accept):
    request = urllib.request.Request(url, headers={'Accept': accept})
    answer = urllib.request.urlopen(request, timeout=60)
    return answer.headers['content-type'], answer.read().decode()
kind, page = get('text/plain')
assert kind == 'text/plain; version=0.0.4; charset=utf-8', kind
plain = list(parser.text_string_to_metric_families(page))
kind, page = get('application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3')
assert kind.startswith('application/openmetrics-text; version=1.0.0'), kind
families = list(strict(page))
assert [f.name for f in plain] == [f.name for f in families]
assert all(f.documentation and f.type in ('counter', 'gauge', 'histogram') for f in families)
print(json.dumps({
    'families': [f.name + ('_total' if f.type == 'counter' else '') for f in families],
    'samples': [[s.name, s.labels, s.value] for f in families for s in f.samples],
}))
";

/// What a scrape found; `None` while nobody answers.
fn scrape(port: u16) -> Option<Value> {
    let url = format!("http://127.0.0.1:{port}/metrics");
    let output = Command::new("python3").args(["-c", SCRAPE, &url]).output().unwrap();
    let said = text(&output.stderr);
    let waiting = said.contains("Connection refused") || said.contains("HTTP Error 503");
    assert!(output.status.success() || waiting, "{said}");
    serde_json::from_slice(&output.stdout).ok()
}

/// The sum of all samples of that name and these labels.
fn value(page: &Value, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = page["samples"].as_array().unwrap().iter();
    let wanted = samples
        .filter(|sample| sample[0] == name && labels.iter().all(|(label, of)| sample[1][*label] == *of));
    wanted.map(|sample| sample[2].as_f64().unwrap()).sum()
}

#[test]
fn a_scraper_reads_what_happened_and_finds_what_the_documentation_and_the_dashboard_name() {
    let port = free_port();
    let line = format!("metrics: {{ listen: 127.0.0.1:{port} }}\n");
    let clinic = Clinic::start_with(Who::Nobody, |fence| format!("{line}{fence}"));
    let edge = [("caller", "outside"), ("callee", "portal")];
    let so_far = |page: &Value| value(page, "ringfence_requests_total", &edge);
    let before = eventually(SOON, || scrape(port).map(|page| so_far(&page))).expect("it is served");
    for _ in 0..3 {
        assert_eq!(clinic.get("/patients/p-1001").0, 200);
    }
    clinic.inside(
        "mailer",
        "import urllib.request, urllib.error\n\
         try: urllib.request.urlopen('http://patients:9001/patients/p-1001', timeout=60)\n\
         except urllib.error.HTTPError as e: print(e.code)",
    );
    let denied = [("stage", "authorize"), ("rule", "edge.undeclared")];
    let counted = eventually(SOON, || {
        let page = scrape(port)?;
        // What processes use is looked at every few seconds.
        let all = so_far(&page) >= before + 3.0
            && value(&page, "ringfence_denies_total", &denied) >= 1.0
            && value(&page, "ringfence_process_resident_memory_bytes", &[("process", "node")]) > 0.0
            // A page is written without a keeper that is slow to say what it signed.
            && value(&page, "ringfence_keeper_up", &[]) == 1.0
            && value(&page, "ringfence_service_up", &[]) == 5.0;
        all.then_some(page)
    });
    let page = counted.unwrap_or_else(|| panic!("not counted: {:?}", scrape(port)));
    let answered = value(&page, "ringfence_responses_total", &[edge[0], edge[1], ("status_class", "2xx")]);
    assert!(answered >= 3.0, "{answered}");
    assert!(
        value(&page, "ringfence_requests_denied_total", &[("caller", "mailer"), ("callee", "patients")])
            >= 1.0
    );
    let timed = value(&page, "ringfence_request_duration_seconds_count", &edge);
    assert!(timed >= 3.0 && value(&page, "ringfence_request_duration_seconds_sum", &edge) > 0.0);
    assert!(value(&page, "ringfence_tls_handshakes_total", &[("listener", "gateway")]) >= 1.0);
    assert!(value(&page, "ringfence_keeper_signatures_total", &[("kind", "x509_svid")]) >= 5.0);
    let ends = value(
        &page,
        "ringfence_certificate_expiry_timestamp_seconds",
        &[("id", "spiffe://clinic.example/service/portal")],
    );
    assert!(ends > value(&page, "ringfence_snapshot_issued_timestamp_seconds", &[]), "{ends}");

    let there: BTreeSet<&str> =
        page["families"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let read = |file: &str| std::fs::read_to_string(workspace().join(file)).unwrap();
    let reference = read("docs/reference/metrics.md");
    let documented: BTreeSet<&str> =
        reference.lines().filter_map(|line| line.strip_prefix("| `ringfence_")?.split('`').next()).collect();
    let bare: BTreeSet<&str> = there.iter().filter_map(|name| name.strip_prefix("ringfence_")).collect();
    assert_eq!(documented, bare, "docs/reference/metrics.md has every metric and no other");
    let dashboard: Value = serde_json::from_str(&read("docs/grafana/ringfence.json")).unwrap();
    let used = used(&dashboard);
    assert!(used.len() > 10, "{used:?}");
    for name in used {
        let parts =
            ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part).unwrap_or(&name).to_owned());
        assert!(parts.iter().any(|name| there.contains(name.as_str())), "the dashboard uses {name}");
    }

    // A page of a browser that was lured to this address is none of this host's.
    let lured = Command::new("curl")
        .args(["--silent", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: rebound.example"])
        .arg(format!("http://127.0.0.1:{port}/metrics"))
        .output()
        .unwrap();
    assert_eq!(text(&lured.stdout), "421");

    let file = clinic.folder.join("ringfence.yaml");
    let fence = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, fence.replace(&line, "")).unwrap();
    let gone = eventually(SOON, || std::net::TcpStream::connect(("127.0.0.1", port)).err());
    assert!(gone.is_some(), "served by nobody once the fence does not say so\n{}", clinic.said());
    assert_eq!(clinic.stop(), [""; 0]);
}

/// The metrics that the expressions of a dashboard name.
fn used(json: &Value) -> BTreeSet<String> {
    match json {
        Value::Object(map) => {
            let own = map.get("expr").and_then(Value::as_str).into_iter().flat_map(|expression| {
                expression
                    .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .filter(|word| word.starts_with("ringfence_"))
            });
            own.map(str::to_owned).chain(map.values().flat_map(used)).collect()
        }
        Value::Array(items) => items.iter().flat_map(used).collect(),
        _ => BTreeSet::new(),
    }
}
