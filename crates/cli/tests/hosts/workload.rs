//! The Workload API on a host that joined: the crate `spiffe`, as its users use it, far from control.

use serde_json::{Value, json};
use spiffe::{TrustDomain, WorkloadApiClient};

use crate::Clinic;
use crate::net::{Host, SOON};
use crate::running::{copy_program, eventually, text};

/// The test below that is the service, when it runs behind the fence.
const SERVICE: &str = "workload::a_service_on_a_host_that_joined_gets_what_is_its_own_over_the_workload_api";
const OWN: &str = "spiffe://clinic.example/service/agent";

#[test]
#[expect(clippy::disallowed_methods, reason = "a service is told by its environment")]
fn a_service_on_a_host_that_joined_gets_what_is_its_own_over_the_workload_api() {
    if std::env::var_os("RINGFENCE_SERVICE").is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve());
    }
    let agent = format!("  agent: {{ at: lab, run: [./program, --exact, {SERVICE}, --nocapture] }}\n");
    let clinic = Clinic::start(true, &format!("{agent}  patients: {{ listen: 9000 }}\n"));
    let mut lab = Host::new(&clinic.net, 4, &clinic.fence);
    copy_program(&std::env::current_exe().unwrap(), &lab.folder.join("program"));
    lab.join(&clinic.main, "lab");
    let fetched = later(&lab, |all| all.first().cloned()).expect("it fetched");
    assert_eq!(fetched["x509"], json!({ "id": OWN, "chain": 2, "roots": 1 }), "{fetched}");
    assert_eq!(fetched["jwt"], json!({ "id": OWN, "audience": ["other"], "valid": OWN }), "{fetched}");
    assert!(fetched["foreign"].is_string(), "{fetched}");
    // The next authority signs, and the host learns that by itself.
    let rotated = clinic.main.ringfence(&["ca", "rotate", "issuing"]);
    assert!(rotated.status.success(), "{}", text(&rotated.stderr));
    let issuer = fetched["issuer"].clone();
    let renewed = later(&lab, |all| all.iter().find(|one| one["issuer"] != issuer).cloned());
    assert!(renewed.is_some_and(|one| one["x509"]["id"] == OWN), "{}", lab.said());
    let said = clinic.main.event(|e| {
        e["entity"]["name"] == OWN && e["message"].as_str().unwrap_or_default().contains("of the host")
    });
    assert!(said.is_some(), "{}", text(&clinic.main.ringfence(&["events"]).stdout));
}

/// What the service said so far, as far as `found` finds something in it.
fn later(host: &Host, found: impl Fn(&[Value]) -> Option<Value>) -> Option<Value> {
    eventually(SOON, || {
        let log = std::fs::read_to_string(host.folder.join(".ringfence/logs/agent.log")).unwrap_or_default();
        let all: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        found(&all)
    })
}

async fn serve() -> ! {
    let client = WorkloadApiClient::connect_env().await.unwrap();
    let own = TrustDomain::new("clinic.example").unwrap();
    loop {
        let context = client.fetch_x509_context().await.unwrap();
        let svid = context.default_svid().unwrap();
        let token = client.fetch_jwt_svid(["other"], None).await.unwrap();
        let valid = client.validate_jwt_token("other", token.token()).await.unwrap();
        let foreign = "spiffe://clinic.example/service/portal".parse().unwrap();
        let foreign = client.fetch_jwt_token(["other"], Some(&foreign)).await.err().map(|e| e.to_string());
        let issuer = svid.cert_chain()[1]
            .as_bytes()
            .iter()
            .fold(0_u64, |sum, byte| sum * 31 % 1_000_003 + u64::from(*byte));
        let said = json!({
            "x509": {
                "id": svid.spiffe_id().to_string(),
                "chain": svid.cert_chain().len(),
                "roots": context.bundle_set().get(&own).map_or(0, |bundle| bundle.authorities().len()),
            },
            "jwt": { "id": token.spiffe_id().to_string(), "audience": token.audience(), "valid": valid.spiffe_id().to_string() },
            "issuer": issuer,
            "foreign": foreign,
        });
        println!("\n{said}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
