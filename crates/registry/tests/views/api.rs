//! The Consul API: shapes that clients read, and registrations that claim what is not theirs.

use proptest::prelude::*;
use ringfence_registry::consul::{Blocking, Change, Query, change, is_own, read};
use ringfence_registry::{Claim, Registry, Status};
use serde_json::{Value, json};

use super::{CLINIC, registry, view};

fn get(registry: &Registry, caller: &str, path: &str) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let reply = read(&view(registry, caller), path, &Query::parse(query).unwrap());
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    serde_json::from_str(&reply.body).unwrap()
}

fn register(registry: &Registry, service: &str, body: &Value, now_ms: u64) {
    let read = change("/v1/agent/service/register", &Query::default(), body.to_string().as_bytes(), now_ms);
    let Ok(Change::Register(claim, registration)) = read else { panic!("{read:?}") };
    assert!(is_own(service, registry.listens(service), &claim));
    registry.register(service, registration);
}

#[test]
fn clients_find_what_they_read() {
    let registry = registry(CLINIC);
    register(
        &registry,
        "records",
        &json!({
            "ID": "records-1", "Name": "records", "Tags": ["v2"], "Port": 9001, "Address": "127.0.0.1",
            "Meta": { "build": "7" }, "Check": { "TTL": "10s", "Status": "passing" },
        }),
        0,
    );
    let found = &get(&registry, "portal", "/v1/health/service/records?passing=1&tag=v2")[0];
    assert_eq!(found["Service"]["Service"], "records");
    assert_eq!((&found["Service"]["ID"], &found["Service"]["Port"]), (&json!("records-1"), &json!(8081)));
    assert_eq!(
        found["Service"]["Address"], "198.18.1.2",
        "where the caller reaches it, whatever it says of itself"
    );
    assert_eq!(found["Checks"].as_array().unwrap().len(), 2);
    assert_eq!(found["Node"]["Node"], "node1");
    assert_eq!(
        get(&registry, "portal", "/v1/catalog/services"),
        json!({"ledger": [], "portal": [], "records": ["v2"]})
    );
    assert_eq!(get(&registry, "portal", "/v1/catalog/service/records")[0]["ServiceMeta"]["build"], "7");
    assert_eq!(get(&registry, "portal", "/v1/health/service/records?tag=v1"), json!([]));
    assert_eq!(get(&registry, "portal", "/v1/catalog/datacenters"), json!(["dc1"]));
    assert_eq!(
        get(&registry, "portal", "/v1/catalog/node/node1")["Services"]["records-1"]["Service"],
        "records"
    );
    assert_eq!(get(&registry, "portal", "/v1/agent/self")["Config"]["Datacenter"], "dc1");
    assert_eq!(get(&registry, "records", "/v1/agent/services")["records-1"]["Meta"]["build"], "7");
    assert_eq!(get(&registry, "portal", "/v1/health/state/critical"), json!([]));
    let other = read(&view(&registry, "portal"), "/v1/catalog/services", &Query::parse("dc=mars").unwrap());
    assert_eq!(other.status, 500);
}

#[test]
fn a_check_that_is_not_renewed_is_critical_and_then_gone() {
    let registry = registry(CLINIC);
    let body = json!({ "Name": "records", "Tags": ["v2"],
        "Check": { "TTL": "10s", "Status": "passing", "DeregisterCriticalServiceAfter": "1m" } });
    register(&registry, "records", &body, 0);
    let passing = || get(&registry, "portal", "/v1/health/service/records?passing").as_array().unwrap().len();
    let index = || view(&registry, "portal").index;
    assert!(registry.report("records", "service:records", Status::Passing, "", 9_000));
    let before = index();
    registry.tick(18_999);
    assert_eq!((passing(), index()), (1, before), "a check that is renewed is no news");
    registry.tick(19_000);
    assert_eq!((passing(), index()), (0, before + 1));
    assert!(registry.report("records", "service:records", Status::Warning, "slow", 20_000));
    assert_eq!(get(&registry, "portal", "/v1/health/state/warning")[0]["Output"], "slow");
    assert!(!registry.report("portal", "service:records", Status::Passing, "", 20_000), "another's check");
    registry.tick(30_000);
    registry.tick(89_999);
    assert_eq!(get(&registry, "portal", "/v1/catalog/services")["records"], json!(["v2"]));
    registry.tick(90_000);
    assert_eq!(get(&registry, "portal", "/v1/catalog/services")["records"], json!([]));
    // The fence declares it, so it is there still, by what its sidecar sees.
    assert_eq!(passing(), 1);
    assert!(!registry.deregister("records", "records"));
}

