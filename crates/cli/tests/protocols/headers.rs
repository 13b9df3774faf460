//! What a callee is told about its caller: verified and set afresh, whatever the caller says.

use serde_json::{Value, json};

use crate::lab::{From, Lab, SOON, Who};

const SERVICES: &str = "
  web: { PY web_service.py 9000, listen: 9000, routes: [{ path: / }] }
  caller: { PY caller.py 9100, listen: 9100, routes: [{ path: /caller }], calls: [web] }
";

/// All values of a field, in order.
fn all<'a>(said: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = said["fields"].as_array().unwrap().iter();
    fields
        .filter(|f| f[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .map(|f| f[1].as_str().unwrap())
        .collect()
}

#[test]
fn spoofed_headers_are_gone_and_verified_ones_are_there() {
    let lab = Lab::start(Who::Nobody, SERVICES, &[]);
    let outside = json!({ "address": "127.0.0.1", "port": lab.clinic.port, "ca": lab.ca(), "host": "shop.example:8443" });
    let said = lab.tell(From::Outside, "web_client", "headers", &outside);
    assert_eq!(said["line"], "GET /headers?q=1");
    assert_eq!(all(&said, "x-forwarded-for"), ["127.0.0.1"], "{said}");
    assert_eq!(all(&said, "x-forwarded-proto"), ["https"], "{said}");
    assert_eq!(all(&said, "x-forwarded-host"), ["shop.example:8443"], "{said}");
    assert_eq!(all(&said, "forwarded"), ["for=127.0.0.1;proto=https;host=\"shop.example:8443\""], "{said}");
    assert_eq!(all(&said, "x-forwarded-client-cert"), ["URI=spiffe://lab.example/gateway/lab"], "{said}");
    common(&said);

    let said = lab.tell(From::Caller, "web_client", "headers", &json!({ "address": "web", "port": 9000 }));
    assert_eq!(
        all(&said, "x-forwarded-for"),
        [""; 0],
        "a service has no address that means something: {said}"
    );
    assert_eq!(all(&said, "x-forwarded-proto").len(), 1, "{said}");
    assert_eq!(all(&said, "x-forwarded-client-cert"), ["URI=spiffe://lab.example/service/caller"], "{said}");
    assert!(all(&said, "forwarded")[0].starts_with("for=_caller;"), "{said}");
    common(&said);
}

/// What holds wherever a request came from.
fn common(said: &Value) {
    let text = said.to_string();
    for spoofed in [
        "6.6.6.6",
        "gopher",
        "evil.example",
        "service/admin",
        "to be dropped",
        "timeout=99",
        "eA==",
        "x-forwarded-port",
    ] {
        assert!(!text.to_lowercase().contains(&spoofed.to_lowercase()), "{spoofed}: {said}");
    }
    for gone in ["x-hop", "keep-alive", "proxy-authorization", "x-real-ip"] {
        assert_eq!(all(said, gone), [""; 0], "{said}");
    }
    assert_eq!((all(said, "x-own"), all(said, "cookie")), (vec!["kept"], vec!["a=b"]), "{said}");
    // The trace goes on, with a span of the last hop.
    let [trace] = all(said, "traceparent")[..] else { panic!("{said}") };
    assert!(
        trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !trace.contains("b7ad6b7169203331"),
        "{said}"
    );
    assert_eq!(all(said, "tracestate"), ["lab=1"], "{said}");
}

#[test]
fn a_request_without_a_trace_gets_one_that_its_events_carry() {
    let lab = Lab::start(Who::Nobody, SERVICES, &[]);
    let said = lab.tell(From::Caller, "web_client", "plain_get", &json!({ "address": "web", "port": 9000 }));
    let [trace] = all(&said["body"], "traceparent")[..] else { panic!("{said}") };
    let id = trace.split('-').nth(1).unwrap();
    assert_eq!((id.len(), trace.len()), (32, 55), "{trace}");
    let seen = crate::lab::eventually(SOON, || {
        let points: Vec<Value> = lab.events(|e| e["trace"]["uid"] == id);
        (points.len() == 2).then_some(points)
    });
    assert!(seen.is_some(), "both sidecars tell of it");
}
