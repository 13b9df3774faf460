//! Measures, with a real keeper process and a real store: SVIDs per second (proven, signed, logged, stored, all on disk), and
//! the time from a connect on the Workload API to the first SVID.
//!
//! `cargo run --release -p ringfence-ca --example issue_rate [-- SECONDS]`. Prints one JSON object.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfence_ca::workload::{Limits, WorkloadApi, WorkloadListener, wire};
use ringfence_ca::{Ca, Options};
use ringfence_keeper::protocol::{Start, X509Request};
use ringfence_keeper::{Client, Supervised, main_loop};
use ringfence_keys::{Algorithm, MasterSource, SigningKey, possession};
use ringfence_model::Fence;
use ringfence_snapshot::{Addresses, Der, Header, compile};
use ringfence_store::{Durability, Store};

/// Services, and so identities.
const SERVICES: usize = 100;
/// Callers at the same time.
const CALLERS: usize = 512;
/// First SVIDs that are timed: one per service.
const FIRSTS: usize = SERVICES;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("keeper") {
        return Ok(main_loop(ringfence_channel::stdin_channel()?, |_| Ok(()))?);
    }
    let seconds = argument.and_then(|text| text.parse().ok()).unwrap_or(10);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(seconds))
}

async fn measure(seconds: u64) -> Result<(), Failure> {
    let data = tempfile::tempdir()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut keeper = Command::new(std::env::current_exe()?)
        .arg("keeper")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let supervised = Supervised::start(ours, start(data.path()))?;
    let client = Client::new(supervised.introduce_control()?)?;
    sign_snapshot(&client).await?;
    let store = Store::open(&data.path().join("state.db"), Durability::Full).await?;
    let ca = Ca::start(client, store.clone(), Options::default()).await?;

    let rate = issue_rate(&ca, Duration::from_secs(seconds)).await?;
    let mut firsts = first_svids(&ca, data.path()).await?;
    firsts.sort_unstable();
    let at = |part: f64| firsts[((firsts.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    let logged = std::fs::read_dir(data.path().join("keeper"))?.filter_map(Result::ok);
    let log_bytes: u64 = logged
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("signing.log"))
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    println!(
        "{}",
        serde_json::json!({
            "svids_per_second": rate.round(),
            "first_svid_ms": { "p50": at(0.5), "p99": at(0.99), "max": at(1.0) },
            "revisions": store.revision(),
            "signing_log_bytes": log_bytes,
        })
    );
    drop(supervised);
    keeper.wait()?;
    Ok(())
}

/// Callers that each ask for one SVID after the other, each with a key of its own made beforehand.
async fn issue_rate(ca: &Ca, time: Duration) -> Result<f64, Failure> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Instant::now() + time);
    let mut callers = tokio::task::JoinSet::new();
    for i in 0..CALLERS {
        let request = request(&service_id(i % SERVICES))?;
        let (ca, done) = (ca.clone(), done.clone());
        callers.spawn(async move {
            while Instant::now() < stop {
                ca.issue(request.clone()).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        });
    }
    let start = Instant::now();
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

/// Times from the connect to the first SVID, one service after the other, so each is attested and signed for anew.
async fn first_svids(ca: &Ca, data: &Path) -> Result<Vec<Duration>, Failure> {
    let (api, mut events) = WorkloadApi::new(ca.clone(), Limits::default());
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let netns_inode = std::fs::metadata("/proc/self/ns/net")?.ino();
    let mut times = Vec::with_capacity(FIRSTS);
    for i in 0..FIRSTS {
        let path = data.join(format!("{i}.sock"));
        let listener = UnixListener::bind(&path)?;
        let _serving = api.serve(WorkloadListener { service: service(i), listener, netns_inode })?;
        let start = Instant::now();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://workload");
        let mut grpc = tonic::client::Grpc::new(endpoint.connect_with_connector(connector).await?);
        grpc.ready().await?;
        let mut request = tonic::Request::new(wire::X509SvidRequest {});
        request.metadata_mut().insert("workload.spiffe.io", "true".parse()?);
        let codec = tonic_prost::ProstCodec::<_, wire::X509SvidResponse>::default();
        let path = "/SpiffeWorkloadAPI/FetchX509SVID".parse()?;
        let mut stream = grpc.server_streaming(request, path, codec).await?.into_inner();
        stream.message().await?.ok_or("the stream ended")?;
        times.push(start.elapsed());
    }
    Ok(times)
}

async fn sign_snapshot(client: &Client) -> Result<(), Failure> {
    let services: String =
        (0..SERVICES).map(|i| format!("  {}: {{ run: [x], listen: 9000 }}\n", service(i))).collect();
    let text = format!("fence: bench\ntrust_domain: bench.example\nservices:\n{services}");
    let fence = Fence::parse(vec![("ringfence.yaml", text)]).map_err(|e| format!("{e:?}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = Header {
        epoch: 1,
        revision: 1,
        issued_at: now,
        expires_at: now + 3600,
        lease: 3600,
        bundle: client.bundle().await?,
    };
    let snapshot = compile(&fence, &mut Addresses::default(), header)?;
    client.sign_snapshot(serde_json::to_string(&snapshot)?).await?;
    Ok(())
}

fn start(data: &Path) -> Start {
    Start {
        data: data.to_owned(),
        master: MasterSource::KeyFile { path: data.join("master.key") },
        fence: "bench".into(),
        trust_domain: "bench.example".into(),
    }
}

fn request(id: &str) -> Result<X509Request, Failure> {
    let key = SigningKey::generate(Algorithm::P256)?;
    let proof = Der(possession::prove(&key, id)?);
    Ok(X509Request { id: id.to_owned(), spki: Der(key.verifying_key().to_spki()), proof, ttl: 3600 })
}

fn service(i: usize) -> String {
    format!("service-{i}")
}

fn service_id(i: usize) -> String {
    format!("spiffe://bench.example/service/{}", service(i))
}