#[test]
fn what_takes_itself_out_is_out_until_it_is_back() {
    let registry = registry(CLINIC);
    register(&registry, "records", &json!({ "Name": "records" }), 0);
    let passing = || get(&registry, "portal", "/v1/health/service/records?passing").as_array().unwrap().len();
    for (query, left) in [("enable=true&reason=disk", 0), ("enable=false", 1)] {
        let query = Query::parse(query).unwrap();
        let read = change("/v1/agent/service/maintenance/records", &query, b"", 0);
        let Ok(Change::Maintain { id, reason }) = read else { panic!("{read:?}") };
        assert!(!registry.maintain("ledger", &id, reason.as_deref()), "another's service");
        assert!(registry.maintain("records", &id, reason.as_deref()));
        assert_eq!(passing(), left);
    }
    // Its processes are gone, and with them what they said.
    registry.gone("records");
    assert!(!registry.deregister("records", "records"));
}

#[test]
fn waiting_is_bounded() {
    let blocking = |text: &str| Query::parse(text).unwrap().blocking();
    assert_eq!(blocking("index=7&wait=1m30s"), Ok(Some(Blocking { index: 7, wait_ms: 90_000 })));
    assert_eq!(blocking("index=7&wait=90h"), Ok(Some(Blocking { index: 7, wait_ms: 600_000 })));
    assert_eq!(blocking("index=7"), Ok(Some(Blocking { index: 7, wait_ms: 300_000 })));
    assert_eq!(blocking("index=0&wait=1s"), Ok(None));
    assert!(blocking("index=x").is_err() && blocking("index=1&wait=-1s").is_err());
    assert_eq!(Query::parse("a=%zz"), None);
}

#[test]
fn what_is_no_registration_is_refused() {
    let refused = |body: &Value| {
        let read = change("/v1/agent/service/register", &Query::default(), body.to_string().as_bytes(), 0);
        read.expect_err("refused").status
    };
    let long = "x".repeat(200);
    for body in [
        json!([]),
        json!({}),
        json!({ "Name": long }),
        json!({ "Name": "a\nb" }),
        json!({ "Name": "a", "Port": 70000 }),
        json!({ "Name": "a", "Tags": vec!["t"; 65] }),
        json!({ "Name": "a", "Tags": [long] }),
        json!({ "Name": "a", "Check": { "TTL": "soon" } }),
        json!({ "Name": "a", "Check": { "TTL": "1s", "Status": "fine" } }),
        json!({ "Name": "a", "Kind": "connect-proxy" }),
        json!({ "Name": "a", "Checks": vec![json!({ "TTL": "1s" }); 9] }),
    ] {
        assert_eq!(refused(&body), 400, "{body}");
    }
    let twice = change("/v1/agent/service/register", &Query::default(), br#"{"Name":"a","Name":"b"}"#, 0);
    assert_eq!(twice.expect_err("a key twice").status, 400);
}

proptest! {
    /// A registration is the caller's own or it is refused: whatever it claims, nobody else's name and no address but its own pass.
    #[test]
    fn no_claim_on_anothers_name_or_address_is_the_callers_own(
        name in "(portal|records|ledger|vault|PORTAL|portal |[a-z]{0,6})",
        address in "(|127\\.0\\.0\\.1|198\\.18\\.0\\.2|198\\.18\\.1\\.[1-5]|localhost|10\\.0\\.0\\.1|portal|records|.{0,6})",
        port in prop_oneof![Just(0_u16), Just(9000), Just(9001), any::<u16>()],
    ) {
        let claim = Claim { name: name.clone(), address: address.clone(), port };
        let own = is_own("portal", Some(9000), &claim);
        let may = name == "portal"
            && ["", "127.0.0.1", "::1", "localhost", "198.18.0.2", "portal"].contains(&&*address)
            && [0, 9000].contains(&port);
        prop_assert_eq!(own, may);
        prop_assert!(!is_own("portal", None, &claim));
    }

    #[test]
    fn arbitrary_requests_are_answered(path in "/v1/[a-z/%._0-9]{0,40}", query in ".{0,40}", body: Vec<u8>) {
        let registry = registry(CLINIC);
        if let Some(query) = Query::parse(&query) {
            let _ = query.blocking();
            let reply = read(&view(&registry, "portal"), &path, &query);
            prop_assert!([200, 400, 404, 500].contains(&reply.status));
            let _ = change("/v1/agent/service/register", &query, &body, 0);
        }
    }
}

#[test]
fn a_service_waits_with_so_many_requests_and_no_more() {
    let registry = registry(CLINIC);
    let seat = registry.seat("portal").unwrap();
    let waiting: Vec<_> = (0..300).filter_map(|_| seat.wait()).collect();
    assert_eq!(waiting.len(), 256);
    assert!(registry.seat("records").unwrap().wait().is_some(), "another's are its own");
    drop(waiting);
    assert!(seat.wait().is_some());
}
