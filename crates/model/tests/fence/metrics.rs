//! Where counters are served.

use crate::{CLINIC, at, codes, parse};

fn with(metrics: &str) -> String {
    format!("metrics: {metrics}\n{CLINIC}")
}

#[test]
fn counters_are_served_to_this_host_alone_and_only_where_the_fence_says_so() {
    assert_eq!(parse(CLINIC).unwrap().metrics, None);
    let metrics = parse(&with("{ listen: 127.0.0.1:9464 }")).unwrap().metrics.unwrap();
    assert_eq!(
        (metrics.listen.to_string().as_str(), &*at(&metrics.position)),
        ("127.0.0.1:9464", "ringfence.yaml:1:1")
    );
    assert!(parse(&with("{ listen: '[::1]:9464' }")).is_ok());
    for open in ["0.0.0.0:9464", "'[::]:9464'", "10.0.0.1:9464"] {
        let fence = with(&format!("{{ listen: {open} }}"));
        assert_eq!(codes(&fence), ["not-loopback"], "{open}");
        let said = parse(&fence).unwrap_err().to_string();
        assert!(
            said.contains("ringfence.yaml:1:20")
                && said.contains("127.0.0.1:9464")
                && said.contains("over SSH"),
            "{said}"
        );
    }
    assert_eq!(codes(&with("{}")), ["missing-key"]);
    assert_eq!(codes(&with("{ listen: 9464 }")).len(), 1);
}
