//! One trace over the gateway and all sidecars, in the order of cause.

use serde_json::{Value, json};

use crate::SOON;
use crate::running::{Clinic, Who, eventually, text};

#[test]
fn a_trace_shows_every_decision_on_its_way_in_the_order_of_cause() {
    let clinic = Clinic::start(Who::Nobody);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let output = clinic.curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &parent, "/patients/p-1001"]);
    assert_eq!(text(&output.stdout), "200");
    let shown = |id: &str| -> Option<Value> {
        serde_json::from_slice(&clinic.ringfence(&["trace", id, "--json"]).stdout).ok()
    };
    let way = |hop: &Value| ["point", "caller", "callee"].map(|key| hop[key].as_str().unwrap().to_owned());
    // The page of a patient asks three services, and two of these ask for the patient as well. Hops reach the files in any order.
    let edges = [
        ("portal", "patients"),
        ("portal", "billing"),
        ("portal", "appointments"),
        ("billing", "patients"),
        ("appointments", "patients"),
    ];
    let sides = edges.iter().flat_map(|(caller, callee)| {
        ["sidecar-out", "sidecar-in"].map(|point| [point, caller, callee].map(str::to_owned))
    });
    let front = ["gateway", "sidecar-in"].map(|point| [point, "outside", "portal"].map(str::to_owned));
    let wanted: Vec<[String; 3]> = front.into_iter().chain(sides).collect();
    let complete = |found: &Value| {
        let hops = found["hops"].as_array().unwrap();
        let ways: Vec<[String; 3]> = hops.iter().map(way).collect();
        let placed = hops.iter().skip(1).all(|hop| !hop["cause"].is_null() && hop["placed_by"] == "span");
        placed && wanted.iter().all(|wanted| ways.contains(wanted))
    };
    let found = eventually(SOON, || shown(trace).filter(complete));
    let found = found.unwrap_or_else(|| panic!("not complete: {:?}", shown(trace)));
    let hops = found["hops"].as_array().unwrap();
    assert_eq!((&hops[0]["point"], &hops[0]["depth"]), (&json!("gateway"), &json!(0)));
    for (at, hop) in hops.iter().enumerate() {
        assert_eq!((&hop["verdict"], &hop["placed_by"]), (&json!("allowed"), &json!("span")), "{hop}");
        assert!(hop["duration_us"].as_u64() > Some(0) && hop["revision"].as_u64() > Some(0), "{hop}");
        let Some(cause) = hops[..at].iter().find(|before| before["event"] == hop["cause"]) else {
            assert_eq!(at, 0, "each other comes after what it came out of: {hop}");
            continue;
        };
        assert_eq!(cause["depth"].as_u64().map(|depth| depth + 1), hop["depth"].as_u64());
        let ([from, _, cause_callee], [to, caller, callee]) = (way(cause), way(hop));
        match (from.as_str(), to.as_str()) {
            ("gateway" | "sidecar-out", "sidecar-in") => assert_eq!(cause_callee, callee),
            ("sidecar-in", "sidecar-out") => assert_eq!(cause_callee, caller),
            other => panic!("{other:?}"),
        }
    }
    // By an event of it as well, and by what the header held.
    for id in [hops[2]["event"].as_str().unwrap(), &format!("00-{trace}-00f067aa0ba902b7-01")] {
        let same = shown(id).unwrap();
        assert_eq!((&same["trace"], &same["hops"][0]), (&found["trace"], &hops[0]));
    }

    let denied = "0af7651916cd43dd8448eb211c80319c";
    let said = clinic.inside(
        "mailer",
        &format!(
            "import urllib.request, urllib.error\n\
             headers = {{'traceparent': '00-{denied}-00f067aa0ba902b7-01'}}\n\
             try: print(urllib.request.urlopen(urllib.request.Request('http://patients:9001/', headers=headers), timeout=60).status)\n\
             except urllib.error.HTTPError as e: print(e.code)"
        ),
    );
    assert!(said.starts_with("403"), "{said}");
    let found = eventually(SOON, || shown(denied)).expect("it is told");
    let hop = &found["hops"][0];
    assert_eq!(
        (&hop["verdict"], &hop["stage"], &hop["rule"]),
        (&json!("denied"), &json!("authorize"), &json!("edge.undeclared"))
    );
    assert!(hop["position"].as_str().unwrap().starts_with("ringfence.yaml:"), "{hop}");
    let people = text(&clinic.ringfence(&["trace", denied]).stdout);
    assert!(
        people.contains("mailer → patients GET / 403 denied")
            && people.contains("edge.undeclared in stage authorize"),
        "{people}"
    );

    assert_eq!(clinic.ringfence(&["trace", &"1".repeat(32)]).status.code(), Some(1));
    assert_eq!(clinic.ringfence(&["trace", "portal"]).status.code(), Some(2));
    assert_eq!(clinic.stop(), [""; 0]);
}
