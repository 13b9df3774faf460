//! A service in Rust that uses the crate `spiffe` as its users do, and the story that runs it behind a fence.
//!
//! The service is this very test program, told by its arguments to run one test: no other build makes it, so whoever can run
//! the story has it. An example or a binary of its own was rejected, because `cargo test --test workload` builds neither.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use spiffe::{JwtBundleSet, TrustDomain, WorkloadApiClient, WorkloadApiError, X509BundleSet};
use tokio_stream::{Stream, StreamExt as _};

use crate::lab::running::{Clinic, Who, copy_program, eventually};

/// The test below that is the service, when it runs behind a fence.
const SERVICE: &str = "program::a_service_behind_a_fence_has_a_workload_api_and_others_have_none";
const FENCE: &str = "
fence: lab
trust_domain: lab.example
gateway: { listen: 127.0.0.1:8443 }
services:
  rust: { run: [./program, --exact, SERVICE, --nocapture], listen: 9100 }
";
const OWN: &str = "spiffe://lab.example/service/rust";

#[test]
fn the_crate_spiffe_gets_and_streams_what_is_its_own_as_an_unprivileged_user() {
    everything(Who::Nobody);
}

#[test]
fn the_crate_spiffe_gets_and_streams_what_is_its_own_as_root() {
    everything(Who::Root);
}

/// Inside it never returns: it fetches, is ready, and follows the streams until the fence stops it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a service is told by its environment")]
fn a_service_behind_a_fence_has_a_workload_api_and_others_have_none() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var_os("RINGFENCE_SERVICE").is_some() {
        runtime.block_on(serve());
    }
    // Whoever tests this may have a Workload API of another make.
    if std::env::var_os("SPIFFE_ENDPOINT_SOCKET").is_none() {
        let none = runtime.block_on(WorkloadApiClient::connect_env()).unwrap_err();
        assert!(matches!(none, WorkloadApiError::MissingEndpointSocket), "{none}");
    }
    let nowhere = "unix:/run/ringfence/workload.sock";
    assert!(!Path::new("/run/ringfence/workload.sock").exists());
    let gone =
        runtime.block_on(async { WorkloadApiClient::connect_to(nowhere).await?.fetch_x509_svid().await });
    assert!(gone.is_err(), "{gone:?}");
}

fn everything(who: Who) {
    let clinic = Clinic::start_fence(who, &FENCE.replace("SERVICE", SERVICE), Vec::new(), |folder| {
        copy_program(&std::env::current_exe().unwrap(), &folder.join("program"));
    });
    // What it fetched, each in one call.
    assert!(later(&clinic, "fetched", |all| !all.is_empty()).is_some(), "{}", clinic.said());
    let fetched = &said(&clinic, "fetched")[0];
    assert_eq!(fetched["x509"], json!({ "id": OWN, "chain": 2 }), "{fetched}");
    assert_eq!(fetched["x509_bundles"], 1, "{fetched}");
    assert_eq!(
        fetched["jwt"],
        json!({ "id": OWN, "audience": ["other"], "valid": OWN, "known": true }),
        "{fetched}"
    );
    assert_eq!(fetched["jwt_bundles"], 1, "{fetched}");
    for refused in ["wrong_audience", "foreign"] {
        assert!(fetched[refused]["error"].is_string(), "{fetched}");
    }

    // What came over the streams, before and after each change of the authorities.
    let streams = ["svid", "x509_bundle", "jwt_bundle"];
    for stream in streams {
        assert!(
            later(&clinic, stream, |all| !all.is_empty()).is_some(),
            "{stream}: {:?}",
            said(&clinic, stream)
        );
    }
    let issuer = said(&clinic, "svid")[0]["issuer"].clone();
    rotate(&clinic, "issuing");
    let renewed = later(&clinic, "svid", |all| all.last().is_some_and(|svid| svid["issuer"] != issuer));
    assert!(renewed.is_some(), "{:?}", said(&clinic, "svid"));
    assert!(said(&clinic, "svid").iter().all(|svid| svid["id"] == OWN));
    rotate(&clinic, "root");
    for stream in ["svid", "x509_bundle"] {
        let both = later(&clinic, stream, |all| all.last().is_some_and(|new| new["roots"] == 2));
        assert!(both.is_some(), "{stream}: {:?}", said(&clinic, stream));
    }

    // Another control: the streams end, are opened again, and bring what is in force.
    let before = streams.map(|stream| said(&clinic, stream).len());
    let control = clinic.process("control").to_string();
    assert!(Command::new("kill").args(["-KILL", &control]).status().unwrap().success());
    for (stream, before) in streams.into_iter().zip(before) {
        let again = later(&clinic, stream, |all| all.len() > before);
        assert!(again.is_some(), "{stream}: {:?}", said(&clinic, stream));
        assert!(!said(&clinic, &format!("{stream} ended")).is_empty(), "{stream}");
    }
    assert_eq!(said(&clinic, "fetched").len(), 1, "the service itself went on all the time");
}

