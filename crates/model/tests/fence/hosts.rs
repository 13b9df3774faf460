//! Several machines: one has control, and everything runs on some that there are.

use crate::{codes, parse};

const HOSTS: &str = "
fence: t
trust_domain: t.example
gateway: { listen: 0.0.0.0:8443, at: edge }
hosts:
  main: { mesh: 10.0.0.1:8500, control: 10.0.0.1:7443 }
  edge: { mesh: 10.0.0.2:8500 }
  ward: { mesh: '[fd00::3]:8500' }
services:
  portal: { listen: 1, routes: [{ path: / }], calls: [patients], at: [edge, ward] }
  patients: { listen: 2 }
";

#[test]
fn what_runs_where_is_said_or_it_runs_beside_control() {
    let fence = parse(HOSTS).unwrap();
    assert_eq!(fence.control_host().unwrap().name, "main");
    let where_is = |name: &str| {
        let service = fence.service(name).unwrap();
        fence
            .hosts
            .iter()
            .map(|h| h.name.as_str())
            .filter(|h| fence.runs_at(&service.at, h))
            .collect::<Vec<_>>()
    };
    assert_eq!(where_is("portal"), ["edge", "ward"]);
    assert_eq!(where_is("patients"), ["main"]);
    let gateway = fence.gateway.as_ref().unwrap();
    assert!(fence.runs_at(&gateway.at, "edge") && !fence.runs_at(&gateway.at, "main"));
    let one = parse("fence: t\ntrust_domain: t.example\nservices: { a: { } }\n").unwrap();
    assert!(one.runs_at(&[], "whatever it is called") && one.control_host().is_none());
}

#[test]
fn hosts_that_nobody_could_reach_or_that_do_not_exist_are_refused_with_their_place() {
    let with = |from: &str, to: &str| {
        assert!(HOSTS.contains(from), "{from}");
        HOSTS.replacen(from, to, 1)
    };
    for (fence, code) in [
        (with(", control: 10.0.0.1:7443", ""), "missing-key"),
        (with("10.0.0.2:8500 }", "10.0.0.2:8500, control: 10.0.0.2:7443 }"), "conflict"),
        (with("10.0.0.2:8500", "10.0.0.1:8500"), "duplicate"),
        (with("10.0.0.2:8500", "0.0.0.0:8500"), "bad-value"),
        (with("10.0.0.2:8500", "edge.example:8500"), "bad-value"),
        (with("at: edge }", "at: egde }"), "unknown-host"),
        (with("at: [edge, ward]", "at: [edge, cellar]"), "unknown-host"),
        (with("at: [edge, ward]", "at: [edge, edge]"), "duplicate"),
        (with("at: [edge, ward]", "at: []"), "empty"),
        (with("{ listen: 2 }", "{ listen: 2, hosts: [ward] }"), "unknown-key"),
        (with("  edge:", "  Edge:"), "bad-name"),
    ] {
        assert!(codes(&fence).contains(&code), "{code}: {:?}", codes(&fence));
    }
    let said = parse(&with("at: edge }", "at: egde }")).unwrap_err().to_string();
    assert!(said.contains("ringfence.yaml:4:1") && said.contains("did you mean `edge`?"), "{said}");
    let lonely = "fence: t\ntrust_domain: t.example\nservices: { a: { at: ward } }\n";
    assert!(parse(lonely).unwrap_err().to_string().contains("declare it: `hosts:"), "{lonely}");
}