fn rotate(clinic: &Clinic, what: &str) {
    let rotated = clinic.ringfence(&["ca", "rotate", what]);
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
}

/// What the service said about `subject` so far.
fn said(clinic: &Clinic, subject: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(clinic.folder.join(".ringfence/logs/rust.log")).unwrap_or_default();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|mut line| Some(line.get_mut(subject)?.take())).collect()
}

fn later(clinic: &Clinic, subject: &str, enough: impl Fn(&[Value]) -> bool) -> Option<()> {
    eventually(Duration::from_secs(120), || enough(&said(clinic, subject)).then_some(()))
}

/// One line of the log; the test harness has left the cursor in a line of its own.
fn say(subject: &str, what: Value) {
    println!("\n{}", json!({ subject: what }));
}

async fn serve() -> ! {
    let client = WorkloadApiClient::connect_env().await.unwrap();
    say("fetched", fetched(&client).await);
    let _ready = tokio::net::TcpListener::bind("127.0.0.1:9100").await.unwrap();
    let svids = follow(
        "svid",
        async || client.stream_x509_contexts().await,
        |context| {
            let svid = context.default_svid().unwrap();
            let mut issuer = DefaultHasher::new();
            svid.cert_chain()[1].as_bytes().hash(&mut issuer);
            let roots = x509_roots(context.bundle_set());
            json!({ "id": svid.spiffe_id().to_string(), "issuer": issuer.finish(), "roots": roots })
        },
    );
    let x509 = follow(
        "x509_bundle",
        async || client.stream_x509_bundles().await,
        |bundles| json!({ "roots": x509_roots(bundles) }),
    );
    let jwt = follow(
        "jwt_bundle",
        async || client.stream_jwt_bundles().await,
        |bundles| json!({ "keys": jwt_keys(bundles) }),
    );
    tokio::join!(svids, x509, jwt);
    unreachable!("streams are followed for ever")
}

async fn fetched(client: &WorkloadApiClient) -> Value {
    let svid = client.fetch_x509_svid().await.unwrap();
    let token = client.fetch_jwt_svid(["other"], None).await.unwrap();
    let valid = client.validate_jwt_token("other", token.token()).await.unwrap();
    let (x509, jwt) = (client.fetch_x509_bundles().await.unwrap(), client.fetch_jwt_bundles().await.unwrap());
    let foreign = "spiffe://lab.example/service/other".parse().unwrap();
    json!({
        "x509": { "id": svid.spiffe_id().to_string(), "chain": svid.cert_chain().len() },
        "x509_bundles": x509_roots(&x509),
        "jwt": {
            "id": token.spiffe_id().to_string(),
            "audience": token.audience(),
            "valid": valid.spiffe_id().to_string(),
            "known": jwt.get(&domain()).unwrap().find_jwt_authority(token.key_id()).is_some(),
        },
        "jwt_bundles": jwt_keys(&jwt),
        "wrong_audience": outcome(client.validate_jwt_token("somebody", token.token()).await),
        "foreign": outcome(client.fetch_jwt_token(["other"], Some(&foreign)).await),
    })
}

/// Says what each message of a stream holds; opens it again when it ends.
async fn follow<T, S: Stream<Item = Result<T, WorkloadApiError>>>(
    name: &str,
    open: impl AsyncFn() -> Result<S, WorkloadApiError>,
    tell: impl Fn(&T) -> Value,
) {
    loop {
        match open().await {
            Ok(stream) => {
                let mut stream = std::pin::pin!(stream);
                let end = loop {
                    match stream.next().await {
                        Some(Ok(message)) => say(name, tell(&message)),
                        other => break format!("{:?}", other.and_then(Result::err)),
                    }
                };
                say(&format!("{name} ended"), end.into());
            }
            Err(e) => say(&format!("{name} refused"), e.to_string().into()),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn outcome(outcome: Result<impl Debug, WorkloadApiError>) -> Value {
    match outcome {
        Ok(got) => json!(format!("{got:?}")),
        Err(e) => json!({ "error": e.to_string() }),
    }
}

fn x509_roots(bundles: &X509BundleSet) -> usize {
    bundles.get(&domain()).map_or(0, |bundle| bundle.authorities().len())
}

fn jwt_keys(bundles: &JwtBundleSet) -> usize {
    bundles.get(&domain()).map_or(0, |bundle| bundle.jwt_authorities().count())
}

fn domain() -> TrustDomain {
    TrustDomain::new("lab.example").unwrap()
}
